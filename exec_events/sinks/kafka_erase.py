"""
Bodies of one person on a topic in, tombstones out: Kafka's compaction then removes them.

What is on the topic is found by its headers, and looked for again after the tombstones are acknowledged.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError
from kafka.net.sasl.oauth import AbstractTokenProvider

from exec_events.errors import SinkError
from exec_events_schemas.kafka_settings import TokenFile, read_settings
from exec_events_schemas.sources import open_source
from exec_events_schemas.topics import kafka_address

AbstractTokenProvider.register(TokenFile)

ACKNOWLEDGED_SECONDS = 30
# A server that is running may publish a body that it had read before; it comes to an end.
MOST_ROUNDS = 5


def erase_bodies(url: str, settings: Mapping[str, Any], subjects: Collection[str]) -> int:
    """
    Write a tombstone for each body of ``subjects`` on the contents topic of ``url``; returns how many.

    Raises SourceError where the topic cannot be read, and SinkError where it cannot be written, or where
    bodies of the subjects keep coming.
    """
    erased: set[str] = set()
    for _ in range(MOST_ROUNDS):
        left = _bodies_of(url, settings, subjects)
        if not left:
            return len(erased)
        _write_tombstones(url, settings, left)
        erased |= left
    raise SinkError(f"bodies of this person keep coming to {url}; run the command again once their kernels are idle")


def _bodies_of(url: str, settings: Mapping[str, Any], subjects: Collection[str]) -> set[str]:
    """The commitments of bodies that are there now."""
    found: dict[str, str] = {}
    for content in open_source(url, settings=settings).contents(lambda damage: None):
        if content is None:
            break
        if content.body is None and content.refused is None:
            found.pop(content.commitment, None)
        else:
            found[content.commitment] = content.subject
    return {commitment for commitment, subject in found.items() if subject in subjects}


def _write_tombstones(url: str, settings: Mapping[str, Any], commitments: Collection[str]) -> None:
    address = kafka_address(url)
    try:
        producer = KafkaProducer(
            bootstrap_servers=address.servers,
            allow_auto_create_topics=False,
            acks="all",
            bootstrap_timeout_ms=10_000,
            **read_settings(settings),
        )
        try:
            waiting = [producer.send(address.topics.contents, None, name.encode()) for name in commitments]
            for future in waiting:
                future.get(ACKNOWLEDGED_SECONDS)
        finally:
            producer.close(ACKNOWLEDGED_SECONDS)
    except KafkaError as error:
        raise SinkError(f"tombstones cannot be written to {url}: {type(error).__name__}: {error}") from error
