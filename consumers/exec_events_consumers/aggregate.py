"""
The aggregate's step: new events in, rows of the tables out, in one transaction.

A run that comes in the order it was asked for is folded into its rows. One that comes late, or out of order, has
the rows it belongs to made anew from the executions, so that they are what they would have been.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import delete, select

from exec_events_schemas.record import time_of

from . import tables
from .decode import Decoded
from .executions import execution_row
from .measures import Row, Run, fold_cell, fold_notebook, fold_subject, minute_of, outcome, run_of
from .statements import Merge
from .store import Transaction

NAME = "aggregate"
# Stands where an error has no name that is a plain identifier.
UNNAMED = "?"

Key = tuple[Any, ...]


def aggregate(events: Sequence[Decoded], transaction: Transaction) -> None:
    """Write what these events say."""
    executions = [execution_row(event) for event in events if event.kind == "cell_execution"]
    transaction.insert(tables.other_records, [other_row(event) for event in events if event.kind != "cell_execution"])
    transaction.insert(tables.executions, executions)
    runs = sorted(run for row in executions if (run := run_of(row)) is not None)
    if runs:
        _count_codes(runs, transaction)
        _count_errors(runs, transaction)
        _count_minutes(runs, transaction)
        _fold_runs(runs, transaction)
    _lives(events, transaction)


def other_row(decoded: Decoded) -> Row:
    """The row of a record that is no execution."""
    seal = {"chain": decoded.chain, "seq": decoded.seq, "record_hash": decoded.hash}
    return {**seal, "kind": decoded.kind, "time": time_of(decoded.event)}


def known_hashes(transaction: Transaction, places: Collection[tuple[str, int]]) -> dict[tuple[str, int], bytes]:
    """The hashes of records that were taken before, by chain and seq."""
    found = {}
    for table in (tables.executions, tables.other_records):
        for (chain, seq), row in transaction.rows(table, places).items():
            found[chain, seq] = bytes(row["record_hash"])
    return found


# Counts that no order matters to.


def _count_codes(runs: list[Run], transaction: Transaction) -> None:
    rows: dict[Key, Row] = {}
    for run in runs:
        if run.code_hash is None:
            continue
        key = (run.subject, run.notebook, run.cell_id, run.code_hash)
        row = rows.get(key)
        if row is None:
            names = dict(zip(("subject", "notebook", "cell_id", "code_hash"), key, strict=True))
            new = {"code_ast_hash": run.code_ast_hash, "code_lines": 0, "runs": 0}
            row = rows[key] = {**names, **new, "first_at": run.requested_at}
        row["runs"] += 1
        row["code_lines"] = max(row["code_lines"], run.code_lines)
        row["last_at"] = run.requested_at
    merge: dict[str, Merge] = {"runs": "add", "code_lines": "max", "first_at": "min", "last_at": "max"}
    transaction.upsert(tables.codes, rows.values(), merge)


def _count_errors(runs: list[Run], transaction: Transaction) -> None:
    rows: dict[Key, Row] = {}
    for run in runs:
        if run.status != "error":
            continue
        key = (run.subject, run.notebook, run.cell_id, run.error_name or UNNAMED)
        row = rows.get(key)
        if row is None:
            names = dict(zip(("subject", "notebook", "cell_id", "error_name"), key, strict=True))
            row = rows[key] = {**names, "times": 0, "first_at": run.requested_at}
        row["times"] += 1
        row["last_at"] = run.requested_at
    transaction.upsert(tables.errors, rows.values(), {"times": "add", "first_at": "min", "last_at": "max"})


def _count_minutes(runs: list[Run], transaction: Transaction) -> None:
    rows: dict[Key, Row] = {}
    for run in runs:
        key = (minute_of(run), run.subject)
        row = rows.get(key)
        if row is None:
            row = rows[key] = {"minute": key[0], "subject": key[1], **dict.fromkeys(_MINUTE_COUNTS, 0)}
        row["runs"] += 1
        row[outcome(run.status)] += 1
        row["duration_us"] += run.duration_us
    transaction.upsert(tables.minutes, rows.values(), dict.fromkeys(_MINUTE_COUNTS, "add"))


_MINUTE_COUNTS = ("runs", "ok", "errors", "other", "duration_us")


# Measures that the order of runs matters to.


def _fold_runs(runs: list[Run], transaction: Transaction) -> None:
    # The first of each: when that one is not late, none is.
    of_subject = {(run.subject,): run for run in reversed(runs)}
    of_notebook = {(run.subject, run.notebook): run for run in reversed(runs)}
    subjects = transaction.rows(tables.subjects, of_subject)
    notebooks = transaction.rows(tables.notebooks, of_notebook)
    cells = transaction.rows(tables.cells, {(run.subject, run.notebook, run.cell_id) for run in runs})
    late_subjects = _late(of_subject, subjects)
    late_notebooks = _late(of_notebook, notebooks)
    _fold_subjects((run for run in runs if (run.subject,) not in late_subjects), subjects)
    _fold_notebooks((run for run in runs if (run.subject, run.notebook) not in late_notebooks), notebooks, cells)
    for (subject,) in late_subjects:
        del subjects[subject,]
        _fold_subjects(_runs_of(transaction, subject), subjects)
    for subject, notebook in late_notebooks:
        del notebooks[subject, notebook]
        for key in [key for key in cells if key[:2] == (subject, notebook)]:
            del cells[key]
        _fold_notebooks(_runs_of(transaction, subject, notebook), notebooks, cells)
    # The codes are written already.
    for key, versions in transaction.counts(tables.codes, ("subject", "notebook", "cell_id"), cells).items():
        cells[key]["code_versions"] = versions
    transaction.upsert(tables.subjects, subjects.values())
    transaction.upsert(tables.notebooks, notebooks.values())
    transaction.upsert(tables.cells, cells.values())


def _late(firsts: dict[Key, Run], rows: dict[Key, Row]) -> set[Key]:
    return {key for key, run in firsts.items() if key in rows and run.order < rows[key]["order_key"]}


def _fold_subjects(runs: Iterable[Run], subjects: dict[Key, Row]) -> None:
    for run in runs:
        subjects[run.subject,] = fold_subject(subjects.get((run.subject,)), run)


def _fold_notebooks(runs: Iterable[Run], notebooks: dict[Key, Row], cells: dict[Key, Row]) -> None:
    for run in runs:
        of_notebook, of_cell = (run.subject, run.notebook), (run.subject, run.notebook, run.cell_id)
        notebook = notebooks.get(of_notebook)
        cell = cells[of_cell] = fold_cell(cells.get(of_cell), run, notebook)
        notebooks[of_notebook] = fold_notebook(notebook, run, cell)


def _runs_of(transaction: Transaction, subject: str, notebook: str | None = None) -> Iterator[Run]:
    """All runs of a subject, or of one of its notebooks, in order, from the executions."""
    row = tables.executions.c
    query = select(tables.executions).where(row.subject == subject)
    if notebook is not None:
        query = query.where(row.notebook == notebook)
    query = query.order_by(row.requested_us, row.chain, row.seq)
    found: Iterable[Any] = transaction.connection.execute(query).mappings()
    for stored in found:
        if (run := run_of(stored)) is not None:
            yield run


# Kernels and recorders.


def _lives(events: Sequence[Decoded], transaction: Transaction) -> None:
    kernel_events = [event for event in events if event.kind == "kernel_lifecycle"]
    recorder_events = [event for event in events if event.kind == "recorder"]
    if kernel_events:
        keys = {(event.event["kernel_id"], event.event["recorder_id"]) for event in kernel_events}
        kernels = transaction.rows(tables.kernel_sessions, keys)
        for decoded in kernel_events:
            key = (decoded.event["kernel_id"], decoded.event["recorder_id"])
            kernels[key] = _kernel(kernels.get(key), decoded.event)
        transaction.upsert(tables.kernel_sessions, kernels.values())
    if recorder_events:
        recorders = transaction.rows(tables.recorders, {(event.event["recorder_id"],) for event in recorder_events})
        for decoded in recorder_events:
            recorder_id = decoded.event["recorder_id"]
            recorders[recorder_id,] = _recorder(recorders.get((recorder_id,)), decoded.event)
        transaction.upsert(tables.recorders, recorders.values())


_KERNEL_COUNTS = {"restarted": "restarts", "interrupted": "interrupts", "died": "deaths"}


def _kernel(row: Row | None, event: dict[str, Any]) -> Row:
    """A kernel's row after one more word on its life; in whatever order they come, the row is the same."""
    at, action = event["time"], event["action"]
    row = row or {
        "kernel_id": event["kernel_id"],
        "recorder_id": event["recorder_id"],
        "subject": "",
        "notebook": "",
        "kernel_name": event["kernel_name"],
        "started_at": None,
        "ended_at": None,
        "end": None,
        **dict.fromkeys(_KERNEL_COUNTS.values(), 0),
        "last_at": "",
    }
    if action == "started":
        row["started_at"] = min(row["started_at"] or at, at)
    if action in ("shut_down", "died") and at >= (row["ended_at"] or ""):
        row["ended_at"], row["end"] = at, action
    if action in _KERNEL_COUNTS:
        row[_KERNEL_COUNTS[action]] += 1
    if at >= row["last_at"]:
        row["last_at"] = at
        row["subject"] = event.get("subject") or row["subject"]
        row["notebook"] = event.get("notebook") or row["notebook"]
    return row


