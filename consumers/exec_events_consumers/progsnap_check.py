"""
A ProgSnap2 1.0 dataset of CSV files in, what is wrong with it out.

Stricter than the standard's own validator, which lets any value of an enumeration pass and follows no reference.
"""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from . import progsnap_tables as tables

Row = dict[str, str]

_FIELD_LIMIT = 64 * 1024 * 1024
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:?\d\d)")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


class Problem(NamedTuple):
    """What is wrong in a file, and on which row of it (the header is 1, 0 is the file as a whole)."""

    file: str
    row: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}, row {self.row}: {self.what}" if self.row else f"{self.file}: {self.what}"


def check(folder: Path) -> list[Problem]:
    """Everything that is wrong."""
    return _Check(folder).run()


class _Check:
    """One dataset, and what was found in it so far."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._problems: list[Problem] = []
        self._ids: dict[str, set[str]] = defaultdict(set)  # a main table's columns of identifiers
        self._results: dict[str, str] = {}  # of an execution, as the main table has it

    def run(self) -> list[Problem]:
        csv.field_size_limit(_FIELD_LIMIT)
        properties = self._metadata()
        code_states = self._code_states(properties)
        self._main(properties, code_states)
        self._links(code_states)
        return self._problems

    def _wrong(self, file: str, row: int, what: str) -> None:
        self._problems.append(Problem(file, row, what))

    def _table(self, name: str) -> tuple[list[str], Iterator[tuple[int, Row]]]:
        """The columns of a file and its rows; a file that cannot be read has none."""
        path = self._folder / name
        if not path.is_file():
            self._wrong(name, 0, "it is missing")
            return [], iter(())
        with path.open(encoding="utf-8", errors="replace", newline="") as file:
            columns = next(csv.reader(file), [])  # what is no UTF-8 is met among the rows
        for column in {column for column in columns if columns.count(column) > 1}:
            self._wrong(name, 1, f"column {column} is there twice")
        return columns, self._rows(name, path, columns)

    def _rows(self, name: str, path: Path, columns: list[str]) -> Iterator[tuple[int, Row]]:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            try:
                next(reader, None)
                for number, values in enumerate(reader, 2):
                    if len(values) != len(columns):
                        self._wrong(name, number, f"{len(values)} values for {len(columns)} columns")
                    else:
                        yield number, dict(zip(columns, values, strict=True))
            except (UnicodeDecodeError, csv.Error) as error:
                self._wrong(name, 0, f"it is no CSV in UTF-8: {error}")

    def _metadata(self) -> Row:
        columns, rows = self._table(tables.METADATA)
        properties = {name: default for name, (_, default) in tables.PROPERTIES.items()}
        if columns and columns != ["Property", "Value"]:
            self._wrong(tables.METADATA, 1, f"its columns are {columns}, not Property and Value")
            return properties
        seen = set()
        for number, row in rows:
            name, value = row["Property"], row["Value"]
            if name in seen or name not in tables.PROPERTIES:
                self._wrong(
                    tables.METADATA, number, f"property {name} is {'there twice' if name in seen else 'unknown'}"
                )
                continue
            seen.add(name)
            properties[name] = value
            if what := _wrong_value(name, tables.PROPERTIES[name][0], value):
                self._wrong(tables.METADATA, number, what)
        if properties["Version"] != tables.VERSION:
            self._wrong(tables.METADATA, 0, f"Version is {properties['Version']}, not {tables.VERSION}")
        scope = _scope(properties)
        if properties["EventOrderScope"] == "Restricted" and not scope:
            self._wrong(tables.METADATA, 0, "EventOrderScope is Restricted, but EventOrderScopeColumns is empty")
        for name in scope:
            if name not in tables.COLUMNS:
                self._wrong(tables.METADATA, 0, f"EventOrderScopeColumns names {name}, which is no column")
        return properties

    def _code_states(self, properties: Row) -> set[str] | None:
        """The identifiers of the code states, None where they are not in a table."""
        if properties["CodeStateRepresentation"] != "Table":
            return None
        columns, rows = self._table(tables.CODE_STATES)
        found: set[str] = set()
        if not set(tables.CODE_STATE_COLUMNS) <= set(columns):
            self._wrong(tables.CODE_STATES, 1, f"it needs the columns {', '.join(tables.CODE_STATE_COLUMNS)}")
            return found
        for number, row in rows:
            state, code = row["CodeStateID"], row["Code"]
            if not state or state in found:
                self._wrong(
                    tables.CODE_STATES, number, f"CodeStateID {state!r} is {'there twice' if state else 'empty'}"
                )
            found.add(state)
            if code and state.startswith("sha256:") and state != f"sha256:{sha256(code.encode()).hexdigest()}":
                self._wrong(tables.CODE_STATES, number, f"Code is not what {state} is the hash of")
        return found

    def _main(self, properties: Row, code_states: set[str] | None) -> None:
        columns, rows = self._table(tables.MAIN)
        for column in tables.REQUIRED.keys() - set(columns) if columns else ():
            self._wrong(tables.MAIN, 1, f"column {column} is missing")
        for column in set(columns) - tables.COLUMNS.keys():
            self._wrong(tables.MAIN, 1, f"{column!r} is no column of ProgSnap2 {tables.VERSION}")
        orders: set[tuple[str, ...]] = set()
        parents: list[tuple[int, str]] = []
        marks: set[tuple[str, str]] = set()
        for number, row in rows:
            wrong: Callable[[str], None] = lambda what, number=number: self._wrong(tables.MAIN, number, what)  # type: ignore[misc]  # noqa: E731
            _check_event(row, wrong)
            event_id, kind = row.get("EventID", ""), row.get("EventType", "")
            if event_id in self._ids["EventID"]:
                wrong(f"EventID {event_id} is there twice")
            for column, type_ in tables.COLUMNS.items():
                if type_ == "ID" and row.get(column):
                    self._ids[column].add(row[column])
            if code_states is not None:
                if row.get("CodeStateID") and row["CodeStateID"] not in code_states:
                    wrong(f"CodeStateID {row['CodeStateID']} is not in {tables.CODE_STATES}")
                if row.get("CodeStateSection"):
                    wrong("CodeStateSection has no meaning where code states are a table")
            if row.get("ParentEventID"):
                parents.append((number, row["ParentEventID"]))
            if kind.startswith("Session."):
                if (kind, row.get("SessionID", "")) in marks:
                    wrong(f"another {kind} of session {row.get('SessionID')}")
                marks.add((kind, row.get("SessionID", "")))
            if kind.startswith("Run.") and row.get("ExecutionID"):
                self._results[row["ExecutionID"]] = row.get("ExecutionResult", "")
            if properties["EventOrderScope"] != "None":
                order = (*(row.get(name, "") for name in _scope(properties)), row.get("Order", ""))
                if not row.get("Order") or order in orders:
                    wrong("Order is empty" if not row.get("Order") else f"Order {row['Order']} is there twice")
                orders.add(order)
        for number, parent in parents:
            if parent not in self._ids["EventID"]:
                self._wrong(tables.MAIN, number, f"ParentEventID {parent} is no event")

    def _links(self, code_states: set[str] | None) -> None:
        folder = self._folder / tables.LINK_FOLDER
        explained: set[str] = set()
        for path in sorted(folder.glob("*.csv")):
            name = f"{tables.LINK_FOLDER}/{path.name}"
            columns, rows = self._table(name)
            key = columns[0] if columns else ""
            if tables.COLUMNS.get(key) != "ID":
                self._wrong(name, 1, f"its first column, {key!r}, is no column of identifiers")
                continue
            known = (code_states or set()) if key == "CodeStateID" else self._ids[key]
            for number, row in rows:
                if key == "LoggingErrorID":
                    explained.add(row[key])  # of what was lost there may be no event
                elif row[key] not in known:
                    self._wrong(name, number, f"{key} {row[key]} is nowhere in the dataset")
                if name == tables.LINK_EXECUTION and (status := row.get("Status")):
                    self._check_result(name, number, row[key], status)
        for missing in sorted(self._ids["LoggingErrorID"] - explained):
            self._wrong(tables.MAIN, 0, f"no link table explains LoggingErrorID {missing}")

    def _check_result(self, name: str, number: int, execution: str, status: str) -> None:
        expected, stated = tables.RESULTS.get(status), self._results.get(execution)
        if expected is None:
            self._wrong(name, number, f"an execution that is {status} is no Run event")
        elif stated is not None and stated != expected:
            self._wrong(name, number, f"an execution that is {status} has the result {expected}, not {stated}")


def _scope(properties: Row) -> list[str]:
    if properties["EventOrderScope"] != "Restricted":
        return []
    return [name for name in properties["EventOrderScopeColumns"].split(";") if name]


def _check_event(row: Row, wrong: Callable[[str], None]) -> None:
    """What can be said of a row of the main table by itself."""
    for column in tables.REQUIRED.keys() - {"CodeStateID"}:  # empty there: the code is not known
        if column in row and not row[column]:
            wrong(f"{column} is empty")
    kind = row.get("EventType", "")
    has = tables.EVENT_TYPES.get(kind)
    if has is None:
        wrong(f"{kind!r} is no type of event")
        return
    for column in has.must:
        if not row.get(column):
            wrong(f"{kind} needs {column}")
    for column, value in row.items():
        type_ = tables.COLUMNS.get(column)
        if not value or type_ is None or column == "EventType":
            continue
        if column in tables.SPECIFIC and column not in (*has.must, *has.may):
            wrong(f"{kind} has no {column}")
        if what := _wrong_value(column, type_, value):
            wrong(what)
    if kind.endswith(".Program") and row.get("ExecutionResult") == "TestFailed":
        wrong(f"TestFailed is no result of {kind}")
    for column in ("Score", "ExtraCreditScore"):
        if _NUMBER.fullmatch(row.get(column, "")) and not 0 <= float(row[column]) <= 1:
            wrong(f"{column} {row[column]} is not between 0 and 1")


def _wrong_value(name: str, type_: tables.Type, value: str) -> str:
    """What is wrong with a value; nothing, if it is of its type."""
    if not _TYPES[type_](name, value):
        expected = ", ".join(tables.ENUMS[name]) if type_ == "Enum" else f"of type {type_}"
        zone = ", with its zone" if type_ == "Timestamp" else ""
        return f"{name} {value!r} is not {'one of ' if type_ == 'Enum' else ''}{expected}{zone}"
    return ""


def _is_timestamp(_: str, value: str) -> bool:
    try:
        return bool(_TIMESTAMP.fullmatch(value)) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


_TYPES: dict[str, Callable[[str, str], Any]] = {
    "ID": lambda _, value: value == value.strip() and "\n" not in value,
    "String": lambda _, value: True,
    "URL": lambda _, value: not re.search(r"\s", value),
    "SourceLocation": lambda _, value: "\n" not in value,
    "Integer": lambda _, value: re.fullmatch(r"-?\d+", value),
    "Real": lambda _, value: _NUMBER.fullmatch(value),
    "Boolean": lambda _, value: value in ("true", "false"),
    "Timestamp": _is_timestamp,
    "Enum": lambda name, value: value in tables.ENUMS[name],
}
