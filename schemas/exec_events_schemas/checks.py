"""A folder of schemas in, what is wrong with it out: schemas, released copies, examples, steps and models."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from .catalogue import SchemaName, catalogue, examples, load, load_released, released_file, schema_file
from .compatibility import check
from .generate import stale
from .keywords import keyword_violations, well_formed, without_annotations
from .upcast import step_module
from .violation import Violation


def schema_violations(name: SchemaName, folder: Path, *, compatible: bool = True) -> list[Violation]:
    """
    What is wrong with one schema of ``folder``; with ``compatible`` also against its released copy.

    Raises ContractError where a file cannot be read, or a tool is missing.
    """
    schema = load(name.event, name.version, folder)
    well_formed(schema)
    found = [*_misnamed(schema, name), *keyword_violations(schema)]
    if found:
        return found
    good = examples(name, folder)
    released = load_released(name, folder) if compatible else None
    if released is not None:
        found += [_named(violation, list(good)) for violation in check(released, schema, list(good.values()))]
    if not any(violation.rule == "example-rejected" for violation in found):
        found += _good(schema, good)
    found += _bad(schema, examples(name, folder, bad=True))
    if name.version > 1:
        found += _step(SchemaName(name.event, name.version - 1), schema, folder)
    return found


def models_violations(folder: Path) -> list[Violation]:
    """Whether ``models.py`` is what its schemas make; raises ContractError when the generator is missing."""
    return [Violation("models-stale", "models.py", "it is not what the schemas make")] if stale(folder) else []


def freeze(name: SchemaName, folder: Path) -> Path:
    """Make the released copy of a schema equal to it, and return its file."""
    target = Path(str(released_file(name, folder)))
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(Path(str(schema_file(name, folder))).read_bytes())
    return target


def released_only(folder: Path) -> Iterator[Violation]:
    """Every released schema that is in ``folder`` no more."""
    known = set(catalogue(folder))
    for file in sorted(folder.glob("*/released/v*.yaml")):
        name = SchemaName(file.parent.parent.name, int(file.stem[1:]))
        if name not in known:
            yield Violation("schema-removed", f"{name.event}/v{name.version}.yaml", "a release had this schema")


def _misnamed(schema: dict[str, Any], name: SchemaName) -> Iterator[Violation]:
    for keyword, expected in (("$id", name.id), ("version", str(name.version))):
        if schema.get(keyword) != expected:
            text = f"{keyword} is {schema.get(keyword)!r}; in this file it has to be {expected!r}"
            yield Violation("identity-changed", keyword, text)


def _named(violation: Violation, names: list[str]) -> Violation:
    """A violation of an example with the example's file name in place of its number."""
    if violation.rule != "example-rejected":
        return violation
    number, _, place = violation.path.removeprefix("examples[").partition("]")
    return Violation(violation.rule, names[int(number)] + place, violation.text)


def _good(schema: dict[str, Any], files: dict[str, dict[str, Any]]) -> Iterator[Violation]:
    if not files:
        yield Violation("example-missing", "examples", "there is no example that is valid")
    for file, data in files.items():
        for place, text in reasons(schema, data)[:1]:
            yield Violation("example-refused", file + place, text)


def _bad(schema: dict[str, Any], files: dict[str, dict[str, Any]]) -> Iterator[Violation]:
    if not files:
        yield Violation("example-missing", "examples/bad", "there is no example that has to be refused")
    for file, data in files.items():
        why = reasons(schema, data)
        if not why:
            yield Violation("bad-example-accepted", f"bad/{file}", "it is valid")
        elif len(why) > 1:
            yield Violation("bad-example-unclear", f"bad/{file}", "; ".join(text for _, text in why))


def _step(older: SchemaName, newer: dict[str, Any], folder: Path) -> Iterator[Violation]:
    """Whether every example of the older version, brought one step further, is valid in the newer one."""
    file = folder / older.event / f"{step_module(older.version)}.py"
    try:
        spec = spec_from_file_location(f"{older.event}_{file.stem}", file)
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        moved = {name: module.upcast(dict(data)) for name, data in examples(older, folder).items()}
    except Exception as error:  # what a maintainer's own code raises is for the maintainer to read
        yield Violation("upcast-fails", file.name, f"{type(error).__name__}: {error}")
        return
    for name, data in moved.items():
        for place, text in reasons(newer, data)[:1]:
            yield Violation("upcast-fails", f"{file.name}, given {name}{place}", text)


def reasons(schema: dict[str, Any], data: Any) -> list[tuple[str, str]]:
    """Why an event's data is not valid: place and text of each rule it breaks."""
    import jsonschema_rs

    validator = jsonschema_rs.Draft7Validator(without_annotations(schema))
    return [("".join(f"/{part}" for part in e.instance_path), e.message) for e in validator.iter_errors(data)]
