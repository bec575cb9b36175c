"""Somebody's own step in, run over a SOURCE with its positions, its dead letters and its rows in one store."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

from sqlalchemy import MetaData

from .errors import ConsumerError
from .loop import Progress, Step, run
from .open_feed import open_feed, open_office
from .store import Store

# Their tables, positions and dead letters are theirs.
TAKEN = ("aggregate", "archive", "forward")


def consume(
    source: str | None,
    step: Step,
    *,
    store: str,
    name: str,
    tables: MetaData | None = None,
    once: bool = False,
    settings: Mapping[str, Any] | None = None,
    stop: threading.Event | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Progress:
    """
    Give ``step`` every event of ``source`` once, in batches, until Ctrl-C (or until ``stop`` is set).

    ``step(events, transaction)`` writes through ``transaction.connection`` into tables of its own in ``store``, an
    SQLAlchemy URL; ``tables``, if given, are made there first. What it writes is kept together with how far
    ``name`` has read, or not at all, whenever the process is killed. With ``once`` it ends when all that was there
    has been taken. ``settings`` are kafka-python's for kafka://. ``on_progress`` is told after each batch; without
    it, standard error is, every two seconds.

    Raises:
        SourceError, StoreError: the source or the store cannot be had.
        ConsumerError: the name is one of ours, or another process reads under it.
        Stalled: the client of Kafka hangs; start the process again.
    """
    if not name or name in TAKEN:
        raise ConsumerError(f"a consumer needs a name of its own, not {name!r}")
    if on_progress is None:
        from .cli.options import Saying

        on_progress = Saying(name)
    with (
        closing(Store(store, name)) as opened,
        closing(open_feed(source, name, settings)) as feed,
        open_office(source, name, settings) as office,
        _stopped_by_signals(stop or threading.Event()) as stopped,
    ):
        if tables is not None:
            tables.create_all(opened.engine)
        return run(feed, opened, step, once=once, stop=stopped, office=office, on_progress=on_progress)


@contextmanager
def _stopped_by_signals(stop: threading.Event) -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM end the loop after its batch, where this is the thread that hears of them."""
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
