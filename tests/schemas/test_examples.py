"""The examples: what each schema has to accept and to refuse, by every validator and by the models."""

from __future__ import annotations

from typing import Any

import jsonschema
import jsonschema_rs
import pytest
from jupyter_events import EventLogger
from jupyter_events.schema import EventSchema
from pydantic import BaseModel

from exec_events_schemas import catalogue, load
from exec_events_schemas.catalogue import SchemaName, examples, load_released
from exec_events_schemas.compatibility import check
from exec_events_schemas.errors import MalformedRecord
from exec_events_schemas.generate import stale
from exec_events_schemas.keywords import keyword_violations
from exec_events_schemas.parse import parse
from exec_events_schemas.record import canonical, event_of, seal

GOOD = [(name, file, data) for name in catalogue() for file, data in examples(name).items()]
BAD = [(name, file, data) for name in catalogue() for file, data in examples(name, bad=True).items()]

# event/file: the keyword that refuses it, and the property it refuses; "" is the event itself
REASONS = {
    "budget_debited/cause-without-a-kind": ("pattern", "cause"),
    "budget_debited/empty-subject": ("minLength", "subject"),
    "budget_debited/float-amount": ("type", "amount"),
    "budget_debited/missing-cause": ("required", ""),
    "budget_debited/missing-spent": ("required", ""),
    "budget_debited/negative-amount": ("minimum", "amount"),
    "budget_debited/time-as-day": ("pattern", "day"),
    "budget_debited/unknown-budget": ("enum", "budget"),
    "budget_debited/unknown-property": ("additionalProperties", ""),
    "budget_debited/word-of-a-browser": ("enum", "trust"),
    "cell_execution/bad-hash": ("pattern", "code_hash"),
    "cell_execution/empty-subject": ("minLength", "subject"),
    "cell_execution/error-message-as-error-name": ("pattern", "error_name"),
    "cell_execution/float-duration": ("type", "duration_us"),
    "cell_execution/integer-beyond-json": ("maximum", "code_bytes"),
    "cell_execution/keyed-commitment": ("pattern", "code_commitment"),
    "cell_execution/keyed-hash-without-key-id": ("pattern", "outputs_hash"),
    "cell_execution/missing-execution-id": ("required", ""),
    "cell_execution/missing-iopub-seen": ("required", ""),
    "cell_execution/missing-outputs": ("required", ""),
    "cell_execution/missing-status": ("required", ""),
    "cell_execution/missing-subject": ("required", ""),
    "cell_execution/missing-time": ("required", ""),
    "cell_execution/negative-code-bytes": ("minimum", "code_bytes"),
    "cell_execution/negative-output-bytes": ("minimum", "outputs/0/bytes"),
    "cell_execution/none-missed-but-stated": ("minimum", "iopub_missed"),
    "cell_execution/null-notebook": ("type", "notebook"),
    "cell_execution/output-without-kind": ("required", "outputs/0"),
    "cell_execution/recorder-id-not-a-uuid": ("pattern", "recorder_id"),
    "cell_execution/text-for-a-flag": ("type", "silent"),
    "cell_execution/time-with-an-offset": ("pattern", "requested_at"),
    "cell_execution/time-without-microseconds": ("pattern", "time"),
    "cell_execution/too-long-cell-id": ("maxLength", "cell_id"),
    "cell_execution/too-many-outputs": ("maxItems", "outputs"),
    "cell_execution/unknown-client": ("enum", "client"),
    "cell_execution/unknown-property": ("additionalProperties", ""),
    "cell_execution/unknown-property-of-an-output": ("additionalProperties", "outputs/0"),
    "cell_execution/unknown-status": ("enum", "status"),
    "cell_execution/upper-case-hash": ("pattern", "code_hash"),
    "consent/kernel-starter": ("enum", "subject_from"),
    "consent/keyed-text-hash": ("pattern", "text_hash"),
    "consent/missing-subject": ("required", ""),
    "consent/missing-text-version": ("required", ""),
    "consent/number-as-version": ("type", "text_version"),
    "consent/refused-is-no-event": ("enum", "action"),
    "consent/too-long-version": ("maxLength", "text_version"),
    "consent/unknown-property": ("additionalProperties", ""),
    "kernel_lifecycle/empty-kernel-name": ("minLength", "kernel_name"),
    "kernel_lifecycle/missing-action": ("required", ""),
    "kernel_lifecycle/missing-cause": ("required", ""),
    "kernel_lifecycle/missing-kernel-id": ("required", ""),
    "kernel_lifecycle/missing-recorder-id": ("required", ""),
    "kernel_lifecycle/number-as-kernel-id": ("type", "kernel_id"),
    "kernel_lifecycle/time-without-microseconds": ("pattern", "time"),
    "kernel_lifecycle/too-long-notebook": ("maxLength", "notebook"),
    "kernel_lifecycle/unknown-action": ("enum", "action"),
    "kernel_lifecycle/unknown-cause": ("enum", "cause"),
    "kernel_lifecycle/unknown-property": ("additionalProperties", ""),
    "kernel_lifecycle/unknown-subject-from": ("enum", "subject_from"),
    "late_output/bad-hash": ("pattern", "late_hash"),
    "late_output/fraction-of-a-byte": ("type", "outputs/0/bytes"),
    "late_output/missing-cause": ("required", ""),
    "late_output/missing-execution-id": ("required", ""),
    "late_output/missing-overflow": ("required", ""),
    "late_output/missing-subject": ("required", ""),
    "late_output/output-without-mime": ("required", "outputs/0"),
    "late_output/outputs-as-an-object": ("type", "outputs"),
    "late_output/time-without-time-zone": ("pattern", "time"),
    "late_output/unknown-cause": ("enum", "cause"),
    "late_output/unknown-output-kind": ("enum", "outputs/0/kind"),
    "late_output/unknown-property": ("additionalProperties", ""),
    "late_output/unknown-trust": ("enum", "trust"),
    "notebook_action/empty-cell-id": ("minLength", "cell_id"),
    "notebook_action/fraction-of-a-cell": ("type", "cells"),
    "notebook_action/missing-action": ("required", ""),
    "notebook_action/missing-notebook": ("required", ""),
    "notebook_action/missing-subject": ("required", ""),
    "notebook_action/missing-trust": ("required", ""),
    "notebook_action/negative-cells": ("minimum", "cells"),
    "notebook_action/source-of-a-cell": ("additionalProperties", ""),
    "notebook_action/too-long-cell-id": ("maxLength", "cell_id"),
    "notebook_action/too-long-notebook": ("maxLength", "notebook"),
    "notebook_action/too-many-cells": ("maximum", "cells"),
    "notebook_action/unknown-action": ("enum", "action"),
    "policy_changed/missing-digest": ("required", ""),
    "policy_changed/no-steward": ("minimum", "stewards"),
    "policy_changed/short-digest": ("pattern", "policy_digest"),
    "policy_changed/text-as-version": ("type", "policy_version"),
    "policy_changed/the-folder-of-the-data": ("additionalProperties", ""),
    "policy_changed/the-policy-itself": ("additionalProperties", ""),
    "policy_changed/three-stewards": ("maximum", "stewards"),
    "policy_changed/unknown-action": ("enum", "action"),
    "policy_changed/unknown-mode": ("enum", "mode"),
    "policy_changed/version-zero": ("minimum", "policy_version"),
    "query_answered/float-epsilon": ("type", "epsilon_micro"),
    "query_answered/missing-policy": ("required", ""),
    "query_answered/missing-subject": ("required", ""),
    "query_answered/negative-epsilon": ("minimum", "epsilon_micro"),
    "query_answered/path-as-dataset": ("pattern", "dataset"),
    "query_answered/the-answer-itself": ("additionalProperties", ""),
    "query_answered/the-query-itself": ("additionalProperties", ""),
    "query_answered/unknown-outcome": ("enum", "outcome"),
    "query_answered/unsalted-commitment": ("pattern", "commitment"),
    "query_answered/why-it-was-suppressed": ("additionalProperties", ""),
    "query_answered/word-of-a-server": ("enum", "trust"),
    "recorder/adopted-by-nobody": ("pattern", "adopted_by"),
    "recorder/cut-with-a-float-seq": ("type", "cuts/0/seq"),
    "recorder/empty-server": ("minLength", "server"),
    "recorder/float-heartbeat": ("type", "heartbeat_us"),
    "recorder/head-with-a-keyed-hash": ("pattern", "heads/0/hash"),
    "recorder/head-with-negative-seq": ("minimum", "heads/0/seq"),
    "recorder/head-without-seq": ("required", "heads/0"),
    "recorder/keyed-configuration-digest": ("pattern", "configuration_digest"),
    "recorder/missing-action": ("required", ""),
    "recorder/missing-trust": ("required", ""),
    "recorder/negative-lost": ("minimum", "lost"),
    "recorder/previous-with-empty-chain": ("minLength", "previous/0/chain"),
    "recorder/unknown-action": ("enum", "action"),
    "recorder/unknown-cause": ("enum", "cause"),
    "recorder/unknown-property": ("additionalProperties", ""),
    "recorder/unknown-version": ("additionalProperties", "versions"),
    "recorder/versions-without-python": ("required", "versions"),
    "release_decided/decided-by-an-admin": ("enum", "decided_by"),
    "release_decided/missing-code-chain": ("required", ""),
    "release_decided/missing-owner": ("required", ""),
    "release_decided/negative-bytes": ("minimum", "released_bytes"),
    "release_decided/query-as-run": ("pattern", "run_id"),
    "release_decided/short-signature": ("pattern", "signature"),
    "release_decided/the-output-itself": ("additionalProperties", ""),
    "release_decided/the-reason-itself": ("additionalProperties", ""),
    "release_decided/unknown-decision": ("enum", "decision"),
    "release_decided/unknown-state": ("enum", "state"),
    "release_decided/unsalted-commitment": ("pattern", "commitment"),
    "release_decided/unsalted-reason": ("pattern", "reason_commitment"),
    "release_decided/word-of-a-server": ("enum", "trust"),
}


