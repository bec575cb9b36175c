"""The tables and the Hub's word in, what the pages say of recorders that are silent out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from . import queries
from .page import Column, Fact, Row, Table
from .silence import DEFAULT_INTERVAL, INTERVALS, Silence, State, Watched, Word, silences, state_of

STATES: tuple[State, ...] = ("speaks", "silent", "ended")


@dataclass(frozen=True, slots=True)
class Watching:
    """Who knows which servers run, and how often the site has told recorders to speak."""

    watched: Callable[[], Watched] = Watched
    interval: timedelta = DEFAULT_INTERVAL


@dataclass(frozen=True, slots=True)
class Alarms:
    """Servers that run (None: not known), those of them whose recorders are silent, and why it is not known."""

    servers: int | None
    silent: Sequence[Silence]
    problem: str


def alarms_of(connection: Connection, watching: Watching, now: datetime) -> Alarms:
    """What there is to be alarmed about now."""
    watched = watching.watched()
    if watched.servers is None:
        return Alarms(None, (), watched.problem)
    words = map(_word, queries.last_words(connection, now + INTERVALS * watching.interval))
    return Alarms(len(watched.servers), silences(words, watched.servers, watching.interval, now), watched.problem)


def facts_of(alarms: Alarms) -> list[Fact]:
    """How many there are; not known where nobody said which servers run."""
    silent = None if alarms.servers is None else len(alarms.silent)
    return [
        Fact("servers", "Servers that run", alarms.servers),
        Fact("silent-recorders", "Silent recorders", silent, is_alarm=bool(silent)),
    ]


def table_of(alarms: Alarms) -> Table:
    """Which they are, by the names the Hub has for them: who sees to it has to find the person."""
    columns = (
        Column("user", "User of the Hub", "text"),
        Column("server", "Server", "text"),
        Column("reason", "Its recorder", "text"),
        Column("since", "Since (UTC)", "time"),
    )
    # To the minute: the tables of recorders, whose people have pseudonyms, have the time in full.
    rows: list[Row] = [
        {
            "user": one.user,
            "server": one.name or "default",
            "reason": one.reason,
            "since": f"{one.since:%Y-%m-%dT%H:%MZ}",
        }
        for one in alarms.silent
    ]
    unknown = f"Not known: {alarms.problem or 'no JupyterHub is asked which servers run'}."
    empty = unknown if alarms.servers is None else "None."
    return Table("silent", "Servers that run while their recorder is silent", columns, rows, empty)


def recorder_rows(connection: Connection, now: datetime) -> list[Row]:
    """Recorders, and what each does now."""
    return [{**row, "state": state_of(_word(row), now)} for row in queries.all_recorders(connection)]


def recorder_states(connection: Connection, now: datetime) -> dict[State, int]:
    """How many recorders do what."""
    states = dict.fromkeys(STATES, 0)
    for row in queries.open_recorders(connection):
        states[state_of(_word({**row, "server": None, "ended_at": None}), now)] += 1
    states["ended"] = queries.recorder_count(connection) - sum(states.values())
    return states


def _word(row: Row) -> Word:
    heartbeat = row["heartbeat_us"]
    interval = timedelta(microseconds=heartbeat) if heartbeat else None
    return Word(row["server"], datetime.fromisoformat(row["last_at"]), row["ended_at"] is not None, interval)
