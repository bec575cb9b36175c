"""The JSON Schema keywords our schemas may use: those for which jsonsubschema's answer can be trusted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .errors import ContractError
from .violation import Violation

ANNOTATIONS = frozenset({"title", "description"})
IDENTITY = frozenset({"$id", "version", "personal-data"})
ASSERTIONS = frozenset(
    {"type", "properties", "required", "additionalProperties", "enum", "const", "pattern", "items"}
    | {"minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems"}
)
ALLOWED = ANNOTATIONS | ASSERTIONS


def keyword_violations(schema: dict[str, Any]) -> Iterator[Violation]:
    """Every keyword that is not allowed, and every object that is not closed."""
    if missing := sorted(IDENTITY - {"personal-data"} - schema.keys()):
        yield Violation("identity-changed", missing[0], f"{missing[0]} is missing")
    yield from _below({key: value for key, value in schema.items() if key not in IDENTITY}, "")


def well_formed(schema: dict[str, Any]) -> None:
    """Raise ContractError when it is no JSON Schema at all."""
    import jsonschema_rs

    try:
        jsonschema_rs.meta.validate(
            {"$schema": "http://json-schema.org/draft-07/schema#"} | without_annotations(schema)
        )
    except ValueError as error:
        raise ContractError(f"{schema.get('$id', 'the schema')} is no JSON Schema: {error}; correct it") from error


def _below(schema: Any, path: str) -> Iterator[Violation]:
    if not isinstance(schema, dict):
        yield Violation("keyword-not-allowed", path, f"a schema is an object here, not {schema!r}")
        return
    for keyword in sorted(schema.keys() - ALLOWED):
        yield Violation("keyword-not-allowed", path, f"the keyword {keyword} is not allowed")
    if not isinstance(schema.get("type"), str):
        yield Violation("keyword-not-allowed", path, "type has to be there, and to be one type")
    if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
        yield Violation("closed-content-opened", path, "properties that the schema does not name are allowed")
    for name, inner in schema.get("properties", {}).items():
        yield from _below(inner, f"{path}/{name}")
    if "items" in schema:
        yield from _below(schema["items"], f"{path}/[]")


def without_annotations(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema's assertions alone, at every depth: what validators are given."""
    return _without(ANNOTATIONS | IDENTITY, schema)


def without_string_bounds(schema: dict[str, Any]) -> dict[str, Any]:
    """
    A schema's assertions but for those about what is in a string: what jsonsubschema is given.

    It does not see a length beside a pattern, and comparing two patterns can take all memory.
    """
    return _without(ANNOTATIONS | IDENTITY | {"pattern", "minLength", "maxLength"}, schema)


def _without(keywords: frozenset[str], schema: dict[str, Any]) -> dict[str, Any]:
    kept = {keyword: value for keyword, value in schema.items() if keyword not in keywords}
    properties = kept.get("properties")
    if isinstance(properties, dict):
        kept["properties"] = {
            name: _without(keywords, inner) if isinstance(inner, dict) else inner for name, inner in properties.items()
        }
    if isinstance(kept.get("items"), dict):
        kept["items"] = _without(keywords, kept["items"])
    return kept