def _recorder(row: Row | None, event: dict[str, Any]) -> Row:
    """A recorder's row after one more word of it; in whatever order they come, the row is the same."""
    at, action = event["time"], event["action"]
    new = {"recorder_id": event["recorder_id"], "started_at": None, "last_at": "", "ended_at": None, "cause": None}
    row = row or {**new, "lost": 0, "executions": 0, "heartbeat_us": None, "server": None}
    if action == "started":
        row["started_at"] = at
    elif action == "stopped":
        row["ended_at"], row["cause"] = at, event.get("cause")
    row["last_at"] = max(row["last_at"], at)
    # The same in each event that has them.
    if "heartbeat_us" in event:
        row["heartbeat_us"] = max(row["heartbeat_us"] or 0, event["heartbeat_us"])
    if "server" in event:
        row["server"] = max(row["server"] or "", event["server"])
    row["lost"] = max(row["lost"], event.get("lost", 0))
    row["executions"] = max(row["executions"], event.get("executions", 0))
    return row


def forget(transaction: Transaction) -> None:
    """Empty the tables that the aggregate makes, and its positions: what a rebuild begins with."""
    for table in tables.AGGREGATES:
        transaction.connection.execute(delete(table))
    for table in (tables.chains, tables.dead_letters, tables.offsets):
        transaction.connection.execute(delete(table).where(table.c.consumer == NAME))
