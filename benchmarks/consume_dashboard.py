"""What the dashboard's pages take on a million executions, while the tables change."""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles

from sqlalchemy import Engine

from .figures import Figure
from .fleet import progress

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "tests" / name) for name in (".", "consumers")]

from dashboards import Running, running  # noqa: E402
from many_runs import fill  # noqa: E402

LIMIT_MS = 200.0
NOTEBOOKS = 5
BETWEEN_SECONDS = 0.1
PAGES = {"now": [("", {"since": since}) for since in ("2h", "24h", "all")]} | {
    "cohort": [
        ("cohort", {"notebook": f"notebook-{n}", "since": since}) for n in range(NOTEBOOKS) for since in ("all", "24h")
    ]
}


async def measure(quick: bool) -> list[Figure]:
    """Each page again and again, for all notebooks and several spans, a tenth of a second apart."""
    runs, turns = (50_000, 2) if quick else (1_000_000, 40)
    figures = []
    with tempfile.TemporaryDirectory(prefix="exec-events-bench-") as name:
        folder = Path(name)
        url = f"sqlite:///{folder / 'tables.db'}"
        began = time.monotonic()
        engine = fill(url, runs, time.time_ns() // 1000, notebooks=NOTEBOOKS)
        progress(f"consume-dashboard: {runs:,} executions, {time.monotonic() - began:.0f} s")
        with running(folder, ["dashboard", "--store", url, "--port", "0"]) as one, _changing(engine):
            for page, requests in PAGES.items():
                first = [_milliseconds(one, *request) for request in requests]
                rest = [_milliseconds(one, *request) for _ in range(turns) for request in requests]
                cuts = quantiles(rest, n=20)
                note = f"median {cuts[9]:.0f} ms, {len(rest)} requests; the first of each {max(first):.0f} ms at most"
                progress(f"consume-dashboard: {page}: {note}")
                label = f"page “{page}” at {runs:,} executions, p95"
                figures.append(Figure(label, cuts[18], "ms", LIMIT_MS, "at most", note, (*first, *rest)))
        engine.dispose()
    return figures


def _milliseconds(one: Running, path: str, query: dict[str, str]) -> float:
    """How long a page takes, asked for by somebody on this machine."""
    time.sleep(BETWEEN_SECONDS)
    began = time.perf_counter()
    answer = one.get(path, **query)
    took = time.perf_counter() - began
    answer.raise_for_status()
    return took * 1000


@contextmanager
def _changing(engine: Engine) -> Iterator[None]:
    """The tables as a running aggregate has them: every second there is something new."""
    stop = threading.Event()

    def change() -> None:
        while not stop.wait(1):
            with engine.begin() as connection:
                connection.exec_driver_sql("UPDATE offsets SET position = position + 1")

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
