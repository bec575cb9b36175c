"""
Every question the pages ask the tables, as one SQLAlchemy statement each, for SQLite and PostgreSQL alike.

A question about all time is answered from the aggregates; one about a span from `minutes` or, through the index
by subject or by time, from `executions`. Each reads what it needs and no more: pages stay fast at a million
executions. All are here, however many, so that what the pages cost is read in one place.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, FromClause, Select, and_, case, distinct, func, literal_column, select
from sqlalchemy.sql.elements import ColumnElement

from exec_events_consumers.aggregate import NAME, UNNAMED
from exec_events_consumers.measures import STUCK_ERRORS
from exec_events_consumers.tables import (
    cells,
    chains,
    codes,
    dead_letters,
    errors,
    executions,
    kernel_sessions,
    minutes,
    notebooks,
    offsets,
    recorders,
    subjects,
)

from .span import Span, microseconds, rfc3339

Row = dict[str, Any]

ACTIVE = timedelta(minutes=5)
MOST_ROWS = 200
_RAN = ("runs", "ok", "errors", "other")


def _all(connection: Connection, query: Select[Any]) -> list[Row]:
    return [dict(row) for row in connection.execute(query).mappings()]


def _one(connection: Connection, query: Select[Any]) -> Row | None:
    row = connection.execute(query).mappings().first()
    return None if row is None else dict(row)


def _minutes_in(span: Span) -> list[ColumnElement[bool]]:
    conditions = []
    if span.begin is not None:
        conditions.append(minutes.c.minute >= _minute(span.begin))
    if span.end is not None:
        conditions.append(minutes.c.minute <= _minute(span.end))
    return conditions


def _asked_in(span: Span) -> list[ColumnElement[bool]]:
    """Runs of a span; by when they were asked for, as in `minutes`."""
    asked = executions.c.requested_us
    bounds = [] if span.is_ever else [asked >= span.begin_us, asked <= span.end_us]
    return [executions.c.silent.is_(False), *bounds]


def _minute(time: datetime) -> str:
    return f"{rfc3339(time)[:16]}Z"


def _ended(status: str) -> ColumnElement[Any]:
    return func.sum(case((executions.c.status == status, 1), else_=0))


def _sum(column: ColumnElement[Any]) -> ColumnElement[Any]:
    # PostgreSQL's sum of integers is a decimal.
    return func.coalesce(func.sum(column), 0)


# Now.


def counts(connection: Connection, span: Span) -> Row:
    """Runs of everybody, and how they ended."""
    # Of all time, from a row for each person, not for each of their minutes.
    row, within = (subjects.c, []) if span.is_ever else (minutes.c, _minutes_in(span))
    query = select(*[_sum(row[name]).label(name) for name in _RAN]).where(*within)
    return {name: int(value) for name, value in (_one(connection, query) or {}).items()}


def activity(connection: Connection, span: Span, bucket: int) -> list[Row]:
    """Runs and errors of everybody, in each bucket of time in which there were any."""
    at = func.substr(minutes.c.minute, 1, bucket).label("at")
    query = select(at, _sum(minutes.c.runs).label("runs"), _sum(minutes.c.errors).label("errors"))
    found = _all(
        connection, query.where(*_minutes_in(span)).group_by(literal_column("at")).order_by(literal_column("at"))
    )
    return [{**row, "runs": int(row["runs"]), "errors": int(row["errors"])} for row in found]


def first_and_last(connection: Connection) -> tuple[str | None, str | None]:
    """The first and the last minute in which anybody ran anything."""
    # Two questions, each answered by one end of the index.
    first, last = (connection.scalar(select(ask(minutes.c.minute))) for ask in (func.min, func.max))
    return first, last


def people(connection: Connection, span: Span, most: int = 20) -> list[Row]:
    """Who ran most."""
    ran = [_sum(minutes.c[name]).label(name) for name in _RAN]
    last = func.max(minutes.c.minute).label("last_at")
    query = select(minutes.c.subject, *ran, last).where(*_minutes_in(span)).group_by(minutes.c.subject)
    found = _all(connection, query.order_by(literal_column("runs").desc(), minutes.c.subject).limit(most))
    return [{**row, **{name: int(row[name]) for name in _RAN}} for row in found]


def active_people(connection: Connection, at: datetime) -> int:
    """How many people asked for a run in the five minutes up to ``at``."""
    within = (minutes.c.minute > _minute(at - ACTIVE), minutes.c.minute <= _minute(at))
    return int(connection.scalar(select(func.count(distinct(minutes.c.subject))).where(*within)) or 0)


def finished_since(connection: Connection, at: datetime) -> int:
    """How many runs were over since ``at``."""
    row = executions.c
    query = select(func.count()).where(row.finished_us >= microseconds(at), row.silent.is_(False))
    return int(connection.scalar(query) or 0)


def latest(connection: Connection, span: Span, most: int = 15) -> list[Row]:
    """The runs that were over last."""
    row = executions.c
    bounds = [] if span.is_ever else [row.finished_us >= span.begin_us, row.finished_us <= span.end_us]
    names = ("finished_at", "subject", "notebook", "cell_id", "status", "error_name", "duration_us")
    query = select(*[row[name] for name in names]).where(row.silent.is_(False), *bounds)
    return _all(connection, query.order_by(row.finished_us.desc(), row.chain, row.seq.desc()).limit(most))


def open_kernels(connection: Connection) -> int:
    """Kernels that were started and have not ended, of recorders that have not either."""
    kernel, recorder = kernel_sessions.c, recorders.c
    joined = kernel_sessions.join(recorders, recorder.recorder_id == kernel.recorder_id)
    query = select(func.count()).select_from(joined)
    return int(connection.scalar(query.where(kernel.ended_at.is_(None), recorder.ended_at.is_(None))) or 0)


def newest(connection: Connection) -> str | None:
    """The time of the newest event in the tables."""
    found: str | None = connection.scalar(select(func.max(chains.c.last_at)).where(chains.c.consumer == NAME))
    return found


def positions(connection: Connection) -> list[Row]:
    """How far each partition of the source was read."""
    row = offsets.c
    query = select(row.partition, row.position, row.epoch).where(row.consumer == NAME).order_by(row.partition)
    return _all(connection, query.limit(MOST_ROWS))


def read_to(connection: Connection) -> dict[str, int]:
    """How far each partition of whatever the aggregate has read was read."""
    row = offsets.c
    found = connection.execute(select(row.partition, row.position).where(row.consumer == NAME))
    return dict(found.tuples().all())


def change(connection: Connection) -> tuple[int, ...]:
    """Something that is another after every batch the aggregate has taken: asked four times a second."""
    row = offsets.c
    query = select(func.count(), _sum(row.position), _sum(row.epoch)).where(row.consumer == NAME)
    return tuple(int(value) for value in connection.execute(query).one())


# A person, and a notebook of theirs.


def all_people(connection: Connection) -> list[Row]:
    """Everybody, those who ran something last first."""
    names = ("subject", *_RAN, "on_task_us", "last_at")
    query = select(*[subjects.c[name] for name in names]).order_by(subjects.c.last_at.desc(), subjects.c.subject)
    return _all(connection, query.limit(MOST_ROWS))


def person(connection: Connection, subject: str) -> Row | None:
    """The row of one person."""
    return _one(connection, select(subjects).where(subjects.c.subject == subject))


def notebooks_of(connection: Connection, subject: str) -> list[Row]:
    """The notebooks of a person, the latest first."""
    row = notebooks.c
    query = select(notebooks).where(row.subject == subject).order_by(row.last_at.desc(), row.notebook)
    return _all(connection, query.limit(MOST_ROWS))


def notebook(connection: Connection, subject: str, name: str) -> Row | None:
    """The row of one notebook of a person."""
    return _one(connection, select(notebooks).where(notebooks.c.subject == subject, notebooks.c.notebook == name))


def _theirs(span: Span, subject: str, name: str | None) -> list[ColumnElement[bool]]:
    one = [] if name is None else [executions.c.notebook == name]
    return [executions.c.subject == subject, *one, *_asked_in(span)]


def counts_of(connection: Connection, span: Span, subject: str, name: str | None = None) -> Row:
    """Runs of a person, or of a notebook of theirs, and how they ended."""
    query = select(func.count().label("runs"), _ended("ok").label("ok"), _ended("error").label("errors"))
    row = _one(connection, query.where(*_theirs(span, subject, name))) or {}
    ran = {key: int(row[key] or 0) for key in ("runs", "ok", "errors")}
    return {**ran, "other": ran["runs"] - ran["ok"] - ran["errors"]}


def activity_of(connection: Connection, span: Span, subject: str, bucket: int) -> list[Row]:
    """Runs and errors of a person, in each bucket of time in which there were any."""
    at = func.substr(executions.c.requested_at, 1, bucket).label("at")
    query = select(at, func.count().label("runs"), _ended("error").label("errors")).where(*_theirs(span, subject, None))
    found = _all(connection, query.group_by(literal_column("at")).order_by(literal_column("at")))
    return [{**row, "errors": int(row["errors"])} for row in found]


def errors_of(connection: Connection, subject: str, name: str | None = None) -> list[Row]:
    """Errors of a person, or of a notebook of theirs, by name."""
    row = errors.c
    one = [] if name is None else [row.notebook == name]
    times, last = func.sum(row.times).label("times"), func.max(row.last_at).label("last_at")
    query = select(row.error_name, times, last).where(row.subject == subject, *one).group_by(row.error_name)
    found = _all(connection, query.order_by(literal_column("times").desc(), row.error_name).limit(20))
    return [{**one, "times": int(one["times"])} for one in found]


def cells_of(connection: Connection, subject: str, name: str) -> list[Row]:
    """The cells of a person's notebook, in the order of their first runs."""
    row = cells.c
    query = select(cells).where(row.subject == subject, row.notebook == name).order_by(row.rank, row.cell_id)
    return _all(connection, query.limit(MOST_ROWS))


