"""The teacher's page in Dash: what board.py says, as a table; assets/listen.js hears it from the server."""

from __future__ import annotations

import time
from typing import Any

from dash import ClientsideFunction, Input, Output, callback, clientside_callback, dcc, html

from .board import Board, Help, Line, board, time_text

TITLE = "Jupyter executions"
DESCRIPTION = "Who is working in Jupyter, who is stuck, and on what."
SUBPATH = "board"

_HEARD, _LISTENING, _CLOCK = "lo-exec-events-heard", "lo-exec-events-listening", "lo-exec-events-clock"
_CONNECTION, _SUMMARY, _BOARD = "lo-exec-events-connection", "lo-exec-events-summary", "lo-exec-events-board"
_AT = "lo-exec-events-at"
_COLUMNS = ("Who", "How", "On what", "Latest run", "Runs", "Time on task", "Record")
_EXPLANATION = (
    "Seems stuck: three or more errors in a row in one cell. Time on task counts pauses of up to five minutes. "
    "A cell that still runs is seen when it has ended; reading and thinking are not seen at all. "
    "Record: what of a student's record has not come here, so that the figures are short of it."
)


def layout(**_: Any) -> html.Main:
    """The page before anything was heard; what it shows comes through the teacher's own websocket."""
    return html.Main(
        [
            html.H1(TITLE),
            html.P(id=_CONNECTION, role="status"),
            html.P(id=_SUMMARY, role="status"),
            html.Div(id=_BOARD),
            html.P(id=_AT),
            html.P(_EXPLANATION),
            dcc.Store(id=_HEARD),
            dcc.Interval(id=_LISTENING, interval=1000),
            dcc.Interval(id=_CLOCK, interval=20_000),
        ],
        className="lo-exec-events",
    )


clientside_callback(
    ClientsideFunction(namespace="lo_exec_events", function_name="listen"),
    Output(_HEARD, "data"),
    Input("_pages_location", "hash"),
    Input(_LISTENING, "n_intervals"),
)


@callback(
    Output(_CONNECTION, "children"),
    Output(_SUMMARY, "children"),
    Output(_BOARD, "children"),
    Output(_AT, "children"),
    Input(_HEARD, "data"),
    Input(_CLOCK, "n_intervals"),
)
def show(heard: Any, ticks: int | None) -> tuple[str, str, Any, str]:
    """Show what was heard, as it is now."""
    now_us = time.time_ns() // 1000
    shown = board(heard, now_us)
    return shown.connection, shown.summary, table(shown), f"As of {time_text(now_us)}." if shown.lines else ""


def table(shown: Board) -> Any:
    """The lines as a table; nothing where there are none."""
    if not shown.lines:
        return None
    head = html.Thead(html.Tr([html.Th(name, scope="col") for name in _COLUMNS]))
    caption = html.Caption("Students, those who seem to need help most first")
    return html.Table([caption, head, html.Tbody([_row(line) for line in shown.lines])])


def _row(line: Line) -> html.Tr:
    how = html.Strong(line.how) if line.help <= Help.STUCK_AND_QUIET else line.how
    cells = [how, line.on_what, line.latest, line.runs, line.on_task, line.record or "whole"]
    name = html.Th(line.who, scope="row")
    return html.Tr([name, *(html.Td(cell) for cell in cells)], className=line.help.name.lower().replace("_", "-"))
