"""
The record: an event and its seal as canonical bytes, and the hash that links it to the next.

A record is the RFC 8785 (JCS) serialisation of ``{"event": event, "seal": {"chain", "prev", "seq"}}``.
Its hash is RFC 6962's leaf hash, SHA-256(0x00 || record). ``prev`` is the hash of the record before
it in the same chain (null for the first), ``seq`` counts from 0. Nothing is ever serialised again to
check a record: the bytes that were sealed are the bytes that are stored, sent and hashed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple

import orjson
import rfc8785

from .catalogue import SCHEMA_ID
from .errors import MalformedRecord

HASH_PREFIX = "sha256:"

_LEAF = sha256(b"\x00")
_MAX_INTEGER = 2**53 - 1
# Seal keys are fixed and sorted after "event", so a record ends in exactly this. A quote inside a
# JSON string is escaped, so these bytes cannot occur within the event's strings; anchored at the end,
# they cannot be an inner object either.
_SEAL = re.compile(
    rb',"seal":\{"chain":"([ !#-\[\]-~]{1,128})","prev":(?:null|"sha256:([0-9a-f]{64})"),'
    rb'"seq":(0|[1-9][0-9]{0,15})\}\}\Z'
)
_SEAL_ROOM = 320


@dataclass(frozen=True, slots=True)
class Seal:
    """Where a record stands: ``seq`` in ``chain``, after the record whose raw hash is ``prev``."""

    chain: str
    seq: int
    prev: bytes | None


class Head(NamedTuple):
    """The last record of a chain: its ``seq`` and raw 32-byte ``hash``."""

    seq: int
    hash: bytes


def canonical(value: Any) -> bytes:
    """
    RFC 8785 bytes of a JSON value.

    Integers and strings with ASCII keys take the fast way (orjson, byte-identical for them);
    anything else, floats above all, goes through `rfc8785`.

    Raises:
        MalformedRecord: the value has no canonical form (not JSON, NaN, an integer beyond 2**53 - 1,
            or a lone surrogate).
    """
    try:
        if _is_plain(value):
            data = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
            # orjson sorts keys by UTF-8, RFC 8785 by UTF-16: the same where all is ASCII.
            if data.isascii():
                return data
        return rfc8785.dumps(value)
    except (TypeError, ValueError, RecursionError, UnicodeError) as error:
        raise MalformedRecord(f"no canonical JSON form: {error}") from error


def _is_plain(value: Any) -> bool:
    """Whether it holds only strings, booleans, nulls and safe integers: no floats, nothing foreign."""
    kind = type(value)
    if kind is dict:
        members = value.values()
    elif kind is list:
        members = value
    else:
        return _is_plain([value])
    for member in members:
        kind = type(member)
        if kind is str or kind is bool or member is None:
            continue
        if kind is int:
            if not -_MAX_INTEGER <= member <= _MAX_INTEGER:
                return False
        elif not ((kind is dict or kind is list) and _is_plain(member)):
            return False
    return True


def leaf_hash(record: bytes) -> bytes:
    """The raw 32-byte SHA-256(0x00 || record) of RFC 6962, section 2.1."""
    digest = _LEAF.copy()
    digest.update(record)
    return digest.digest()


def hash_text(raw: bytes) -> str:
    """A raw 32-byte hash as ``sha256:<hex>``."""
    return HASH_PREFIX + raw.hex()


def hash_bytes(text: str) -> bytes:
    """The raw hash in ``sha256:<hex>``; raises MalformedRecord for anything else."""
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", text):
        raise MalformedRecord(f"not a sha256:<hex> hash: {text!r}")
    return bytes.fromhex(text[len(HASH_PREFIX) :])


def seal(event: dict[str, Any], chain: str, head: Head | None) -> tuple[bytes, Head]:
    """
    Seal an event as the next record of ``chain`` after ``head`` (None for its first).

    Returns the record's bytes and the new head. Raises MalformedRecord as `canonical` does.
    """
    return seal_canonical(canonical(event), chain, head)


def seal_canonical(event: bytes, chain: str, head: Head | None) -> tuple[bytes, Head]:
    """
    Seal an event that is canonical bytes already; ``chain`` holds neither quotes nor backslashes.

    JCS sorts "event" before "seal" and "chain", "prev", "seq" in that order, and serialises inner
    values independently of where they stand, so the record is put together without parsing.
    """
    if head is None:
        seq, prev = 0, b"null"
    else:
        seq, prev = head.seq + 1, b'"sha256:%b"' % head.hash.hex().encode()
    record = b'{"event":%b,"seal":{"chain":"%b","prev":%b,"seq":%d}}' % (event, chain.encode(), prev, seq)
    return record, Head(seq, leaf_hash(record))


def seal_of(record: bytes) -> Seal:
    """The seal at the end of a record, without parsing the event; raises MalformedRecord."""
    match = _SEAL.search(record, max(0, len(record) - _SEAL_ROOM))
    if match is None:
        raise MalformedRecord("the record does not end in a seal")
    chain, prev, seq = match.groups()
    return Seal(chain.decode(), int(seq), bytes.fromhex(prev.decode()) if prev else None)


def place_of(record: bytes) -> tuple[bytes, bytes]:
    """The chain and the decimal seq at the end of a record, as bytes; raises MalformedRecord."""
    match = _SEAL.search(record, max(0, len(record) - _SEAL_ROOM))
    if match is None:
        raise MalformedRecord("the record does not end in a seal")
    return match[1], match[3]


def event_of(record: bytes) -> dict[str, Any]:
    """The event in a record; raises MalformedRecord."""
    try:
        parsed = orjson.loads(record)
        event = parsed["event"]
    except (ValueError, KeyError, TypeError) as error:
        raise MalformedRecord(f"not a record: {error}") from error
    if not isinstance(event, dict):
        raise MalformedRecord("not a record: its event is not an object")
    return event


def time_of(event: Mapping[str, Any]) -> str:
    """
    An event's time in RFC 3339, "" where it has none.

    Of ours it is ``time``; events of other applications carry the one that jupyter_events gave them.
    """
    if SCHEMA_ID.fullmatch(str(event.get("__schema__"))):
        return str(event.get("time", ""))
    # jupyter_events puts a Z behind an offset.
    return re.sub(r"(?<=[+-]\d\d:\d\d)Z\Z", "", str(event.get("__timestamp__") or event.get("time") or ""))
