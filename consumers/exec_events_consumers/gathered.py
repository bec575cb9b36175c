"""A feed in, the same feed with larger batches out: for consumers that make a file of each."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from .feed import Batch, Feed, Fetched

# A batch is a file a day. Larger ones make fewer files; these keep a process under its 200 MB.
BATCH_RECORDS = 2000
BATCH_SECONDS = 60.0


class Gathered:
    """
    Another feed, whose batches are put together until they make a file worth having.

    A batch ends with the batch of the feed that brings it to ``records``, ``seconds`` after its first record, when
    ``stop`` is set, when partitions come, and where the feed has caught up if it is read ``once``. Nothing that is
    waiting here is committed.
    """

    def __init__(
        self,
        feed: Feed,
        stop: threading.Event,
        *,
        once: bool,
        records: int = BATCH_RECORDS,
        seconds: float = BATCH_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = feed.name
        self.seek, self.drop = feed.seek, feed.drop
        self.caught_up, self.committed, self.close = feed.caught_up, feed.committed, feed.close
        self._feed = feed
        self._stop = stop
        self._once = once
        self._records = records
        self._seconds = seconds
        self._clock = clock
        self._gained: list[str] = []

    def gained(self) -> Sequence[str]:
        """As the feed says; what it said while a batch was gathered, too."""
        gained, self._gained = self._gained, []
        return [*gained, *(name for name in self._feed.gained() if name not in gained)]

    def poll(self, seconds: float) -> Batch:
        """A large batch, or an empty one after ``seconds``."""
        records: list[Fetched] = []
        nexts: dict[str, int] = {}
        until: float | None = None
        while True:
            batch = self._feed.poll(seconds)
            records += batch.records
            nexts |= batch.next_positions
            now = self._clock()
            if nexts and until is None:
                until = now + self._seconds
            self._gained += [name for name in self._feed.gained() if name not in self._gained]
            is_whole = len(records) >= self._records or until is None or now >= until
            if is_whole or self._gained or self._stop.is_set() or (self._once and self._feed.caught_up()):
                return Batch(records, nexts, batch.waiting)
