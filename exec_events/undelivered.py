"""
What a sink has not taken yet of one spool: a position in, the next batch of deliveries out, and how much waits.

A backlog counts bytes without asking the disk: the spool's writer says what comes, the deliverer what went.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

from exec_events_schemas.errors import MalformedRecord
from exec_events_schemas.record import event_of, time_of
from exec_events_schemas.topics import StoredContent

from .clock import microseconds, now_us
from .seal import Sealed
from .sinks import Delivery
from .spool import Spool

BATCH_RECORDS = 2000
BATCH_BYTES = 4 * 1024 * 1024
_CHUNK = 200
_COMMITTED = b'_commitment":"'
_COMMITMENT = re.compile(rb'"(?:code|outputs)_commitment":"(sha256:[0-9a-f]{64})"')


class Backlog:
    """
    One spool's records that one sink has not acknowledged.

    `came` is called on the spool's writer thread, `next_batch` and `took` on the deliverer's, the rest anywhere.
    """

    def __init__(self, spool: Spool, sink: str) -> None:
        self.spool = spool
        self._sink = sink
        # Bytes up to this row are counted once, from the file; what comes behind it is counted as it comes.
        self._counted_to: int | None = None
        self._bytes_before = 0
        self._bytes_came = 0
        self._bytes_went = 0
        self._oldest_us: int | None = None
        spool.observers.append(self.came)
        self._counted_to = spool.last_id

    @property
    def position(self) -> int:
        """How far the sink has acknowledged, as a row id."""
        return self.spool.position(self._sink)

    @property
    def records(self) -> int:
        """How many records wait."""
        return max(0, self.spool.last_id - self.position)

    @property
    def bytes(self) -> int:
        """How many bytes of records wait; 0 until the first look at a spool that held some before."""
        return max(0, self._bytes_before + self._bytes_came - self._bytes_went) if self.records else 0

    @property
    def oldest_seconds(self) -> float:
        """The age of the oldest record that waits, in seconds; 0 when none does."""
        oldest = self._oldest_us
        return max(0.0, (now_us() - oldest) / 1e6) if oldest is not None and self.records else 0.0

    def came(self, sealed: list[Sealed]) -> None:
        """Take note of records that were just committed."""
        counted_to = self._counted_to
        if counted_to is not None:
            self._bytes_came += sum(len(record.record) for record in sealed if record.id > counted_to)
        if self._oldest_us is None:
            self._oldest_us = now_us()

    def next_batch(self, with_contents: bool) -> list[Delivery]:
        """The next records, at most `BATCH_RECORDS` and about `BATCH_BYTES`, bodies included; raises sqlite3.Error."""
        position = self.position
        if position >= self.spool.last_id:
            return []
        with _reading(self.spool) as connection:
            if not self._bytes_before and self._counted_to and position < self._counted_to:
                self._bytes_before = _bytes_between(connection, position, self._counted_to)
            batch = list(_batch(connection, position, with_contents))
        if batch:
            self._oldest_us = _time_of(batch[0].record)
        return batch

    def took(self, batch: list[Delivery]) -> None:
        """The sink has taken this batch."""
        self.spool.acknowledge(self._sink, batch[-1].id)
        self._bytes_went += sum(len(delivery.record) for delivery in batch)
        if not self.records:
            self._oldest_us = None


@contextmanager
def _reading(spool: Spool) -> Iterator[sqlite3.Connection]:
    with closing(
        sqlite3.connect(f"file:{spool.path}?mode=ro", uri=True, timeout=5, isolation_level=None)
    ) as connection:
        yield connection


def _bytes_between(connection: sqlite3.Connection, after: int, to: int) -> int:
    query = "SELECT coalesce(sum(length(record)), 0) FROM records WHERE id > ? AND id <= ?"
    return int(connection.execute(query, (after, to)).fetchone()[0])


def _batch(connection: sqlite3.Connection, position: int, with_contents: bool) -> Iterator[Delivery]:
    # A damaged row may hold anything: whatever it is, it comes out as bytes.
    query = "SELECT id, CAST(record AS BLOB), CAST(hash AS BLOB) FROM records WHERE id > ? ORDER BY id LIMIT ?"
    rows = connection.execute(query, (position, BATCH_RECORDS))
    size = 0
    while chunk := rows.fetchmany(_CHUNK):
        for row_id, record, raw_hash in chunk:
            contents = _contents_of(connection, record) if with_contents and _COMMITTED in record else ()
            yield Delivery(row_id, record, raw_hash, contents)
            size += len(record) + sum(len(content.body or b"") for content in contents)
            if size >= BATCH_BYTES:
                return


def _contents_of(connection: sqlite3.Connection, record: bytes) -> tuple[StoredContent, ...]:
    """The bodies kept for the commitments of a record; those erased or pruned meanwhile are not among them."""
    found = []
    for match in _COMMITMENT.finditer(record):
        query = "SELECT commitment, subject, kind, nonce, body FROM contents WHERE commitment = ?"
        row = connection.execute(query, (match[1].decode(),)).fetchone()
        if row is not None:
            found.append(StoredContent(*row))
    return tuple(found)


def _time_of(record: bytes) -> int | None:
    try:
        event = event_of(record)
    except MalformedRecord:
        return None
    return microseconds(time_of(event))
