"""
The topics: an address names them, a record becomes a Kafka message on them, a body one beside it (pure).

Headers follow CloudEvents' Kafka protocol binding 1.0.2, binary mode, so that tools which know none of this
can route messages without parsing them.
"""

from __future__ import annotations

import re
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple

from .catalogue import SCHEMA_ID
from .errors import MalformedRecord, SourceError
from .record import HASH_PREFIX, event_of, hash_text, place_of, time_of

SCHEME = "kafka"
DEFAULT_PREFIX = "exec-events"
DEFAULT_PORT = 9092

# CloudEvents 1.0.2, Kafka protocol binding, section 3.2.
HEADER_SPECVERSION = "ce_specversion"
HEADER_ID = "ce_id"
HEADER_TYPE = "ce_type"
HEADER_SOURCE = "ce_source"
HEADER_TIME = "ce_time"
HEADER_DATASCHEMA = "ce_dataschema"
HEADER_CONTENT_TYPE = "content-type"
# Ours: what a consumer needs to tell a duplicate, a gap or a changed record without parsing.
HEADER_SCHEMA_ID = "schema_id"
HEADER_CHAIN = "chain"
HEADER_SEQ = "seq"
HEADER_HASH = "hash"
# On the topic of bodies.
HEADER_SUBJECT = "subject"
HEADER_KIND = "kind"
HEADER_REFUSED = "refused"
# On the topic of dead letters.
HEADER_REASON = "reason"
HEADER_CONSUMER = "consumer"
HEADER_SOURCE_TOPIC = "source_topic"
HEADER_SOURCE_PARTITION = "source_partition"
HEADER_SOURCE_OFFSET = "source_offset"
HEADER_FOUND_AT = "found_at"

# Kafka's own rule for a topic's name (org.apache.kafka.common.internals.Topic), less the longest suffix.
_PREFIX = re.compile(r"[A-Za-z0-9._-]{1,230}")
_SERVER = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_NONCE_BYTES = 32
_OURS = b"org.exec-events."


class Topics(NamedTuple):
    """The topics of one prefix."""

    events: str
    contents: str
    checkpoints: str
    dead_letters: str


def topics_of(prefix: str) -> Topics:
    """The topics of a prefix; raises SourceError for one that Kafka would not take."""
    if not _PREFIX.fullmatch(prefix) or prefix in (".", ".."):
        raise SourceError(
            f"{prefix!r} is no prefix of Kafka topics: up to 230 letters, digits, dots, dashes, underscores"
        )
    return Topics(f"{prefix}.events", f"{prefix}.contents", f"{prefix}.checkpoints", f"{prefix}.dead-letters")


class KafkaAddress(NamedTuple):
    """Where a record is in Kafka: bootstrap servers as host:port, and the prefix of the topics."""

    servers: list[str]
    prefix: str

    @property
    def topics(self) -> Topics:
        """The topics at this address."""
        return topics_of(self.prefix)


def kafka_address(url: str) -> KafkaAddress:
    """``kafka://host:port[,host:port]/[prefix]``; raises SourceError, which does not repeat what may be a password."""
    scheme, separator, rest = url.partition("://")
    servers_text, _, prefix = rest.partition("/")
    servers = servers_text.split(",")
    has_more = any(mark in prefix for mark in "?#@:")
    if scheme.lower() != SCHEME or not separator or has_more or not all(map(_SERVER.fullmatch, servers)):
        raise SourceError(
            "a Kafka address is kafka://host:port[,host:port]/[prefix], and nothing else: "
            "users, passwords and other settings belong in c.ExecEvents.sink_settings, or in a --kafka-settings file"
        )
    prefix = prefix.rstrip("/") or DEFAULT_PREFIX
    topics_of(prefix)
    return KafkaAddress([_with_port(server) for server in servers], prefix)


def _with_port(server: str) -> str:
    has_port = server.rpartition("]")[2].startswith(":") if server.startswith("[") else ":" in server
    return server if has_port else f"{server}:{DEFAULT_PORT}"


class Message(NamedTuple):
    """
    What goes beside the value of a Kafka message.

    The timestamp is the event's own time in milliseconds since the epoch, None where it has none.
    """

    key: bytes
    headers: list[tuple[str, bytes]]
    timestamp_ms: int | None


def message_of(record: bytes, raw_hash: bytes) -> Message:
    """
    The message that carries a record, whose value is the record's own bytes.

    Its key is the subject for a subject's chain, and the chain itself for a recorder's own: a chain has one
    partition, and so have all chains of one subject. Raises MalformedRecord for what is no record.
    """
    event = event_of(record)
    chain, seq = place_of(record)
    schema_id = str(event.get("__schema__", ""))
    kind, schema = _of_schema(schema_id)
    time = time_of(event)
    recorder, _, of_subject = chain.partition(b"/")
    subject = event.get("subject")
    # A subject of another kind, of somebody else's event, has no chain of its own.
    key = subject.encode() if of_subject and subject and isinstance(subject, str) else chain
    headers = [
        (HEADER_SPECVERSION, b"1.0"),
        (HEADER_ID, b"%b:%b" % (chain, seq)),
        (HEADER_TYPE, kind),
        (HEADER_SOURCE, b"/recorders/" + recorder),
        (HEADER_TIME, time.encode()),
        (HEADER_DATASCHEMA, schema),
        (HEADER_CONTENT_TYPE, b"application/json"),
        (HEADER_SCHEMA_ID, schema),
        (HEADER_CHAIN, chain),
        (HEADER_SEQ, seq),
        (HEADER_HASH, hash_text(raw_hash).encode()),
    ]
    return Message(key, headers, _milliseconds(time))


@lru_cache(maxsize=256)
def _of_schema(schema_id: str) -> tuple[bytes, bytes]:
    """CloudEvents' type (reverse DNS for our own schemas, anybody else's id as it is), and the id."""
    match = SCHEMA_ID.fullmatch(schema_id)
    schema = schema_id.encode()
    return _OURS + match["event"].encode() if match else schema or b"unknown", schema


def _milliseconds(time: str) -> int | None:
    try:
        return int(datetime.fromisoformat(time).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None


class StoredContent(NamedTuple):
    """
    One body as it was found under its ``commitment`` (``sha256:<hex>``).

    ``body`` is None where it was erased, or where the broker would not take it: ``refused`` then says why.
    """

    commitment: str
    subject: str
    kind: str
    nonce: bytes
    body: bytes | None
    refused: str | None = None


def content_value(nonce: bytes, body: bytes) -> bytes:
    """A body's value on the topic: its 32 random bytes, then itself, so that SHA-256 of it is its key."""
    return nonce + body


def content_of(key: bytes, value: bytes | None, headers: list[tuple[str, bytes]] | tuple[Any, ...]) -> StoredContent:
    """The body in a message of the contents topic; raises MalformedRecord where it is not what its key commits to."""
    named = {name: raw.decode("utf-8", "replace") for name, raw in headers if raw is not None}
    commitment = key.decode("utf-8", "replace")
    subject, kind = named.get(HEADER_SUBJECT, ""), named.get(HEADER_KIND, "")
    if value is None or HEADER_REFUSED in named:
        return StoredContent(commitment, subject, kind, b"", None, named.get(HEADER_REFUSED))
    if HASH_PREFIX + sha256(value).hexdigest() != commitment:
        raise MalformedRecord(f"the body stored under {commitment} is not the one that was committed to")
    return StoredContent(commitment, subject, kind, value[:_NONCE_BYTES], value[_NONCE_BYTES:])
