"""Messages: what a record becomes on the topic, and addresses that cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from exec_events_schemas.errors import MalformedRecord, SourceError
from exec_events_schemas.record import seal
from exec_events_schemas.topics import content_of, content_value, kafka_address, message_of, topics_of
from spool_files import FIRST, SCHEMA, chain_of, execution


def message(event: dict[str, Any], chain: str) -> tuple[bytes, dict[str, bytes], int | None]:
    """The key, headers and timestamp of an event sealed into a chain."""
    record, head = seal(event, chain, None)
    made = message_of(record, head.hash)
    return made.key, dict(made.headers), made.timestamp_ms


def test_an_execution_is_keyed_by_its_subject() -> None:
    """The message of an execution has its subject as its key, CloudEvents' headers and ours, and its own time."""
    key, headers, timestamp = message(execution(FIRST, 3, 61), chain_of(FIRST, 3))
    assert key == b"subject-3"
    assert headers["ce_specversion"] == b"1.0"
    assert headers["ce_type"] == b"org.exec-events.cell_execution"
    assert headers["ce_source"] == f"/recorders/{FIRST}".encode()
    assert headers["ce_id"] == f"{chain_of(FIRST, 3)}:0".encode()
    assert headers["ce_dataschema"] == headers["schema_id"] == SCHEMA.format("cell_execution").encode()
    assert (headers["chain"], headers["seq"]) == (chain_of(FIRST, 3).encode(), b"0")
    assert headers["hash"].startswith(b"sha256:")
    assert timestamp == 1_767_225_661_000


def test_a_recorders_own_chain_has_one_key() -> None:
    """Events in a recorder's own chain are keyed by the recorder, whosever subject they name."""
    event = {"__schema__": SCHEMA.format("kernel_lifecycle"), "time": "2026-01-01T00:00:00.000000Z", "subject": "jo"}
    assert message(event, FIRST)[0] == FIRST.encode()


@pytest.mark.parametrize("subject", [7, "", None, ["jo"], {"a": 1}])
def test_a_subject_that_is_no_text_is_no_key(subject: Any) -> None:
    """Somebody else's event whose subject is no text stays in the partition of its chain."""
    event = {"__schema__": "https://hub/x", "subject": subject}
    assert message(event, f"{FIRST}/shared")[0] == f"{FIRST}/shared".encode()


@pytest.mark.parametrize("time", ["2026-01-01T00:00:01.500000+00:00Z", "2026-01-01T00:00:01.500000Z"])
def test_other_applications_times_are_read(time: str) -> None:
    """The time jupyter_events gives an event becomes the message's, also with its Z behind an offset."""
    _, headers, timestamp = message({"__schema__": "https://hub/x", "__timestamp__": time, "time": "noon"}, FIRST)
    assert timestamp == 1_767_225_601_500
    assert not headers["ce_time"].endswith(b"+00:00Z")


def test_a_time_that_is_none_is_left_to_kafka() -> None:
    """An event without a time has no timestamp of its own, and is published all the same."""
    assert message({"__schema__": "https://hub/x"}, FIRST)[2] is None


def test_what_is_no_record_is_refused() -> None:
    """Bytes that are no record raise MalformedRecord."""
    with pytest.raises(MalformedRecord):
        message_of(b"junk", bytes(32))


@pytest.mark.parametrize(
    ("url", "servers", "prefix"),
    [
        ("kafka://one:9092", ["one:9092"], "exec-events"),
        ("kafka://one,two:9093/", ["one:9092", "two:9093"], "exec-events"),
        ("KAFKA://[::1]:9092/course.a", ["[::1]:9092"], "course.a"),
        ("kafka://[::1]", ["[::1]:9092"], "exec-events"),
    ],
)
def test_addresses(url: str, servers: list[str], prefix: str) -> None:
    """An address lists servers, with Kafka's port where none is given, and a prefix, ours where none is given."""
    assert kafka_address(url) == (servers, prefix)


@pytest.mark.parametrize(
    "url",
    [
        "kafka://",
        "kafka://jo:hunter2@one:9092",
        "kafka://one:9092/a/b",
        "kafka://one:9092/?acks=0",
        "http://one",
        "kafka:one",
    ],
)
def test_addresses_that_cannot_be(url: str) -> None:
    """Anything else is refused, and a password in it is not repeated."""
    with pytest.raises(SourceError) as refused:
        kafka_address(url)
    assert "hunter2" not in str(refused.value)


def test_topics_of_a_prefix() -> None:
    """The four topics have the prefix in front."""
    assert topics_of("a") == ("a.events", "a.contents", "a.checkpoints", "a.dead-letters")


def test_a_body_is_what_its_key_commits_to() -> None:
    """A body comes back from its message; one that its key does not commit to is refused; none was erased."""
    from hashlib import sha256

    value = content_value(bytes(32), b"body")
    key = f"sha256:{sha256(value).hexdigest()}".encode()
    headers = [("subject", b"jo"), ("kind", b"code")]
    found = content_of(key, value, headers)
    assert (found.subject, found.kind, found.nonce, found.body) == ("jo", "code", bytes(32), b"body")
    assert content_of(key, None, []).body is None
    assert content_of(key, b"", [*headers, ("refused", b"too large")]).refused == "too large"
    with pytest.raises(MalformedRecord):
        content_of(key, value + b"x", headers)
