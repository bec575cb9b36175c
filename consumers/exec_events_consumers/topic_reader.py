"""
One topic in, its messages out: from where one likes to where its partitions end now, or on and on.

Partitions are assigned by hand, in no group, and nothing is committed: reading leaves no trace at the broker. Each
wait has a limit, behind which it is a SourceError that says what to look at.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from queue import SimpleQueue
from typing import Any, TypeVar

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import (
    AuthorizationError,
    KafkaError,
    SaslAuthenticationFailedError,
    UnknownTopicOrPartitionError,
    UnsupportedSaslMechanismError,
)
from kafka.net.sasl.oauth import AbstractTokenProvider

from exec_events_schemas.errors import SourceError
from exec_events_schemas.kafka_settings import SECRETS, TokenFile
from exec_events_schemas.sources import Last, Start
from exec_events_schemas.topics import KafkaAddress

from .bounded import Heard, call_within

AbstractTokenProvider.register(TokenFile)

T = TypeVar("T")

CONNECT_SECONDS = 8.0
# Nothing comes for so long, though there is more to come: the broker is gone, or a partition has no leader.
STALL_SECONDS = 15.0
CLOSE_SECONDS = 2.0
POLL_SECONDS = 0.5

DEFAULTS: dict[str, Any] = {
    # Given, so that the client is made at once; what the broker has less of, it says itself.
    "api_version": (4, 0),
    "client_id": "exec-events",
    "max_poll_records": 5000,
    "metadata_max_age_ms": 60_000,
    "metrics_enabled": False,
    "reconnect_backoff_max_ms": 1000,
}
# These make what this module promises, and are not a person's to change.
FIXED: dict[str, Any] = {
    "auto_offset_reset": "earliest",
    "enable_auto_commit": False,
    "group_id": None,
    "key_deserializer": None,
    "value_deserializer": None,
}
# One file of settings may serve the server and its readers: these are its sink's.
SINK_SETTINGS = {"create_topics", "partitions", "replication_factor", "retention_days", "max_message_bytes"}


def consumer_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings for a KafkaConsumer, without those that are for producers alone; raises SourceError for unknown ones."""
    ours = KafkaConsumer.DEFAULT_CONFIG.keys()
    theirs = KafkaProducer.DEFAULT_CONFIG.keys() | KafkaAdminClient.DEFAULT_CONFIG.keys() | SINK_SETTINGS
    if unknown := sorted(settings.keys() - ours - theirs):
        raise SourceError(f"kafka-python has no setting {', '.join(unknown)}; see --kafka-settings")
    chosen = {**DEFAULTS, **{name: value for name, value in settings.items() if name in ours}, **FIXED}
    return {**chosen, "api_version": tuple(chosen["api_version"])}


