"""Kafka as a source, ``kafka://host:port[,host:port…]/[prefix]``: topics in, stored records and bodies out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Event
from typing import Any

from exec_events_schemas.errors import MalformedRecord
from exec_events_schemas.kafka_settings import read_settings
from exec_events_schemas.record import hash_bytes, seal_of
from exec_events_schemas.sources import Damage, OnDamage, Start, StoredRecord, never, refuse_damage
from exec_events_schemas.sources.stored import POLL_SECONDS
from exec_events_schemas.topics import HEADER_HASH, SCHEME, StoredContent, content_of, kafka_address

from .topic_reader import TopicReader, consumer_settings

# What a record names may come behind it: a server's partitions are acknowledged each at its own time.
SETTLE_SECONDS = 5.0


class KafkaSource:
    """
    The records in the topic ``<prefix>.events``, and the bodies in ``<prefix>.contents``.

    ``start`` is where to begin, None at the beginning; a time is the event's own, which is the message's, and no
    event of that time or later is left out. ``partitions`` are the ones to read, none means all. ``settings`` are
    for `read_settings`. Within a partition, which is a record's ``file``, records come in order; ``position`` is
    the offset. Nothing is asked of the broker before reading. Raises SourceError.
    """

    is_ordered = False

    def __init__(
        self,
        url: str,
        *,
        start: Start | None = None,
        partitions: Sequence[int] = (),
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._address = kafka_address(url)
        self._settings = consumer_settings(read_settings(settings or {}))
        self._start = start
        self._partitions = partitions
        self.name = f"{SCHEME}://{','.join(self._address.servers)}/{self._address.prefix}"
        self.total: int | None = None

    def __iter__(self) -> Iterator[StoredRecord]:
        """Every record; raises SourceError at the first damage."""
        return self.read()

    def read(self, on_damage: OnDamage = refuse_damage, more: Callable[[], bool] = never) -> Iterator[StoredRecord]:
        """Every record that was there when reading began, and some that came since; as `Source.read`."""
        with self._events() as reader:
            self.total = 0
            # The second round reads what came since: what was read in one partition may name it.
            for _ in range(2):
                self.total += reader.look()
                yield from _stored(reader.messages(), on_damage)
            settles_at = time.monotonic() + SETTLE_SECONDS
            while time.monotonic() < settles_at and more():
                yield from _stored(reader.poll(POLL_SECONDS), on_damage)

    def follow(self, stop: Event, poll_seconds: float = POLL_SECONDS) -> Iterator[StoredRecord | None]:
        """As `Source.follow`; while the broker is away nothing comes, and what then came is given when it is back."""
        with self._events() as reader:
            self.total = reader.look()
            for stored in _stored(reader.messages(), refuse_damage):
                if stop.is_set():
                    return
                yield stored
            yield None
            while not stop.is_set():
                messages = reader.poll(poll_seconds)
                yield from _stored(messages, refuse_damage)
                if not messages:
                    yield None
                    reader.grow()

    def contents(self, on_damage: OnDamage = refuse_damage) -> Iterator[StoredContent | None]:
        """As `Source.contents`; an erased body, as its last message says, has None for a body."""
        with TopicReader(self._address, self._address.topics.contents, self._settings) as reader:
            reader.seek(None)
            while True:
                reader.look()
                for message in reader.messages():
                    try:
                        headers = [(name, value) for name, value in message.headers if value is not None]
                        yield content_of(message.key or b"", message.value, headers)
                    except MalformedRecord as error:
                        on_damage(_damage(message, str(error)))
                yield None

    def running(self) -> set[str]:
        """Nobody is known to: a topic does not say who writes to it."""
        return set()

    def _events(self) -> TopicReader:
        reader = TopicReader(self._address, self._address.topics.events, self._settings, self._partitions)
        reader.seek(self._start)
        return reader


def _stored(messages: Any, on_damage: OnDamage) -> Iterator[StoredRecord]:
    """The records in messages of the events topic; what can be none is damage."""
    for message in messages:
        try:
            if message.value is None:
                raise MalformedRecord("a message without a value")
            seal_of(message.value)
            stated = dict(message.headers).get(HEADER_HASH)
            raw_hash = None if stated is None else hash_bytes(stated.decode("utf-8", "replace"))
        except MalformedRecord as error:
            on_damage(_damage(message, f"the message is no record: {error}"))
        else:
            yield StoredRecord(message.value, raw_hash, f"{message.topic}/{message.partition}", message.offset)


def _damage(message: Any, what: str) -> Damage:
    return Damage(f"{message.topic}/{message.partition}", message.offset, what)