def timeline(connection: Connection, span: Span, subject: str, name: str, most: int = MOST_ROWS) -> list[Row]:
    """The latest runs of a person's notebook, in order."""
    row = executions.c
    same_cell = and_(cells.c.subject == row.subject, cells.c.notebook == row.notebook, cells.c.cell_id == row.cell_id)
    names = ("requested_at", "cell_id", "status", "error_name", "same_code", "lines_added", "lines_removed")
    query = select(*[row[name] for name in names], row.duration_us, func.coalesce(cells.c.rank, 0).label("rank"))
    query = query.select_from(executions.outerjoin(cells, same_cell)).where(*_theirs(span, subject, name))
    return _all(connection, query.order_by(row.requested_us.desc(), row.seq.desc()).limit(most))[::-1]


# A cohort: everybody who ran cells of one notebook.


def cohorts(connection: Connection) -> list[Row]:
    """Notebooks, those of the most people first."""
    row = notebooks.c
    ran = [func.sum(row[name]).label(name) for name in ("runs", "errors")]
    query = select(row.notebook, func.count().label("people"), *ran, func.max(row.last_at).label("last_at"))
    query = query.group_by(row.notebook).order_by(literal_column("people").desc(), row.notebook).limit(MOST_ROWS)
    return [{**found, "runs": int(found["runs"]), "errors": int(found["errors"])} for found in _all(connection, query)]