class TopicReader:
    """
    A reader of one topic: `seek`, then `look` at where it ends, and read `messages` up to there, or `poll`.

    ``partitions`` chooses some (none: all, also those that are added later). Used as a context manager, by one
    thread. Everything raises SourceError.
    """

    def __init__(
        self, address: KafkaAddress, topic: str, settings: dict[str, Any], partitions: Sequence[int] = ()
    ) -> None:
        self._servers = ",".join(address.servers)
        self._topic = topic
        self._chosen = sorted(set(partitions))
        self._secrets = [str(settings[name]) for name in SECRETS if settings.get(name)]
        self._heard = Heard(SaslAuthenticationFailedError, UnsupportedSaslMechanismError, SourceError)
        self._at: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}
        with self._heard:
            self._consumer = self._ask(lambda: KafkaConsumer(bootstrap_servers=address.servers, **settings))
            try:
                self._assign(self._choose(self._partitions()))
            except BaseException:
                self._close()
                raise
        self._heard.last = None

    def __enter__(self) -> TopicReader:
        self._heard.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._close()
        self._heard.__exit__(*exc)

    def seek(self, start: Start | None) -> None:
        """Go to the first message of a time, to the end, so far before the end, or to the beginning (None)."""
        self._at = self._ask(lambda: self._offsets(start))
        for partition, at in self._at.items():
            self._consumer.seek(partition, at)

    def look(self) -> int:
        """Take note of where the partitions end now; returns how many messages there are up to there."""
        self._ends = self._ask(lambda: self._consumer.end_offsets(self._assigned, timeout_ms=_ms(CONNECT_SECONDS)))
        return sum(max(0, end - self._at[partition]) for partition, end in self._ends.items())

    def messages(self) -> Iterator[Any]:
        """Every message up to where the partitions ended, and some that came since, as kafka-python's records."""
        stalls_at = time.monotonic() + STALL_SECONDS
        while waiting := self._short_of_their_ends():
            before = dict(self._at)
            yield from self.poll(POLL_SECONDS)
            if self._at != before:
                stalls_at = time.monotonic() + STALL_SECONDS
            elif time.monotonic() > stalls_at:
                raise self._error(TimeoutError())
            self._consumer.pause(*(waiting - self._short_of_their_ends()))
        self._consumer.resume(*self._assigned)

    def poll(self, seconds: float) -> list[Any]:
        """The next messages, of one partition after the other; an empty list after ``seconds`` without any."""
        return self._ask(lambda: self._poll(seconds), seconds + STALL_SECONDS)

    def _poll(self, seconds: float) -> list[Any]:
        polled = self._consumer.poll(timeout_ms=_ms(seconds))
        for partition in self._assigned:
            # Also over what is no message (of transactions, or compacted away), up to where there is one again.
            at = self._consumer.position(partition, timeout_ms=_ms(CONNECT_SECONDS))
            if at is not None:
                self._at[partition] = at
        return [message for messages in polled.values() for message in messages]

    def _short_of_their_ends(self) -> set[TopicPartition]:
        return {partition for partition, end in self._ends.items() if self._at[partition] < end}

    def grow(self) -> None:
        """Take on the partitions that the topic was given since, from their beginning, unless some were chosen."""
        if self._chosen:
            return
        added = self._partitions() - {partition.partition for partition in self._assigned}
        if added:
            self._assign([*(partition.partition for partition in self._assigned), *sorted(added)])
            self._at |= {TopicPartition(self._topic, number): 0 for number in added}

    def _partitions(self) -> set[int]:
        found: set[int] = self._ask(lambda: self._consumer.partitions_for_topic(self._topic))
        return found

    def _choose(self, found: set[int]) -> list[int]:
        # Asked before it is assigned: a broker may make a topic that a client names.
        if not found:
            raise SourceError(
                f"there is no topic {self._topic} at {self._servers}, or this user may not see it. "
                "Check the prefix, kafka://HOST:PORT/PREFIX; topics are made at the first delivery"
            )
        if missing := [number for number in self._chosen if number not in found]:
            has = f"the topic {self._topic} has partitions 0 to {max(found)}"
            raise SourceError(f"{has}, not {', '.join(map(str, missing))}")
        return self._chosen or sorted(found)

    def _assign(self, partitions: list[int]) -> None:
        self._assigned = [TopicPartition(self._topic, number) for number in partitions]
        self._ask(lambda: self._consumer.assign(self._assigned))

    def _offsets(self, start: Start | None) -> dict[TopicPartition, int]:
        """The offset of each partition from which to read."""
        consumer, partitions, limit = self._consumer, self._assigned, _ms(CONNECT_SECONDS)
        if start is None:
            begins: dict[TopicPartition, int] = consumer.beginning_offsets(partitions, timeout_ms=limit)
            return begins
        ends: dict[TopicPartition, int] = consumer.end_offsets(partitions, timeout_ms=limit)
        if isinstance(start, Last):
            begins = consumer.beginning_offsets(partitions, timeout_ms=limit)
            return {partition: max(begins[partition], end - start.records) for partition, end in ends.items()}
        if isinstance(start, datetime):
            times = dict.fromkeys(partitions, max(0, int(start.timestamp() * 1000)))
            found = consumer.offsets_for_times(times, timeout_ms=limit)
            return {partition: ends[partition] if at is None else at.offset for partition, at in found.items()}
        return ends

    def _close(self) -> None:
        # What does not end in time is left to itself: its threads are daemons.
        with suppress(TimeoutError, KafkaError, RuntimeError):
            call_within(CLOSE_SECONDS, lambda: self._consumer.close(timeout_ms=_ms(CLOSE_SECONDS)))

    def _ask(self, call: Callable[[], T], seconds: float = CONNECT_SECONDS) -> T:
        """What a call of kafka-python's gives, within a limit."""
        self._heard.answers = SimpleQueue()
        try:
            return call_within(seconds, call, self._heard.answers)
        except Exception as error:
            raise self._error(error) from error
        finally:
            self._heard.answers = None

    def _error(self, error: Exception) -> SourceError:
        """The same for a person, without secrets."""
        at = f"Kafka at {self._servers}"
        if isinstance(error, SourceError):
            return error
        if isinstance(error, (SaslAuthenticationFailedError, UnsupportedSaslMechanismError)):
            advice = "check sasl_mechanism, the user and the password's file in --kafka-settings"
            return SourceError(self._safe(f"{at} refuses this user: {error}; {advice}"))
        if isinstance(error, AuthorizationError):
            return SourceError(f"{at} does not let this user read the topic {self._topic}")
        if isinstance(error, UnknownTopicOrPartitionError):
            return SourceError(f"the topic {self._topic} at {self._servers} was deleted while it was read")
        if isinstance(error, TimeoutError) or (isinstance(error, KafkaError) and error.retriable):
            last = self._heard.last or error
            because = "" if isinstance(last, TimeoutError) else f" ({_named(last)})"
            advice = "check the address, that the broker runs, and security_protocol in --kafka-settings"
            return SourceError(self._safe(f"{at} does not answer{because}; {advice}"))
        return SourceError(self._safe(f"{at}: {_named(error)}"))

    def _safe(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _named(error: BaseException) -> str:
    name, text = type(error).__name__, str(error)
    return text if name in text else f"{name}: {text}"


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
