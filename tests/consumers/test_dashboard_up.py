"""``exec-events up``: one process that counts a spool and shows it."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from dashboards import Running, running

from exec_events_schemas.spool_layout import FOLDER_NAME
from spool_files import FIRST, Recording


def spool_of(folder: Path, recording: Recording) -> Path:
    """This user's spool with what was recorded."""
    spool = folder / "data" / FOLDER_NAME
    spool.mkdir(parents=True, exist_ok=True)
    recording.write(spool)
    return spool


def recorded(executions: int) -> Recording:
    """What one recorder sealed."""
    recording = Recording(FIRST)
    recording.say("started")
    for number in range(executions):
        recording.execute(number % 2)
    return recording


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_counts_and_shows(tmp_path: Path, number: signal.Signals) -> None:
    """It prints a URL where all that is in the spool is counted, shows what comes within a second, and ends with 0."""
    recording = recorded(7)
    spool = spool_of(tmp_path, recording)
    with running(tmp_path, ["up", "--port", "0"]) as one:
        wait_for(one, runs=7, seconds=10)
        facts = one.figures(since="all")["facts"]
        assert (facts["waiting"], facts["open-kernels"]) == (0, 0)
        recording.execute(1)
        new = recording.rows[-1]
        with closing(sqlite3.connect(spool / f"{FIRST}.db")) as file, file:
            (columns,) = file.execute("SELECT group_concat(name) FROM pragma_table_info('records')").fetchone()
            assert {"record", "hash"} <= set(columns.split(","))
            last = file.execute("SELECT max(id) FROM records").fetchone()[0]
            names = [name for name in columns.split(",") if name not in ("id", "record", "hash")]
            more = "".join(f", {name}" for name in names)
            file.execute(
                f"INSERT INTO records (id, record, hash{more}) SELECT id + 1, ?, ?{more} FROM records WHERE id = ?",
                (new.record, new.hash, last),
            )
        wait_for(one, runs=8, seconds=1.5)
        code, rest = one.end(number)
        assert code == 0, one.errors
        assert "9 records read" in rest
        assert one.errors == ""
    # What it had counted is kept, and not counted again.
    with running(tmp_path, ["up", "--port", "0"]) as one:
        wait_for(one, runs=8, seconds=10)


def wait_for(one: Running, runs: int, seconds: float) -> None:
    """Until the page says so many runs."""
    until = time.monotonic() + seconds
    while (found := one.figures(since="all")["facts"]["runs"]) != runs:
        assert time.monotonic() < until, (found, one.errors)
        time.sleep(0.05)


def test_up_says_what_it_needs(tmp_path: Path) -> None:
    """Where nothing was recorded, where its SOURCE is no spool, and where its port is taken, it says so in a line."""
    environment = {**os.environ, "JUPYTER_DATA_DIR": str(tmp_path / "data")}

    def said(*arguments: str) -> str:
        command = [sys.executable, "-m", "exec_events", *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 2, done
        assert done.stderr.count("\n") == 1
        return done.stderr

    assert "nothing was recorded there yet" in said("up", "--port", "0")
    assert "run `exec-events aggregate` first" in said("dashboard", "--port", "0")
    spool_of(tmp_path, recorded(3))
    with running(tmp_path, ["up", "--port", "0"]) as one:
        port = one.base.rstrip("/").rpartition(":")[2]
        assert "--port 0 takes a free port" in said("dashboard", "--port", port)
