"""A spool and the aggregate's positions in it in, how many records it has not taken yet out."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from exec_events_schemas.sources.spool import connect_read_only, spool_files


def records_waiting(folder: Path, positions: Mapping[str, int]) -> int | None:
    """How many; None while a file cannot be read."""
    try:
        return sum(max(0, _last(path) - positions.get(path.name, 0)) for path in spool_files(folder))
    except (sqlite3.Error, OSError):
        return None


def _last(path: Path) -> int:
    with closing(connect_read_only(path)) as connection:
        return int(connection.execute("SELECT coalesce(max(id), 0) FROM records").fetchone()[0])
