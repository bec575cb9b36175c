"""
A source in, a ProgSnap2 1.0 dataset out: MainTable, DatasetMetadata, CodeStates and LinkTables as CSV files.

What is read goes into a temporary database first, which sorts it and keeps each record once, whatever the source's
order. Names stay what they are in the record: pseudonyms, unless the site chose otherwise.
"""

from __future__ import annotations

import csv
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import orjson

from exec_events_schemas.sources import Source

from . import progsnap_tables as tables
from .errors import ConsumerError
from .progsnap_records import GAPS, Choices, Event, Summary, event_id, gap_id, read
from .whole_folder import whole_folder

__all__ = ["Choices", "Summary", "export", "problems_of"]

Row = dict[str, Any]

_README = """# Executions of Jupyter cells, in ProgSnap2 1.0

Made by `exec-events export progsnap2` from the record of a site's Jupyter servers.

- `Run.Program` is one execution. ServerTimestamp is when the server saw the request; ClientTimestamp is there where the
  client's own clock is known. Timeout: interrupted, or its kernel was restarted or shut down. Executions that never ran
  (aborted), and those a front end runs for itself (silent), are not there.
- `Session.Start` and `Session.End` are the life of a kernel; SessionID is the kernel and a number.
- CodeStateID is the hash of the code. CodeStates has the code where the site keeps it; `LinkTables/LinkCodeState.csv`
  says of each whether it is there (Body).
- AssignmentID is the notebook, ProblemID the nbgrader name of the cell where that is known.
- LoggingErrorID marks the first event after a loss; `LinkTables/LinkLoggingError.csv` has all of them.
- `LinkTables/LinkExecution.csv` has the cell, the times and the outputs' sizes of each execution, by ExecutionID.
- Order is meaningful among the events of one SubjectID.
"""


def export(
    source: Source, folder: Path, choices: Choices, on_progress: Callable[[int], None] = lambda records: None
) -> Summary:
    """
    Write all of ``source`` into ``folder``, which is there whole at the end or not at all.

    Raises ConsumerError where the folder holds something, and SourceError.
    """
    summary = Summary()
    with whole_folder(folder) as draft, closing(sqlite3.connect("", isolation_level=None)) as database:
        read(source, database, choices, summary, on_progress)
        _write(database, draft, choices, summary)
    return summary


def problems_of(notebooks: Sequence[Path]) -> dict[str, str]:
    """nbgrader's names of the cells of notebooks, by their cell ids; raises ConsumerError."""
    found = {}
    for path in notebooks:
        try:
            cells = orjson.loads(path.read_bytes())["cells"]
            for cell in cells:
                name = cell.get("metadata", {}).get("nbgrader", {}).get("grade_id")
                if name and "id" in cell:
                    found[str(cell["id"])] = str(name)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConsumerError(f"{path} is no notebook that can be read ({error})") from error
    return found


def _write(database: sqlite3.Connection, folder: Path, choices: Choices, summary: Summary) -> None:
    (folder / tables.LINK_FOLDER).mkdir(parents=True, mode=0o700)
    (folder / tables.CODE_STATES).parent.mkdir()
    (folder / "README.md").write_text(_README, encoding="utf-8")
    recorders = database.execute("SELECT count(*) FROM recorders").fetchone()[0]
    properties = {
        "Version": tables.VERSION,
        # Each recorder has a clock of its own; two on one machine cannot be told from two on two.
        "IsEventOrderingConsistent": "true" if recorders <= 1 else "false",
        "EventOrderScope": "Restricted",
        "EventOrderScopeColumns": "SubjectID",
        "CodeStateRepresentation": "Table",
    }
    with ExitStack() as stack:

        def table(name: str, columns: Sequence[str]) -> Any:
            # The line ends of RFC 4180: with others csv does not quote a carriage return.
            file = stack.enter_context((folder / name).open("w", encoding="utf-8", newline=""))
            writer = csv.writer(file, lineterminator="\r\n")
            writer.writerow(columns)
            return writer

        table(tables.METADATA, ("Property", "Value")).writerows(properties.items())
        states = table(tables.CODE_STATES, tables.CODE_STATE_COLUMNS)
        links = table(tables.LINK_CODE_STATE, tables.LINK_CODE_STATE_COLUMNS)
        for code_id, body, ast, size, lines, code in database.execute("SELECT * FROM codes ORDER BY id"):
            states.writerow((code_id, code))
            links.writerow((code_id, body, ast, size, lines))
            summary.code_states += 1
            summary.bodies += code is not None
        errors = table(tables.LINK_LOGGING_ERROR, tables.LINK_LOGGING_ERROR_COLUMNS)
        for row in database.execute("SELECT * FROM errors ORDER BY id"):
            errors.writerow(row)
            summary.errors += 1
        main = table(tables.MAIN, tables.MAIN_COLUMNS)
        executions = table(tables.LINK_EXECUTION, tables.LINK_EXECUTION_COLUMNS)
        for order, (row, link) in enumerate(_rows(database, choices), 1):
            main.writerow([{**row, "Order": order}.get(name, "") for name in tables.MAIN_COLUMNS])
            if link is None:
                summary.sessions += row["EventType"] == "Session.Start"
            else:
                summary.runs += 1
                executions.writerow([link.get(name) for name in tables.LINK_EXECUTION_COLUMNS])


