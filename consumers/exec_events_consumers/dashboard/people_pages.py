"""The pages about a person, a notebook of theirs, and a cohort: a connection and what they are about in, a page out."""

from __future__ import annotations

from fractions import Fraction
from math import ceil

from sqlalchemy import Connection

from exec_events_consumers.measures import STUCK_ERRORS

from . import queries
from .now_page import RAN, activity_table, bucket_between, error_rate
from .page import Chart, Column, Fact, Kind, Page, Row, Table
from .span import Span

ON_TASK = Column("on_task_us", "On task", "us")
LAST = Column("last_at", "Last (UTC)", "time")
PERSON = Column("subject", "Person", "text", "person")
CELL = Column("cell_id", "Cell", "text")


class NoSuchPage(LookupError):
    """A person or a notebook of whom the tables know nothing."""


def people_page(connection: Connection, span: Span) -> Page:
    """Everybody, to choose from."""
    rows = queries.all_people(connection)
    table = Table("people", "People, the latest first", (PERSON, *RAN, ON_TASK, LAST), rows, "Nobody yet.")
    note = f"The {queries.MOST_ROWS} who ran something last, of all time."
    return Page("person", "People", [Fact("people", "People shown", len(rows))], [table], note=note)


def person_page(connection: Connection, span: Span, subject: str) -> Page:
    """One person."""
    row = queries.person(connection, subject)
    if row is None:
        raise NoSuchPage(f"nobody of the name {subject!r} ran anything")
    facts = _facts(queries.counts_of(connection, span, subject), row)
    bucket = bucket_between(row["first_at"], row["last_at"]) if span.begin is None else span.bucket
    activity = activity_table(queries.activity_of(connection, span, subject, bucket), span, bucket)
    notebooks = Table(
        "notebooks",
        "Notebooks, of all time",
        (Column("notebook", "Notebook", "text", "notebook"), *RAN, Column("cells", "Cells"), ON_TASK, LAST),
        queries.notebooks_of(connection, subject),
    )
    tables = [activity, notebooks, _errors_table(queries.errors_of(connection, subject))]
    return Page("person", subject, facts, tables, [Chart("activity", "Runs and errors")])


def notebook_page(connection: Connection, span: Span, subject: str, notebook: str) -> Page:
    """One notebook of one person: its cells, and what was run when."""
    row = queries.notebook(connection, subject, notebook)
    if row is None:
        raise NoSuchPage(f"{subject!r} ran nothing in {notebook!r}")
    facts = _facts(queries.counts_of(connection, span, subject, notebook), row)
    facts += [Fact("cells", "Cells", row["cells"]), Fact("revisits", "Going back", row["revisits"])]
    cells = queries.cells_of(connection, subject, notebook)
    for cell in cells:
        cell["stuck"] = cell["errors_in_a_row"] >= STUCK_ERRORS
        cell["growth"] = cell["last_lines"] - cell["first_lines"]
        cell["churn"] = cell["lines_added"] + cell["lines_removed"]
    runs = queries.timeline(connection, span, subject, notebook)
    for run in runs:
        run["edited"] = None if run["same_code"] is None else not run["same_code"]
    tables = [
        Table("timeline", "Runs, the latest last", _TIMELINE, runs, "No runs in this time."),
        Table("cells", "Cells in the order of their first runs, of all time", _CELLS, cells),
        _errors_table(queries.errors_of(connection, subject, notebook)),
    ]
    chart = Chart("timeline", "Which cell was run when, and how it ended", points=True)
    return Page("notebook", f"{notebook or '(no notebook)'} of {subject}", facts, tables, [chart])


_TIMELINE = (
    Column("requested_at", "Asked for (UTC)", "time"),
    Column("rank", "Place"),
    CELL,
    Column("status", "How", "text"),
    Column("error_name", "Error", "text"),
    Column("edited", "Edited"),
    Column("lines_added", "Lines added"),
    Column("lines_removed", "Removed"),
    Column("duration_us", "Took", "us"),
)
_CELLS = (
    Column("rank", "Place"),
    CELL,
    *RAN,
    Column("errors_in_a_row", "Errors in a row"),
    Column("stuck", "Seems stuck"),
    Column("fixes", "Fixes"),
    Column("time_to_fix_us", "Time to fix", "us"),
    Column("same_code_runs", "Unchanged reruns"),
    Column("code_versions", "Versions"),
    Column("growth", "Growth", "lines"),
    Column("churn", "Churn", "lines"),
    Column("last_status", "Last", "text"),
    LAST,
)


def cohorts_page(connection: Connection, span: Span) -> Page:
    """Every notebook, to choose from."""
    rows = queries.cohorts(connection)
    columns = (
        Column("notebook", "Notebook", "text", "cohort"),
        Column("people", "People"),
        Column("runs", "Runs"),
        Column("errors", "Errors"),
        LAST,
    )
    table = Table("cohorts", "Notebooks, those of the most people first", columns, rows, "No notebooks yet.")
    note = f"The {queries.MOST_ROWS} notebooks of the most people, of all time."
    return Page("cohort", "Cohorts", [Fact("notebooks", "Notebooks shown", len(rows))], [table], note=note)


