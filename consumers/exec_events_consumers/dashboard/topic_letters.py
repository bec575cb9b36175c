"""The topic of dead letters in, how many are on it that the tables have not got out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from exec_events_consumers.topic_reader import TopicReader, consumer_settings
from exec_events_schemas.errors import SourceError
from exec_events_schemas.kafka_settings import read_settings
from exec_events_schemas.topics import kafka_address

LOOK_SECONDS = 30.0


class TopicLetters:
    """
    Knows where the topic's partitions begin and end, as of the last `look`.

    Raises SourceError for an address or settings that cannot be right.
    """

    def __init__(self, url: str, settings: Mapping[str, Any]) -> None:
        self._address = kafka_address(url)
        self._settings = consumer_settings(read_settings(settings))
        self._bounds: dict[str, tuple[int, int]] | None = None

    def look(self) -> bool:
        """Ask Kafka once; whether it has answered. There is no topic before the first letter, or the first delivery."""
        try:
            with TopicReader(self._address, self._address.topics.dead_letters, self._settings) as reader:
                self._bounds = reader.bounds()
        except SourceError:
            self._bounds = None
            return False
        return True

    def waiting(self, read: Mapping[str, int]) -> int | None:
        """How many there are beyond where each partition was read to; None where it is not known."""
        if self._bounds is None:
            return None
        return sum(max(0, end - max(begin, read.get(name, 0))) for name, (begin, end) in self._bounds.items())
