"""Trivial cells: throughput, latency and server CPU, in interleaved rounds."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from statistics import median, quantiles

from .figures import Figure
from .fleet import Driven, fleet, median_ratio, progress, recorder_exists, rotated, settle

MEGABYTE = 1_000_000
# Executions of one server before it is another's turn.
TURN = 30


@dataclass(frozen=True, slots=True)
class Round:
    """What one server did in one round."""

    sequential_rate: float
    pipelined_rate: float
    p50: float
    p99: float
    cpu_per_execution: float


async def measure(quick: bool) -> list[Figure]:
    """Stock against itself (control) and, where there is one, the recorder against stock."""
    count, rounds = (60, 3) if quick else (150, 20)
    configurations: dict[str, str | None] = {"stock": None, "control": None}
    if recorder_exists():
        configurations["recorder"] = ""
    results: dict[str, list[Round]] = defaultdict(list)
    async with fleet(**configurations) as servers:
        await settle()
        before = {one.name: await one.executions_recorded() for one in servers}
        for turn in range(rounds):
            for name, one_round in (await _round(servers, turn, count)).items():
                results[name].append(one_round)
            progress(f"rounds {turn + 1}/{rounds}: " + ", ".join(_line(name, results[name][-1]) for name in results))
        await settle()
        resident = {one.name: one.resident_bytes / MEGABYTE for one in servers}
        recorded = {one.name: await one.executions_recorded() - before[one.name] for one in servers}
    figures = _figures(results, "control", targets=False)
    figures.append(
        Figure("memory, stock against itself", resident["control"] - resident["stock"], "MB", note="the control")
    )
    if "recorder" in results:
        figures += _figures(results, "recorder", targets=True)
        added = resident["recorder"] - resident["stock"]
        note = f"stock {resident['stock']:.0f} MB"
        figures.append(Figure("server memory added", added, "MB", 25, "at most", note))
        ratio = recorded["recorder"] / (2 * count * rounds)
        figures.append(Figure("executions recorded of those run", ratio, "x", 1.0, note=f"{recorded['recorder']:,}"))
    return figures


async def _round(servers: list[Driven], turn: int, count: int) -> dict[str, Round]:
    """
    One round over all servers, in turns of a few executions each.

    Short turns, because what else the machine does comes and goes within seconds. What a recorder
    still does after the last cell of a turn counts as CPU all the same: the clock is the process's.
    """
    sequential: dict[str, float] = defaultdict(float)
    latencies: dict[str, list[float]] = defaultdict(list)
    pipelined: dict[str, float] = defaultdict(float)
    await settle()
    before = {one.name: one.cpu_seconds for one in servers}
    for start in range(0, count, TURN):
        for one in rotated(servers, turn + start // TURN):
            seconds, each = await one.sequential(min(TURN, count - start))
            sequential[one.name] += seconds
            latencies[one.name] += each
    for start in range(0, count, TURN):
        for one in rotated(servers, turn + start // TURN):
            pipelined[one.name] += await one.pipelined(min(TURN, count - start))
    await settle()
    return {
        one.name: Round(
            sequential_rate=count / sequential[one.name],
            pipelined_rate=count / pipelined[one.name],
            p50=median(latencies[one.name]) * 1000,
            p99=quantiles(latencies[one.name], n=100)[98] * 1000,
            cpu_per_execution=(one.cpu_seconds - before[one.name]) / (2 * count) * 1000,
        )
        for one in servers
    }


def _figures(results: dict[str, list[Round]], name: str, *, targets: bool) -> list[Figure]:
    stock, measured = results["stock"], results[name]
    which = "" if targets else ", stock against itself"

    def ratio(what: str, label: str, unit: str, target: float, bound: str) -> Figure:
        values, base = [getattr(r, what) for r in measured], [getattr(r, what) for r in stock]
        middle, ratios = median_ratio(values, base)
        note = f"{median(values):.2f} {unit}, stock {median(base):.2f}" if targets else "the control"
        return Figure(label + which, middle, "x", target if targets else None, bound, note, ratios)  # type: ignore[arg-type]

    added = tuple(one.p50 - base.p50 for one, base in zip(measured, stock, strict=True))
    tails = tuple(one.p99 - base.p99 for one, base in zip(measured, stock, strict=True))
    note = f"stock {median(r.p50 for r in stock):.2f} ms" if targets else "the control"
    tail_note = f"stock {median(r.p99 for r in stock):.2f} ms" if targets else "the control"
    return [
        ratio("sequential_rate", "sequential executions per second", "/s", 0.96, "at least"),
        ratio("pipelined_rate", "pipelined executions per second", "/s", 0.97, "at least"),
        Figure("p50 latency added" + which, median(added), "ms", 0.3 if targets else None, "at most", note, added),
        Figure("p99 latency added" + which, median(tails), "ms", None, "at most", tail_note, tails),
        ratio("cpu_per_execution", "server CPU per execution", "ms", 1.10, "at most"),
    ]


def _line(name: str, one: Round) -> str:
    rates = f"{one.sequential_rate:.0f}/s {one.pipelined_rate:.0f}/s"
    return f"{name} {rates} p50 {one.p50:.2f} cpu {one.cpu_per_execution:.2f}"
