"""
Every query that was asked, what came of it, and its answer, in one SQLite file.

A query is written down before the data is opened, in the transaction that looked for overlaps: of two that could be
subtracted from each other and come at once, the second sees the first. What a crash left undecided counts as asked.
"""

from __future__ import annotations

from pathlib import Path
from sqlite3 import Connection
from typing import NamedTuple

from exec_events_enclave.durable_file import DurableFile

from .model import Query
from .overlap import Asked, overlapping, with_other_filters

UNDECIDED = "undecided"
ANSWERED = "answered"
SUPPRESSED = "suppressed"
REVIEW = "review"
# Its person is told that it is suppressed, and may ask again.
FAILED = "failed"

_DAY_US = 86_400_000_000
_TABLES = """
CREATE TABLE IF NOT EXISTS asked (
    query_id TEXT PRIMARY KEY,
    dataset TEXT NOT NULL,
    policy_digest TEXT NOT NULL,
    data_digest TEXT NOT NULL,
    query_hash TEXT NOT NULL,
    query TEXT NOT NULL,
    person TEXT NOT NULL,
    asked_us INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    overlaps TEXT,
    answer BLOB
) STRICT;
CREATE INDEX IF NOT EXISTS by_dataset ON asked (dataset, outcome, asked_us);
"""


class Asking(NamedTuple):
    """A query as it comes: who asks what, when, of which data under which policy."""

    query_id: str
    dataset: str
    policy_digest: str
    data_digest: str
    query: Query
    person: str
    asked_us: int


class Decided(NamedTuple):
    """What came of a query."""

    outcome: str
    overlaps: str | None = None
    answer: bytes | None = None


class AskedQueries:
    """The file."""

    def __init__(self, path: Path) -> None:
        self._file = DurableFile(path, _TABLES, "queries")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def same(self, asking: Asking) -> Decided | None:
        """What came of the same query of the same person, on the same data under the same policy."""
        with self._file.transaction() as connection:
            row = connection.execute(
                "SELECT outcome, overlaps, answer FROM asked WHERE dataset = ? AND policy_digest = ? "
                "AND data_digest = ? AND query_hash = ? AND person = ? AND outcome IN (?, ?) "
                "ORDER BY asked_us DESC LIMIT 1",
                (*asking[1:4], asking.query.digest, asking.person, ANSWERED, SUPPRESSED),
            ).fetchone()
        return None if row is None else Decided(*row)

    def begin(self, asking: Asking, overlap_days: int | None) -> tuple[Asked | None, list[Asked]]:
        """
        Write a query down, undecided, or left to a steward where it overlaps an earlier one.

        Returns that earlier one, and all that have another filter on the same table. Whoever asked counts: people
        may put their answers together. With no ``overlap_days`` nothing is looked for.
        """
        if overlap_days is None:
            self.keep(asking, Decided(UNDECIDED))
            return None, []
        since = asking.asked_us - overlap_days * _DAY_US
        with self._file.transaction() as connection:
            rows = connection.execute(
                "SELECT query_id, query FROM asked WHERE dataset = ? AND outcome IN (?, ?) AND asked_us >= ? "
                "ORDER BY asked_us, query_id",
                (asking.dataset, UNDECIDED, ANSWERED, since),
            ).fetchall()
            earlier = [Asked(query_id, Query.model_validate_json(text)) for query_id, text in rows]
            found = overlapping(asking.query, earlier)
            _write(connection, asking, Decided(REVIEW, found.query_id) if found else Decided(UNDECIDED))
        return found, with_other_filters(asking.query, earlier)

    def keep(self, asking: Asking, decided: Decided) -> None:
        """Write a query down with what came of it at once."""
        with self._file.transaction() as connection:
            _write(connection, asking, decided)

    def decide(self, query_id: str, decided: Decided) -> None:
        """What came of a query that was undecided."""
        with self._file.transaction() as connection:
            connection.execute(
                "UPDATE asked SET outcome = ?, overlaps = ?, answer = ? WHERE query_id = ? AND outcome = ?",
                (*decided, query_id, UNDECIDED),
            )


def _write(connection: Connection, asking: Asking, decided: Decided) -> None:
    text = asking.query.model_dump_json(exclude_none=True)
    connection.execute(
        "INSERT INTO asked VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*asking[:4], asking.query.digest, text, asking.person, asking.asked_us, *decided),
    )
