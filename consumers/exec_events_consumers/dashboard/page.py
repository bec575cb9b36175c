"""
What a page shows, as values: the same figures become HTML, JSON and CSV.

Every fact, table and column has an id that stays the same from version to version.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

# How a value is shown; JSON and CSV have it as it is.
Kind = Literal["", "text", "us", "seconds", "percent", "time", "bytes", "lines"]
Row = dict[str, Any]

NOTHING = "–"
# What a spreadsheet takes for the beginning of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class Fact:
    """One figure; ``value`` is None where it is not known."""

    id: str
    label: str
    value: Any
    kind: Kind = ""
    is_alarm: bool = False

    @property
    def text(self) -> str:
        """The figure as a person reads it."""
        return shown(self.value, self.kind)


@dataclass(frozen=True, slots=True)
class Column:
    """One column; its values lead to the page ``link`` (person, notebook, cohort) where that is set."""

    id: str
    label: str
    kind: Kind = ""
    link: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of values by the columns' ids; those of a chart are folded away below it."""

    id: str
    caption: str
    columns: tuple[Column, ...]
    rows: list[Row]
    empty: str = "Nothing."


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing of the table of the same id; what is drawn of it, chart_data says."""

    id: str
    title: str
    points: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """One page: ``name`` is its route, ``about`` what it is about, for the title and the heading."""

    name: str
    title: str
    facts: list[Fact]
    tables: list[Table]
    charts: list[Chart] = field(default_factory=list)
    note: str = ""

    def as_json(self) -> dict[str, Any]:
        """All its figures."""
        return {
            "page": self.name,
            "title": self.title,
            "facts": {fact.id: fact.value for fact in self.facts},
            "tables": {table.id: [_values(table, row) for row in table.rows] for table in self.tables},
        }

    def as_csv(self, table_id: str) -> str:
        """One of its tables, or its ``facts``; raises KeyError where it has none of that id."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\r\n")
        if table_id == "facts":
            writer.writerow(("fact", "value"))
            writer.writerows((fact.id, _cell(fact.value)) for fact in self.facts)
            return out.getvalue()
        table = {table.id: table for table in self.tables}[table_id]
        writer.writerow(column.id for column in table.columns)
        writer.writerows([_cell(row[column.id]) for column in table.columns] for row in table.rows)
        return out.getvalue()

    def table(self, table_id: str) -> Table:
        """One of its tables."""
        return {table.id: table for table in self.tables}[table_id]


def shown(value: Any, kind: Kind) -> str:
    """A value as a person reads it."""
    if value is None:
        return NOTHING
    if kind in _SHOWN:
        return _SHOWN[kind](value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value) or "(none)"


def duration(us: int) -> str:
    """A duration in two of the units that fit it."""
    if us < 1_000_000:
        return f"{us / 1000:.3g} ms"
    if us < 60_000_000:
        return f"{us / 1_000_000:.3g} s"
    minutes, seconds = divmod(us // 1_000_000, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = [(days, "d"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    first = next(at for at, (amount, _) in enumerate(units) if amount)
    return " ".join(f"{amount} {name}" for amount, name in units[first : first + 2] if amount)


_SHOWN: dict[str, Callable[[Any], str]] = {
    "us": duration,
    "seconds": lambda value: duration(round(value * 1_000_000)),
    "percent": lambda value: f"{value:.1f} %",
    "time": lambda value: str(value)[:19].replace("T", " ").removesuffix("Z"),
    "bytes": lambda value: f"{value:,} B",
}


def _values(table: Table, row: Row) -> Row:
    return {column.id: row[column.id] for column in table.columns}


def _cell(value: Any) -> Any:
    """Text that a spreadsheet would run is quoted: whoever names a notebook does not run on the reader's machine."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
