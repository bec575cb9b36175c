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
from exec_events_schemas.kafka_settings import SECRETS, TOPIC_SETTINGS, TokenFile
from exec_events_schemas.sources import Last, Start
from exec_events_schemas.topics import KafkaAddress

from .attempts import Attempts, is_final
from .bounded import call_within

AbstractTokenProvider.register(TokenFile)

T = TypeVar("T")

CONNECT_SECONDS = 8.0
# Nothing comes for so long, though there is more to come: the broker is gone, or a partition has no leader.
STALL_SECONDS = 15.0
CLOSE_SECONDS = 2.0
RETRY_SECONDS = 0.3
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
_CHECK = "check the address, that it runs, and that security_protocol in --kafka-settings is what it speaks"
_WORDS: dict[type[KafkaError], str] = {
    SaslAuthenticationFailedError: "refuses this user ({}); check the user and the password's file in --kafka-settings",
    UnsupportedSaslMechanismError: "refuses this user ({}); check sasl_mechanism in --kafka-settings",
    AuthorizationError: "does not let this user read ({})",
    UnknownTopicOrPartitionError: "does not have it any more ({})",
}


def consumer_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings for a KafkaConsumer, without those that are for producers alone; raises SourceError for unknown ones."""
    ours = KafkaConsumer.DEFAULT_CONFIG.keys()
    theirs = KafkaProducer.DEFAULT_CONFIG.keys() | KafkaAdminClient.DEFAULT_CONFIG.keys() | set(TOPIC_SETTINGS)
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
        self._attempts = Attempts()
        self._at: dict[TopicPartition, int] = {}
        self._ends: dict[TopicPartition, int] = {}
        to = {"bootstrap_servers": address.servers, "kafka_client": self._attempts.client}
        self._consumer = self._ask(lambda: KafkaConsumer(**settings | to))
        try:
            self._assign(self._choose(self._partitions()))
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> TopicReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self._close()

    def seek(self, start: Start | None) -> None:
        """Go to the first message of a time, to the end, so far before the end, or to the beginning (None)."""
        self._at = self._ask(lambda: self._offsets(start))
        for partition, at in self._at.items():
            self._consumer.seek(partition, at)

    def look(self) -> int:
        """Take note of where the partitions end now; returns how many messages there are up to there."""
        self._ends = self._ask(lambda: self._consumer.end_offsets(self._assigned, timeout_ms=_ms(CONNECT_SECONDS)))
        return sum(max(0, end - self._at[partition]) for partition, end in self._ends.items())

    def bounds(self) -> dict[str, tuple[int, int]]:
        """Where each partition begins and ends now, by its name in a store."""
        limit = _ms(CONNECT_SECONDS)
        begins = self._ask(lambda: self._consumer.beginning_offsets(self._assigned, timeout_ms=limit))
        ends = self._ask(lambda: self._consumer.end_offsets(self._assigned, timeout_ms=limit))
        return {f"{at.topic}/{at.partition}": (begins[at], ends[at]) for at in self._assigned}

    def messages(self) -> Iterator[Any]:
        """Every message up to where the partitions ended, and some that came since, as kafka-python's records."""
        stalls_at = time.monotonic() + STALL_SECONDS
        # Those at their ends are read on meanwhile: one that was paused may get stuck in kafka-python 3.0.
        while any(self._at[partition] < end for partition, end in self._ends.items()):
            before = dict(self._at)
            yield from self.poll(POLL_SECONDS)
            if self._at != before:
                stalls_at = time.monotonic() + STALL_SECONDS
            elif time.monotonic() > stalls_at:
                raise self._error(TimeoutError())

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
        self._attempts.answers = SimpleQueue()
        ends_at = time.monotonic() + seconds
        try:
            while True:
                try:
                    return call_within(ends_at - time.monotonic(), call, self._attempts.answers)
                except KafkaError as error:
                    if not error.retriable or time.monotonic() + RETRY_SECONDS > ends_at:
                        raise
                    time.sleep(RETRY_SECONDS)
        except Exception as error:
            raise self._error(error) from error
        finally:
            self._attempts.answers = None

    def _error(self, error: Exception) -> SourceError:
        """The same for a person, without secrets."""
        if isinstance(error, SourceError):
            return error
        # What did not come in time is explained by how the attempts to connect failed.
        cause = self._attempts.last if _is_for_want_of_an_answer(error) else None
        text = f"Kafka at {self._servers} {_in_words(cause or error)} (topic {self._topic})"
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return SourceError(text)


def _is_for_want_of_an_answer(error: BaseException) -> bool:
    return isinstance(error, TimeoutError) or (isinstance(error, KafkaError) and error.retriable)


def _in_words(error: BaseException) -> str:
    """What is wrong, as the rest of a sentence about the brokers, and what to do."""
    named = _named(error)
    for kind, words in _WORDS.items():
        if isinstance(error, kind):
            return words.format(named)
    if isinstance(error, TimeoutError):
        return f"does not answer; {_CHECK}"
    if _is_for_want_of_an_answer(error):
        return f"does not answer ({named}); {_CHECK}"
    return f"cannot be read: {named}; check --kafka-settings and the files it names" if is_final(error) else named


def _named(error: BaseException) -> str:
    name, text = type(error).__name__, str(error)
    return text if name in text else f"{name}: {text}"


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
