"""
A state and one more frame in, the state after it out (pure): what a Learning Observer server keeps of a student.

All arithmetic is that of the measures that the tables are made with, on events decoded as every consumer decodes
them, so the figures here are the tables'. Any frame may come again, and runs in nearly any order (recent.py); what
could not be counted is counted in ``record``. States are JSON, of bounded size. No frame, however wrong, raises.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from exec_events_schemas.errors import MalformedRecord
from exec_events_schemas.record import canonical, hash_bytes

from ..decode import Decoded, decode
from ..executions import execution_row
from ..feed import Fetched
from ..measures import Row, Run, fold_cell, fold_notebook, fold_subject, run_of
from . import frames, recent, seen
from .recent import Figures, State, Taken

# A state of another format is not gone on with: its student's figures begin anew.
FORMAT = 1
# So many notebooks, and open streaks, of a student; so many cells of a notebook. Those of longest ago are forgotten.
NOTEBOOKS = 50
STREAKS = 100
CELLS = 300

NO_RUNS: Figures = {
    "row": None,
    "latest": None,
    "notebooks": {},
    "streaks": {},
    "longest_error_streak": 0,
    "fixes": 0,
    "time_to_fix_us": 0,
    "forgotten_notebooks": 0,
    "forgotten_streaks": 0,
}
NO_RUNS_IN_NOTEBOOK: Figures = {"row": None, "cells": {}, "runs_of_further_cells": 0}
NOTHING_HEARD: dict[str, int] = {
    "frames": 0,  # ours
    "duplicates": 0,  # of records that had come before
    "missing": 0,  # records below a chain's head that have not come
    "too_late": 0,  # runs that came when the horizon had passed them: not in the figures
    "refused": 0,  # frames that are not what they say: not in the figures
    "forgotten_chains": 0,
}
# Of one notebook's runs nothing is known of the places between them, which are in other notebooks: so what comes from
# before its horizon is a copy or too late, and the student's record tells which.
NOTHING_HEARD_OF_NOTEBOOK: dict[str, int] = {"frames": 0, "duplicates": 0, "before_horizon": 0, "refused": 0}


class _Told(NamedTuple):
    """What a frame tells: a place in a chain, and the run that stands there, if one does."""

    chain: str
    seq: int
    run: Run | None = None


def reduce_student(state: State | None, frame: Any) -> State | None:
    """A student's state after one more frame; None where there is nothing to write."""
    if not _is_ours(frame):
        return None
    told = _told(frame)
    state = _gone_on(state, NO_RUNS, NOTHING_HEARD)
    if told is None:
        return _with(state, refused=1)
    record = state["record"]
    after = seen.see(
        state.get("chains", {}), told.chain, told.seq, record["frames"], is_complete=not record["forgotten_chains"]
    )
    state = _with(
        {**state, "chains": after.chains},
        missing=after.missing,
        forgotten_chains=after.forgotten,
        duplicates=not after.is_new,
    )
    if told.run is None or not after.is_new:
        return state
    state, taken = recent.take(state, told.run, _fold_student)
    return _with(state, frames=0, duplicates=taken is Taken.KNOWN, too_late=taken is Taken.BEFORE_HORIZON)


def reduce_notebook(state: State | None, frame: Any) -> State | None:
    """The state of one notebook of a student after one more frame of it; None where there is nothing to write."""
    if not _is_ours(frame) or frame["event"] != frames.EXECUTION:
        return None
    told = _told(frame)
    if told is not None and told.run is None:
        return None
    state = _gone_on(state, NO_RUNS_IN_NOTEBOOK, NOTHING_HEARD_OF_NOTEBOOK)
    if told is None or told.run is None:
        return _with(state, refused=1)
    state, taken = recent.take(state, told.run, _fold_notebook)
    return _with(state, duplicates=taken is Taken.KNOWN, before_horizon=taken is Taken.BEFORE_HORIZON)


def _is_ours(frame: Any) -> bool:
    return isinstance(frame, dict) and frame.get("event") in (frames.EXECUTION, frames.OTHER)


def _gone_on(state: State | None, none: Figures, nothing: dict[str, int]) -> State:
    if state and state.get("format") == FORMAT:
        return state
    return {"format": FORMAT, "record": nothing, **recent.begun(none)}


def _with(state: State, frames: int = 1, **more: int) -> State:
    record = {**state["record"], "frames": state["record"]["frames"] + frames}
    return {**state, "record": {**record, **{name: record[name] + count for name, count in more.items()}}}


