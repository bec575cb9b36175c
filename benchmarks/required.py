"""``required`` mode: what it costs that a request is on disk before the kernel sees it."""

from __future__ import annotations

from collections import defaultdict
from statistics import median

from .figures import Figure
from .fleet import fleet, progress, recorder_exists, rotated

# Executions of one server before it is another's turn.
TURN = 30


async def measure(quick: bool) -> list[Figure]:
    """Median latency of a trivial cell, against the stock server's of the same round."""
    if not recorder_exists():
        return []
    count, rounds = (60, 3) if quick else (150, 12)
    p50: dict[str, list[float]] = defaultdict(list)
    async with fleet(stock=None, required="c.ExecEvents.required = True") as servers:
        for turn in range(rounds):
            latencies: dict[str, list[float]] = defaultdict(list)
            for start in range(0, count, TURN):
                for one in rotated(servers, turn + start // TURN):
                    latencies[one.name] += (await one.sequential(TURN))[1]
            for name, each in latencies.items():
                p50[name].append(median(each) * 1000)
            progress(f"required {turn + 1}/{rounds}: " + ", ".join(f"{k} p50 {v[-1]:.2f} ms" for k, v in p50.items()))
    added = tuple(mine - stock for mine, stock in zip(p50["required"], p50["stock"], strict=True))
    note = f"stock {median(p50['stock']):.2f} ms"
    return [Figure("required: p50 latency added", median(added), "ms", 1.0, "at most", note, added)]
