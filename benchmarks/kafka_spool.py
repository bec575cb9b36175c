"""A spool of sample events in a temporary folder, for what comes behind it."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from exec_events.spool import Spool

from .producer import LOT, TIMEOUT_SECONDS
from .sample import CHAIN, RECORDER_ID, SCHEMA_ID, cell_execution


@contextmanager
def spool_of(count: int) -> Iterator[Spool]:
    """A spool that holds ``count`` events; closed and removed in the end."""
    with tempfile.TemporaryDirectory(prefix="exec-events-bench-") as folder:
        spool = Spool(Path(folder), RECORDER_ID, logging.getLogger("benchmarks"))
        spool.start()
        try:
            fill(spool, range(count))
            yield spool
        finally:
            if not spool.close(TIMEOUT_SECONDS):
                raise RuntimeError("the spool did not close in time")


def fill(spool: Spool, numbers: Iterable[int], after_lot: Callable[[], object] = lambda: None, lot: int = LOT) -> None:
    """
    Put these events in; returns once all are on disk.

    At most ``lot`` wait in memory: the next go in when they are committed, and ``after_lot`` was called.
    """
    for place, number in enumerate(numbers, start=1):
        spool.append({"__schema__": SCHEMA_ID, "__schema_version__": "1", **cell_execution(number)}, CHAIN)
        if place % lot == 0:
            spool.flush().result(TIMEOUT_SECONDS)
            after_lot()
    spool.flush().result(TIMEOUT_SECONDS)