def cohort_page(connection: Connection, span: Span, notebook: str) -> Page:
    """Everybody who ran cells of one notebook."""
    people = queries.cohort_people(connection, notebook)
    if not people:
        raise NoSuchPage(f"nobody ran anything in {notebook!r}")
    found = queries.cohort_cells(connection, notebook, span)
    # A cell that one of many added is no part of what they were to do.
    cells = [cell for cell in found if cell["ran"] > 1 or people == 1]
    places = {cell["cell_id"]: place for place, cell in enumerate(cells, 1)}
    progress = queries.cohort_progress(connection, notebook, span, places)
    present = sum(row["people"] for row in progress)
    for place, cell in enumerate(cells, 1):
        cell["place"] = place
        cell["reached"] = sum(row["people"] for row in progress if row["furthest"] >= place)
        cell["right_share"] = round(100 * cell["right"] / present, 1)
    stuck = queries.stuck(connection, notebook)
    facts = [
        Fact("people", "People", present),
        Fact("cells", "Cells in common", len(cells)),
        Fact("own-cells", "Cells of one person only", len(found) - len(cells)),
        *(
            Fact(f"progress-{name}", f"Progress, {label}", _progress_at(progress, share, len(cells)), "percent")
            for name, label, share in _QUARTILES
        ),
        Fact("stuck-people", "Seem stuck", len({row["subject"] for row in stuck})),
    ]
    tables = [
        Table("cells", "Cells in common, in the order in which they are first run", _COHORT_CELLS, cells, "None yet."),
        Table(
            "stuck", f"Who seems stuck: {STUCK_ERRORS} or more errors in a row, at present", _STUCK, stuck, "Nobody."
        ),
        Table("errors", "Common errors", _COHORT_ERRORS, queries.cohort_errors(connection, notebook, span), "None."),
        Table(
            "shared-code", "Code that several ran", _SHARED, queries.shared_code(connection, notebook, span), "None."
        ),
    ]
    note = "Equal code is no proof of copying: what an exercise came with, and short code, is the same for everybody."
    title = notebook or "(no notebook)"
    return Page("cohort", title, facts, tables, [Chart("cells", "How many ran each cell, and got it right")], note)


_QUARTILES = (
    ("q1", "lower quartile", Fraction(1, 4)),
    ("median", "median", Fraction(1, 2)),
    ("q3", "upper quartile", Fraction(3, 4)),
)
_COHORT_CELLS = (
    Column("place", "Place"),
    Column("reached", "Reached it"),
    Column("ran", "Ran it"),
    Column("right", "Got it right"),
    Column("failed", "Had an error"),
    CELL,
    Column("right_share", "Right, of all", "percent"),
    Column("runs", "Runs"),
    Column("errors", "Errors"),
)
_STUCK = (
    PERSON,
    Column("notebook", "Notebook", "text", "notebook"),
    CELL,
    Column("errors_in_a_row", "Errors in a row"),
    Column("streak_since", "Since (UTC)", "time"),
    Column("last_error", "Last error", "text"),
)
_COHORT_ERRORS = (CELL, Column("error_name", "Error", "text"), Column("people", "People"), Column("times", "Times"))
_SHARED = (
    Column("people", "People"),
    Column("code_lines", "Lines"),
    Column("runs", "Runs"),
    CELL,
    Column("code_ast_hash", "Hash of the syntax tree", "text"),
)


def _progress_at(progress: list[Row], share: Fraction, cells: int) -> float | None:
    """The share of the cells, in per cent, that the person at ``share`` of all people, ordered by it, got right."""
    people = sum(row["people"] for row in progress)
    if not people or not cells:
        return None
    at = max(1, ceil(share * people))
    for row in sorted(progress, key=lambda row: row["right"]):
        at -= row["people"]
        if at <= 0:
            return round(100 * int(row["right"]) / cells, 1)
    return None


def _facts(ran: Row, row: Row) -> list[Fact]:
    """What a person and a notebook have in common."""
    of_all_time: list[tuple[str, str, Kind]] = [
        ("on_task_us", "On task, of all time", "us"),
        ("idle_us", "Idle, of all time", "us"),
        ("last_at", "Last run (UTC)", "time"),
    ]
    return [
        Fact("runs", "Runs", ran["runs"]),
        Fact("ok", "OK", ran["ok"]),
        Fact("errors", "Errors", ran["errors"]),
        Fact("error-rate", "Error rate", error_rate(ran), "percent"),
        *(Fact(key.removesuffix("_us").replace("_", "-"), label, row[key], kind) for key, label, kind in of_all_time),
    ]


def _errors_table(rows: list[Row]) -> Table:
    columns = (Column("error_name", "Error", "text"), Column("times", "Times"), LAST)
    return Table("errors", "Errors, of all time", columns, rows, "None.")
