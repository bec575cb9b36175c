"""What is new in a spool, and what is newest: for those who ask again and again, and cannot read it all each time."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

from exec_events_schemas.spool_layout import FILE_SUFFIX

from .spool import connect_read_only, file_state, has_records
from .stored import StoredRecord

# SQLite looks for the words: a record without them costs a microsecond, and never becomes an object here.
_ROWS_HOLDING = """
SELECT coalesce(CAST(record AS BLOB), x''), CAST(hash AS BLOB), id FROM records
WHERE id > ? AND id <= ? AND instr(coalesce(CAST(record AS BLOB), x''), ?) ORDER BY id DESC
"""
_LAST_ROW = "SELECT coalesce(max(id), 0) FROM records"
# Rows are looked through in pieces, each its own read transaction.
PAGE = 1000
SETTLED_NS = 2_000_000_000


class SpoolTail:
    """
    What is new in a spool's folder since it was last asked, of the records in which the bytes ``holds`` stand.

    A file that nobody wrote to is not opened. Of a file that is new itself the last ``looked_at`` records are looked
    at, and the last ``given`` of what is found is given: old records beyond that are never new.
    """

    def __init__(self, folder: Path, holds: bytes, looked_at: int, given: int) -> None:
        self.folder = folder
        self._holds = holds
        self._looked_at = looked_at
        self._given = given
        self._seen: dict[Path, tuple[tuple[int, ...], int]] = {}

    def new(self) -> Iterator[StoredRecord]:
        """Every record since the last call, file by file; a file that cannot be read is left until it changes."""
        for path in sorted(self.folder.glob(f"*{FILE_SUFFIX}")):
            state = file_state(path)
            seen, reached = self._seen.get(path, ((), 0))
            # Times of files are coarse: one that was written to just now is looked at once more.
            if state == seen and max(state[::3], default=0) < time.time_ns() - SETTLED_NS:
                continue
            try:
                last = _last_row(path)
                after = max(reached, last - self._looked_at)
                found = list(islice(_backwards(path, self._holds, after, last), self._given))
            except sqlite3.Error:
                self._seen[path] = (state, reached)
                continue
            self._seen[path] = (state, max(reached, last))
            yield from reversed(found)


def newest_first(path: Path, holds: bytes, most: int) -> Iterator[StoredRecord]:
    """
    The records of one file in which the bytes ``holds`` stand, the last first; of its last ``most`` records.

    A file that cannot be read ends it.
    """
    try:
        last = _last_row(path)
        yield from _backwards(path, holds, last - most, last)
    except sqlite3.Error:
        return


def _last_row(path: Path) -> int:
    """The number of a file's last record, 0 where there is none; raises sqlite3.Error."""
    with closing(connect_read_only(path)) as connection:
        return int(connection.execute(_LAST_ROW).fetchone()[0]) if has_records(connection) else 0


def _backwards(path: Path, holds: bytes, after: int, last: int) -> Iterator[StoredRecord]:
    """Those in which ``holds`` stands, from row ``last`` back to the one behind ``after``; raises sqlite3.Error."""
    while last > max(after, 0):
        before = max(after, last - PAGE, 0)
        with closing(connect_read_only(path)) as connection:
            rows = connection.execute(_ROWS_HOLDING, (before, last, holds)).fetchall()
        yield from (StoredRecord(record, raw, path.name, row) for record, raw, row in rows)
        last = before
