"""The events and versions that are in a folder of schemas, by default this package, and their files."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from .errors import ContractError, UnknownSchema

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

SCHEMA_ID = re.compile(r"https://exec-events\.org/schemas/(?P<event>[a-z][a-z0-9_]*)/v(?P<version>[1-9][0-9]*)")
_EVENT = re.compile(r"[a-z][a-z0-9_]*")
_VERSION_FILE = re.compile(r"v([1-9][0-9]*)\.yaml")


class SchemaName(NamedTuple):
    """One version of one event."""

    event: str
    version: int

    @property
    def id(self) -> str:
        """Its ``$id``, which is the ``__schema__`` of its events."""
        return f"https://exec-events.org/schemas/{self.event}/v{self.version}"

    @property
    def model(self) -> str:
        """The name of its class in ``models.py``: CellExecutionV1 for version 1 of cell_execution."""
        return f"{camel(self.event)}V{self.version}"

    def __str__(self) -> str:
        return f"{self.event} v{self.version}"


def package_folder() -> Traversable:
    """The folder this package is installed in, also when that is inside an archive."""
    from importlib.resources import files

    return files(__package__)


def catalogue(folder: Traversable | None = None) -> tuple[SchemaName, ...]:
    """Every schema in ``folder``, by event, its versions in order."""
    return _package_catalogue() if folder is None else _catalogue(folder)


@cache
def _package_catalogue() -> tuple[SchemaName, ...]:
    return _catalogue(package_folder())


def _catalogue(folder: Traversable) -> tuple[SchemaName, ...]:
    return tuple(
        sorted(
            SchemaName(event.name, int(match[1]))
            for event in folder.iterdir()
            if event.is_dir() and _EVENT.fullmatch(event.name)
            for file in event.iterdir()
            if (match := _VERSION_FILE.fullmatch(file.name))
        )
    )


def find(schema: str, version: int | None = None, folder: Traversable | None = None) -> SchemaName:
    """
    The schema of that ``$id``, or of that event and version (None: its newest).

    Raises UnknownSchema, which names those there are.
    """
    known = catalogue(folder)
    match = SCHEMA_ID.fullmatch(schema)
    if match:
        schema, version = match["event"], int(match["version"])
    versions = [name for name in known if name.event == schema]
    if version is not None:
        versions = [name for name in versions if name.version == version]
    if versions:
        return versions[-1]
    asked = schema if version is None else f"{schema} v{version}"
    raise UnknownSchema(f"there is no schema {asked!r}; known are: {', '.join(map(str, known)) or 'none'}")


def load(schema: str, version: int | None = None, folder: Traversable | None = None) -> dict[str, Any]:
    """A schema as a dict, by its ``$id`` or by event and version (None: its newest); raises UnknownSchema."""
    name = find(schema, version, folder)
    return read_yaml(schema_file(name, folder))


def load_released(name: SchemaName, folder: Traversable | None = None) -> dict[str, Any] | None:
    """The schema as the last release had it; None when no release has."""
    file = released_file(name, folder)
    return read_yaml(file) if file.is_file() else None


def examples(name: SchemaName, folder: Traversable | None = None, *, bad: bool = False) -> dict[str, dict[str, Any]]:
    """The data of the example events of a schema by file name; with ``bad`` those that it must refuse."""
    place = examples_folder(name, folder)
    if bad:
        place = place / "bad"
    if not place.is_dir():
        return {}
    files = sorted((file for file in place.iterdir() if file.name.endswith(".json")), key=lambda file: file.name)
    return {file.name: read_json(file) for file in files}


def schema_file(name: SchemaName, folder: Traversable | None = None) -> Traversable:
    """The YAML file of a schema."""
    return _event_folder(name, folder) / f"v{name.version}.yaml"


def released_file(name: SchemaName, folder: Traversable | None = None) -> Traversable:
    """The copy of a schema that is frozen at a release."""
    return _event_folder(name, folder) / "released" / f"v{name.version}.yaml"


def examples_folder(name: SchemaName, folder: Traversable | None = None) -> Traversable:
    """The folder of a schema's good examples; its bad ones are in ``bad`` in it."""
    return _event_folder(name, folder) / "examples" / f"v{name.version}"


def read_json(file: Traversable) -> dict[str, Any]:
    """The JSON object in a file; raises ContractError when it holds none."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ContractError(f"{file} is not JSON: {error}; correct the file") from error
    return _mapping(value, file)


def read_yaml(file: Traversable) -> dict[str, Any]:
    """The YAML mapping in a file; raises ContractError when it holds none."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        value = yaml.load(file.read_text(encoding="utf-8"), Loader=loader)  # noqa: S506 - both are safe loaders
    except yaml.YAMLError as error:
        raise ContractError(f"{file} is not YAML: {error}; correct the file") from error
    return _mapping(value, file)


def _mapping(value: Any, file: Traversable) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ContractError(f"{file} does not hold an object; correct the file")
    return value


def camel(snake: str) -> str:
    """A name in snake_case as CamelCase."""
    return "".join(word.capitalize() for word in snake.split("_"))


def _event_folder(name: SchemaName, folder: Traversable | None) -> Traversable:
    return (package_folder() if folder is None else folder) / name.event