def cohort_people(connection: Connection, name: str) -> int:
    """How many people ran cells of a notebook, ever."""
    return int(connection.scalar(select(func.count()).where(notebooks.c.notebook == name)) or 0)


def _by_person(table: Any, name: str) -> FromClause:
    """
    Rows of ``table`` in the notebook ``name``, by way of who has it: so the primary keys, which begin with the
    subject, find them.
    """
    return notebooks.join(table, and_(table.c.subject == notebooks.c.subject, table.c.notebook == name))


def _in_notebook(span: Span, name: str) -> list[ColumnElement[bool]]:
    """Runs of a span in a notebook, found by when they were over, which is no earlier than when they were asked for."""
    return [executions.c.notebook == name, executions.c.finished_us >= span.begin_us, *_asked_in(span)]


def _cohort(name: str, span: Span) -> Any:
    """For each person and cell of a notebook: its place, and how its runs in the span ended."""
    row = cells.c
    if span.is_ever:
        query = select(row.subject, row.cell_id, row.rank, row.runs, row.ok, row.errors)
        return query.select_from(_by_person(cells, name)).where(notebooks.c.notebook == name, row.cell_id != "")
    run = executions.c
    # Not the column itself: SQLite would take the index that groups by it, and read all there is.
    who = run.subject.concat(literal_column("''"))
    ran = select(
        who.label("subject"),
        run.cell_id,
        func.count().label("runs"),
        _ended("ok").label("ok"),
        _ended("error").label("errors"),
    )
    theirs = ran.where(*_in_notebook(span, name), run.cell_id != "").group_by(who, run.cell_id).subquery("theirs")
    same = and_(row.subject == theirs.c.subject, row.notebook == name, row.cell_id == theirs.c.cell_id)
    names = ("subject", "cell_id", "runs", "ok", "errors")
    return select(*[theirs.c[name] for name in names], row.rank).select_from(theirs.join(cells, same))


