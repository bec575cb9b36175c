"""
A topic as a feed: one member of a consumer group, whose partitions come and go while others join and leave.

The group says who reads what; where to go on is the store's business. What Kafka keeps of positions is written
after the store has them, for tools that show a consumer's lag, and never read.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

from exec_events_schemas.errors import MalformedRecord, SourceError
from exec_events_schemas.kafka_settings import read_settings
from exec_events_schemas.record import hash_bytes
from exec_events_schemas.topics import HEADER_HASH, kafka_address

from .bounded import call_within
from .errors import Stalled
from .feed import Batch, Fetched
from .topic_reader import TopicReader, consumer_settings

BATCH_RECORDS = 5000
# kafka-python 3.0 has calls that may wait for ever; one that takes so long ends the process, which may start again.
STALLED_SECONDS = 60.0
CLOSE_SECONDS = 5.0
# Who lost a partition in the store and has it by the group's word claims it again after so long: whoever took it had
# been slow to hear that it was not theirs any more, and has heard by then.
RECLAIM_SECONDS = 5.0
# Cooperative assignment is left alone until it is shown to be right on Apache Kafka.
GROUP = {
    "enable_auto_commit": False,
    "auto_offset_reset": "earliest",
    "max_poll_records": BATCH_RECORDS,
    "max_partition_fetch_bytes": 256 * 1024,
    "fetch_max_wait_ms": 100,
    "session_timeout_ms": 15_000,
    "heartbeat_interval_ms": 2_000,
    "partition_assignment_strategy": (RangePartitionAssignor,),
}


class _Assignment(ConsumerRebalanceListener):  # type: ignore[misc]
    """Notes what the group gives and takes; called on the client's own thread, where nothing may wait."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.mine: set[TopicPartition] = set()
        self.gained: set[TopicPartition] = set()
        self.is_joined = False

    def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        """The group has given these."""
        with self.lock:
            self.mine |= set(assigned)
            self.gained |= set(assigned)
            self.is_joined = True

    def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        """The group has taken these."""
        with self.lock:
            self.mine -= set(revoked)
            self.gained -= set(revoked)

    on_partitions_lost = on_partitions_revoked