def _told(frame: dict[str, Any]) -> _Told | None:
    """What a frame tells; None where it is not what it says."""
    if frame["event"] == frames.OTHER:
        chain, seq = frame.get("chain_id"), frame.get("seq")
        # As long, and as far, as a chain goes.
        if isinstance(chain, str) and 0 < len(chain) <= 128 and type(seq) is int and 0 <= seq < 10**16:
            return _Told(chain, seq)
        return None
    try:
        record = canonical({"event": frame["execution"], "seal": frame["seal"]})
        decoded = decode(Fetched("", 0, record, hash_bytes(frame["hash"])))
        if not isinstance(decoded, Decoded) or decoded.kind != "cell_execution":
            return None
        run = run_of(execution_row(decoded))
    except (MalformedRecord, KeyError, TypeError, ValueError):
        # ValueError: a time that is none, such as the 31st of February.
        return None
    return _Told(decoded.chain, decoded.seq, run)


# What is counted of a student.

_BLANK_CELL = dict.fromkeys(
    (
        "rank",
        "runs",
        "ok",
        "errors",
        "other",
        "duration_us",
        "same_code_runs",
        "errors_in_a_row",
        "longest_error_streak",
        "fixes",
        "time_to_fix_us",
        "lines_added",
        "lines_removed",
        "first_lines",
        "last_lines",
    ),
    0,
) | {"streak_since": None, "last_error": None}
_OF_STREAK = ("cell_id", "notebook", "errors_in_a_row", "longest_error_streak", "streak_since", "last_error", "last_at")
_NOT_OF_CELL = ("subject", "notebook", "cell_id", "order_key", "last_code_hash", "code_versions")


def _fold_student(figures: Figures, run: Run) -> Figures:
    notebook = frames.notebook_id(run.notebook)
    notebooks = dict(figures["notebooks"])
    row = fold_subject(_copied(notebooks.get(notebook)), run)
    notebooks[notebook] = {name: value for name, value in row.items() if name not in ("subject", "order_key")}
    notebooks[notebook] |= {"notebook": run.notebook, "last_cell_id": run.cell_id}
    place = f"{notebook}/{run.cell_id}"
    streaks = dict(figures["streaks"])
    before = streaks.pop(place, None)
    cell = fold_cell({**_BLANK_CELL, **before} if before else None, run, None)
    if cell["errors_in_a_row"]:
        streaks[place] = {name: cell[name] for name in _OF_STREAK}
    forgotten_notebooks = _forget(notebooks, NOTEBOOKS)
    forgotten_streaks = _forget(streaks, STREAKS)
    return {
        "row": fold_subject(_copied(figures["row"]), run),
        "latest": {name: getattr(run, name) for name in ("notebook", "cell_id", "status", "error_name")},
        "notebooks": notebooks,
        "streaks": streaks,
        "longest_error_streak": max(figures["longest_error_streak"], cell["longest_error_streak"]),
        # A streak that ended is not kept: what its cell counts is of this streak alone.
        "fixes": figures["fixes"] + cell["fixes"],
        "time_to_fix_us": figures["time_to_fix_us"] + cell["time_to_fix_us"],
        "forgotten_notebooks": figures["forgotten_notebooks"] + forgotten_notebooks,
        "forgotten_streaks": figures["forgotten_streaks"] + forgotten_streaks,
    }


def _forget(rows: dict[str, Row], limit: int) -> int:
    """Take away the row of longest ago where there is one too many; how many that was."""
    if len(rows) <= limit:
        return 0
    del rows[min(rows, key=lambda name: rows[name]["last_at"])]
    return 1


def _copied(row: Row | None) -> Row | None:
    return dict(row) if row else None


# What is counted of a student's notebook.


def _fold_notebook(figures: Figures, run: Run) -> Figures:
    row, cells = _copied(figures["row"]), figures["cells"]
    before = cells.get(run.cell_id)
    if run.cell_id and before is None and len(cells) >= CELLS:
        # As if it had no cell: it takes no part in going back.
        row = fold_notebook(row, run._replace(cell_id=""), {})
        return {**figures, "row": row, "runs_of_further_cells": figures["runs_of_further_cells"] + 1}
    cell = fold_cell({**_BLANK_CELL, **before} if before else None, run, row)
    row = fold_notebook(row, run, cell)
    # What is zero is left out: most of it is.
    kept = {name: value for name, value in cell.items() if value and name not in _NOT_OF_CELL}
    return {**figures, "row": row, "cells": {**cells, run.cell_id: kept}}
