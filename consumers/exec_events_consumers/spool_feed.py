"""
A spool's folder as a feed, each of its files a partition; or any other source, as one.

Files appear when servers start, and go when retention removes them. One process reads a spool: there is no group
to share it out.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from threading import Event

from exec_events_schemas.errors import SourceError
from exec_events_schemas.sources import Source, StoredRecord
from exec_events_schemas.sources.spool import connect_read_only, is_damage, spool_files

from .errors import ConsumerError
from .feed import Batch, Fetched

BATCH_RECORDS = 5000
LOOK_SECONDS = 0.1
_ROWS = "SELECT id, CAST(record AS BLOB), CAST(hash AS BLOB) FROM records WHERE id > ? ORDER BY id LIMIT ?"


class SpoolFeed:
    """The files of a spool; raises SourceError where there is no folder."""

    def __init__(self, folder: Path, *, batch_records: int | None = None) -> None:
        self._batch_records = batch_records or BATCH_RECORDS
        if not folder.is_dir():
            raise SourceError(f"there is no spool in {str(folder)!r}: nothing was recorded there yet")
        self.name = f"spool://{folder}"
        self._folder = folder
        self._files: dict[str, Path] = {}
        self._positions: dict[str, int] = {}
        self._broken: dict[str, str] = {}
        self._gained: list[str] = []
        self._ends: dict[str, int] = {}
        self._look()
        self._first = set(self._files)
        self._ends = {name: self._last_row(path) for name, path in self._files.items()}

    def gained(self) -> Sequence[str]:
        """Files that have appeared."""
        self._look()
        gained, self._gained = self._gained, []
        return gained

    def seek(self, positions: Mapping[str, int]) -> None:
        """Go on behind these rows."""
        self._positions |= positions

    def drop(self, partition: str) -> None:
        """Another process reads it too: one of the two is one too many."""
        raise ConsumerError(f"another process reads {self.name} under the same name; end one of the two")

    def poll(self, seconds: float) -> Batch:
        """The next rows, of the files in the order their recorders started."""
        until = time.monotonic() + seconds
        while True:
            batch = self._next()
            if batch.records or time.monotonic() >= until:
                return batch
            time.sleep(LOOK_SECONDS)

    def caught_up(self) -> bool:
        """Whether every file that was there at first was read to where it ended, or as far as it can be."""
        return all(
            name in self._broken or self._positions.get(name, -1) >= self._ends[name]
            for name in self._first
            if self._files[name].exists()
        )

    def committed(self, positions: Mapping[str, int]) -> None:
        """The store knows."""

    def close(self) -> None:
        """Nothing is held."""

    @property
    def broken(self) -> Mapping[str, str]:
        """Files that cannot be read on, and why."""
        return self._broken

    def _look(self) -> None:
        known = {path.name for path in self._folder.glob("*.db")}
        if known != self._files.keys():
            for path in spool_files(self._folder):
                if path.name not in self._files:
                    self._files[path.name] = path
                    self._gained.append(path.name)

    def _next(self) -> Batch:
        records: list[Fetched] = []
        nexts: dict[str, int] = {}
        for name, path in self._files.items():
            if name not in self._positions or name in self._broken or len(records) >= self._batch_records:
                continue
            rows = self._rows(name, path, self._batch_records - len(records))
            if rows:
                records += [Fetched(name, row_id, record, raw) for row_id, record, raw in rows]
                nexts[name] = self._positions[name] = rows[-1][0]
        waiting = 0 if not records else None
        return Batch(records, nexts, waiting)

    def _rows(self, name: str, path: Path, limit: int) -> list[tuple[int, bytes, bytes]]:
        if not path.exists():
            return []  # pruned
        try:
            with closing(self._connect(path)) as connection:
                return connection.execute(_ROWS, (self._positions[name], limit)).fetchall()
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
                self._broken[name] = f"the spool file {name} kept its reader too long, and is left alone"
            if is_damage(error) and "no such table" not in str(error):
                self._broken[name] = (
                    f"the spool file {name} is damaged ({error}); `exec-events verify` shows what is lost"
                )
            return []  # laid out at the moment, or busy: the next poll will see

    def _connect(self, path: Path) -> sqlite3.Connection:
        return connect_read_only(path)

    def _last_row(self, path: Path) -> int:
        try:
            with closing(self._connect(path)) as connection:
                return int(connection.execute("SELECT coalesce(max(id), 0) FROM records").fetchone()[0])
        except sqlite3.Error:
            return 0


class StreamFeed:
    """Any other source, as one partition whose positions count its records."""

    def __init__(self, source: Source, *, batch_records: int | None = None) -> None:
        self._batch_records = batch_records or BATCH_RECORDS
        self.name = source.name
        self._source = source
        self._records: Iterator[StoredRecord | None] | None = None
        self._stop = Event()
        self._position = 0
        self._is_new = True
        self._caught_up = False

    def gained(self) -> Sequence[str]:
        """The one partition, once."""
        is_new, self._is_new = self._is_new, False
        return [self.name] if is_new else []

    def seek(self, positions: Mapping[str, int]) -> None:
        """Begin anew, and pass over so many records."""
        self._position = 0
        self._records = self._source.follow(self._stop)
        while self._position < positions[self.name]:
            if next(self._records) is None:
                raise SourceError(f"{self.name} has fewer records than were read of it before; is it the same?")
            self._position += 1

    def drop(self, partition: str) -> None:
        """Another process reads it too."""
        raise ConsumerError(f"another process reads {self.name} under the same name; end one of the two")

    def poll(self, seconds: float) -> Batch:
        """The next records."""
        records: list[Fetched] = []
        assert self._records is not None, "the loop seeks before it polls"
        for stored in self._records:
            if stored is None:
                self._caught_up = True
                break
            self._position += 1
            records.append(Fetched(self.name, self._position, stored.record, stored.hash))
            if len(records) >= self._batch_records:
                break
        else:
            self._caught_up = True
        return Batch(records, {self.name: self._position} if records else {}, None)

    def caught_up(self) -> bool:
        """Whether the end was met."""
        return self._caught_up

    def committed(self, positions: Mapping[str, int]) -> None:
        """The store knows."""

    def close(self) -> None:
        """Stop following."""
        self._stop.set()
