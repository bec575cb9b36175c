"""The measures: docs/measures.md's example, and each fold against its definition."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from logs import Log, aggregate, sqlite_url, time_at
from recount import fixes, ranks, revisits, streaks, time_on_task
from test_aggregate import check, rows

from exec_events_consumers.measures import Row, Run, fold_cell, fold_notebook, fold_subject

REPOSITORY = Path(__file__).parents[2]
SECOND = 1_000_000


def test_the_example_of_the_documentation(tmp_path: Path) -> None:
    """The five runs that docs/measures.md shows give the figures it gives."""
    page = (REPOSITORY / "docs" / "measures.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\| \d \| (\d\d):(\d\d) \| (\w) \| `(.*?)` \| (\w+) \|$", page, re.MULTILINE)
    assert len(shown) == 5
    log = Log()
    last: dict[str, str] = {}
    for minutes, seconds, cell, code, ends in shown:
        failed = {"status": "error", "error_name": ends} if ends != "ok" else {"status": "ok"}
        before = last.get(cell)
        changed = before not in (None, code)
        log.run(
            1,
            (int(minutes) * 60 + int(seconds)) * SECOND,
            SECOND,
            notebook="n",
            cell_id=cell,
            code_hash=f"sha256:{hash(code) % 10**9:064x}",
            same_code_as_last_run=before == code,
            lines_added=int(changed),
            lines_removed=int(changed),
            **failed,
        )
        last[cell] = code
    url = sqlite_url(tmp_path)
    aggregate(url, log.records)
    check(url, log)
    (notebook,) = rows(url, "SELECT * FROM notebooks")
    figures = {"runs": 5, "ok": 3, "errors": 2, "other": 0, "duration_us": 5 * SECOND, "cells": 2, "revisits": 1}
    times = {"on_task_us": 122 * SECOND, "idle_us": 599 * SECOND, "idle_times": 1}
    assert (figures | times).items() <= notebook.items()
    a, b = rows(url, "SELECT * FROM cells ORDER BY cell_id")
    assert {"rank": 1, "same_code_runs": 1, "code_versions": 1}.items() <= a.items()
    figures = {"rank": 2, "same_code_runs": 1, "code_versions": 2, "errors_in_a_row": 0, "longest_error_streak": 2}
    assert (figures | {"fixes": 1, "time_to_fix_us": 111 * SECOND}).items() <= b.items()
    assert b["lines_added"] + b["lines_removed"] == 2
    assert rows(url, "SELECT error_name, times FROM errors") == [{"error_name": "NameError", "times": 2}]


RUNS = st.lists(
    st.tuples(
        st.integers(0, 20 * 60 * SECOND),  # after the run before
        st.integers(0, 10 * 60 * SECOND),  # how long
        st.sampled_from(["ok", "error", "aborted"]),
        st.sampled_from("abc"),
    ),
    max_size=30,
)


def made(steps: list[tuple[int, int, str, str]]) -> tuple[list[Run], list[dict[str, object]]]:
    """Runs as the folds take them, and the same as events."""
    runs, events, clock = [], [], 0
    for number, (after, lasts, status, cell) in enumerate(steps):
        clock += after
        asked, ended = time_at(clock), time_at(clock + lasts)
        base = 1_767_225_600 * SECOND  # 2026-01-01
        runs.append(
            Run(
                order=f"{asked} c {number:016d}",
                subject="s",
                notebook="n",
                cell_id=cell,
                status=status,
                error_name=None,
                requested_at=asked,
                requested_us=base + clock,
                finished_us=base + clock + lasts,
                duration_us=lasts,
                code_hash=None,
                code_ast_hash=None,
                code_lines=1,
                lines_added=0,
                lines_removed=0,
                same_code=False,
            )
        )
        events.append({"requested_at": asked, "finished_at": ended, "status": status, "cell_id": cell})
    return runs, events


@settings(max_examples=200, deadline=None)
@given(RUNS)
def test_time_on_task_is_the_union_and_the_short_gaps(steps: list[tuple[int, int, str, str]]) -> None:
    """Folded run by run, time on task and idle time are what merging all intervals at once gives."""
    runs, events = made(steps)
    row: Row | None = None
    for run in runs:
        row = fold_subject(row, run)
    assert time_on_task(events) == ((row["on_task_us"], row["idle_us"], row["idle_times"]) if row else (0, 0, 0))


@settings(max_examples=200, deadline=None)
@given(RUNS)
def test_streaks_fixes_and_going_back(steps: list[tuple[int, int, str, str]]) -> None:
    """Folded run by run, streaks, fixes, places and going back are what cutting the whole list gives."""
    runs, events = made(steps)
    notebook: Row | None = None
    cells: dict[str, Row] = {}
    for run in runs:
        cells[run.cell_id] = fold_cell(cells.get(run.cell_id), run, notebook)
        notebook = fold_notebook(notebook, run, cells[run.cell_id])
    place = ranks(events)
    assert {cell: row["rank"] for cell, row in cells.items()} == place
    assert (notebook["revisits"] if notebook else 0) == revisits(events)
    for cell, row in cells.items():
        own = [event for event in events if event["cell_id"] == cell]
        lengths = [sum(event["status"] == "error" for event in streak) for streak in streaks(own)]
        assert row["longest_error_streak"] == max(lengths, default=0)
        assert (row["fixes"], row["time_to_fix_us"]) == fixes(own)
