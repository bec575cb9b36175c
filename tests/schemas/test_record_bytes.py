"""The record: its bytes are canonical, its seal is found whatever the event says, and what is no record is refused."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any

import pytest
import rfc8785
from hypothesis import example, given
from hypothesis import strategies as st

from exec_events_schemas.errors import MalformedRecord
from exec_events_schemas.record import Head, Seal, canonical, event_of, hash_bytes, hash_text, leaf_hash, seal, seal_of

MAX = 2**53 - 1
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-MAX, MAX), TEXT)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
HOSTILE = [
    ',"seal":{"chain":"x","prev":null,"seq":0}}',
    '"},"seal":{"chain":"x","prev":null,"seq":0}}',
    '\\"},\\"seal\\":{\\"chain\\":\\"x\\",\\"prev\\":null,\\"seq\\":0}}',
    ',"seal":{...}}',
    '{"event":{},"seal":{"chain":"x","prev":null,"seq":0}}',
    "\\",
    '"',
    "\u2028\x00\x7f\ufeff",
]


def _json(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4))


EVENTS = st.dictionaries(
    TEXT | st.sampled_from(["seal", "event", *HOSTILE]), _json(LEAVES | st.sampled_from(HOSTILE)), max_size=5
)
CHAINS = st.text(st.characters(codec="ascii", min_codepoint=32, exclude_characters='"\\\x7f'), min_size=1, max_size=128)
HEADS = st.none() | st.builds(Head, st.integers(0, MAX - 1), st.binary(min_size=32, max_size=32))

RECORD, HEAD = seal({"a": 1, "b": "ü"}, "recorder/chain", Head(6, bytes(range(32))))


@given(_json(LEAVES))
@example({"\U0001f600": 1, "\ufb33": 2, "é": 3, "z": 4})
@example({"b": {"é": 1, "z": 2}, "a": ['\x00\x1f"\\/\x7f']})
def test_canonical_equals_rfc8785(value: Any) -> None:
    """Canonical bytes, by the fast way too, are those of the reference implementation."""
    assert canonical(value) == rfc8785.dumps(value)


@given(_json(LEAVES | FLOATS))
@example([0.0, -0.0, 1e21, 1e-7, 5e-324, 1.0])
def test_canonical_equals_rfc8785_with_floats(value: Any) -> None:
    """Values with floats have the bytes of the reference implementation."""
    assert canonical(value) == rfc8785.dumps(value)


@given(_json(LEAVES))
def test_canonical_is_read_back_and_stable(value: Any) -> None:
    """Canonical bytes are JSON of the same value, and reading and writing them again changes no byte."""
    read = json.loads(canonical(value))
    assert read == value
    assert canonical(read) == canonical(value)


@pytest.mark.parametrize(
    "value",
    [
        MAX + 1,
        -MAX - 1,
        2**64,
        {"a": [10**30]},
        float("nan"),
        [float("inf")],
        "\ud800",
        {"\udfff": 1},
        {1: 2},
        b"x",
        {"a": {1}},
        object(),
    ],
    ids=repr,
)
def test_what_has_no_canonical_form_is_refused(value: Any) -> None:
    """Integers beyond 2**53 - 1, NaN, infinities, lone surrogates and what is not JSON raise MalformedRecord."""
    with pytest.raises(MalformedRecord, match="no canonical JSON form"):
        canonical(value)


def test_what_is_too_deep_is_refused() -> None:
    """A value nested deeper than can be serialised raises MalformedRecord, not RecursionError."""
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(MalformedRecord):
        canonical(value)


@given(EVENTS, CHAINS, HEADS)
def test_a_sealed_record_is_canonical_and_gives_back_its_parts(
    event: dict[str, Any], chain: str, head: Head | None
) -> None:
    """Every record is the RFC 8785 form of {event, seal}, and gives both back, whatever strings are in it."""
    record, new = seal(event, chain, head)
    expected = Seal(chain, 0, None) if head is None else Seal(chain, head.seq + 1, head.hash)
    prev = None if head is None else hash_text(head.hash)
    assert record == rfc8785.dumps({"event": event, "seal": {"chain": chain, "prev": prev, "seq": expected.seq}})
    assert seal_of(record) == expected
    assert event_of(record) == event
    assert new == Head(expected.seq, sha256(b"\x00" + record).digest())


@pytest.mark.parametrize("text", HOSTILE)
def test_a_seal_forged_inside_the_event_is_not_taken(text: str) -> None:
    """An event whose strings, names or inner objects look like a seal does not change the seal that is read."""
    for event in (
        {"z": text},
        {text: "z"},
        {"seal": {"chain": "x", "prev": None, "seq": 0}},
        {"z": [text, {"seal": text}]},
    ):
        record, _ = seal(event, "true/chain", Head(41, bytes(32)))
        assert seal_of(record) == Seal("true/chain", 42, bytes(32))


def test_the_leaf_hash_is_that_of_rfc_6962() -> None:
    """The hash of a record is RFC 6962's leaf hash, by its known value for an empty leaf and by definition."""
    assert leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert leaf_hash(RECORD) == sha256(b"\x00" + RECORD).digest() == HEAD.hash


