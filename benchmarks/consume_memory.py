"""The memory of `exec-events aggregate` and `exec-events archive` over many events."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import psutil

from exec_events_consumers.archive import DATABASE
from exec_events_consumers.store import open_engine
from tools.kafka_broker import Broker

from .consume_log import filled_topic
from .figures import Figure
from .fleet import progress

MEGABYTE = 1_000_000
LIMIT_MEGABYTES = 200.0
TIMEOUT_SECONDS = 900
LOOK_SECONDS = 0.2


async def measure(quick: bool) -> list[Figure]:
    """The largest each was, and its growth from the time it had read a fifth."""
    count = 30_000 if quick else 300_000
    figures = []
    with Broker() as broker, tempfile.TemporaryDirectory(prefix="exec-events-bench-") as name:
        folder = Path(name)
        source = f"kafka://{broker.servers}/{filled_topic(broker, count)}"
        tables, archive = f"sqlite:///{folder / 'tables.db'}", folder / "archive"
        figures += _measured("aggregate", ["--store", tables], source, tables, count)
        figures += _measured("archive", [str(archive)], source, f"sqlite:///{archive / DATABASE}", count)
    return figures


def _measured(name: str, arguments: list[str], source: str, url: str, count: int) -> list[Figure]:
    command = [Path(sys.executable).parent / "exec-events", name, "--once", "--from", source, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        seen = _watch(process, url)
    finally:
        process.kill()
        process.wait(10)
    early = max(resident for done, resident in seen if done <= count / 5)
    largest = max(resident for _, resident in seen)
    progress(f"consume-memory: {name}: {early:.0f} MB in the first fifth, {largest:.0f} MB at most")
    if seen[-1][0] != count:
        raise RuntimeError(f"{name}: {seen[-1][0]:,} events of {count:,}")
    rounds = tuple(resident for _, resident in seen)
    note = f"{early:.0f} MB in the first fifth of {count:,} events"
    return [
        Figure(f"memory of {name}", largest, "MB", LIMIT_MEGABYTES, "at most", note, rounds),
        Figure("growth of it after the first fifth", largest - early, "MB", None, note="flat is less than 10"),
    ]


def _watch(process: subprocess.Popen[bytes], url: str) -> list[tuple[int, float]]:
    """How many events were taken, and what it had resident then, until it ends."""
    seen: list[tuple[int, float]] = []
    give_up_at = time.monotonic() + TIMEOUT_SECONDS
    while process.poll() is None:
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"still running after {TIMEOUT_SECONDS} s")
        resident = psutil.Process(process.pid).memory_info().rss / MEGABYTE
        seen.append((_taken(url), resident))
        time.sleep(LOOK_SECONDS)
    return [*seen, (_taken(url), 0.0)]


def _taken(url: str) -> int:
    """Positions count what was read; the tables are let alone."""
    if not Path(url.removeprefix("sqlite:///")).exists():
        return 0
    engine = open_engine(url)
    try:
        with closing(engine.connect()) as connection:
            found = connection.exec_driver_sql("SELECT count(*) FROM sqlite_master WHERE name = 'offsets'").scalar_one()
            if not found:
                return 0
            return int(connection.exec_driver_sql("SELECT coalesce(sum(position), 0) FROM offsets").scalar_one())
    finally:
        engine.dispose()