def _id(value: object) -> str | None:
    return str(value) if isinstance(value, (str, SchemaName)) else ""


def _event(name: SchemaName, data: dict[str, Any]) -> dict[str, Any]:
    return {"__schema__": name.id, "__schema_version__": str(name.version), **data}


@pytest.mark.parametrize(("name", "file", "data"), GOOD, ids=_id)
def test_every_good_example_is_valid(name: SchemaName, file: str, data: dict[str, Any]) -> None:
    """jsonschema, jsonschema-rs and jupyter_events accept every good example."""
    schema = load(name.id)
    jsonschema.Draft7Validator(schema).validate(data)
    jsonschema_rs.Draft7Validator(schema).validate(data)
    EventSchema(schema=schema).validate(data)


@pytest.mark.parametrize(("name", "file", "data"), BAD, ids=_id)
def test_every_bad_example_is_refused_for_its_one_reason(name: SchemaName, file: str, data: dict[str, Any]) -> None:
    """Both validators refuse every bad example, by the one rule that its name says and by no other."""
    schema = load(name.id)
    expected = REASONS[f"{name.event}/{file.removesuffix('.json')}"]
    slow = list(jsonschema.Draft7Validator(schema).iter_errors(data))
    fast = list(jsonschema_rs.Draft7Validator(schema).iter_errors(data))
    assert [(e.validator, "/".join(map(str, e.absolute_path))) for e in slow] == [expected]
    assert [(e.schema_path[-1], "/".join(map(str, e.instance_path))) for e in fast] == [expected]


