"""A source of files in, the same source without what stands before a time, or without what was there already, out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from threading import Event
from typing import Literal, TypeVar

from exec_events_schemas.errors import MalformedRecord
from exec_events_schemas.record import event_of, time_of
from exec_events_schemas.topics import StoredContent

from .stored import POLL_SECONDS, OnDamage, Source, StoredRecord, never, refuse_damage

R = TypeVar("R", StoredRecord, StoredRecord | None)


class LaterSource:
    """
    A source from its first record of a time on, or from "now" on.

    As in a topic's partition, what comes after that record is given whatever its own time, so that chains have
    no gaps. ``each_file`` begins anew in each file of a source whose files were written side by side.
    """

    def __init__(self, source: Source, start: datetime | Literal["now"], *, each_file: bool) -> None:
        self.name = source.name
        self.is_ordered = source.is_ordered
        self.total = source.total
        self._source = source
        self._start = start
        self._each_file = each_file

    def __iter__(self) -> Iterator[StoredRecord]:
        """Every record from there on; raises SourceError at the first damage."""
        return self.read()

    def read(self, on_damage: OnDamage = refuse_damage, more: Callable[[], bool] = never) -> Iterator[StoredRecord]:
        """As `Source.read`; from now on there is nothing yet."""
        if isinstance(self._start, datetime):
            yield from self._later(self._start, self._source.read(on_damage, more))

    def follow(self, stop: Event, poll_seconds: float = POLL_SECONDS) -> Iterator[StoredRecord | None]:
        """As `Source.follow`."""
        records = self._source.follow(stop, poll_seconds)
        if isinstance(self._start, datetime):
            yield from self._later(self._start, records)
            return
        for stored in records:
            if stored is None:
                yield None
                break
        yield from records

    def contents(self, on_damage: OnDamage = refuse_damage) -> Iterator[StoredContent | None]:
        """As `Source.contents`: all of them, since a body is found by its commitment alone."""
        return self._source.contents(on_damage)

    def running(self) -> set[str]:
        """As `Source.running`."""
        return self._source.running()

    def _later(self, start: datetime, records: Iterator[R]) -> Iterator[R]:
        begun: set[str] = set()
        for stored in records:
            if stored is not None:
                file = stored.file if self._each_file else ""
                if file not in begun:
                    if not _is_from(start, stored.record):
                        continue
                    begun.add(file)
            yield stored


def _is_from(start: datetime, record: bytes) -> bool:
    """Whether a record's event is of that time or later; one without a time, or without an event, is not."""
    try:
        event = event_of(record)
        time = datetime.fromisoformat(time_of(event))
    except (MalformedRecord, ValueError):
        return False
    return time.replace(tzinfo=time.tzinfo or UTC) >= start