class KafkaFeed:
    """
    The events of ``kafka://host:port/prefix`` as one member of the consumer group ``group``.

    ``settings`` are for `read_settings`; a batch has at most ``batch_records``. Raises SourceError where the topic
    cannot be had, and Stalled where the client does not come back.
    """

    def __init__(
        self, url: str, group: str, settings: Mapping[str, Any] | None = None, *, batch_records: int | None = None
    ) -> None:
        address = kafka_address(url)
        chosen = consumer_settings(read_settings(settings or {}))
        topic = address.topics.events
        with TopicReader(address, topic, chosen):
            pass  # it says what is wrong with a topic better than a group's member could
        self.name = f"kafka://{','.join(address.servers)}/{address.prefix}"
        self._topic = topic
        self._assignment = _Assignment()
        self._positions: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._dropped: dict[TopicPartition, float] = {}
        batches = {"max_poll_records": batch_records} if batch_records else {}
        settings = {**chosen, **GROUP, **batches, "group_id": f"{address.prefix}.{group}"}
        self._consumer = self._within(lambda: KafkaConsumer(bootstrap_servers=address.servers, **settings))
        self._within(lambda: self._consumer.subscribe([topic], listener=self._assignment))

    def gained(self) -> Sequence[str]:
        """Partitions the group has given since the last call."""
        with self._assignment.lock:
            gained, self._assignment.gained = self._assignment.gained, set()
            mine = set(self._assignment.mine)
        long_ago = time.monotonic() - RECLAIM_SECONDS
        gained |= {at for at, since in self._dropped.items() if at in mine and since <= long_ago}
        self._dropped = {at: since for at, since in self._dropped.items() if at in mine - gained}
        self._positions = {at: position for at, position in self._positions.items() if at in mine - gained}
        return [_name(at) for at in sorted(gained)]

    def mine(self) -> set[str]:
        """The partitions that are its own now, by the group's word."""
        with self._assignment.lock:
            return {_name(at) for at in self._assignment.mine}

    def seek(self, positions: Mapping[str, int]) -> None:
        """Go on at these offsets."""
        wanted = {_partition(self._topic, name): position for name, position in positions.items()}
        ends = self._within(lambda: self._consumer.end_offsets(list(wanted)))
        begins = self._within(lambda: self._consumer.beginning_offsets(list(wanted)))
        for at, wish in wanted.items():
            # What retention has removed is not waited for.
            position = max(wish, begins[at])
            try:
                self._consumer.seek(at, position)
            except (AssertionError, ValueError, KafkaError):
                continue  # the group has taken it back meanwhile
            self._positions[at] = position
            self._ends[at] = ends[at]

    def drop(self, partition: str) -> None:
        """Another process owns it: leave it alone until the group gives it again, or has let it be ours for long."""
        at = _partition(self._topic, partition)
        self._positions.pop(at, None)
        self._dropped[at] = time.monotonic()

    def poll(self, seconds: float) -> Batch:
        """The next messages; none of a partition that came while they were fetched: where it goes on is not known."""
        polled = self._within(lambda: self._consumer.poll(timeout_ms=int(seconds * 1000)))
        with self._assignment.lock:
            ready = self._positions.keys() & self._assignment.mine - self._assignment.gained
        records: list[Fetched] = []
        nexts: dict[str, int] = {}
        for at, messages in polled.items():
            if at not in ready:
                continue
            name = _name(at)
            records += [_fetched(name, message) for message in messages]
            nexts[name] = self._positions[at] = messages[-1].offset + 1
        waiting = sum(max(0, (self._consumer.highwater(at) or 0) - self._positions[at]) for at in ready)
        return Batch(records, nexts, waiting)

    def caught_up(self) -> bool:
        """Whether each partition it has now was read to where it ended when it came."""
        with self._assignment.lock:
            ready = self._assignment.is_joined and not self._assignment.gained
            mine = set(self._assignment.mine)
        return ready and all(self._positions.get(at, -1) >= self._ends.get(at, 0) for at in mine)

    def committed(self, positions: Mapping[str, int]) -> None:
        """Tell Kafka, for whoever looks at lags; whether it hears is of no matter."""
        offsets = {_partition(self._topic, name): OffsetAndMetadata(at, "", -1) for name, at in positions.items()}
        with suppress(KafkaError, AssertionError):
            self._consumer.commit_async(offsets)

    def close(self) -> None:
        """Leave the group."""
        with suppress(TimeoutError, KafkaError, RuntimeError):
            call_within(CLOSE_SECONDS, lambda: self._consumer.close(timeout_ms=int(CLOSE_SECONDS * 1000)))

    def _within(self, call: Any) -> Any:
        try:
            return call_within(STALLED_SECONDS, call)
        except TimeoutError as error:
            raise Stalled(
                f"the Kafka client has not come back for {STALLED_SECONDS:.0f} s; start this again: it goes on "
                "where the store stands"
            ) from error
        except KafkaError as error:
            raise SourceError(f"{self.name} cannot be read: {type(error).__name__}: {error}") from error


def _fetched(partition: str, message: Any) -> Fetched:
    stated = next((value for name, value in message.headers if name == HEADER_HASH), None)
    try:
        raw_hash = None if stated is None else hash_bytes(stated.decode("utf-8", "replace"))
    except MalformedRecord:
        raw_hash = b""  # equal to no hash: what it stands beside goes to the dead letters
    return Fetched(partition, message.offset, message.value, raw_hash)


def _name(at: TopicPartition) -> str:
    return f"{at.topic}/{at.partition}"


def _partition(topic: str, name: str) -> TopicPartition:
    return TopicPartition(topic, int(name.rpartition("/")[2]))
