"""Upcasting and parsing in this version: what is known, what is newer, and what is not ours."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from exec_events_schemas import UnknownSchema, catalogue, upcast
from exec_events_schemas.catalogue import SchemaName, examples
from exec_events_schemas.errors import ContractError, MalformedRecord
from exec_events_schemas.parse import parse
from exec_events_schemas.upcast import newest_version, step

NEWEST = [name for name in catalogue() if name.version == newest_version(name.event)]


def _example(name: SchemaName) -> dict[str, Any]:
    return {"__schema__": name.id, "__schema_version__": str(name.version), **next(iter(examples(name).values()))}


@pytest.mark.parametrize("name", catalogue(), ids=str)
def test_every_event_reaches_the_newest_version(name: SchemaName) -> None:
    """An event of any known version comes out in the newest, and what went in is not changed."""
    event = _example(name)
    before = deepcopy(event)
    assert upcast(event)["__schema__"] == SchemaName(name.event, newest_version(name.event)).id
    assert event == before


@pytest.mark.parametrize("name", NEWEST, ids=str)
def test_the_newest_version_stays_as_it_is(name: SchemaName) -> None:
    """An event of the newest version is returned as it is."""
    event = _example(name)
    assert upcast(event) is event


def test_a_newer_version_is_left_alone_but_not_parsed() -> None:
    """An event of a version newer than known is returned as it is; parsing it says to upgrade."""
    event = {"__schema__": "https://exec-events.org/schemas/recorder/v99", "new": True}
    assert upcast(event) is event
    with pytest.raises(UnknownSchema, match=r"newer than recorder v1.*upgrade"):
        parse(event)


@pytest.mark.parametrize(
    "schema",
    [
        *(None, 7, [], "", "recorder", "https://events.jupyter.org/jupyter_server/kernel_actions/v1"),
        *("https://exec-events.org/schemas/nothing/v1", "https://exec-events.org/schemas/recorder/v1\n"),
    ],
    ids=repr,
)
def test_what_is_not_ours_is_refused_with_what_is(schema: Any) -> None:
    """An event without a schema of ours raises UnknownSchema, which lists ours, in upcast and in parse."""
    for read in (upcast, parse):
        with pytest.raises(UnknownSchema, match=r"known are: .*cell_execution v1"):
            read({"__schema__": schema})
    with pytest.raises(UnknownSchema):
        upcast({})


def test_data_that_breaks_the_schema_is_malformed() -> None:
    """Parsing an event whose data is not what its schema says raises MalformedRecord with the property."""
    name = NEWEST[0]
    with pytest.raises(MalformedRecord, match="subject"):
        parse({**_example(name), "subject": ""})


def test_a_missing_step_says_what_to_write() -> None:
    """Where the step to a next version is not there, the error names its module."""
    with pytest.raises(ContractError, match=r"recorder v98 cannot be read as v99: .*upcast_v98_to_v99"):
        step("recorder", 98)
