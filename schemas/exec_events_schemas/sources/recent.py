"""What is new in a spool, and what is newest: for those who ask again and again, and cannot read it all each time."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from exec_events_schemas.spool_layout import FILE_SUFFIX

from .spool import chunks, connect_read_only, file_state, has_records
from .stored import StoredRecord

_ROWS_BEFORE = """
SELECT coalesce(CAST(record AS BLOB), x''), CAST(hash AS BLOB), id FROM records WHERE id < ? ORDER BY id DESC LIMIT ?
"""
PAGE = 200
SETTLED_NS = 2_000_000_000


class SpoolTail:
    """What is new in a spool's folder since it was last asked; a file that nobody wrote to is not opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
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
                for chunk in chunks(path, reached):
                    reached = chunk[-1].position
                    yield from chunk
            except sqlite3.Error:
                pass
            self._seen[path] = (state, reached)


def newest_first(path: Path, holds: bytes, most: int) -> Iterator[StoredRecord]:
    """
    The records of one file in which the bytes ``holds`` stand, the last first; of its last ``most`` records.

    A file that cannot be read ends it.
    """
    before, left = 2**63 - 1, most
    while left > 0:
        try:
            with closing(connect_read_only(path)) as connection:
                if not has_records(connection):
                    return
                rows = connection.execute(_ROWS_BEFORE, (before, min(left, PAGE))).fetchall()
        except sqlite3.Error:
            return
        if not rows:
            return
        before, left = rows[-1][2], left - len(rows)
        yield from (StoredRecord(record, raw, path.name, row) for record, raw, row in rows if holds in record)
