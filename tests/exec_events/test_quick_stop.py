"""Servers that are stopped early, or by an interrupt: their chains begin before they end, and do end."""

from __future__ import annotations

import os
import signal
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path

from conftest import PLAIN, kind
from exec_events.testing import Record, RunningServer, records, wait_for_records
from exec_events_schemas.chain import Verifier
from exec_events_schemas.sources.spool import SpoolSource
from spool_files import Recording


def test_a_stop_in_the_midst_of_adopting(tmp_path: Path) -> None:
    """A server stopped while it adopts what many dead recorders left seals its beginning, then its end."""
    folder = tmp_path / "data" / "exec-events"
    for _ in range(12):
        dead = Recording(str(uuid.uuid4()))
        dead.say("started")
        dead.execute(1)
        with closing(sqlite3.connect(dead.write(folder))) as connection, connection:
            rows = [(chain, head.seq, head.hash) for chain, head in dead.heads.items()]
            connection.executemany("INSERT INTO heads VALUES (?, ?, ?)", rows)
    with RunningServer(tmp_path, config=PLAIN) as server:
        server.stop()
        assert "exec-events: fault" not in server.log
        found = [r for r in records(server.data_dir) if kind(r["event"]) == "recorder"]
    own = [r["event"]["action"] for r in found if r["event"].get("cause") == "stop" or r["event"].get("previous")]
    assert own == ["started", "stopped"]
    verifier = Verifier()
    for stored in SpoolSource(folder):
        verifier.add(stored)
    report = verifier.finish()
    assert report.ok, report.findings[:5]


def test_an_interrupt_without_a_terminal_is_a_stop(tmp_path: Path) -> None:
    """A server that JupyterHub ends, by an interrupt, seals its end as any other stop does."""
    with RunningServer(tmp_path, config=PLAIN) as server:
        os.kill(server.pid, signal.SIGINT)
        wait_for_records(server.data_dir, lambda found: _ends(found) == ["stop"], timeout=30)


def _ends(found: list[Record]) -> list[str]:
    events = [record["event"] for record in found if kind(record["event"]) == "recorder"]
    return [event["cause"] for event in events if event["action"] == "stopped"]
