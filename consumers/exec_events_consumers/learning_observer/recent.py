"""
Runs in nearly any order in, figures as if they had come in order, once, out (pure): with a bounded memory, as JSON.

The latest runs are kept one by one; behind them, at the horizon, there is but the row they were folded into. A run
that comes late, yet after the horizon, is put in its place, and those kept are folded anew. One from before the
horizon cannot be taken any more.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable
from enum import Enum
from typing import Any

from ..measures import Run, microseconds

# So many runs of a student, or of a student's notebook, may come before one that was asked for earlier.
RECENT = 100
# The length of a time, with which the order of a run begins; its chain and seq follow.
_TIME = len("2026-01-01T00:00:00.000000Z")

Figures = dict[str, Any]
State = dict[str, Any]
# Gives new figures; those it was given stay as they are.
Fold = Callable[[Figures, Run], Figures]


class Taken(Enum):
    """What became of a run."""

    COUNTED = "counted"
    KNOWN = "known"
    BEFORE_HORIZON = "before the horizon"


def begun(figures: Figures) -> State:
    """The state before any run; ``figures`` are those of none."""
    return {"subject": "", "horizon": "", "before": figures, "runs": [], "figures": figures}


def take(state: State, run: Run, fold: Fold) -> tuple[State, Taken]:
    """The state after one more run."""
    if run.order <= state["horizon"]:
        return state, Taken.BEFORE_HORIZON
    subject = state["subject"] or run.subject
    place = run.order[_TIME:]
    if any(kept[0][_TIME:] == place for kept in state["runs"]):
        return state, Taken.KNOWN
    at = bisect(state["runs"], run.order, key=lambda kept: kept[0])
    runs = [*state["runs"][:at], _kept(run), *state["runs"][at:]]
    if at == len(state["runs"]):
        figures = fold(state["figures"], run)
    else:
        figures = state["before"]
        for kept in runs:
            figures = fold(figures, _run(kept, subject))
    state = {**state, "subject": subject, "runs": runs, "figures": figures}
    if len(runs) > RECENT:
        oldest, *rest = runs
        before = fold(state["before"], _run(oldest, subject))
        state = {**state, "horizon": oldest[0], "before": before, "runs": rest}
    return state, Taken.COUNTED


def _kept(run: Run) -> list[Any]:
    """What figures are made of, and no more: of each student so many are written with each event."""
    return [
        run.order,
        run.notebook,
        run.cell_id,
        run.status,
        run.error_name,
        run.finished_us,
        run.duration_us,
        run.code_lines,
        run.lines_added,
        run.lines_removed,
        run.same_code,
    ]


def _run(kept: list[Any], subject: str) -> Run:
    order, notebook, cell_id, status, error_name, finished_us, duration_us, code_lines, added, removed, same = kept
    requested_at = order[:_TIME]
    return Run(
        order=order,
        subject=subject,
        notebook=notebook,
        cell_id=cell_id,
        status=status,
        error_name=error_name,
        requested_at=requested_at,
        requested_us=microseconds(requested_at),
        finished_us=finished_us,
        duration_us=duration_us,
        code_hash=None,
        code_ast_hash=None,
        code_lines=code_lines,
        lines_added=added,
        lines_removed=removed,
        same_code=same,
    )