def cohort_cells(connection: Connection, name: str, span: Span) -> list[Row]:
    """Each cell of a notebook in the order in which it is first run on average, and how many people ran it how."""
    theirs = _cohort(name, span).subquery("cohort").c
    succeeded = func.sum(case((theirs.ok > 0, 1), else_=0)).label("right")
    failed = func.sum(case((theirs.errors > 0, 1), else_=0)).label("failed")
    sums = [func.sum(theirs[name]).label(name) for name in ("runs", "errors")]
    query = select(theirs.cell_id, func.avg(theirs.rank).label("place"), func.count().label("ran"), succeeded, failed)
    found = _all(connection, query.add_columns(*sums).group_by(theirs.cell_id))
    for row in found:
        row.update({key: int(row[key]) for key in ("right", "failed", "runs", "errors")}, place=float(row["place"]))
    return sorted(found, key=lambda row: (row["place"], row["cell_id"]))


def cohort_progress(connection: Connection, name: str, span: Span, places: dict[str, int]) -> list[Row]:
    """
    How many people there are for each (furthest place that they ran, number of cells they got right).

    ``places`` are the places of the cells that count. There are at most as many rows as cells squared, however
    many people.
    """
    if not places:
        return []
    theirs = _cohort(name, span).subquery("cohort").c
    place = case(places, value=theirs.cell_id, else_=None)
    furthest = func.max(place).label("furthest")
    succeeded = func.sum(case((theirs.ok > 0, 1), else_=0)).label("right")
    each = select(theirs.subject, furthest, succeeded).where(theirs.cell_id.in_(list(places)))
    person = each.group_by(theirs.subject).subquery("person").c
    query = select(person.furthest, person.right, func.count().label("people"))
    return _all(connection, query.group_by(person.furthest, person.right))


def cohort_errors(connection: Connection, name: str, span: Span) -> list[Row]:
    """The errors of most people, by cell and name."""
    table, times = (errors, func.sum(errors.c.times)) if span.is_ever else (executions, func.count())
    row = table.c
    error = func.coalesce(row.error_name, UNNAMED).label("error_name")
    people = func.count(distinct(row.subject)).label("people")
    query = select(row.cell_id, error, people, times.label("times"))
    if span.is_ever:
        query = query.select_from(_by_person(errors, name)).where(notebooks.c.notebook == name)
    else:
        query = query.where(executions.c.status == "error", *_in_notebook(span, name))
    query = query.group_by(row.cell_id, row.error_name)
    order: tuple[Any, ...] = (literal_column("people").desc(), literal_column("times").desc(), row.cell_id)
    found = _all(connection, query.order_by(*order, row.error_name).limit(20))
    return [{**one, "times": int(one["times"])} for one in found]


