"""Logs made up by a generator, and a feed that delivers them as badly as Kafka may."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exec_events_consumers import aggregate as aggregating
from exec_events_consumers.feed import Batch, Fetched
from exec_events_consumers.loop import Progress, run
from exec_events_consumers.store import Store
from exec_events_schemas.record import Head, seal
from spool_files import FIRST, SCHEMA, chain_of, execution

MINUTE_US = 60_000_000


def time_at(us: int) -> str:
    """A time of the first of January 2026, so many microseconds in, as in events."""
    seconds, micro = divmod(us, 1_000_000)
    return f"2026-01-{1 + seconds // 86400:02}T{seconds // 3600 % 24:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{micro:06}Z"


@dataclass
class Log:
    """What recorders sealed: records with their hashes, in the order of sealing."""

    records: list[tuple[bytes, bytes]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    heads: dict[str, Head] = field(default_factory=dict)

    def add(self, event: dict[str, Any], chain: str) -> None:
        """Seal one more."""
        record, head = seal(event, chain, self.heads.get(chain))
        self.heads[chain] = head
        self.records.append((record, head.hash))
        self.events.append(event)

    def run(self, subject: int, at_us: int, duration_us: int = 1000, recorder: str = FIRST, **members: Any) -> None:
        """Seal one execution, asked for at ``at_us``."""
        times = {
            "time": time_at(at_us + duration_us),
            "requested_at": time_at(at_us),
            "started_at": time_at(at_us),
            "finished_at": time_at(at_us + duration_us),
            "duration_us": duration_us,
        }
        code = {"code_hash": f"sha256:{0:064x}", "code_lines": 1, "lines_added": 0, "lines_removed": 0}
        usual = {**times, **code, "same_code_as_last_run": False}
        event = execution(recorder, subject, len(self.records), **{**usual, **members})
        self.add(event, chain_of(recorder, subject))


def random_log(rng: random.Random, runs: int, subjects: int = 4, recorders: Sequence[str] = (FIRST,)) -> Log:
    """Runs of several people in several notebooks, with errors, reruns, pauses and silent ones."""
    log = Log()
    clock = 0
    for _ in range(runs):
        clock += rng.choice([0, 1_000, 500_000, 20_000_000, 2 * MINUTE_US, 9 * MINUTE_US])
        subject = rng.randrange(subjects)
        status = rng.choice(["ok", "ok", "ok", "error", "error", "aborted", "interrupted", "kernel_died"])
        code = f"sha256:{rng.randrange(5):064x}"
        members: dict[str, Any] = {
            "status": status,
            "notebook": f"notebook-{rng.randrange(2)}",
            "cell_id": f"cell-{rng.randrange(4)}",
            "code_hash": code,
            "code_ast_hash": code,
            "code_lines": rng.randrange(1, 9),
            "lines_added": rng.randrange(3),
            "lines_removed": rng.randrange(3),
            "same_code_as_last_run": rng.random() < 0.3,
            "silent": rng.random() < 0.05,
            "outputs": [{"kind": "stream", "mime": "stdout", "count": 2, "bytes": rng.randrange(100)}],
        }
        if status == "error":
            members["error_name"] = rng.choice(["NameError", "ValueError"])
        log.run(subject, clock, rng.choice([500, 10_000, 3_000_000]), rng.choice(recorders), **members)
    return log


class ListFeed:
    """Records in one partition, in batches; what the tests want delivered, in the order they want."""

    name = "list"

    def __init__(self, records: Sequence[tuple[bytes | None, bytes | None]], batch: int = 50) -> None:
        self._records = records
        self._batch = batch
        self._at = 0
        self._is_new = True

    def gained(self) -> Sequence[str]:
        """Its partition, once."""
        is_new, self._is_new = self._is_new, False
        return ["p"] if is_new else []

    def seek(self, positions: Mapping[str, int]) -> None:
        """Go on there."""
        self._at = positions.get("p", self._at)

    def drop(self, partition: str) -> None:
        """Nobody takes it."""
        raise AssertionError

    def poll(self, seconds: float) -> Batch:
        """The next batch."""
        part = self._records[self._at : self._at + self._batch]
        fetched = [Fetched("p", self._at + n, record, raw) for n, (record, raw) in enumerate(part)]
        self._at += len(part)
        return Batch(fetched, {"p": self._at} if part else {}, len(self._records) - self._at)

    def caught_up(self) -> bool:
        """Whether all were given."""
        return self._at >= len(self._records)

    def committed(self, positions: Mapping[str, int]) -> None:
        """Noted."""

    def close(self) -> None:
        """Nothing to let go of."""


def aggregate(
    url: str, records: Sequence[tuple[bytes | None, bytes | None]], batch: int = 50, consumer: str = aggregating.NAME
) -> Progress:
    """Take all these records into the store at ``url``."""
    with opened(url, consumer) as store:
        return run(
            ListFeed(records, batch), store, aggregating.aggregate, once=True, known_hashes=aggregating.known_hashes
        )


@contextmanager
def opened(url: str, consumer: str = aggregating.NAME) -> Iterator[Store]:
    """A store that is closed."""
    store = Store(url, consumer)
    try:
        yield store
    finally:
        store.close()


def tables_of(url: str, *names: str) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of these tables, in an order of their own."""
    with opened(url) as store, store.engine.connect() as connection:
        return {
            name: sorted(map(tuple, connection.exec_driver_sql(f"SELECT * FROM {name}").all()), key=repr)
            for name in names
        }


def sqlite_url(folder: Path, name: str = "tables.db") -> str:
    """A store in a folder."""
    return f"sqlite:///{folder / name}"


__all__ = ["SCHEMA", "ListFeed", "Log", "aggregate", "opened", "random_log", "sqlite_url", "tables_of", "time_at"]
