"""The ProgSnap2 export: a dataset that our own checker finds nothing wrong with, and a checker that finds what is."""

from __future__ import annotations

import csv
import json
import os
import random
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from logs import Log, random_log, time_at
from published import make_topics, publish

from exec_events.cli import main
from exec_events.hashing import commit
from exec_events_consumers import progsnap_tables as tables
from exec_events_consumers.progsnap_check import check
from exec_events_schemas.record import seal
from exec_events_schemas.sources import StoredRecord
from spool_files import FIRST, SECOND, write_json_lines, write_spool_file

Rows = list[dict[str, str]]


def run(*arguments: Any) -> Result:
    """Run exec-events."""
    return CliRunner().invoke(main, list(map(str, arguments)))


def exported(folder: Path, source: Any, *options: Any) -> Result:
    """Export a source; our checker, which the command runs, found nothing."""
    result = run("export", "progsnap2", folder, "--from", source, *options)
    assert result.exit_code == 0, result.output
    assert check(folder) == []
    return result


def table(folder: Path, name: str) -> Rows:
    """A file of a dataset."""
    with (folder / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def stored(log: Log) -> list[StoredRecord]:
    """A log as sources have it."""
    return [StoredRecord(record, raw, "", 0) for record, raw in log.records]


def spool(folder: Path, log: Log, bodies: list[tuple[str, bytes, bytes]] | None = None) -> Path:
    """A log as the spool of one recorder, and bodies: their commitments, nonces and text."""
    path = write_spool_file(folder, FIRST, stored(log), "2026-01-01T00:00:00.000000Z")
    with closing(sqlite3.connect(path)) as connection, connection:
        rows = [(commitment, "subject-1", "code", nonce, body) for commitment, nonce, body in bodies or ()]
        connection.executemany("INSERT INTO contents VALUES (?, ?, ?, ?, ?)", rows)
    return folder


def kernel(log: Log, action: str, at_us: int, **members: Any) -> None:
    """Seal an event of a kernel's life."""
    event = {
        "__schema__": "https://exec-events.org/schemas/kernel_lifecycle/v1",
        "__schema_version__": "1",
        "time": time_at(at_us),
        "recorder_id": FIRST,
        "trust": "server",
        "kernel_id": "kernel",
        "kernel_name": "python3",
        "action": action,
        "cause": "request",
        **members,
    }
    log.add(event, FIRST)


def test_a_run_by_the_mapping(tmp_path: Path) -> None:
    """An execution is a Run.Program with its result, code, times with zone, course, notebook and problem."""
    log = Log()
    code = f"sha256:{7:064x}"
    members = {"notebook": "p:n", "cell_id": "c1", "code_hash": code, "execution_count": 3}
    log.run(1, 5_000_000, status="error", error_name="NameError", **members)
    notebook = tmp_path / "week1.ipynb"
    cells = [{"id": "c1", "metadata": {"nbgrader": {"grade_id": "sum-of-squares"}}}, {"id": "c2", "metadata": {}}]
    notebook.write_text(json.dumps({"cells": cells}))
    exported(tmp_path / "out", spool(tmp_path / "spool", log), "--course", "Physics, 1", "--notebook", notebook)
    (row,) = table(tmp_path / "out", tables.MAIN)
    assert {name: value for name, value in row.items() if value} == {
        "EventType": "Run.Program",
        "EventID": f"{FIRST}/{1:016x}:0",
        "Order": "1",
        "SubjectID": "subject-1",
        "ToolInstances": "Jupyter;python3",
        "CodeStateID": code,
        "ServerTimestamp": "2026-01-01T00:00:05.000000+00:00",
        "CourseID": "Physics, 1",
        "AssignmentID": "p:n",
        "ProblemID": "sum-of-squares",
        "ExecutionID": log.events[0]["execution_id"],
        "ExecutionResult": "Error",
    }
    (link,) = table(tmp_path / "out", tables.LINK_EXECUTION)
    assert (link["CellID"], link["Status"], link["ErrorName"]) == ("c1", "error", "NameError")
    assert (link["SessionID"], link["ExecutionCount"]) == ("kernel/1", "3")
    properties = {row["Property"]: row["Value"] for row in table(tmp_path / "out", tables.METADATA)}
    assert properties == {
        "Version": "1.0",
        "IsEventOrderingConsistent": "true",
        "EventOrderScope": "Restricted",
        "EventOrderScopeColumns": "SubjectID",
        "CodeStateRepresentation": "Table",
    }


@pytest.mark.parametrize(
    ("status", "result"),
    [
        ("ok", "Success"),
        ("error", "Error"),
        ("kernel_died", "Error"),
        ("interrupted", "Timeout"),
        ("kernel_restarted", "Timeout"),
        ("kernel_shut_down", "Timeout"),
        ("aborted", None),
        ("recorder_stopped", None),
        ("unknown", None),
    ],
)
def test_results(tmp_path: Path, status: str, result: str | None) -> None:
    """Each status has the result that says what happened; what never ran, or ended nobody knows how, is no run."""
    log = Log()
    log.run(1, 0, status=status)
    exported(tmp_path / "out", spool(tmp_path / "spool", log))
    assert [row["ExecutionResult"] for row in table(tmp_path / "out", tables.MAIN)] == ([result] if result else [])
    errors = table(tmp_path / "out", tables.LINK_LOGGING_ERROR)
    assert [row["ErrorType"] for row in errors] == (
        ["unknown result"] if status in ("recorder_stopped", "unknown") else []
    )


def test_sessions_are_the_lives_of_kernels(tmp_path: Path) -> None:
    """A start, a restart and an end are marked, a restart as an end and a start, and runs name their session."""
    log = Log()
    kernel(log, "started", 0, subject="subject-1")
    log.run(1, 0)
    kernel(log, "interrupted", 10)
    kernel(log, "restarted", 20)
    log.run(1, 30)
    kernel(log, "shut_down", 40)
    kernel(log, "died", 50, kernel_id="other")
    exported(tmp_path / "out", spool(tmp_path / "spool", log))
    rows = table(tmp_path / "out", tables.MAIN)
    assert [(row["EventType"], row["SessionID"], row["SubjectID"]) for row in rows] == [
        ("Session.Start", "kernel/1", "subject-1"),
        ("Run.Program", "", "subject-1"),
        ("Session.End", "kernel/1", "UNKNOWN"),
        ("Session.Start", "kernel/2", "UNKNOWN"),
        ("Run.Program", "", "subject-1"),
        ("Session.End", "kernel/2", "UNKNOWN"),
        ("Session.End", "other/1", "UNKNOWN"),
    ]
    links = table(tmp_path / "out", tables.LINK_EXECUTION)
    assert [link["SessionID"] for link in links] == ["kernel/1", "kernel/2"]


def bodied(log: Log, at_us: int, code: bytes, *, is_kept: bool = True) -> tuple[str, bytes, bytes]:
    """Run a code that is kept, or was erased; its commitment, nonce and text."""
    nonce = random.Random(at_us).randbytes(32)
    commitment = commit(nonce, code)
    log.run(1, at_us, code_hash=f"sha256:{sha256(code).hexdigest()}", code_commitment=commitment)
    return commitment, nonce, code if is_kept else b""


def test_code_where_it_is_kept(tmp_path: Path) -> None:
    """Code is in CodeStates once by its hash, line ends and all; what was erased, or never kept, says so, empty."""
    log = Log()
    tricky = 'print("a,b")\r\n# ü\rx = 1\n'.encode()
    bodies = [bodied(log, 0, b"1 + 1"), bodied(log, 1, tricky), bodied(log, 2, b"1 + 1")]
    erased, _, _ = bodied(log, 3, b"secret")
    log.run(1, 4, code_hash=f"sha256:{9:064x}")
    source = spool(tmp_path / "spool", log, [body for body in bodies if body[0] != erased])
    result = exported(tmp_path / "out", source)
    assert "5 runs, 0 sessions, 4 code states (2 with their code)" in result.output
    codes = {row["CodeStateID"]: row["Code"] for row in table(tmp_path / "out", tables.CODE_STATES)}
    kept = {row["CodeStateID"]: row["Body"] for row in table(tmp_path / "out", tables.LINK_CODE_STATE)}
    by_code = {code: kept[state] for state, code in codes.items() if code}
    assert by_code == {"1 + 1": "kept", tricky.decode(): "kept"}
    assert kept[f"sha256:{sha256(b'secret').hexdigest()}"] == "erased"
    assert kept[f"sha256:{9:064x}"] == "not kept"
    exported(tmp_path / "bare", source, "--without-code")
    assert not any(row["Code"] for row in table(tmp_path / "bare", tables.CODE_STATES))


def test_what_is_lost_is_a_logging_error(tmp_path: Path) -> None:
    """A gap marks the event after it; a gap, a fork, junk and a copy: the first three are explained, a copy is none."""
    log, other = Log(), Log()
    for number in range(5):
        log.run(1, number)
        other.run(1, number, status="error")
    rows = stored(log)
    del rows[2]
    rows += [stored(other)[4], rows[0], StoredRecord(seal({"x": 1}, "c", None)[0][:-1] + b" }", None, "", 0)]
    source = write_spool_file(tmp_path / "spool", FIRST, [r._replace(hash=r.hash or b"0" * 32) for r in rows], "2026")
    exported(tmp_path / "out", source.parent)
    found = [(row["EventID"][-2:], row["LoggingErrorID"]) for row in table(tmp_path / "out", tables.MAIN)]
    chain = f"{FIRST}/{1:016x}"
    assert found == [(":0", ""), (":1", ""), (":3", f"gap:{chain}:3"), (":4", "")]
    errors = Counter(row["ErrorType"] for row in table(tmp_path / "out", tables.LINK_LOGGING_ERROR))
    assert errors == {"gap": 1, "fork": 1, "unreadable": 1}


def test_orders_and_counts_of_a_long_log(tmp_path: Path, kafka: Any, kafka_prefix: str) -> None:
    """From a topic, shuffled and doubled, the dataset is that of the spool, and has each run that counts once."""
    log = random_log(random.Random(11), 400, recorders=(FIRST, SECOND))
    exported(tmp_path / "spooled", spool(tmp_path / "spool", log))
    shuffled = [*stored(log), *random.Random(3).sample(stored(log), 50)]
    random.Random(4).shuffle(shuffled)
    make_topics(kafka, kafka_prefix)
    publish(kafka, kafka_prefix, shuffled)
    exported(tmp_path / "published", f"kafka://{kafka.servers}/{kafka_prefix}")
    for name in (tables.MAIN, tables.METADATA, tables.LINK_EXECUTION, tables.CODE_STATES, tables.LINK_LOGGING_ERROR):
        assert (tmp_path / "spooled" / name).read_bytes() == (tmp_path / "published" / name).read_bytes(), name
    counted = [e["execution_id"] for e in log.events if not e["silent"] and e["status"] != "aborted"]
    rows = table(tmp_path / "spooled", tables.MAIN)
    assert sorted(row["ExecutionID"] for row in rows) == sorted(counted)
    times = [row["ServerTimestamp"] for row in rows]
    assert times == sorted(times)


def test_json_lines_have_no_code_and_the_command_says_so(tmp_path: Path) -> None:
    """From JSON lines the dataset is whole but for the code, and the command says why."""
    log = random_log(random.Random(1), 20)
    result = exported(tmp_path / "out", write_json_lines(tmp_path / "records.jsonl", stored(log)))
    assert "no code: " in result.output
    assert "JSON lines hold no bodies" in result.output


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    """A folder with anything in it is refused, and a failing export leaves none behind."""
    log = random_log(random.Random(1), 5)
    source = spool(tmp_path / "spool", log)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    result = run("export", "progsnap2", tmp_path / "mine", "--from", source)
    assert result.exit_code == 2
    assert "there already" in result.output
    assert os.listdir(tmp_path / "mine") == ["thesis.txt"]
    assert run("export", "progsnap2", tmp_path / "new", "--from", tmp_path / "nothing.jsonl").exit_code == 2
    assert sorted(os.listdir(tmp_path)) == ["mine", "spool"]


# The checker: of each rule a dataset that breaks it.


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset nothing is wrong with."""
    folder = tmp_path_factory.mktemp("whole")
    log = Log()
    kernel(log, "started", 0, subject="subject-1")
    bodies = [bodied(log, 10, b"1 + 1"), bodied(log, 20, b"x")]
    log.run(2, 30, status="error", code_hash=f"sha256:{9:064x}")
    log.records.pop(1)
    exported(folder / "out", spool(folder / "spool", log, bodies))
    return folder / "out"


def changed(name: str, change: Callable[[list[list[str]]], None]) -> Callable[[Path], None]:
    """A change to a file's rows, the header among them."""

    def apply(folder: Path) -> None:
        with (folder / name).open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
        change(rows)
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)

    return apply


