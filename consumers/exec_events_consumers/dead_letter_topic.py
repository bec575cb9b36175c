"""Dead letters in, messages of ``<prefix>.dead-letters`` out, each acknowledged before the batch it is of counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

from kafka import KafkaProducer
from kafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from exec_events_schemas.errors import SourceError
from exec_events_schemas.kafka_settings import read_settings
from exec_events_schemas.record import hash_text
from exec_events_schemas.topics import (
    HEADER_CONSUMER,
    HEADER_FOUND_AT,
    HEADER_HASH,
    HEADER_REASON,
    HEADER_REFUSED,
    HEADER_SOURCE_OFFSET,
    HEADER_SOURCE_PARTITION,
    HEADER_SOURCE_TOPIC,
    kafka_address,
)

from .bounded import call_within
from .decode import DeadLetter
from .errors import Stalled
from .topic_reader import CLOSE_SECONDS, DEFAULTS, TopicReader, consumer_settings

T = TypeVar("T")

STALLED_SECONDS = 60.0
_TOO_LARGE = (MessageSizeTooLargeError, RecordListTooLargeError)
PRODUCER = {
    "api_version": DEFAULTS["api_version"],
    "client_id": DEFAULTS["client_id"],
    "max_block_ms": 10_000,
    "max_request_size": 32 * 1024 * 1024,
    "metrics_enabled": False,
}
# These make this module's promise.
FIXED = {"enable_idempotence": True, "acks": "all", "allow_auto_create_topics": False}


class TopicOffice:
    """
    Sends what the consumer ``consumer`` cannot use to the topic of dead letters, made at the first one.

    `send` raises SourceError where the topic does not take them, Stalled where the client does not come back.
    """

    def __init__(self, url: str, consumer: str, settings: Mapping[str, Any] | None = None) -> None:
        self._address = kafka_address(url)
        self._topic = self._address.topics.dead_letters
        given = {name: value for name, value in (settings or {}).items() if value is not None}
        ours = KafkaProducer.DEFAULT_CONFIG.keys()
        self._settings = {name: value for name, value in read_settings(given).items() if name in ours}
        self._consumer = consumer
        self._producer: KafkaProducer | None = None

    def send(self, letters: Sequence[DeadLetter]) -> None:
        """Have them acknowledged by all replicas in sync."""
        messages = [message_of_letter(letter, self._consumer, datetime.now(UTC)) for letter in letters]
        try:
            self._send(messages)
        except _TOO_LARGE:
            # Kafka does not say which it was: each goes alone now.
            for message in messages:
                self._send_alone(message)

    def close(self) -> None:
        """Let go of the connection; everything that `send` returned for is acknowledged."""
        producer, self._producer = self._producer, None
        if producer is not None:
            with suppress(TimeoutError, KafkaError, RuntimeError):
                call_within(CLOSE_SECONDS, lambda: producer.close(timeout=CLOSE_SECONDS))

    def _send_alone(self, message: dict[str, Any]) -> None:
        try:
            self._send([message])
        except _TOO_LARGE:
            refused = f"its {len(message['value'])} bytes are more than this topic takes; they are at its source"
            self._send(
                [{**message, "value": b"", "headers": [*message["headers"], (HEADER_REFUSED, refused.encode())]}]
            )

    def _send(self, messages: Sequence[dict[str, Any]]) -> None:
        try:
            self._within(lambda: [future.get() for future in [self._open().send(self._topic, **m) for m in messages]])
        except BaseException:
            self.close()  # what it may still hold is sent again with the batch
            raise

    def _open(self) -> KafkaProducer:
        if self._producer is None:
            settings = {**PRODUCER, **self._settings, **FIXED}
            self._producer = KafkaProducer(bootstrap_servers=self._address.servers, **settings)
        return self._producer

    def _within(self, call: Callable[[], T]) -> T:
        try:
            return call_within(STALLED_SECONDS, call)
        except _TOO_LARGE:
            raise
        except KafkaError as error:
            raise SourceError(
                f"the topic {self._topic} does not take dead letters ({type(error).__name__}: {error}). Topics are "
                "made at a server's first delivery; this user must be allowed to write this one"
            ) from error
        except TimeoutError as error:
            raise Stalled(
                f"dead letters were not acknowledged for {STALLED_SECONDS:.0f} s; start this again: it goes on "
                "where the store stands"
            ) from error


def message_of_letter(letter: DeadLetter, consumer: str, found_at: datetime) -> dict[str, Any]:
    """A dead letter as arguments of `KafkaProducer.send`; one that is sent again has the same key."""
    topic, _, partition = letter.partition.rpartition("/")
    headers = {
        HEADER_REASON: letter.reason,
        HEADER_CONSUMER: consumer,
        HEADER_SOURCE_TOPIC: topic,
        HEADER_SOURCE_PARTITION: partition,
        HEADER_SOURCE_OFFSET: str(letter.position),
        HEADER_FOUND_AT: f"{found_at:%Y-%m-%dT%H:%M:%S.%f}Z",
    }
    if letter.stored_hash is not None:
        headers[HEADER_HASH] = hash_text(letter.stored_hash)
    return {
        "key": f"{letter.partition}:{letter.position}".encode(),
        "value": letter.value,
        "headers": [(name, text.encode()) for name, text in headers.items()],
    }


def topic_messages(url: str, settings: Mapping[str, Any] | None = None) -> Iterator[Any]:
    """Every message of the topic of dead letters, as kafka-python's records; raises SourceError."""
    address = kafka_address(url)
    with TopicReader(address, address.topics.dead_letters, consumer_settings(read_settings(settings or {}))) as reader:
        reader.seek(None)
        reader.look()
        yield from reader.messages()
