"""kill -9 of an aggregate at any moment, a spool on one side and a SQLite file on the other: it goes on where it was."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from logs import Log, random_log, sqlite_url
from test_aggregate import check, rows

from exec_events_schemas.sources import StoredRecord
from spool_files import FIRST, SECOND, write_spool_file

# Batches of a few records, so that there are many moments to be killed at.
PROGRAM = """
import sys
from exec_events_consumers import spool_feed
spool_feed.BATCH_RECORDS = 20
from exec_events.cli import main
main(sys.argv[1:])
"""


def spooled(folder: Path, log: Log) -> None:
    """The log in spool files, one for each recorder, and one record of junk among them."""
    for recorder in (FIRST, SECOND):
        own = [pair for pair in log.records if f'"chain":"{recorder}'.encode() in pair[0]]
        rows = [StoredRecord(record, raw, recorder, n + 1) for n, (record, raw) in enumerate([*own, (b"junk", b"h")])]
        write_spool_file(folder, recorder, rows, "2026-01-01T00:00:00.000000Z")


def aggregating(spool: Path, url: str) -> subprocess.Popen[bytes]:
    """The command, on the spool until all is taken."""
    arguments = ["aggregate", "--once", "--from", f"spool://{spool}", "--store", url]
    return subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def kill_again_and_again(folder: Path, kills: int, seed: int) -> int:
    """Kill it at random moments, and let the last one finish; how many kills found it at work."""
    rng = random.Random(seed)
    log = random_log(rng, max(2000, 60 * kills), recorders=(FIRST, SECOND))
    spooled(folder / "spool", log)
    url = sqlite_url(folder)
    in_the_middle = 0
    # It takes as long to start as it does: moments are counted from when its store is there.
    began = time.monotonic()
    aggregating_first = aggregating(folder / "spool", url)
    while not (folder / "tables.db-wal").exists():
        assert time.monotonic() - began < 60
        time.sleep(0.01)
    starts = time.monotonic() - began
    aggregating_first.kill()
    aggregating_first.communicate(timeout=30)
    for _ in range(kills):
        process = aggregating(folder / "spool", url)
        time.sleep(starts * (0.7 + rng.random() * 0.8))
        in_the_middle += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=30)
    process = aggregating(folder / "spool", url)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    check(url, log)
    (letters,) = rows(url, "SELECT count(*) AS n FROM dead_letters")
    (chains,) = rows(
        url, "SELECT sum(records) AS records, sum(missing) AS missing, sum(duplicates) AS twice FROM chains"
    )
    assert letters == {"n": 2}
    assert chains == {"records": len(log.records), "missing": 0, "twice": 0}
    return in_the_middle


def test_a_few_kills(tmp_path: Path) -> None:
    """After kills at random moments every table equals a recount, and no record was taken twice."""
    assert kill_again_and_again(tmp_path, 4, seed=1) > 0


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_hundred_kills(tmp_path: Path) -> None:
    """The same over a hundred kills."""
    assert kill_again_and_again(tmp_path, 100, seed=int(os.environ.get("EXEC_EVENTS_SEED", "100"))) > 20
