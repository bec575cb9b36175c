"""Writes spool files as recorders leave them: sealed records in SQLite, a lock held while one runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from exec_events_schemas.record import Head, hash_text, seal
from exec_events_schemas.sources import StoredRecord
from exec_events_schemas.sources.jsonl import line_of
from exec_events_schemas.spool_layout import DDL

FIRST = "11111111-1111-4111-8111-111111111111"
SECOND = "22222222-2222-4222-8222-222222222222"
SCHEMA = "https://exec-events.org/schemas/{}/v1"


def chain_of(recorder_id: str, subject: int) -> str:
    """The chain of a numbered subject at a recorder."""
    return f"{recorder_id}/{subject:016x}"


def time_of(second: int) -> str:
    """A time on the first day, as in events."""
    return f"2026-01-01T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}.000000Z"


def execution(recorder_id: str, subject: int, number: int, **members: Any) -> dict[str, Any]:
    """A cell_execution event with what reports read."""
    at = time_of(number)
    return {
        "__schema__": SCHEMA.format("cell_execution"),
        "__schema_version__": "1",
        "time": at,
        "recorder_id": recorder_id,
        "trust": "server",
        "execution_id": f"{number:08x}-0000-4000-8000-{subject:012x}",
        "subject": f"subject-{subject}",
        "subject_from": "request",
        "kernel_id": "kernel",
        "kernel_name": "python3",
        "notebook": f"notebook-{subject}",
        "cell_id": f"cell-{number % 3}",
        "client": "websocket",
        "channel": "shell",
        "status": "ok",
        "requested_at": at,
        "started_at": at,
        "finished_at": at,
        "duration_us": 1000 * (number + 1),
        "outputs": [],
        "silent": False,
        "store_history": True,
        "iopub_seen": True,
        "reply_seen": True,
        "msg_id_reused": False,
        "overflow": False,
        **members,
    }


@dataclass
class Recording:
    """What one recorder seals, in memory until it is written to a file."""

    recorder_id: str
    started_at: str = "2026-01-01T00:00:00.000000Z"
    rows: list[StoredRecord] = field(default_factory=list)
    heads: dict[str, Head] = field(default_factory=dict)

    def seal(self, event: dict[str, Any], chain: str) -> Head:
        """Seal an event as the next of its chain."""
        record, head = seal(event, chain, self.heads.get(chain))
        self.heads[chain] = head
        self.rows.append(StoredRecord(record, head.hash, f"{self.recorder_id}.db", len(self.rows) + 1))
        return head

    def execute(self, subject: int, **members: Any) -> Head:
        """Seal an execution of a numbered subject."""
        event = execution(self.recorder_id, subject, len(self.rows), **members)
        return self.seal(event, chain_of(self.recorder_id, subject))

    def say(self, action: str, **members: Any) -> Head:
        """Seal an event of the recorder itself, with the heads of its chains."""
        event = {
            "__schema__": SCHEMA.format("recorder"),
            "__schema_version__": "1",
            "time": time_of(len(self.rows)),
            "recorder_id": self.recorder_id,
            "trust": "server",
            "action": action,
            **({} if action == "started" else {"heads": self.other_heads()}),
            **members,
        }
        return self.seal(event, self.recorder_id)

    def other_heads(self) -> list[dict[str, Any]]:
        """The heads of all chains but the recorder's own, as in its events."""
        return heads({chain: head for chain, head in self.heads.items() if chain != self.recorder_id})

    def write(self, folder: Path) -> Path:
        """Write it as a spool file, and its lock beside it."""
        return write_spool_file(folder, self.recorder_id, self.rows, self.started_at)


def heads(of: dict[str, Head]) -> list[dict[str, Any]]:
    """Heads as events carry them."""
    return [{"chain": chain, "seq": head.seq, "hash": hash_text(head.hash)} for chain, head in sorted(of.items())]


def two_recorders(executions: int = 6, subjects: int = 2) -> tuple[Recording, Recording]:
    """A recorder that stopped in order, and one after it that links to it and stopped in order."""
    first = Recording(FIRST)
    first.say("started")
    for number in range(executions):
        first.execute(number % subjects)
        if number % 3 == 2:
            first.say("heartbeat")
    last = first.say("stopped", cause="stop")
    second = Recording(SECOND, "2026-01-02T00:00:00.000000Z")
    second.say("started", previous=heads({FIRST: last}))
    for number in range(executions):
        second.execute(number % subjects)
    second.say("stopped", cause="stop")
    return first, second


def write_spool_file(folder: Path, recorder_id: str, rows: list[StoredRecord], started_at: str) -> Path:
    """A spool file of these rows, numbered from 1 in this order."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{recorder_id}.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode=wal")
        connection.executescript(DDL)
        meta = {"layout": "1", "recorder_id": recorder_id, "started_at": started_at}
        connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
        connection.executemany("INSERT INTO records (record, hash) VALUES (?, ?)", [(r.record, r.hash) for r in rows])
    path.with_suffix(".lock").touch()
    return path


def write_json_lines(path: Path, rows: list[StoredRecord]) -> Path:
    """The rows as a file sink would write them."""
    path.write_bytes(b"".join(line_of(row) + b"\n" for row in rows))
    return path


@contextmanager
def running(path: Path) -> Iterator[None]:
    """Hold the lock of a spool file, as its owner does."""
    with FileLock(str(path.with_suffix(".lock"))):
        yield
