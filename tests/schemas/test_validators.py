"""Two validators and the models, on events that nobody thought of: generated, and generated then broken."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import jsonschema
import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exec_events_schemas import catalogue, load
from exec_events_schemas.catalogue import SchemaName, examples
from exec_events_schemas.errors import MalformedRecord
from exec_events_schemas.parse import parse

NAMES = catalogue()
SLOW = {name: jsonschema.Draft7Validator(load(name.id)) for name in NAMES}
FAST = {name: jsonschema_rs.Draft7Validator(load(name.id)) for name in NAMES}
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([2**53 - 1, 2**53, -1, 0, 0.5, 1.0, -0.0, 1e300, "", [], {}, [{}], "x" * 129, "x" * 2000]),
    st.text(max_size=20),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=5), st.none(), max_size=2),
)
LIGHT = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", NAMES, ids=str)
def test_the_validators_and_the_model_agree_on_generated_events(name: SchemaName) -> None:
    """A generated event is valid for jsonschema-rs exactly when it is for jsonschema, and then its model reads it."""

    @LIGHT
    @given(_events(load(name.id)))
    def agree(data: dict[str, Any]) -> None:
        data = _without_last_line_breaks(data)
        assert FAST[name].is_valid(data) == SLOW[name].is_valid(data)
        if FAST[name].is_valid(data):
            assert parse({"__schema__": name.id, **data}).model_dump(exclude_unset=True) == data

    agree()


@pytest.mark.parametrize("name", NAMES, ids=str)
def test_the_validators_agree_on_broken_events(name: SchemaName) -> None:
    """An example in which anything was replaced, removed or added is valid for both validators or for neither."""
    good = list(examples(name).values())
    verdicts = set()

    @LIGHT
    @given(st.data())
    def agree(data: st.DataObject) -> None:
        event = deepcopy(data.draw(st.sampled_from(good)))
        for _ in range(data.draw(st.integers(1, 3))):
            _break(event, data)
        event = _without_last_line_breaks(event)
        verdict = FAST[name].is_valid(event)
        verdicts.add(verdict)
        assert verdict == SLOW[name].is_valid(event)

    agree()
    assert False in verdicts


@pytest.mark.parametrize("name", NAMES, ids=str)
def test_a_line_break_after_a_value_is_refused(name: SchemaName) -> None:
    """The producer's validator and the readers' model refuse a time with a line break after it; Python's $ does not."""
    data = next(iter(examples(name).values()))
    broken = {**data, "time": data["time"] + "\n"}
    assert not FAST[name].is_valid(broken)
    with pytest.raises(MalformedRecord):
        parse({"__schema__": name.id, **broken})


def _events(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values of a schema that keeps to our keywords."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    shortest, longest = schema.get("minLength", 0), schema.get("maxLength", 200)
    match schema["type"]:
        case "object":
            members = {key: _events(inner) for key, inner in schema["properties"].items()}
            required = {key: members.pop(key) for key in schema["required"]}
            return st.fixed_dictionaries(required, optional=members)
        case "array":
            return st.lists(_events(schema["items"]), max_size=min(schema["maxItems"], 3))
        case "integer":
            return st.integers(schema["minimum"], schema["maximum"])
        case "boolean":
            return st.booleans()
        case "string" if "pattern" in schema:
            return st.from_regex(schema["pattern"]).filter(lambda text: shortest <= len(text) <= longest)
        case "string":
            return st.text(min_size=shortest, max_size=longest)
    raise AssertionError(f"no strategy for {schema}")


def _break(event: Any, data: st.DataObject) -> None:
    """Change one thing, at any depth."""
    place = event
    while place:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
            place = place[key]
            continue
        what = data.draw(st.sampled_from(["replace", "remove", "add"]))
        if what == "remove":
            del place[key]
        elif what == "replace" or isinstance(place, list):
            place[key] = data.draw(VALUES)
        else:
            place[data.draw(st.text(max_size=8))] = data.draw(VALUES)
        return


def _without_last_line_breaks(value: Any) -> Any:
    """The same without line breaks at the end of strings: the one thing the two validators see differently."""
    if isinstance(value, dict):
        return {key: _without_last_line_breaks(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_last_line_breaks(inner) for inner in value]
    return value.rstrip("\n") if isinstance(value, str) else value
