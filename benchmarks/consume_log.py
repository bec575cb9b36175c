"""A class's executions as a recorder seals them, and a topic of Kafka that holds them."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import NewTopic

from exec_events.clock import rfc3339
from exec_events.sinks.kafka import FIXED, PRODUCER
from exec_events_schemas.record import Head, seal
from exec_events_schemas.topics import message_of, topics_of
from tools.kafka_broker import Broker

from .sample import RECORDER_ID, SCHEMA_ID, cell_execution

PARTITIONS = 12
SUBJECTS = 200
CELLS = 40
START_US = 1_760_000_000_000_000
BETWEEN_US = 50_000
SEND_SECONDS = 300


def chain_of(subject: str) -> str:
    """The chain of a subject at the one recorder."""
    return f"{RECORDER_ID}/{subject.rpartition(':')[2][-16:]}"


def subject_of(number: int) -> str:
    """A subject's pseudonym."""
    return f"p:3f9a01bc:{number:032x}"


class ClassLog:
    """Events of ``SUBJECTS`` people who go back and forth in a notebook, a quarter of them errors."""

    def __init__(self, seed: int = 1) -> None:
        self._rng = random.Random(seed)
        self._number = 0
        self._last_code: dict[tuple[str, int], int] = {}
        self.heads: dict[str, Head] = {}

    def records(self, count: int, rename: Any = str) -> Iterator[tuple[bytes, bytes]]:
        """The next so many, each with its hash; ``rename`` is what becomes of a subject's name."""
        for _ in range(count):
            event = self._event(rename)
            chain = chain_of(event["subject"])
            record, head = seal(event, chain, self.heads.get(chain))
            self.heads[chain] = head
            yield record, head.hash

    def _event(self, rename: Any) -> dict[str, Any]:
        rng, number = self._rng, self._number
        self._number += 1
        person = rng.randrange(SUBJECTS)
        cell = rng.randrange(CELLS)
        before = self._last_code.get((str(person), cell))
        # Every other run is of code that was changed.
        code = number if before is None or rng.random() < 0.5 else before
        self._last_code[str(person), cell] = code
        at = START_US + number * BETWEEN_US
        status = rng.choice(["ok", "ok", "ok", "error"])
        times = {"time": at + 41_900, "requested_at": at, "started_at": at + 900, "finished_at": at + 41_900}
        return {
            "__schema__": SCHEMA_ID,
            "__schema_version__": "1",
            **cell_execution(number),
            **{name: rfc3339(us) for name, us in times.items()},
            "subject": rename(subject_of(person)),
            "notebook": f"p:3f9a01bc:{person % 20 + 2**100:032x}",
            "cell_id": f"cell-{cell:02d}",
            "status": status,
            **({"error_name": "NameError"} if status == "error" else {}),
            "code_hash": f"sha256:{code:064x}",
            "same_code_as_last_run": before == code,
        }


def filled_topic(broker: Broker, count: int) -> str:
    """The prefix of a new topic of ``PARTITIONS`` partitions with so many events."""
    prefix = f"bench-{uuid.uuid4().hex[:12]}"
    topic = topics_of(prefix).events
    with closing(KafkaAdminClient(**broker.settings)) as admin:
        # Its events are of a day long past: retention would have them at once.
        forever = {"retention.ms": "-1"}
        admin.create_topics([NewTopic(topic, num_partitions=PARTITIONS, replication_factor=1, topic_configs=forever)])
    with closing(KafkaProducer(**{**broker.settings, **PRODUCER, **FIXED})) as producer:
        for record, raw_hash in ClassLog().records(count):
            message = message_of(record, raw_hash)
            producer.send(topic, record, message.key, message.headers, timestamp_ms=message.timestamp_ms)
        producer.flush(SEND_SECONDS)
    return prefix
