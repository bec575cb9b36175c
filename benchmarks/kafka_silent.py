"""A broker that takes connections and never answers: what it costs the cells of a server that delivers to it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median, quantiles

from .figures import Figure
from .fleet import Driven, fleet, progress, rotated

# Executions of one server before it is another's turn.
TURN = 30
MEET_SECONDS = 60
PORT_NOT_IN_USE = 0


@dataclass(slots=True)
class SilentBroker:
    """Where it listens, and the connections it has taken so far."""

    servers: str
    connections: list[socket.socket] = field(default_factory=list)


@contextmanager
def silent_broker() -> Iterator[SilentBroker]:
    """Take every connection, keep it open and say nothing, until the end."""
    with socket.create_server(("127.0.0.1", PORT_NOT_IN_USE)) as listening:
        broker = SilentBroker(f"127.0.0.1:{listening.getsockname()[1]}")

        def take() -> None:
            with contextlib.suppress(OSError):  # the listening socket is shut
                while True:
                    broker.connections.append(listening.accept()[0])

        taking = threading.Thread(target=take, name="silent-broker", daemon=True)
        taking.start()
        try:
            yield broker
        finally:
            # Closing alone would not wake a thread that waits in accept.
            listening.shutdown(socket.SHUT_RDWR)
            taking.join(10)
            for connection in broker.connections:
                connection.close()


async def measure(quick: bool) -> list[Figure]:
    """Latency of a trivial cell, against a recorder without a sink in the same round."""
    count, rounds = (60, 3) if quick else (150, 12)
    p50: dict[str, list[float]] = defaultdict(list)
    p99: dict[str, list[float]] = defaultdict(list)
    with silent_broker() as broker:
        silent = f"c.ExecEvents.deliver_to = ['kafka://{broker.servers}']\nc.ExecEvents.stop_seconds = 1"
        async with fleet(recorder="", control="", silent=silent) as servers:
            await _meet(servers)
            met = len(broker.connections)
            for turn in range(rounds):
                for name, each in (await _latencies(servers, turn, count)).items():
                    p50[name].append(median(each) * 1000)
                    p99[name].append(quantiles(each, n=100)[98] * 1000)
                line = ", ".join(f"{name} p50 {values[-1]:.2f} ms" for name, values in p50.items())
                progress(f"kafka-silent {turn + 1}/{rounds}: {line}")
            if len(broker.connections) == met:
                raise RuntimeError("its sink has not tried again: nothing was measured")
    return [
        _added("a broker that never answers: p50 latency added", "silent", p50, 0.3),
        _added("a broker that never answers: p99 latency added", "silent", p99, None),
        _added("a recorder without a sink against itself: p50 latency added", "control", p50, None),
    ]


async def _latencies(servers: list[Driven], turn: int, count: int) -> dict[str, list[float]]:
    latencies: dict[str, list[float]] = defaultdict(list)
    for start in range(0, count, TURN):
        for one in rotated(servers, turn + start // TURN):
            latencies[one.name] += (await one.sequential(TURN))[1]
    return latencies


def _added(label: str, name: str, values: dict[str, list[float]], target: float | None) -> Figure:
    added = tuple(mine - base for mine, base in zip(values[name], values["recorder"], strict=True))
    note = f"without a sink {median(values['recorder']):.2f} ms"
    return Figure(label, median(added), "ms", target, "at most", note, added)


async def _meet(servers: list[Driven]) -> None:
    """Wait until the sink has tried in vain: from then on it tries again and again."""
    silent = next(one for one in servers if one.name == "silent")
    give_up_at = time.monotonic() + MEET_SECONDS
    while True:
        status = await asyncio.to_thread(silent.server.rest, "GET", "/exec-events/status")
        (sink,) = status["sinks"].values()
        if sink["errors"]:
            return
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"its sink has not met the silent broker in {MEET_SECONDS} s: {sink}")
        await asyncio.sleep(0.2)
