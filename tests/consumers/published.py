"""Records on a topic, as a sink would publish them, or as a test wants them to be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from kafka import KafkaProducer

from exec_events_schemas.sources import StoredRecord
from exec_events_schemas.topics import message_of, topics_of
from spool_files import two_recorders

COMPACTED = "contents"


def make_topics(kafka: Any, prefix: str, partitions: int = 3) -> None:
    """The topics of a prefix."""
    admin = kafka.admin()
    try:
        admin.create_topics(
            {
                name: {
                    "num_partitions": partitions,
                    "replication_factor": 1,
                    "configs": {"cleanup.policy": "compact"} if name.endswith(COMPACTED) else {},
                }
                for name in topics_of(prefix)
            }
        )
        admin.wait_for_topics(list(topics_of(prefix)))
    finally:
        admin.close()


def publish(kafka: Any, prefix: str, rows: Iterable[StoredRecord]) -> None:
    """Publish records, in this order, each acknowledged before the next of its key."""
    send(kafka, topics_of(prefix).events, [_arguments(row) for row in rows])


def send(kafka: Any, topic: str, messages: Sequence[dict[str, Any]]) -> None:
    """Send messages, given as arguments of `KafkaProducer.send`, and wait until all are acknowledged."""
    producer = KafkaProducer(**kafka.settings)
    try:
        for future in [producer.send(topic, **message) for message in messages]:
            future.get(30)
    finally:
        producer.close(10)


def recorded(executions: int = 6, subjects: int = 2) -> list[StoredRecord]:
    """What two recorders, one after the other, sealed."""
    return [row for recording in two_recorders(executions, subjects) for row in recording.rows]


def _arguments(row: StoredRecord) -> dict[str, Any]:
    message = message_of(row.record, row.hash or b"")
    return {
        "value": row.record,
        "key": message.key,
        "headers": message.headers,
        "timestamp_ms": message.timestamp_ms,
    }
