"""Starts version N+1 of an event as a copy of N: the schema, its examples, and the step that readers take."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from .catalogue import SchemaName, examples_folder, find, read_yaml, schema_file
from .errors import ContractError
from .upcast import step_module

STEP = '''"""One step for readers: {older} in, {newer} out."""

from __future__ import annotations

from typing import Any


def upcast(event: dict[str, Any]) -> dict[str, Any]:
    """
    The event as version {newer.version} says it; the caller sets its ``__schema__``.

    Give every property that version {newer.version} requires, and version {older.version} did not have,
    a value that is true of an old event.
    """
    return event
'''


def new_version(event: str, folder: Path) -> tuple[SchemaName, list[Path]]:
    """
    Start the next version of ``event`` in ``folder``; return its name and the paths that were made.

    Raises ContractError, before anything is written, when the folder cannot take it.
    """
    older = find(find(event, folder=folder).event, folder=folder)
    event, newer = older.event, SchemaName(older.event, older.version + 1)
    schema = Path(str(schema_file(newer, folder)))
    examples = Path(str(examples_folder(newer, folder)))
    step = folder / event / f"{step_module(older.version)}.py"
    for path in (schema, examples, step):
        if path.exists():
            raise ContractError(f"{path} is there already; move it away first")
    if not os.access(folder / event, os.W_OK):
        raise ContractError(
            f"cannot write in {folder / event}: name the folder of the schemas in your source checkout with --folder"
        )
    schema.write_text(_renamed(Path(str(schema_file(older, folder))), older, newer), encoding="utf-8")
    _copy_examples(Path(str(examples_folder(older, folder))), examples)
    step.write_text(STEP.format(older=older, newer=newer), encoding="utf-8")
    return newer, [schema, examples, step]


def _renamed(file: Path, older: SchemaName, newer: SchemaName) -> str:
    """The text of a schema, comments and all, with the identity of the next version."""
    text = file.read_text(encoding="utf-8").replace(older.id, newer.id, 1)
    pattern = rf"^(\"?version\"?:\s*)([\"']?){older.version}\2\s*$"
    renamed, count = re.subn(pattern, rf"\g<1>\g<2>{newer.version}\g<2>", text, count=1, flags=re.MULTILINE)
    if not count or read_yaml(file)["$id"] != older.id:
        raise ContractError(f"{file} does not state $id {older.id} and version {older.version!r}; correct it first")
    return renamed


def _copy_examples(source: Path, target: Path) -> None:
    """Start with the examples there are, which are valid until the new schema changes."""
    if source.is_dir():
        shutil.copytree(source, target)
    target.mkdir(exist_ok=True)
    (target / "bad").mkdir(exist_ok=True)
