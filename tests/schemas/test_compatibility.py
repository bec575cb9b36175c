"""Compatibility: each rule with a change that breaks it, and a like change that does not."""

from __future__ import annotations

import sys
from copy import deepcopy
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exec_events_schemas.compatibility import check
from exec_events_schemas.errors import ContractError
from exec_events_schemas.violation import NEXT_STEPS

Schema = dict[str, Any]

RELEASED: Schema = {
    "$id": "https://exec-events.org/schemas/sample/v1",
    "version": "1",
    "personal-data": True,
    "title": "Sample",
    "type": "object",
    "additionalProperties": False,
    "required": ["status", "size"],
    "properties": {
        "status": {"type": "string", "enum": ["ok", "error"]},
        "size": {"type": "integer", "minimum": 0, "maximum": 100},
        "name": {"type": "string", "minLength": 1, "maxLength": 20, "pattern": "^[a-z]+$"},
        "flag": {"type": "boolean", "const": True},
        "open": {"type": "number"},
        "place": {
            "type": "object",
            "additionalProperties": False,
            "required": ["row"],
            "properties": {"row": {"type": "integer"}, "column": {"type": "integer"}},
        },
        "parts": {
            "type": "array",
            "minItems": 1,
            "maxItems": 5,
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["kind"],
                "properties": {"kind": {"type": "string", "enum": ["a", "b"]}, "bytes": {"type": "integer"}},
            },
        },
    },
}
EXAMPLES = [
    {"status": "ok", "size": 1},
    {
        "status": "error",
        "size": 100,
        "name": "x",
        "flag": True,
        "place": {"row": 1},
        "parts": [{"kind": "a", "bytes": 2}],
    },
]
P, PARTS = ("properties",), ("properties", "parts", "items")
GONE = object()

# rule, where in the schema, the new value (GONE: none), the path that is named
BREAKING = [
    ("identity-changed", ("$id",), "https://exec-events.org/schemas/sample/v2", "$id"),
    ("identity-changed", ("version",), "2", "version"),
    ("property-removed", (*P, "name"), GONE, "/name"),
    ("property-removed", (*PARTS, "properties", "bytes"), GONE, "/parts/[]/bytes"),
    ("property-made-required", ("required",), ["status", "size", "name"], "/name"),
    ("property-made-required", (*PARTS, "required"), ["kind", "bytes"], "/parts/[]/bytes"),
    ("property-made-optional", ("required",), ["status"], "/size"),
    ("property-added-required", ("required",), ["status", "size", "extra"], "/extra"),
    ("type-narrowed", (*P, "open", "type"), "integer", "/open"),
    ("type-widened", (*P, "place", "properties", "row", "type"), "number", "/place/row"),
    ("enum-narrowed", (*P, "status", "enum"), ["ok"], "/status"),
    ("enum-narrowed", (*P, "open", "enum"), [1], "/open"),
    ("enum-narrowed", (*P, "open", "const"), 1, "/open"),
    ("enum-widened", (*P, "status", "enum"), ["ok", "error", "late"], "/status"),
    ("enum-widened", (*PARTS, "properties", "kind", "enum"), ["a", "b", "c"], "/parts/[]/kind"),
    ("enum-widened", (*P, "flag", "const"), GONE, "/flag"),
    ("bound-narrowed", (*P, "size", "minimum"), 1, "/size"),
    ("bound-narrowed", (*P, "size", "maximum"), 99, "/size"),
    ("bound-narrowed", (*P, "name", "minLength"), 2, "/name"),
    ("bound-narrowed", (*P, "name", "maxLength"), 19, "/name"),
    ("bound-narrowed", (*P, "parts", "maxItems"), 4, "/parts"),
    ("bound-narrowed", (*P, "parts", "minItems"), 2, "/parts"),
    ("bound-narrowed", (*P, "open", "maximum"), 9, "/open"),
    ("bound-widened", (*P, "size", "maximum"), 101, "/size"),
    ("bound-widened", (*P, "name", "maxLength"), GONE, "/name"),
    ("pattern-changed", (*P, "name", "pattern"), "^[a-z]*$", "/name"),
    ("pattern-changed", (*P, "name", "pattern"), GONE, "/name"),
    ("closed-content-opened", ("additionalProperties",), True, ""),
    ("closed-content-opened", (*PARTS, "additionalProperties"), GONE, "/parts/[]"),
    ("closed-content-opened", (*P, "extra"), {"type": "object"}, "/extra"),
    ("keyword-not-allowed", (*P, "name", "format"), "email", "/name"),
    ("keyword-not-allowed", (*P, "extra"), {"anyOf": [{"type": "string"}], "type": "string"}, "/extra"),
    ("keyword-not-allowed", (*P, "extra"), {"type": ["string", "null"]}, "/extra"),
    ("keyword-not-allowed", (*P, "extra"), {}, "/extra"),
    ("keyword-not-allowed", (*P, "name"), True, "/name"),
]
KEEPING = [
    ((*P, "extra"), {"type": "string", "maxLength": 8, "enum": ["x", "y"]}),
    (
        (*P, "extra"),
        {"type": "object", "additionalProperties": False, "required": ["a"], "properties": {"a": {"type": "null"}}},
    ),
    ((*PARTS, "properties", "extra"), {"type": "array", "items": {"type": "integer", "maximum": 1}, "maxItems": 3}),
    ((*P, "place", "properties", "extra"), {"type": "boolean"}),
    ((*P, "status", "enum"), ["error", "ok"]),
    (("required",), ["size", "status"]),
    (("title",), "Another title"),
    ((*P, "status", "description"), "A better one."),
    (("description",), "A better one."),
]


