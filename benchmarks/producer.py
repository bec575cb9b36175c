"""The producer's own speed, without kernels: sealed and committed, and emitted to committed."""

from __future__ import annotations

import logging
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from jupyter_events import EventLogger

from exec_events.spool import Spool
from exec_events_schemas.sources.spool import connect_read_only

from .figures import Figure
from .fleet import progress
from .sample import CHAIN, RECORDER_ID, SCHEMA_ID, cell_execution

# So many events go in between two looks at what is on disk, and at most two such lots wait: the spool
# gives up events rather than memory, which a benchmark must not provoke.
LOT = 5_000
TIMEOUT_SECONDS = 120
REPEATS = 5


async def measure_spool(quick: bool) -> list[Figure]:
    """Events sealed, written and committed by the spool's one writer, from the first `append` to the last commit."""
    count = 20_000 if quick else 200_000
    ready = [{"__schema__": SCHEMA_ID, "__schema_version__": "1", **cell_execution(n)} for n in range(count)]
    rates = []
    for turn in range(REPEATS):
        with _spool() as spool:

            def put(n: int, spool: Spool = spool) -> None:
                spool.append(ready[n], CHAIN)

            rates.append(_rate(spool, count, put))
            size = _check(spool, count)
        progress(f"spool {turn + 1}/{REPEATS}: {rates[-1]:,.0f} events/s of {size:.0f} bytes")
    name = "spool: sealed and committed, one writer"
    return [Figure(name, median(rates), "events/s", 40_000, note=f"{size:.0f} bytes each", rounds=tuple(rates))]


async def measure_emit(quick: bool) -> list[Figure]:
    """From `EventLogger.emit` on one thread to committed: validated, handled, sealed, written."""
    from exec_events.emit import Emitter

    count = 5_000 if quick else 50_000
    ready = [cell_execution(n) for n in range(count)]
    log = logging.getLogger("benchmarks")
    rates = []
    for turn in range(REPEATS):
        emitter = Emitter(EventLogger(), log)
        emitter.install()
        with _spool() as spool:

            def emit(n: int, emitter: Emitter = emitter, spool: Spool = spool) -> None:
                spool.append(emitter.send(SCHEMA_ID, ready[n]), CHAIN)

            rates.append(_rate(spool, count, emit))
            _check(spool, count)
        emitter.remove()
        progress(f"emit {turn + 1}/{REPEATS}: {rates[-1]:,.0f} events/s")
    name = "emit to committed, one thread emitting"
    return [Figure(name, median(rates), "events/s", 8_000, rounds=tuple(rates))]


@contextmanager
def _spool() -> Iterator[Spool]:
    with tempfile.TemporaryDirectory(prefix="exec-events-bench-") as folder:
        spool = Spool(Path(folder), RECORDER_ID, logging.getLogger("benchmarks"))
        spool.start()
        spool.flush().result(TIMEOUT_SECONDS)
        try:
            yield spool
        finally:
            if not spool.close(TIMEOUT_SECONDS):
                raise RuntimeError("the spool did not close in time")


def _rate(spool: Spool, count: int, put: Callable[[int], None]) -> float:
    waiting: deque[Future[Any]] = deque()
    began = time.perf_counter()
    for number in range(count):
        put(number)
        if number % LOT == LOT - 1:
            waiting.append(spool.flush())
            if len(waiting) > 2:
                waiting.popleft().result(TIMEOUT_SECONDS)
    spool.flush().result(TIMEOUT_SECONDS)
    return count / (time.perf_counter() - began)


def _check(spool: Spool, count: int) -> float:
    """All are there, on disk, synchronously written; the mean size of a record."""
    state = spool.state()
    synchronous = spool.call(lambda file: file.connection.execute("PRAGMA synchronous").fetchone()[0]).result(10)
    with closing(connect_read_only(spool.path)) as connection:
        stored, size = connection.execute("SELECT count(*), avg(length(record)) FROM records").fetchone()
    if (stored, state.lost, synchronous) != (count, 0, 2):
        raise RuntimeError(f"{stored} of {count} stored, {state.lost} lost, synchronous={synchronous} (2 is FULL)")
    return float(size)
