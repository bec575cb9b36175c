"""A server that is stopped while it still starts: its chain begins before it ends."""

from __future__ import annotations

import sqlite3
import uuid
from contextlib import closing
from pathlib import Path

from conftest import PLAIN, kind
from exec_events.testing import RunningServer, records
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