def cell(name: str, row: int, column: str, value: str) -> Callable[[Path], None]:
    """Another value in a place; a column that is not there is added."""

    def change(rows: list[list[str]]) -> None:
        if column not in rows[0]:
            for line in rows:
                line.append("")
            rows[0][-1] = column
        rows[row][rows[0].index(column)] = value

    return changed(name, change)


def without(name: str, column: str) -> Callable[[Path], None]:
    """A file without a column."""

    def change(rows: list[list[str]]) -> None:
        at = rows[0].index(column)
        for line in rows:
            del line[at]

    return changed(name, change)


def twice(name: str, row: int) -> Callable[[Path], None]:
    """A row that is there twice."""
    return changed(name, lambda rows: rows.append(list(rows[row])))


# The rows of `whole`: 1 is a session's start, 2 a run of subject 1, 3 one of subject 2 that failed.
BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "no main table": (lambda folder: (folder / tables.MAIN).unlink(), "MainTable.csv: it is missing"),
    "no metadata": (lambda folder: (folder / tables.METADATA).unlink(), "DatasetMetadata.csv: it is missing"),
    "no code states": (lambda folder: (folder / tables.CODE_STATES).unlink(), "CodeStates.csv: it is missing"),
    "another version": (cell(tables.METADATA, 1, "Value", "6"), "Version is 6, not 1.0"),
    "a property nobody knows": (cell(tables.METADATA, 1, "Property", "Colour"), "property Colour is unknown"),
    "a property twice": (twice(tables.METADATA, 1), "property Version is there twice"),
    "a boolean that is none": (cell(tables.METADATA, 2, "Value", "yes"), "'yes' is not of type Boolean"),
    "a scope that is none": (cell(tables.METADATA, 3, "Value", "Local"), "EventOrderScope 'Local' is not one of"),
    "a scope without columns": (cell(tables.METADATA, 4, "Value", ""), "but EventOrderScopeColumns is empty"),
    "a scope of no column": (cell(tables.METADATA, 4, "Value", "Colour"), "names Colour, which is no column"),
    "other columns of metadata": (cell(tables.METADATA, 0, "Value", "Val"), "not Property and Value"),
    "a required column missing": (without(tables.MAIN, "ToolInstances"), "column ToolInstances is missing"),
    "a column of our own": (cell(tables.MAIN, 1, "X-Cell", "1"), "'X-Cell' is no column"),
    "a column twice": (cell(tables.MAIN, 0, "CourseID", "EventID"), "column EventID is there twice"),
    "a row too short": (changed(tables.MAIN, lambda rows: rows[1].pop()), "14 values for 15 columns"),
    "an empty subject": (cell(tables.MAIN, 2, "SubjectID", ""), "SubjectID is empty"),
    "an event twice": (cell(tables.MAIN, 2, "EventID", f"{FIRST}:0:Session.Start"), "is there twice"),
    "a type of our own": (cell(tables.MAIN, 2, "EventType", "X-Run"), "'X-Run' is no type of event"),
    "a result that is none": (cell(tables.MAIN, 2, "ExecutionResult", "Aborted"), "'Aborted' is not one of Success"),
    "a failed test of a program": (cell(tables.MAIN, 2, "ExecutionResult", "TestFailed"), "TestFailed is no result"),
    "a run without a result": (cell(tables.MAIN, 2, "ExecutionResult", ""), "Run.Program needs ExecutionResult"),
    "a run with a session": (cell(tables.MAIN, 2, "SessionID", "k/1"), "Run.Program has no SessionID"),
    "a start without a session": (cell(tables.MAIN, 1, "SessionID", ""), "Session.Start needs SessionID"),
    "a session that starts twice": (twice(tables.MAIN, 1), "another Session.Start of session kernel/1"),
    "a time without its zone": (
        cell(tables.MAIN, 2, "ServerTimestamp", "2026-01-01T00:00:00.000000"),
        "is not of type Timestamp, with its zone",
    ),
    "a time that is none": (
        cell(tables.MAIN, 2, "ClientTimestamp", "2026-13-01T00:00:00+00:00"),
        "is not of type Timestamp",
    ),
    "an order that is no number": (cell(tables.MAIN, 2, "Order", "first"), "Order 'first' is not of type Integer"),
    "no order": (cell(tables.MAIN, 2, "Order", ""), "Order is empty"),
    "an order twice": (cell(tables.MAIN, 2, "Order", "1"), "Order 1 is there twice"),
    "an identifier with a space before": (cell(tables.MAIN, 2, "CourseID", " a"), "CourseID ' a' is not of type ID"),
    "a score out of range": (cell(tables.MAIN, 2, "Score", "1.5"), "Score 1.5 is not between 0 and 1"),
    "a score that is none": (cell(tables.MAIN, 2, "Score", "good"), "Score 'good' is not of type Real"),
    "a section of a table": (
        cell(tables.MAIN, 2, "CodeStateSection", "a.py"),
        "CodeStateSection has no meaning where code states are a table",
    ),
    "a parent that is none": (cell(tables.MAIN, 2, "ParentEventID", "x"), "ParentEventID x is no event"),
    "an output that is no address": (cell(tables.MAIN, 2, "ProgramOutput", "a b"), "'a b' is not of type URL"),
    "a code state that is none": (cell(tables.MAIN, 2, "CodeStateID", "x"), "CodeStateID x is not in CodeStates"),
    "a code state twice": (twice(tables.CODE_STATES, 1), "is there twice"),
    "a code state without a name": (cell(tables.CODE_STATES, 1, "CodeStateID", ""), "CodeStateID '' is empty"),
    "code states without code": (without(tables.CODE_STATES, "Code"), "it needs the columns CodeStateID, Code"),
    "another code": (cell(tables.CODE_STATES, 1, "Code", "2 + 2"), "Code is not what sha256:"),
    "an error nobody explains": (cell(tables.MAIN, 2, "LoggingErrorID", "x"), "no link table explains"),
    "a link to no execution": (cell(tables.LINK_EXECUTION, 1, "ExecutionID", "x"), "ExecutionID x is nowhere"),
    "a link to no code state": (cell(tables.LINK_CODE_STATE, 1, "CodeStateID", "x"), "CodeStateID x is nowhere"),
    "a link of no identifier": (cell(tables.LINK_EXECUTION, 0, "ExecutionID", "Run"), "is no column of identifiers"),
    "a run that was aborted": (cell(tables.LINK_EXECUTION, 1, "Status", "aborted"), "that is aborted is no Run event"),
    "a result that is another": (cell(tables.LINK_EXECUTION, 1, "Status", "error"), "has the result Error, not Success"),
    "no text": (lambda folder: (folder / tables.LINK_EXECUTION).write_bytes(b"ExecutionID\r\n\xff\r\n"), "no CSV in UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN)
def test_the_checker_refuses(whole: Path, tmp_path: Path, broken: str) -> None:
    """A dataset in which one rule is broken is refused, with the file and what is wrong; `export check` exits with 1."""
    breaks, what = BROKEN[broken]
    copy = tmp_path / "copy"
    for path in whole.rglob("*.csv"):
        (copy / path.relative_to(whole)).parent.mkdir(parents=True, exist_ok=True)
        (copy / path.relative_to(whole)).write_bytes(path.read_bytes())
    assert check(copy) == []
    breaks(copy)
    problems = [str(problem) for problem in check(copy)]
    assert any(what in problem for problem in problems), problems
    result = run("export", "check", copy)
    assert result.exit_code == 1
    assert "wrong" in result.output


def test_the_table_of_columns_is_the_standards() -> None:
    """There are 47 columns and 24 types of events, and each type names columns that are there."""
    assert len(tables.COLUMNS) == 47
    assert len(tables.EVENT_TYPES) == 24
    for has in tables.EVENT_TYPES.values():
        assert {*has.must, *has.may} <= tables.SPECIFIC.keys()
    assert {name for name, type_ in tables.COLUMNS.items() if type_ == "Enum"} - {"EventType"} <= tables.ENUMS.keys()
    assert set(tables.MAIN_COLUMNS) <= tables.COLUMNS.keys()