def _rows(database: sqlite3.Connection, choices: Choices) -> Iterator[tuple[Row, Row | None]]:
    """The rows of the main table in order; beside that of an execution what its link table says."""
    gaps = {(chain, seq): gap_id(chain, seq) for chain, _, seq in database.execute(GAPS).fetchall()}
    sessions = _Sessions()
    # Of what happened in the same microsecond the kernel's start comes first.
    query = "SELECT at, kind, chain, seq, event FROM events ORDER BY at, kind DESC, chain, seq"
    for at, kind, chain, seq, data in database.execute(query):
        event: Event = orjson.loads(data)
        common = {
            "EventID": event_id(chain, seq),
            "SubjectID": event.get("subject", tables.UNKNOWN_SUBJECT),
            "ToolInstances": f"Jupyter;{event['kernel_name'].replace(';', ' ')}",
            "ServerTimestamp": _zoned(at),
            "CourseID": choices.course,
            "AssignmentID": event.get("notebook", ""),
            "LoggingErrorID": gaps.get((chain, seq), ""),
        }
        if kind == "kernel_lifecycle":
            for mark, session in sessions.marks(event):
                yield (
                    {**common, "EventID": f"{common['EventID']}:{mark}", "EventType": mark, "SessionID": session},
                    None,
                )
        else:
            yield {**common, **_run(event, choices)}, _link(event, sessions.current(event["kernel_id"]))


class _Sessions:
    """The sessions of kernels: one ends, and another begins, when a kernel is restarted."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._open: set[str] = set()

    def current(self, kernel_id: str) -> str:
        """The session a kernel is in, also where its start was not seen."""
        if kernel_id not in self._open:
            self._open.add(kernel_id)
            self._numbers[kernel_id] = self._numbers.get(kernel_id, 0) + 1
        return f"{kernel_id}/{self._numbers[kernel_id]}"

    def marks(self, event: Event) -> Iterator[tuple[str, str]]:
        """What an event of a kernel's life begins or ends."""
        kernel_id, action = event["kernel_id"], event["action"]
        if action == "interrupted":
            return
        if kernel_id in self._open or action in ("died", "shut_down"):
            yield "Session.End", self.current(kernel_id)
            self._open.discard(kernel_id)
        if action in ("started", "restarted"):
            yield "Session.Start", self.current(kernel_id)


def _run(event: Event, choices: Choices) -> Row:
    return {
        "EventType": "Run.Program",
        "CodeStateID": event.get("code_hash", ""),
        # Of a client that goes past the server, the request's time is that of its own clock.
        "ClientTimestamp": _zoned(event["requested_at"]) if event["client"] == "direct" else "",
        "ProblemID": choices.problems.get(event.get("cell_id", ""), ""),
        "ExecutionID": event["execution_id"],
        "ExecutionResult": tables.RESULTS[event["status"]],
    }


def _link(event: Event, session: str) -> Row:
    return {
        "ExecutionID": event["execution_id"],
        "SessionID": session,
        "CellID": event.get("cell_id"),
        "Status": event["status"],
        "ErrorName": event.get("error_name"),
        "ExecutionCount": event.get("execution_count"),
        "StartedAt": _zoned(event["started_at"]) if "started_at" in event else None,
        "FinishedAt": _zoned(event["finished_at"]),
        "DurationMicroseconds": event.get("duration_us"),
        "LinesAdded": event.get("lines_added"),
        "LinesRemoved": event.get("lines_removed"),
        "Outputs": sum(output["count"] for output in event["outputs"]),
        "OutputBytes": sum(output["bytes"] for output in event["outputs"]),
        "Client": event["client"],
        "Trust": event["trust"],
    }


def _zoned(time: str) -> str:
    """A time of ours with its zone as an offset, which all of ProgSnap2's readers know."""
    return time.removesuffix("Z") + "+00:00"