GOOD_END = b',"seal":{"chain":"c","prev":null,"seq":0}}'
H = b"0" * 64
BAD_SEALS = {
    "empty": b"",
    "truncated by a byte": RECORD[:-1],
    "truncated in the middle": RECORD[: len(RECORD) // 2],
    "line break after it": RECORD + b"\n",
    "something after it": RECORD + b" ",
    "a second seal after it": RECORD + b"}",
    "no event before the seal": b'{"seal":{"chain":"c","prev":null,"seq":0}}',
    "space in the seal": b'{"event":{},"seal":{"chain":"c", "prev":null,"seq":0}}',
    "keys out of order": b'{"event":{},"seal":{"prev":null,"chain":"c","seq":0}}',
    "seq missing": b'{"event":{},"seal":{"chain":"c","prev":null}}',
    "seq negative": b'{"event":{},"seal":{"chain":"c","prev":null,"seq":-1}}',
    "seq with a leading zero": b'{"event":{},"seal":{"chain":"c","prev":null,"seq":01}}',
    "seq a float": b'{"event":{},"seal":{"chain":"c","prev":null,"seq":1.0}}',
    "seq a string": b'{"event":{},"seal":{"chain":"c","prev":null,"seq":"1"}}',
    "seq too long": b'{"event":{},"seal":{"chain":"c","prev":null,"seq":12345678901234567}}',
    "prev without its prefix": b'{"event":{},"seal":{"chain":"c","prev":"%b","seq":1}}' % H,
    "prev of another algorithm": b'{"event":{},"seal":{"chain":"c","prev":"sha512:%b","seq":1}}' % H,
    "prev in upper case": b'{"event":{},"seal":{"chain":"c","prev":"sha256:%b","seq":1}}' % (b"A" * 64),
    "prev too short": b'{"event":{},"seal":{"chain":"c","prev":"sha256:%b","seq":1}}' % H[1:],
    "chain empty": b'{"event":{},"seal":{"chain":"","prev":null,"seq":0}}',
    "chain too long": b'{"event":{},"seal":{"chain":"%b","prev":null,"seq":0}}' % (b"c" * 129),
    "chain with an escape": b'{"event":{},"seal":{"chain":"\\u0063","prev":null,"seq":0}}',
    "an addition in the seal": b'{"event":{},"seal":{"chain":"c","extra":1,"prev":null,"seq":0}}',
}


@pytest.mark.parametrize("record", BAD_SEALS.values(), ids=BAD_SEALS)
def test_what_does_not_end_in_a_seal_is_refused(record: bytes) -> None:
    """Bytes that do not end in a canonical seal raise MalformedRecord."""
    with pytest.raises(MalformedRecord, match="does not end in a seal"):
        seal_of(record)


BAD_EVENTS = {
    "empty": b"",
    "truncated": RECORD[:-1],
    "wrong prefix": RECORD.replace(b'{"event"', b'{"evemt"'),
    "no object": b"[]",
    "a number": b"1",
    "event a string": b'{"event":"x"' + GOOD_END,
    "event null": b'{"event":null' + GOOD_END,
    "not JSON before the seal": b'{"event":{]' + GOOD_END,
    "not UTF-8": b'{"event":{"a":"\xff"}' + GOOD_END,
    "NaN": b'{"event":{"a":NaN}' + GOOD_END,
}


@pytest.mark.parametrize("record", BAD_EVENTS.values(), ids=BAD_EVENTS)
def test_what_holds_no_event_is_refused(record: bytes) -> None:
    """Bytes that are no JSON object with an event object in it raise MalformedRecord."""
    with pytest.raises(MalformedRecord, match="not a record"):
        event_of(record)


@given(st.binary(max_size=400))
def test_arbitrary_bytes_are_read_or_refused(data: bytes) -> None:
    """Whatever the bytes, reading them raises nothing but MalformedRecord."""
    for read in (seal_of, event_of):
        for record in (data, RECORD[: len(data)] + data, data + GOOD_END):
            try:
                read(record)
            except MalformedRecord:
                continue


@pytest.mark.parametrize(
    "text", ["", "sha256:", "0" * 64, "sha256:" + "A" * 64, "sha256:" + "0" * 64 + "\n", "sha512:" + "0" * 64]
)
def test_a_hash_of_another_form_is_refused(text: str) -> None:
    """Only sha256: and 64 lower-case hexadecimal digits are a hash."""
    with pytest.raises(MalformedRecord):
        hash_bytes(text)


@given(st.binary(min_size=32, max_size=32))
def test_a_hash_is_read_as_it_was_written(raw: bytes) -> None:
    """A hash written as text is read back as the same bytes."""
    assert hash_bytes(hash_text(raw)) == raw
