"""
The Kafka sink, ``kafka://host:port[,host:port]/[prefix]``: a batch is delivered once the brokers have it all.

Records go to ``<prefix>.events``, keyed so that a chain stays in one partition and in order; the bodies that
a site keeps go to ``<prefix>.contents``. One idempotent producer (acks=all) is built and used on the
deliverer's thread; when it fails it is thrown away, and the whole batch goes again through a new one, so that
what a partition sees first of each record is always in order.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import fields
from logging import Logger
from typing import Any

from kafka import KafkaAdminClient, KafkaProducer
from kafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError
from kafka.net.sasl.oauth import AbstractTokenProvider

from exec_events.errors import ConfigurationError, SinkError
from exec_events_schemas.errors import ContractError, MalformedRecord
from exec_events_schemas.kafka_settings import SECRETS, TokenFile, read_settings
from exec_events_schemas.topics import (
    HEADER_KIND,
    HEADER_REASON,
    HEADER_REFUSED,
    HEADER_SUBJECT,
    StoredContent,
    content_value,
    kafka_address,
    message_of,
)

from . import Delivery
from .kafka_attempts import Attempts
from .kafka_topics import TopicSettings, ensure_topics

AbstractTokenProvider.register(TokenFile)

CONNECT_SECONDS = 10
# Nothing acknowledged for so long: the producer is thrown away, and the deliverer says so.
STALL_SECONDS = 30.0
_LOOK_SECONDS = 0.1
# A record so large is sent alone: were it refused, those behind it must not have overtaken it.
_LARGE_BYTES = 256 * 1024
_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)
# kafka-python's settings for our own use of it; a site may set them, too.
ADMIN = {
    "bootstrap_timeout_ms": CONNECT_SECONDS * 1000,
    "request_timeout_ms": CONNECT_SECONDS * 1000,
    "client_id": "exec-events",
}
PRODUCER = {
    "bootstrap_timeout_ms": CONNECT_SECONDS * 1000,
    "compression_type": "zstd",
    "linger_ms": 5,
    "batch_size": 256 * 1024,
    "max_request_size": 32 * 1024 * 1024,
    "max_block_ms": CONNECT_SECONDS * 1000,
    # What is not acknowledged is our own business: the client never gives a record up while a later one goes on.
    "delivery_timeout_ms": 24 * 3600 * 1000,
    "reconnect_backoff_max_ms": 1000,
    "metrics_enabled": False,
    "client_id": "exec-events",
}
# These make the sink's promises, and are not a site's to change.
FIXED = {"enable_idempotence": True, "acks": "all", "allow_auto_create_topics": False}


class KafkaSink:
    """
    Publishes records, and the bodies beside them, to Kafka.

    ``settings`` are kafka-python's for connections (see `read_settings`) and, for topics it has to make,
    ``create_topics``, ``partitions``, ``replication_factor``, ``retention_days`` and ``max_message_bytes``.
    Raises ConfigurationError for settings that cannot work.
    """

    takes_contents = True

    def __init__(self, url: str, log: Logger, **settings: Any) -> None:
        try:
            self._address = kafka_address(url)
        except ContractError as error:
            raise ConfigurationError(str(error)) from error
        self._given = settings
        self._read_settings()
        self._attempts = Attempts()
        self._log = log
        library = logging.getLogger("kafka")
        if library.level == logging.NOTSET:
            # It tells of every attempt to connect; the deliverer tells once. An admin who sets a level keeps it.
            library.setLevel(logging.CRITICAL)
        self._producer: _Producer | None = None
        self._interrupted = threading.Event()
        self.refused = 0

    def deliver(self, batch: Sequence[Delivery]) -> None:
        """Publish one batch; returns once every record, and every body, is acknowledged by all in-sync replicas."""
        try:
            # Bodies first: who sees an event finds its body, or a word on why there is none.
            bodies = [content for delivery in batch for content in delivery.contents]
            if bodies:
                self._send_bodies(bodies)
            self._send_records(self._open(), batch)
        except BaseException:
            self._discard()
            raise

    def interrupt(self) -> None:
        """Make a `deliver` that waits give up; called from another thread."""
        self._interrupted.set()

    def close(self, timeout: float) -> None:
        """Let go of the connections; everything that `deliver` returned for is acknowledged already."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close(timeout)

    def _read_settings(self) -> tuple[TopicSettings, dict[str, Any]]:
        """What is said of topics and of connections, files read anew: a password in one may have been put right."""
        try:
            connection = read_settings(self._given)
        except ContractError as error:
            raise ConfigurationError(str(error)) from error
        topics = _topic_settings(connection)
        if unknown := sorted(
            connection.keys() - KafkaProducer.DEFAULT_CONFIG.keys() | connection.keys() & FIXED.keys()
        ):
            raise ConfigurationError(f"the Kafka sink has no setting {', '.join(unknown)}; see docs/kafka.md")
        return topics, connection

    def _open(self) -> _Producer:
        if self._producer is None:
            topics, given = self._read_settings()
            connection = {**given, "bootstrap_servers": self._address.servers, "kafka_client": self._attempts.client}
            for_admin = {name: value for name, value in connection.items() if name in KafkaAdminClient.DEFAULT_CONFIG}
            try:
                ensure_topics(self._address, topics, {**ADMIN, **for_admin}, self._log)
                self._producer = _Producer(**{**PRODUCER, **connection, **FIXED})
            except (KafkaError, ContractError, OSError, ValueError) as error:
                secrets = [str(given[name]) for name in SECRETS if given.get(name)]
                raise SinkError(self._attempts.why(self._address.servers, error, secrets)) from error
        return self._producer

    def _discard(self) -> None:
        """Throw the producer away, and what it still holds with it: the spool has it all."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.abandon()

    def _send_records(self, producer: _Producer, batch: Sequence[Delivery]) -> None:
        waiting: list[Any] = []
        topic = self._address.topics.events
        for delivery in batch:
            is_large = len(delivery.record) > _LARGE_BYTES
            if is_large:
                self._wait(waiting)
                waiting = []
            try:
                message = message_of(delivery.record, delivery.hash)
            except MalformedRecord as error:
                waiting.append(self._to_dead_letters(producer, delivery, error))
                continue
            waiting.append(
                producer.send(topic, delivery.record, message.key, message.headers, timestamp_ms=message.timestamp_ms)
            )
            if is_large:
                self._wait(waiting)
                waiting = []
        self._wait(waiting)

    def _send_bodies(self, bodies: Sequence[StoredContent]) -> None:
        small = [content for content in bodies if len(content.body or b"") <= _LARGE_BYTES]
        large = [content for content in bodies if len(content.body or b"") > _LARGE_BYTES]
        try:
            producer = self._open()
            self._wait([self._send_body(producer, content) for content in small])
        except SinkError as error:
            if not isinstance(error.__cause__, _TOO_LARGE):
                raise
            # Kafka says neither which it was, nor takes any more of this producer: each goes alone now.
            self._discard()
            large = list(bodies)
        for content in large:
            self._send_alone(content)

    def _send_alone(self, content: StoredContent) -> None:
        """One body; in place of one that the topic does not take, a word on why."""
        try:
            self._wait([self._send_body(self._open(), content)])
        except SinkError as error:
            if not isinstance(error.__cause__, _TOO_LARGE):
                raise
            self._discard()
            self.refused += 1
            size = len(content.body or b"")
            reason = f"{size} bytes of {content.kind} are more than the topic takes (max.message.bytes)"
            self._log.warning("exec-events: a body is not published: %s; its event is", reason)
            headers = [*_body_headers(content), (HEADER_REFUSED, reason.encode())]
            topic = self._address.topics.contents
            self._wait([self._open().send(topic, b"", content.commitment.encode(), headers)])

    def _send_body(self, producer: _Producer, content: StoredContent) -> Any:
        value = content_value(content.nonce, content.body or b"")
        topic = self._address.topics.contents
        try:
            return producer.send(topic, value, content.commitment.encode(), _body_headers(content))
        except _TOO_LARGE as error:  # larger than any request of ours
            return _Failed(error)

    def _to_dead_letters(self, producer: _Producer, delivery: Delivery, error: MalformedRecord) -> Any:
        """What a damaged spool gives out is no record any more: kept as it is, with the reason, out of the way."""
        self.refused += 1
        self._log.error(
            "exec-events: row %d of the spool is no record, and goes to dead letters: %s", delivery.id, error
        )
        headers = [(HEADER_REASON, str(error).encode())]
        return producer.send(self._address.topics.dead_letters, delivery.record, b"spool", headers)

    def _wait(self, futures: Sequence[Any]) -> None:
        """Return once all are acknowledged; raises SinkError, from the Kafka error that is the reason."""
        stalls_at = time.monotonic() + STALL_SECONDS
        for future in futures:
            while not future.is_done:
                try:
                    future.get(_LOOK_SECONDS)
                except KafkaError:
                    if self._interrupted.is_set():
                        raise SinkError("the server stops before the brokers have acknowledged everything") from None
                    if time.monotonic() > stalls_at:
                        raise SinkError(f"the brokers have acknowledged nothing for {STALL_SECONDS:.0f} s") from None
                else:
                    stalls_at = time.monotonic() + STALL_SECONDS
            if future.failed():
                raise SinkError(_what(future.exception)) from future.exception


class _Producer(KafkaProducer):  # type: ignore[misc]
    """A producer that can be thrown away: kafka-python 3.0's ``close(0)`` raises before it closes while sends wait."""

    def abandon(self) -> None:
        """End its thread and its connections without sending what it holds; all its futures fail."""
        self._unregister_cleanup()
        self._closed = True
        self._sender.force_close()
        self._sender.join(1)


class _Failed:
    """A send that failed before it began, in the shape of a future."""

    is_done = True

    def __init__(self, error: KafkaError) -> None:
        self.exception = error

    def failed(self) -> bool:
        """It did."""
        return True


def _body_headers(content: StoredContent) -> list[tuple[str, bytes]]:
    return [(HEADER_SUBJECT, content.subject.encode()), (HEADER_KIND, content.kind.encode())]


def _topic_settings(settings: dict[str, Any]) -> TopicSettings:
    """Take what is said of topics out of ``settings``."""
    taken = {"create": settings.pop("create_topics", True)}
    taken |= {f.name: settings.pop(f.name) for f in fields(TopicSettings) if f.name != "create" and f.name in settings}
    return TopicSettings(**taken)


def _what(error: BaseException) -> str:
    """What a person can do about an error of Kafka's."""
    if isinstance(error, _TOO_LARGE):
        return "an event is larger than the topic takes: raise its max.message.bytes, delivery then goes on"
    return f"the brokers did not take a record: {type(error).__name__}: {error}"