def shared_code(connection: Connection, name: str, span: Span) -> list[Row]:
    """Code that more than one person ran, layout and comments apart, that of most people first."""
    table, runs = (codes, func.sum(codes.c.runs)) if span.is_ever else (executions, func.count())
    row = table.c
    within = [row.notebook == name] if span.is_ever else _in_notebook(span, name)
    people = func.count(distinct(row.subject))
    # First which, from the index alone; then what is known of those few.
    which = select(row.code_ast_hash, people.label("people")).where(*within, row.code_ast_hash.is_not(None))
    which = which.group_by(row.code_ast_hash).having(people > 1)
    which = which.order_by(literal_column("people").desc(), row.code_ast_hash).limit(20)
    found = {one["code_ast_hash"]: one for one in _all(connection, which)}
    lines, cell = func.max(row.code_lines).label("code_lines"), func.min(row.cell_id).label("cell_id")
    more = select(row.code_ast_hash, runs.label("runs"), lines, cell).where(*within)
    more = more.where(row.code_ast_hash.in_(list(found))).group_by(row.code_ast_hash)
    for one in _all(connection, more):
        found[one["code_ast_hash"]].update(one, runs=int(one["runs"]))
    return list(found.values())


def stuck(connection: Connection, name: str) -> list[Row]:
    """Who has had so many errors in a row in a cell, and has not mended it yet."""
    row = cells.c
    names = ("subject", "notebook", "cell_id", "errors_in_a_row", "streak_since", "last_error", "last_at")
    query = select(*[row[name] for name in names]).select_from(_by_person(cells, name))
    query = query.where(notebooks.c.notebook == name, row.errors_in_a_row >= STUCK_ERRORS)
    return _all(connection, query.order_by(row.last_at.desc(), row.subject, row.cell_id).limit(MOST_ROWS))


# Integrity.


def chain_sums(connection: Connection) -> Row:
    """All chains together."""
    row = chains.c
    sums = [_sum(row[name]).label(name) for name in ("records", "missing", "duplicates", "forks")]
    query = select(func.count().label("chains"), *sums).where(row.consumer == NAME)
    return {name: int(value) for name, value in (_one(connection, query) or {}).items()}


def worst_chains(connection: Connection) -> list[Row]:
    """Chains, those with forks and gaps first, then the latest."""
    row = chains.c
    names = ("chain", "head_seq", "records", "missing", "gaps", "duplicates", "forks", "closed", "last_at")
    query = select(*[row[name] for name in names]).where(row.consumer == NAME)
    order = (row.forks.desc(), row.missing.desc(), row.last_at.desc(), row.chain)
    return _all(connection, query.order_by(*order).limit(MOST_ROWS))


def dead_letter_count(connection: Connection) -> int:
    """How many there are."""
    return int(connection.scalar(select(func.count()).where(dead_letters.c.consumer == NAME)) or 0)


def latest_dead_letters(connection: Connection) -> list[Row]:
    """The latest; without their bytes."""
    row = dead_letters.c
    size = func.length(row.value).label("bytes")
    query = select(row.id, row.partition, row.position, row.reason, size, row.found_at).where(row.consumer == NAME)
    return _all(connection, query.order_by(row.id.desc()).limit(MOST_ROWS))


def all_recorders(connection: Connection) -> list[Row]:
    """Recorders, the latest first."""
    return _all(connection, select(recorders).order_by(recorders.c.last_at.desc()).limit(MOST_ROWS))


def open_recorders(connection: Connection) -> list[Row]:
    """When those that have not said that they ended spoke last, and how often they speak."""
    row = recorders.c
    return _all(connection, select(row.last_at, row.heartbeat_us).where(row.ended_at.is_(None)))


def recorder_count(connection: Connection) -> int:
    """How many there were."""
    return int(connection.scalar(select(func.count()).select_from(recorders)) or 0)


def last_words(connection: Connection, until: datetime) -> list[Row]:
    """Of each server that has a label, what its recorder said last, no later than ``until``."""
    row = recorders.c
    last = select(row.server, func.max(row.last_at).label("last_at")).where(
        row.server.is_not(None), row.last_at <= rfc3339(until)
    )
    latest = last.group_by(row.server).subquery("latest")
    same = and_(row.server == latest.c.server, row.last_at == latest.c.last_at)
    query = select(row.server, row.last_at, row.ended_at, row.heartbeat_us)
    return _all(connection, query.select_from(recorders.join(latest, same)))
