"""
Measures as folds: a row and one more run in, the row after it out (pure). docs/measures.md defines each.

Runs are folded in the order they were asked for. Folding them one by one as they come, or all at once later,
gives the same rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

Row = dict[str, Any]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Runs further apart than this have idle time between them, not time on task.
IDLE_US = 5 * 60 * 1_000_000
# So many errors in a row in one cell, and its subject seems stuck.
STUCK_ERRORS = 3


class Run(NamedTuple):
    """
    One execution as the measures see it; times are microseconds since 1970 (UTC).

    ``order`` is its place among all runs: by the time it was asked for, then by its chain.
    """

    order: str
    subject: str
    notebook: str
    cell_id: str
    status: str
    error_name: str | None
    requested_at: str
    requested_us: int
    finished_us: int
    duration_us: int
    code_hash: str | None
    code_ast_hash: str | None
    code_lines: int
    lines_added: int
    lines_removed: int
    same_code: bool


def microseconds(time: str) -> int:
    """An event's time, 2026-11-24T10:05:01.000250Z, as microseconds since 1970 (UTC)."""
    if len(time) == 27 and time[26] == "Z":
        return _minute_us(time[:17]) + int(time[17:19] + time[20:26])
    return (datetime.fromisoformat(time) - EPOCH) // timedelta(microseconds=1)


@lru_cache(maxsize=4096)
def _minute_us(minute: str) -> int:
    return microseconds(f"{minute}00Z")


def run_of(row: Mapping[str, Any]) -> Run | None:
    """The run a row of executions tells of; None for a silent one, which a front end asked for by itself."""
    if row["silent"]:
        return None
    requested_at = row["requested_at"]
    return Run(
        f"{requested_at} {row['chain']} {row['seq']:016d}",
        row["subject"],
        row["notebook"],
        row["cell_id"],
        row["status"],
        row["error_name"],
        requested_at,
        row["requested_us"],
        row["finished_us"],
        row["duration_us"] or 0,
        row["code_hash"],
        row["code_ast_hash"],
        row["code_lines"] or 0,
        row["lines_added"] or 0,
        row["lines_removed"] or 0,
        bool(row["same_code"]),
    )


def outcome(status: str) -> str:
    """Which count a status belongs to: ok, errors or other."""
    return _OUTCOMES.get(status, "other")


_OUTCOMES = {"ok": "ok", "error": "errors"}


def fold_subject(row: Row | None, run: Run, idle_us: int = IDLE_US) -> Row:
    """A subject's row after one more run."""
    row = row or {"subject": run.subject, **_new(run), **_NO_TIME}
    _count(row, run)
    _time_on_task(row, run, idle_us)
    return row


def fold_notebook(row: Row | None, run: Run, cell: Row, idle_us: int = IDLE_US) -> Row:
    """A notebook's row after one more run, whose cell's row is ``cell`` (after it)."""
    key = {"subject": run.subject, "notebook": run.notebook}
    row = row or {**key, **_new(run), **_NO_TIME, "cells": 0, "revisits": 0, "last_cell_id": "", "last_rank": 0}
    _count(row, run)
    _time_on_task(row, run, idle_us)
    if run.cell_id:
        row["cells"] = max(row["cells"], cell["rank"])
        row["revisits"] += cell["rank"] < row["last_rank"]
        row["last_cell_id"], row["last_rank"] = run.cell_id, cell["rank"]
    return row


def fold_cell(row: Row | None, run: Run, notebook: Row | None) -> Row:
    """A cell's row after one more run, whose notebook's row is ``notebook`` (before it)."""
    if row is None:
        cells = notebook["cells"] if notebook else 0
        row = {
            "subject": run.subject,
            "notebook": run.notebook,
            "cell_id": run.cell_id,
            # Runs without a cell, of a console say, are one row, and have no place among the cells.
            "rank": cells + 1 if run.cell_id else 0,
            **_new(run),
            **_NEW_CELL,
            "first_lines": run.code_lines,
        }
    _count(row, run)
    row["same_code_runs"] += run.same_code
    row["lines_added"] += run.lines_added
    row["lines_removed"] += run.lines_removed
    row["last_lines"] = run.code_lines
    row["last_status"], row["last_error"], row["last_code_hash"] = run.status, run.error_name, run.code_hash
    _streak(row, run)
    return row


def minute_of(run: Run) -> str:
    """The minute a run was asked for, as 2026-11-24T10:05Z."""
    return f"{run.requested_at[:16]}Z"


_NO_TIME: Row = {"on_task_us": 0, "idle_us": 0, "idle_times": 0, "busy_until_us": 0}
_NEW_CELL: Row = {
    "same_code_runs": 0,
    "code_versions": 0,
    "errors_in_a_row": 0,
    "longest_error_streak": 0,
    "fixes": 0,
    "time_to_fix_us": 0,
    "streak_since": None,
    "lines_added": 0,
    "lines_removed": 0,
    "last_lines": 0,
}


def _new(run: Run) -> Row:
    return {"runs": 0, "ok": 0, "errors": 0, "other": 0, "duration_us": 0, "first_at": run.requested_at}


def _count(row: Row, run: Run) -> None:
    row["runs"] += 1
    row[outcome(run.status)] += 1
    row["duration_us"] += run.duration_us
    row["last_at"], row["order_key"] = run.requested_at, run.order


def _time_on_task(row: Row, run: Run, idle_us: int) -> None:
    """Time it ran counts once, however many ran at a time; a gap counts as on task up to the threshold."""
    end = max(run.finished_us, run.requested_us)
    busy_until = row["busy_until_us"]
    if not busy_until:
        row["on_task_us"] += end - run.requested_us
    else:
        gap = run.requested_us - busy_until
        if gap > idle_us:
            row["idle_us"] += gap
            row["idle_times"] += 1
        elif gap > 0:
            row["on_task_us"] += gap
        row["on_task_us"] += max(0, end - max(busy_until, run.requested_us))
    row["busy_until_us"] = max(busy_until, end)


def _streak(row: Row, run: Run) -> None:
    if run.status == "error":
        row["errors_in_a_row"] += 1
        row["longest_error_streak"] = max(row["longest_error_streak"], row["errors_in_a_row"])
        if row["streak_since"] is None:
            row["streak_since"] = run.requested_at
    elif run.status == "ok":
        if row["streak_since"] is not None:
            row["fixes"] += 1
            row["time_to_fix_us"] += max(0, run.finished_us - microseconds(row["streak_since"]))
        row["errors_in_a_row"], row["streak_since"] = 0, None