def _changed(place: tuple[str, ...], value: Any) -> Schema:
    schema = deepcopy(RELEASED)
    inner = schema
    for key in place[:-1]:
        inner = inner[key]
    if value is GONE:
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    return schema


def _said(schema: Schema, examples: list[dict[str, Any]] = EXAMPLES) -> list[tuple[str, str]]:
    return [(violation.rule, violation.path) for violation in check(RELEASED, schema, examples)]


@pytest.mark.parametrize(("rule", "place", "value", "path"), BREAKING)
def test_a_breaking_change_is_named_with_its_place(rule: str, place: tuple[str, ...], value: Any, path: str) -> None:
    """A change that breaks one rule is refused by that rule, at that property, with what to do next."""
    violations = check(RELEASED, _changed(place, value), [])
    assert [(violation.rule, violation.path) for violation in violations] == [(rule, path)]
    assert violations[0].next_step
    assert path in str(violations[0])


@pytest.mark.parametrize(("place", "value"), KEEPING)
def test_optional_additions_and_better_words_are_compatible(place: tuple[str, ...], value: Any) -> None:
    """Optional properties at any depth, another order and better descriptions break no rule."""
    assert _said(_changed(place, value)) == []


def test_an_unchanged_schema_is_compatible() -> None:
    """A schema may take its own place."""
    assert _said(deepcopy(RELEASED)) == []


def test_a_type_replaced_by_another_is_narrowed_and_widened() -> None:
    """A number in place of a string breaks stored events and old readers, and both are said."""
    found = _said(_changed((*P, "name"), {"type": "integer"}), [])
    assert found == [("type-narrowed", "/name"), ("type-widened", "/name")]


def test_an_example_that_is_refused_is_named_with_its_place() -> None:
    """An old example that the changed schema refuses is named by its number and property."""
    assert ("example-rejected", "examples[1]/size") in _said(_changed((*P, "size", "maximum"), 99))
    assert _said(deepcopy(RELEASED), [*EXAMPLES, {"status": "ok", "size": 101}]) == [
        ("example-rejected", "examples[2]/size")
    ]


def test_several_broken_rules_are_all_said() -> None:
    """All rules that a change breaks are in one answer."""
    schema = _changed((*P, "status", "enum"), ["ok"])
    del schema["properties"]["name"]
    assert _said(schema, []) == [("enum-narrowed", "/status"), ("property-removed", "/name")]


def test_jsonsubschema_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """What no named rule catches, and jsonsubschema does, is refused as not a superset."""
    monkeypatch.setattr("exec_events_schemas.compatibility._compare", lambda *_: iter(()))
    rules = ("property-removed", "property-made-required", "property-added-required", "type-narrowed", "bound-narrowed")
    for rule, place, value, _ in BREAKING:
        # Lengths and patterns of strings are left to the named rules.
        if rule in rules and "name" not in place:
            assert _said(_changed(place, value), []) == [("not-a-superset", "")]
    assert _said(_changed((*P, "size", "maximum"), 101), []) == []


def test_what_jsonsubschema_cannot_decide_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where jsonsubschema fails, the change is refused rather than let through."""
    monkeypatch.setattr("exec_events_schemas.compatibility._compare", lambda *_: iter(()))
    violations = check(RELEASED, _changed((*P, "open", "enum"), [1]))
    assert [violation.rule for violation in violations] == ["not-a-superset"]
    assert "jsonsubschema cannot decide" in violations[0].text


def test_without_jsonsubschema_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where jsonsubschema is not installed, nothing is called compatible and the extra is named."""
    monkeypatch.setitem(sys.modules, "jsonsubschema", None)
    with pytest.raises(ContractError, match=r'pip install "exec-events\[schemas\]"'):
        check(RELEASED, deepcopy(RELEASED))


@pytest.mark.parametrize(
    "value", [{"type": "text"}, {"type": "string", "maxLength": -1}, {"type": "string", "pattern": 3}]
)
def test_what_is_no_schema_is_refused(value: Any) -> None:
    """A changed file that is no JSON Schema is an error with its reason, not a verdict."""
    with pytest.raises(ContractError, match="no JSON Schema"):
        check(RELEASED, _changed((*P, "name"), value))


def test_every_rule_is_tried() -> None:
    """Each rule about a change has a case here that breaks it."""
    tried = {case[0] for case in BREAKING} | {"example-rejected", "not-a-superset"}
    about_files = {
        *("example-missing", "example-refused", "bad-example-accepted", "bad-example-unclear"),
        *("upcast-fails", "models-stale", "schema-removed"),
    }
    assert NEXT_STEPS.keys() - about_files == tried


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_compatible_change_refuses_an_old_event(data: st.DataObject) -> None:
    """Whatever combination of changes is called compatible, events valid before are valid after."""
    schema = deepcopy(RELEASED)
    for _ in range(data.draw(st.integers(1, 3))):
        place, value = data.draw(st.sampled_from([*KEEPING, *((case[1], case[2]) for case in BREAKING)]))
        _apply(schema, place, value)
    if check(RELEASED, schema, []) == []:
        validator = jsonschema_rs.Draft7Validator(schema)
        assert all(validator.is_valid(example) for example in EXAMPLES)


def _apply(schema: Schema, place: tuple[str, ...], value: Any) -> None:
    for key in place[:-1]:
        inner = schema.get(key)
        if not isinstance(inner, dict):
            return
        schema = inner
    if value is GONE:
        schema.pop(place[-1], None)
    else:
        schema[place[-1]] = deepcopy(value)