def test_every_reason_has_its_example() -> None:
    """The list of reasons and the files of bad examples are the same."""
    assert {f"{name.event}/{file.removesuffix('.json')}" for name, file, _ in BAD} == REASONS.keys()


@pytest.mark.parametrize("name", catalogue(), ids=str)
def test_good_examples_show_every_property_and_every_word(name: SchemaName) -> None:
    """Each property of a schema, and each value it lists, is in some good example."""
    shown: dict[str, set[Any]] = {}
    for data in examples(name).values():
        _collect(data, "", shown)
    missing = [
        (path, word)
        for path, words in _stated(load(name.id), "")
        for word in words or [None]
        if path not in shown or (word is not None and word not in shown[path])
    ]
    # Who vouches for an event is the same word in all schemas; one of each is enough.
    assert {path for path, _ in missing} <= {"/trust"}


def _collect(value: Any, path: str, shown: dict[str, set[Any]]) -> None:
    for key, inner in value.items() if isinstance(value, dict) else ():
        _collect(inner, f"{path}/{key}", shown)
    for inner in value if isinstance(value, list) else ():
        _collect(inner, path, shown)
    shown.setdefault(path, set()).update([value] if isinstance(value, str | int) else [])


def _stated(schema: dict[str, Any], path: str) -> list[tuple[str, list[Any]]]:
    found = [(path, schema.get("enum", []))] if path else []
    for key, inner in schema.get("properties", {}).items():
        found += _stated(inner, f"{path}/{key}")
    for key, inner in schema.get("items", {}).get("properties", {}).items():
        found += _stated(inner, f"{path}/{key}")
    return found


