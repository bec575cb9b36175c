"""Servers that run side by side, of which one is driven at a time."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from statistics import median

import psutil

from exec_events.testing import NotebookClient, RunningServer, events

# The stock server's output limits would cut the large outputs short.
UNLIMITED = "c.ZMQChannelsWebsocketConnection.limit_rate = False"
WINDOW = 10
TRIVIAL = "pass"

# The recorder works in batches after a cell; what it does then belongs to the cells before.
SETTLE_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Driven:
    """One server with one notebook open."""

    name: str
    server: RunningServer
    client: NotebookClient

    @property
    def cpu_seconds(self) -> float:
        """CPU time of the server's process so far, its kernels not counted."""
        try:
            # The CPU clock of another process (clock_getcpuclockid): nanoseconds, not 10 ms ticks.
            return time.clock_gettime((~self.server.pid << 3) | 2)
        except (OSError, AttributeError):
            times = psutil.Process(self.server.pid).cpu_times()
            return times.user + times.system

    @property
    def resident_bytes(self) -> int:
        """Its memory."""
        return psutil.Process(self.server.pid).memory_info().rss

    async def sequential(self, count: int, code: str = TRIVIAL) -> tuple[float, list[float]]:
        """Seconds for ``count`` executions one after another, and each one's latency."""
        began = time.perf_counter()
        latencies = [(await self.run(code)) for _ in range(count)]
        return time.perf_counter() - began, latencies

    async def pipelined(self, count: int, window: int = WINDOW, code: str = TRIVIAL) -> float:
        """Seconds for ``count`` executions, ``window`` of them under way at any time."""
        began = time.perf_counter()
        waiting: list[str] = []
        for _ in range(count):
            if len(waiting) >= window:
                await self.client.wait(waiting.pop(0))
            waiting.append(await self.client.submit(code, cell_id="cell"))
        for msg_id in waiting:
            await self.client.wait(msg_id)
        return time.perf_counter() - began

    async def run(self, code: str) -> float:
        """Seconds from request to reply and idle."""
        result = await self.client.execute(code, cell_id="cell")
        if result.status != "ok":
            raise RuntimeError(f"{self.name}: a cell ended as {result.status} ({result.lost or result.text[-500:]})")
        return result.seconds

    async def executions_recorded(self) -> int:
        """How many executions its spool holds."""
        return len(await asyncio.to_thread(events, self.server.data_dir, "cell_execution"))


@asynccontextmanager
async def fleet(**configurations: str | None) -> AsyncIterator[list[Driven]]:
    """
    Start one server for each ``name=config`` (None: a stock server) with a warm kernel each.

    All run at once, so that what else the machine does meets them alike.
    """
    async with AsyncExitStack() as stack:
        driven = []
        for name, config in configurations.items():
            full = UNLIMITED + "\n" + (config or "")
            server = await stack.enter_async_context(RunningServer(recorder=config is not None, config=full))
            client = await stack.enter_async_context(NotebookClient(server, keep_messages=False))
            one = Driven(name, server, client)
            await one.sequential(50)
            await one.pipelined(50)
            if config is not None and not await one.executions_recorded():
                raise RuntimeError(f"{name}: nothing is recorded, so nothing can be compared; its log:\n{server.log}")
            driven.append(one)
        yield driven


def recorder_exists() -> bool:
    """Whether there is a recorder to compare with; without one, only the control is measured."""
    return find_spec("exec_events.app") is not None


async def settle() -> None:
    """Let batches be written and caches be collected, for every server alike."""
    gc.collect()
    await asyncio.sleep(SETTLE_SECONDS)


def rotated(servers: list[Driven], turn: int) -> list[Driven]:
    """The servers in another order each round: none is always first."""
    shift = turn % len(servers)
    return servers[shift:] + servers[:shift]


def median_ratio(values: Iterable[float], stock: Iterable[float]) -> tuple[float, tuple[float, ...]]:
    """The median of per-round ratios, and the ratios."""
    ratios = tuple(value / base for value, base in zip(values, stock, strict=True))
    return median(ratios), ratios


def progress(text: str) -> None:
    """A line on stderr."""
    print(text, file=sys.stderr, flush=True)
