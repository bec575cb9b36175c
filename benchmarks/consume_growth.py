"""What one more event costs where ten million are stored, of what it costs where ten thousand are."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from exec_events_consumers import aggregate as aggregating
from exec_events_consumers import tables
from exec_events_consumers.feed import Batch, Fetched
from exec_events_consumers.loop import run
from exec_events_consumers.store import Store

from .consume_log import ClassLog
from .figures import Figure
from .fleet import median_ratio, progress

STORED = 10_000
BATCH = 5_000
# Every text that tells one class from the other, and is in a key or an index.
NAMES = {"chain", "subject", "notebook", "execution_id", "code_hash"}


class RecordsFeed:
    """Records from memory, in one partition."""

    name = "memory"

    def __init__(self, records: Sequence[tuple[bytes, bytes]], begin: int) -> None:
        self._records = records
        self._begin = begin
        self._at = 0
        self._is_new = True

    def gained(self) -> Sequence[str]:
        is_new, self._is_new = self._is_new, False
        return ["memory"] if is_new else []

    def seek(self, positions: Mapping[str, int]) -> None:
        self._at = positions["memory"] - self._begin

    def drop(self, partition: str) -> None:
        raise AssertionError

    def poll(self, seconds: float) -> Batch:
        part = self._records[self._at : self._at + BATCH]
        found = [Fetched("memory", self._begin + self._at + n, *pair) for n, pair in enumerate(part)]
        self._at += len(part)
        return Batch(found, {"memory": self._begin + self._at}, None)

    def caught_up(self) -> bool:
        return self._at >= len(self._records)

    def committed(self, positions: Mapping[str, int]) -> None:
        pass

    def close(self) -> None:
        pass


async def measure(quick: bool) -> list[Figure]:
    """A class's events into a small store and into one of a thousand such classes, by turns."""
    classes, rounds, count = (20, 2, 5_000) if quick else (1_000, 5, 10_000)
    costs: dict[str, list[float]] = {"small": [], "large": []}
    with tempfile.TemporaryDirectory(prefix="exec-events-bench-") as folder:
        log = ClassLog()
        stored = list(log.records(STORED))
        paths = {name: Path(folder) / f"{name}.db" for name in costs}
        for path in paths.values():
            _take(path, stored, 0)
        began = time.monotonic()
        _multiply(paths["large"], classes)
        gigabytes = paths["large"].stat().st_size / 1e9
        progress(f"consume-growth: {classes * STORED:,} events, {gigabytes:.1f} GB, {time.monotonic() - began:.0f} s")
        begin = STORED
        for turn in range(rounds):
            more = list(log.records(count))
            for name in list(paths)[:: 1 if turn % 2 else -1]:
                costs[name].append(_take(paths[name], more, begin) / count * 1e6)
            begin += count
            line = ", ".join(f"{name} {of[-1]:.0f} µs" for name, of in costs.items())
            progress(f"consume-growth {turn + 1}/{rounds}: an event into {line}")
    middle, ratios = median_ratio(costs["large"], costs["small"])
    name = f"cost of an event at {classes * STORED:,} stored, of that at {STORED:,}"
    return [Figure(name, middle, "x", 1.3, "at most", f"{gigabytes:.1f} GB", ratios)]


def _take(path: Path, records: Sequence[tuple[bytes, bytes]], begin: int) -> float:
    """Seconds for these records."""
    with closing(Store(f"sqlite:///{path}", aggregating.NAME)) as store:
        feed = RecordsFeed(records, begin)
        began = time.perf_counter()
        done = run(feed, store, aggregating.aggregate, once=True, known_hashes=aggregating.known_hashes)
        seconds = time.perf_counter() - began
    if done.events != len(records):
        raise RuntimeError(f"{done.events:,} events of {len(records):,}")
    return seconds


def _multiply(path: Path, classes: int) -> None:
    """More classes that did the same, under other names: some before this one in every index, some behind."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        for table in (tables.chains, *tables.AGGREGATES):
            names = [column.name for column in table.columns]
            columns = ", ".join(f'"{name}"' for name in names)
            # A letter in front, as far from the names that are there as others' pseudonyms are.
            values = ", ".join(f'? || "{name}"' if name in NAMES else f'"{name}"' for name in names)
            marks = sum(name in NAMES for name in names)
            if not marks:
                continue
            connection.execute(f"CREATE TEMP TABLE one AS SELECT * FROM {table.name}")
            connection.execute("BEGIN")
            for number in range(1, classes):
                prefix = f"{number * 7919 % classes:04d}-" if number % 2 else f"z{number * 7919 % classes:04d}-"
                connection.execute(f"INSERT INTO {table.name} ({columns}) SELECT {values} FROM one", [prefix] * marks)
            connection.execute("COMMIT")
            connection.execute("DROP TABLE one")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