@pytest.mark.parametrize(("name", "file", "data"), GOOD, ids=_id)
def test_the_models_read_every_good_example(name: SchemaName, file: str, data: dict[str, Any]) -> None:
    """A model gives back exactly what was in the event, and leaves out what it does not know."""
    model = parse({**_event(name, data), "a_later_addition": 1})
    assert type(model).__name__.startswith(name.model[:-1])
    if type(model).__name__ == name.model:
        assert model.model_dump(exclude_unset=True) == data


@pytest.mark.parametrize(("name", "file", "data"), BAD, ids=_id)
def test_the_models_refuse_bad_examples_but_for_additions(name: SchemaName, file: str, data: dict[str, Any]) -> None:
    """A reader refuses what its schema refuses, except properties it does not know and null for a missing one."""
    event = _event(name, data)
    keyword, _ = REASONS[f"{name.event}/{file.removesuffix('.json')}"]
    if keyword == "additionalProperties" or file in ("null-notebook.json", "text-for-a-flag.json"):
        assert isinstance(parse(event), BaseModel)
    else:
        with pytest.raises(MalformedRecord, match=f"not an event of {name}"):
            parse(event)


@pytest.mark.parametrize(("name", "file", "data"), GOOD, ids=_id)
def test_every_good_example_can_be_sealed(name: SchemaName, file: str, data: dict[str, Any]) -> None:
    """The event of every example has canonical bytes and is read back from its record unchanged."""
    event = _event(name, data)
    record, head = seal(event, data["recorder_id"], None)
    assert event_of(record) == event
    assert canonical(event) in record
    assert head.seq == 0


@pytest.mark.parametrize("name", catalogue(), ids=str)
def test_schemas_use_only_keywords_that_can_be_checked(name: SchemaName) -> None:
    """Every schema keeps to the keywords whose compatibility can be proved, and is closed at every depth."""
    assert list(keyword_violations(load(name.id))) == []


@pytest.mark.parametrize("name", [name for name in catalogue() if load_released(name)], ids=str)
def test_schemas_are_compatible_with_the_released_ones(name: SchemaName) -> None:
    """Each schema may take the place of the one that was last released."""
    released = load_released(name)
    assert released is not None
    assert check(released, load(name.id), list(examples(name).values())) == []


def test_all_schemas_register_with_one_event_logger() -> None:
    """jupyter_events takes every schema, in a logger as a server has it."""
    logger = EventLogger()
    for name in catalogue():
        logger.register_event_schema(load(name.id))
    assert {name.id for name in catalogue()} <= set(logger.schemas.schema_ids)


def test_the_models_are_fresh() -> None:
    """models.py is what the generator makes of the schemas."""
    assert not stale()
