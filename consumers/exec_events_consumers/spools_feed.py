"""
The spools of several accounts as one feed: FOLDER/ACCOUNT/*.db, each file a partition.

Their owners may do what they like with them, so what is no plain file of its folder's owner is passed over, and
nothing in a file may keep the reader long or make it hold much.
"""

from __future__ import annotations

import sqlite3
import stat
import time
from pathlib import Path

from exec_events_schemas.spool_layout import FILE_SUFFIX

from .spool_feed import SpoolFeed

SCHEME = "spools"
_MOST_SECONDS = 5.0
_MOST_BYTES = 64 * 1024 * 1024
_STEPS_BETWEEN_LOOKS = 100_000


class SpoolsFeed(SpoolFeed):
    """The files of every account's folder; raises SourceError where there is no folder."""

    def __init__(self, folder: Path, *, batch_records: int | None = None) -> None:
        super().__init__(folder, batch_records=batch_records)
        self.name = f"{SCHEME}://{folder}"

    def _look(self) -> None:
        for path in sorted(self._folder.glob(f"*/*{FILE_SUFFIX}")):
            name = f"{path.parent.name}/{path.name}"
            if name not in self._files and is_plainly_the_owners(path):
                self._files[name] = path
                self._gained.append(name)

    def _rows(self, name: str, path: Path, limit: int) -> list[tuple[int, bytes, bytes]]:
        return super()._rows(name, path, limit) if is_plainly_the_owners(path) else []

    def _connect(self, path: Path) -> sqlite3.Connection:
        connection = super()._connect(path)
        until = time.monotonic() + _MOST_SECONDS
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MOST_BYTES)
        connection.set_progress_handler(lambda: time.monotonic() > until, _STEPS_BETWEEN_LOOKS)
        connection.execute("PRAGMA trusted_schema = OFF")
        return connection


def is_plainly_the_owners(path: Path) -> bool:
    """Whether it is a file, and not a link or a pipe, that belongs to whom its folder belongs to."""
    try:
        folder, file = path.parent.lstat(), path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(folder.st_mode) and stat.S_ISREG(file.st_mode) and folder.st_uid == file.st_uid
