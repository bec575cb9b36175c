"""
A record as it was found in, an event that can be counted on or a dead letter out (pure).

What is checked of a record by itself: that it is one, that it hashes to what was stored with it, that its event
is of a schema known here and is what that schema says.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import jsonschema_rs

from exec_events_schemas.catalogue import SCHEMA_ID, SchemaName, load
from exec_events_schemas.errors import ContractError, MalformedRecord, UnknownSchema
from exec_events_schemas.record import event_of, leaf_hash, seal_of
from exec_events_schemas.upcast import newest_version, upcast

from .feed import Fetched


class Decoded(NamedTuple):
    """
    One event of the record.

    ``kind`` is its schema's name (``cell_execution``), or the whole id of a schema of somebody else's, whose
    events are not looked into. ``event`` is of the newest version of its kind; in its texts U+FFFD stands for NUL,
    which PostgreSQL does not take. ``record`` is as it was.
    """

    partition: str
    position: int
    record: bytes
    hash: bytes
    chain: str
    seq: int
    prev: bytes | None
    kind: str
    event: dict[str, Any]


class DeadLetter(NamedTuple):
    """What cannot be used: its bytes untouched, where it was found, why, and the hash that was stored with it."""

    partition: str
    position: int
    value: bytes | None
    reason: str
    stored_hash: bytes | None = None


def decode(fetched: Fetched) -> Decoded | DeadLetter:
    """One record, decoded; never raises for what is in it."""
    partition, position, value, stored = fetched
    if value is None:
        return DeadLetter(partition, position, None, "it has no value", stored)
    try:
        seal = seal_of(value)
        event = event_of(value)
        digest = leaf_hash(value)
        if stored is not None and stored != digest:
            raise MalformedRecord("its hash is not the one stored with it")
        if b"\\u0000" in value:
            event = _without_nul(event)
        kind, event = _checked(event)
    except (ContractError, UnicodeDecodeError) as error:
        return DeadLetter(partition, position, value, str(error), stored)
    return Decoded(partition, position, value, digest, seal.chain, seal.seq, seal.prev, kind, event)


def _checked(event: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    schema_id = str(event.get("__schema__", ""))
    known = _known(schema_id)
    if known is None:
        return schema_id, event
    name, newest, validator = known
    if name.version > newest.version:
        raise UnknownSchema(f"{schema_id} is newer than version {newest.version}, the newest known here")
    if name.version < newest.version:
        event = upcast(event)
    try:
        validator.validate(event)
    except jsonschema_rs.ValidationError as error:
        at = "/".join(map(str, error.instance_path))
        raise MalformedRecord(f"not an event of {newest}: {error.message}" + (f" (at {at})" if at else "")) from None
    return name.event, event


@cache
def _known(schema_id: str) -> tuple[SchemaName, SchemaName, Any] | None:
    """
    The schema an event names, the newest of its kind, and a validator of that; None for somebody else's schema.

    Readers are tolerant: an optional property that a later minor change adds is not refused.
    """
    match = SCHEMA_ID.fullmatch(schema_id)
    if match is None:
        return None
    name = SchemaName(match["event"], int(match["version"]))
    newest = SchemaName(name.event, newest_version(name.event))
    return name, newest, jsonschema_rs.Draft7Validator(_open(load(newest.id)))


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\ufffd")
    if isinstance(value, dict):
        return {_without_nul(key): _without_nul(member) for key, member in value.items()}
    return [_without_nul(member) for member in value] if isinstance(value, list) else value


def _open(schema: Any) -> Any:
    """A schema without ``additionalProperties: false`` anywhere."""
    if isinstance(schema, dict):
        return {key: _open(value) for key, value in schema.items() if key != "additionalProperties"}
    return [_open(value) for value in schema] if isinstance(schema, list) else schema
