"""A chart's table in, the columns of numbers that uPlot draws out (pure)."""

from __future__ import annotations

from typing import Any

from exec_events_consumers.measures import microseconds

from .now_page import bucket_seconds
from .page import Chart, Page, Row

_HOW = {"ok": "OK", "error": "Error"}
_OTHERWISE = "Otherwise"


def chart_data(page: Page, chart: Chart) -> dict[str, Any]:
    """What dashboard.js needs to draw it: ``x`` says what is across, ``series`` what is up, by name."""
    table = page.table(chart.id)
    if chart.points:
        return {"time": True, "points": True, "x": "Time", "y": "Place of the cell", **_points(table.rows)}
    across = table.columns[0]
    is_time = across.id == "at"
    up = [column for column in table.columns[1:] if column.kind == ""][: 2 if is_time else 3]
    xs = [bucket_seconds(row["at"]) if is_time else row[across.id] for row in table.rows]
    return {
        "time": is_time,
        "points": False,
        "x": across.label,
        "y": "People" if not is_time else "Runs",
        "names": [column.label for column in up],
        "data": [xs, *([row[column.id] for row in table.rows] for column in up)],
    }


def drawn_anew(page: Page) -> dict[str, Any]:
    """The data of all its charts, by id."""
    return {chart.id: chart_data(page, chart) for chart in page.charts}


def _points(rows: list[Row]) -> dict[str, Any]:
    """A point for each run at its cell's place, in a series for each way to end; a ring around the edited ones."""
    names = [*_HOW.values(), _OTHERWISE, "Edited"]
    xs = [microseconds(row["requested_at"]) / 1_000_000 for row in rows]
    how = [_HOW.get(row["status"], _OTHERWISE) for row in rows]
    series: list[list[Any]] = [
        [row["rank"] if ended == name else None for row, ended in zip(rows, how, strict=True)] for name in names[:-1]
    ]
    series.append([row["rank"] if row["edited"] else None for row in rows])
    return {"names": names, "data": [xs, *series]}
