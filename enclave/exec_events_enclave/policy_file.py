"""A policy file goes in, the frozen rules of a dataset come out, or each line that is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from .errors import PolicyError
from .policy import Policy

MAX_FILE_BYTES = 1_000_000
MAX_DEPTH = 20

M = TypeVar("M", bound=BaseModel)


def load_policy(path: Path) -> Policy:
    """The policy in a file; raises PolicyError, which names the file and every line that is wrong."""
    return parse_policy(read_text(path), str(path))


def read_text(path: Path) -> str:
    """What is in a file that a person wrote; raises PolicyError."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise PolicyError(f"{path}: the file is not larger than {MAX_FILE_BYTES:,} bytes")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path}: cannot be read: {error}") from error


def parse_policy(text: str, named: str = "policy") -> Policy:
    """The policy in a text; raises PolicyError, whose lines begin with ``named`` and the line's number."""
    return parse_yaml(text, Policy, named)


def parse_yaml(text: str, model: type[M], named: str) -> M:
    """The same for any frozen model that a person writes as YAML."""
    try:
        _refuse_aliases_and_depth(text, named)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        repeated = list(_repeated_keys(node))
        if repeated:
            raise PolicyError("\n".join(f"{named}:{line}: {key} is there twice: remove one" for key, line in repeated))
        value = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise PolicyError(_yaml_trouble(error, named)) from error
    if not isinstance(value, dict):
        raise PolicyError(f"{named}:1: the file is a mapping with the keys {', '.join(model.model_fields)}")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = [(_line(node, one["loc"]), _saying(one, model)) for one in error.errors(include_url=False)]
        raise PolicyError("\n".join(f"{named}:{line}: {words}" for line, words in sorted(found))) from error


def load_policies(folder: Path) -> dict[str, Policy]:
    """Every ``*.yaml`` of a folder, by the dataset's name; raises PolicyError, also for a name that is there twice."""
    policies: dict[str, Policy] = {}
    for path in sorted(folder.glob("*.yaml")):
        policy = load_policy(path)
        if policy.name in policies:
            raise PolicyError(f"{path}: another file of this folder has the policy of {policy.name}, too: remove one")
        policies[policy.name] = policy
    return policies


def _refuse_aliases_and_depth(text: str, named: str) -> None:
    """Raises PolicyError for YAML that says much in few bytes, before anything is built of it."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent):
            raise PolicyError(f"{named}:{line}: the file has no aliases (*name): write it out")
        if depth > MAX_DEPTH:
            raise PolicyError(f"{named}:{line}: the file is not nested deeper than {MAX_DEPTH} levels")


def _yaml_trouble(error: Exception, named: str) -> str:
    mark = getattr(error, "problem_mark", None)
    line = mark.line + 1 if mark else 1
    return f"{named}:{line}: no YAML: {getattr(error, 'problem', None) or type(error).__name__}"


def _repeated_keys(node: yaml.Node | None) -> Iterator[tuple[str, int]]:
    """Keys that a mapping has twice, of which YAML would take the last without a word."""
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    yield str(key.value), key.start_mark.line + 1
                seen.add(key.value)
            yield from _repeated_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _repeated_keys(item)


def _line(node: yaml.Node | None, place: tuple[int | str, ...]) -> int:
    """The line of the key at a place, or of the nearest one above it."""
    line = 1
    for step in place:
        if isinstance(node, yaml.MappingNode):
            pairs = {key.value: (key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)}
            if str(step) not in pairs:
                break
            key, node = pairs[str(step)]
            line = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line + 1
    return line


def _saying(error: Any, model: type[BaseModel]) -> str:
    place = error["loc"]
    where = ".".join(map(str, place)) or "the file"
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key. Allowed here: {', '.join(_allowed(place[:-1], model))}"
    if error["type"] == "missing":
        return f"{where}: is missing"
    return f"{where}: {error['msg'].removeprefix('Value error, ')}"


def _allowed(place: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    """The keys of the model at a place."""
    kind: Any = model
    for step in place:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            kind = _inner(kind.model_fields[str(step)].annotation)
        elif get_origin(kind) is dict:
            kind = _inner(get_args(kind)[1])
    return sorted(kind.model_fields)


def _inner(annotation: Any) -> Any:
    """An annotation without ``None`` and ``Annotated``."""
    if get_origin(annotation) in (dict, None):
        return annotation
    return next(_inner(one) for one in get_args(annotation) if one is not type(None))
