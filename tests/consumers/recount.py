"""A plain recount: the events of a log in, what the tables must say out, each by its definition in docs/measures.md."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from datetime import datetime
from typing import Any

Event = dict[str, Any]
Key = tuple[str, ...]

IDLE_US = 5 * 60 * 1_000_000


def us(time: str) -> int:
    """Microseconds since 1970 of a time."""
    since = datetime.fromisoformat(time) - datetime.fromisoformat("1970-01-01T00:00:00+00:00")
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def runs_of(events: list[Event], order: dict[str, int]) -> list[Event]:
    """The runs that count, in the order they were asked for; ``order`` says what comes first at the same time."""
    counted = [e for e in events if e["__schema__"].endswith("/cell_execution/v1") and not e["silent"]]
    return sorted(counted, key=lambda e: (e["requested_at"], e["recorder_id"], e["subject"], order[e["execution_id"]]))


def grouped(runs: list[Event], *members: str) -> dict[Key, list[Event]]:
    """Runs by these members of theirs."""
    groups: dict[Key, list[Event]] = defaultdict(list)
    for run in runs:
        groups[tuple(run[member] for member in members)].append(run)
    return groups


def counts(runs: list[Event]) -> dict[str, int]:
    """How they ended."""
    ended = Counter({"ok": "ok", "error": "errors"}.get(run["status"], "other") for run in runs)
    return {"runs": len(runs), "ok": ended["ok"], "errors": ended["errors"], "other": ended["other"]}


def time_on_task(runs: list[Event]) -> tuple[int, int, int]:
    """On task, idle, and how often idle: the union of the runs' times, and the gaps between, each by the threshold."""
    spans = sorted((us(r["requested_at"]), max(us(r["finished_at"]), us(r["requested_at"]))) for r in runs)
    merged: list[list[int]] = []
    for begin, end in spans:
        if merged and begin <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([begin, end])
    gaps = [after[0] - before[1] for before, after in itertools.pairwise(merged)]
    idle = [gap for gap in gaps if gap > IDLE_US]
    busy = sum(end - begin for begin, end in merged)
    return busy + sum(gap for gap in gaps if gap <= IDLE_US), sum(idle), len(idle)


def streaks(runs: list[Event]) -> list[list[Event]]:
    """Each streak of errors of one cell, with the run that ended it, if one did, at its end."""
    found: list[list[Event]] = []
    current: list[Event] = []
    for run in runs:
        if run["status"] == "error":
            current.append(run)
        elif run["status"] == "ok" and current:
            found.append([*current, run])
            current = []
    return [*found, current] if current else found


def fixes(runs: list[Event]) -> tuple[int, int]:
    """How many streaks were ended, and the time from their first errors to the ends of what ended them."""
    ended = [streak for streak in streaks(runs) if streak[-1]["status"] == "ok"]
    return len(ended), sum(max(0, us(s[-1]["finished_at"]) - us(s[0]["requested_at"])) for s in ended)


def ranks(runs: list[Event]) -> dict[str, int]:
    """Of one notebook's runs: each cell's place in the order of first runs, from 1."""
    first: dict[str, int] = {}
    for run in runs:
        first.setdefault(run["cell_id"], len(first) + 1)
    return first


def revisits(runs: list[Event]) -> int:
    """Of one notebook's runs: those of a cell that had first run before the cell that ran just before."""
    place = ranks(runs)
    return sum(place[b["cell_id"]] < place[a["cell_id"]] for a, b in itertools.pairwise(runs))
