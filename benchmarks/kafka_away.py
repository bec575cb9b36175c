"""Events that are spooled while no broker takes them: how the server's memory grows."""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass

import psutil

from exec_events.deliver import Deliverer, DeliveryState
from exec_events.spool import Spool
from exec_events_schemas.sources.spool import connect_read_only
from tools.kafka_broker import Broker

from .figures import Figure
from .fleet import progress
from .kafka_silent import silent_broker
from .kafka_spool import fill, spool_of

MEGABYTE = 1_000_000
WARM_UP = 20_000
# So many wait in memory for the disk at most: tens of thousands a second come so, where a server has hundreds.
LOT = 1_000
# Longer than the sink waits for acknowledgements before it gives a producer up.
NOTICE_SECONDS = 90
LOOK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Growth:
    """Resident bytes before, at most, and in the end; how many events the spool then holds, and its delivery."""

    before: int
    most: int
    after: int
    stored: int
    delivery: DeliveryState


async def measure(quick: bool) -> list[Figure]:
    """The most memory at any time, less that before, for each way in which a broker can be away."""
    count = 50_000 if quick else 1_000_000
    figures = []
    for way in WAYS:
        growth = await asyncio.to_thread(_in_a_new_process, way, count)
        if growth.stored != WARM_UP + count:
            raise RuntimeError(f"{way}: the spool holds {growth.stored:,} events of {WARM_UP + count:,}")
        sizes = tuple(size / MEGABYTE for size in (growth.before, growth.most, growth.after))
        note = "from {:.0f} to at most {:.0f} MB, {:.0f} in the end".format(*sizes)
        progress(f"kafka-away, {way}: {note}; {growth.delivery}")
        name = f"{count:,} events spooled, {way}: memory growth"
        figures.append(Figure(name, sizes[1] - sizes[0], "MB", 50, "at most", note, sizes))
    return figures


def _in_a_new_process(way: str, count: int) -> Growth:
    """Memory is a process's: what others left behind in this one does not count."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_grow, way, count).result()


def _grow(way: str, count: int) -> Growth:
    # What a server would say once is no news here.
    logging.getLogger("benchmarks").setLevel(logging.CRITICAL)
    sizes: list[int] = []

    def look() -> None:
        sizes.append(psutil.Process().memory_info().rss)

    with WAYS[way]() as (servers, leave), spool_of(0) as spool:
        deliverer = Deliverer(f"kafka://{servers}/bench", logging.getLogger("benchmarks"))
        deliverer.add(spool)
        deliverer.start()
        try:
            fill(spool, range(WARM_UP), lot=LOT)
            # What the sink needs at all, its library and its first batch, it has when it went or failed once.
            _wait_until(lambda: _has_tried(deliverer, spool), "the sink neither delivers nor fails")
            leave()
            delivered, errors = deliverer.state().delivered, deliverer.state().errors
            gc.collect()
            look()
            fill(spool, range(WARM_UP, WARM_UP + count), look, LOT)
            # It has tried with those, too.
            _wait_until(lambda: deliverer.state().errors > errors, "the sink does not try again", look)
            look()
        finally:
            deliverer.stop(1)
        with closing(connect_read_only(spool.path)) as connection:
            (stored,) = connection.execute("SELECT count(*) FROM records").fetchone()
        if deliverer.state().delivered != delivered:
            raise RuntimeError(f"a broker that is away took events: {deliverer.state()}")
        return Growth(sizes[0], max(sizes), sizes[-1], stored, deliverer.state())


def _has_tried(deliverer: Deliverer, spool: Spool) -> bool:
    return deliverer.state().errors > 0 or deliverer.is_drained(spool)


# A way gives an address, and what makes the broker leave it.
Away = tuple[str, Callable[[], object]]


@contextmanager
def _nobody() -> Iterator[Away]:
    # Its port is chosen, and it is never started.
    yield Broker().servers, lambda: None


@contextmanager
def _silent() -> Iterator[Away]:
    with silent_broker() as broker:
        yield broker.servers, lambda: None


@contextmanager
def _killed() -> Iterator[Away]:
    with Broker() as broker:
        yield broker.servers, broker.kill


WAYS = {"nobody listens": _nobody, "a broker never answers": _silent, "the broker is killed": _killed}


def _wait_until(holds: Callable[[], bool], otherwise: str, look: Callable[[], object] = lambda: None) -> None:
    give_up_at = time.monotonic() + NOTICE_SECONDS
    while not holds():
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"{otherwise}, for {NOTICE_SECONDS} s")
        look()
        time.sleep(LOOK_SECONDS)
