"""
One SQLite file of the enclave's: its account's alone, written whole and durably, by one at a time over all processes.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from .errors import StoreError

_BUSY_SECONDS = 30.0


class DurableFile:
    """
    The file at ``path``, with ``tables`` made where they are not there; ``what`` is what it holds, for errors.

    Raises StoreError where it cannot be opened.
    """

    def __init__(self, path: Path, tables: str, what: str) -> None:
        self._what = what
        self._lock = Lock()
        try:
            # Made here, because SQLite would make it readable to others.
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._connection = sqlite3.connect(
                path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA journal_mode = WAL")
            # Durable when the commit returns, also over a loss of power.
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(tables)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"the {what} in {path} cannot be opened: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """What happens inside is written whole and durably, or not at all; raises StoreError."""
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                except BaseException:
                    self._connection.execute("ROLLBACK")
                    raise
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise StoreError(f"the {self._what} cannot be written, so nothing was granted: {error}") from error
