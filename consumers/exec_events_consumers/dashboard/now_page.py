"""The pages about everybody at once: a connection and a span in, what ``now`` and ``integrity`` show out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection

from . import queries
from .page import Chart, Column, Fact, Page, Row, Table
from .span import Span, bucket_of, microseconds
from .watching import Alarms, facts_of, recorder_rows, table_of

RAN = (
    Column("runs", "Runs"),
    Column("ok", "OK"),
    Column("errors", "Errors"),
    Column("other", "Otherwise"),
)
_STEPS = {16: timedelta(minutes=1), 15: timedelta(minutes=10), 13: timedelta(hours=1), 10: timedelta(days=1)}
_REST_OF_A_TIME = "0000-00-00T00:00:00+00:00"
_MOST_BUCKETS = 1500


@dataclass(frozen=True, slots=True)
class Sums:
    """What the page says of a whole span, which of a long one is costly."""

    ran: Row
    activity: Table
    people: list[Row]


def sums_of(connection: Connection, span: Span) -> Sums:
    """All that was run in a span, when, and by whom."""
    bucket = _bucket(span, *queries.first_and_last(connection)) if span.begin is None else span.bucket
    activity = activity_table(queries.activity(connection, span, bucket), span, bucket)
    return Sums(queries.counts(connection, span), activity, queries.people(connection, span))


def now_page(connection: Connection, span: Span, sums: Sums, waiting: int | None, alarms: Alarms) -> Page:
    """Who runs what at the moment, how it goes, and whether these figures keep up."""
    ran = sums.ran
    newest = queries.newest(connection)
    at = span.end or span.now
    age = None if newest is None else max(0.0, round((span.now - datetime.fromisoformat(newest)).total_seconds(), 1))
    facts = [
        Fact("runs", "Runs", ran["runs"]),
        Fact("errors", "Errors", ran["errors"]),
        Fact("error-rate", "Error rate", error_rate(ran), "percent"),
        Fact("active-people", "People active (5 min)", queries.active_people(connection, at)),
        Fact("runs-last-minute", "Ended in the last minute", queries.finished_since(connection, span.now - _STEPS[16])),
        Fact("open-kernels", "Open kernels", queries.open_kernels(connection)),
        Fact("waiting", "Records not counted yet", waiting),
        Fact("age", "Newest event, ago", age, "seconds"),
        *facts_of(alarms),
    ]
    latest = Table(
        "latest",
        "Latest runs",
        (
            Column("finished_at", "Ended (UTC)", "time"),
            Column("subject", "Person", "text", "person"),
            Column("notebook", "Notebook", "text", "notebook"),
            Column("cell_id", "Cell", "text"),
            Column("status", "How", "text"),
            Column("error_name", "Error", "text"),
            Column("duration_us", "Took", "us"),
        ),
        queries.latest(connection, span),
        "No runs in this time.",
    )
    people = Table(
        "people",
        "Most runs",
        (Column("subject", "Person", "text", "person"), *RAN),
        sums.people,
        "Nobody ran anything in this time.",
    )
    return Page("now", "Now", facts, [sums.activity, latest, people], [Chart("activity", "Runs and errors")])


def integrity_page(connection: Connection, span: Span, letters: int | None, alarms: Alarms) -> Page:
    """Whether the record is whole, as far as the aggregate has read it; of all time."""
    sums = queries.chain_sums(connection)
    dead = queries.dead_letter_count(connection)
    facts = [
        Fact("chains", "Chains", sums["chains"]),
        Fact("records", "Records", sums["records"]),
        Fact("missing", "Missing", sums["missing"], is_alarm=sums["missing"] > 0),
        Fact("forks", "Forks", sums["forks"], is_alarm=sums["forks"] > 0),
        Fact("duplicates", "Duplicates (no fault)", sums["duplicates"]),
        Fact("dead-letters", "Dead letters", dead, is_alarm=dead > 0),
        Fact("topic-letters", "Dead letters on their topic, not replayed", letters, is_alarm=bool(letters)),
        *facts_of(alarms),
    ]
    tables = [
        table_of(alarms),
        Table(
            "chains",
            "Chains, those with forks and gaps first",
            (
                Column("chain", "Chain", "text"),
                Column("head_seq", "Head"),
                Column("records", "Records"),
                Column("missing", "Missing"),
                Column("gaps", "Gaps", "text"),
                Column("forks", "Forks"),
                Column("duplicates", "Duplicates"),
                Column("closed", "Closed"),
                Column("last_at", "Last event (UTC)", "time"),
            ),
            queries.worst_chains(connection),
            "No chains yet.",
        ),
        Table(
            "dead-letters",
            "Latest dead letters",
            (
                Column("id", "Number"),
                Column("partition", "Found in", "text"),
                Column("position", "At"),
                Column("reason", "Why", "text"),
                Column("bytes", "Size", "bytes"),
                Column("found_at", "Found (UTC)", "time"),
            ),
            queries.latest_dead_letters(connection),
            "None.",
        ),
        Table(
            "recorders",
            "Recorders",
            (
                Column("recorder_id", "Recorder", "text"),
                Column("state", "Now", "text"),
                Column("started_at", "Started (UTC)", "time"),
                Column("last_at", "Last word (UTC)", "time"),
                Column("ended_at", "Ended (UTC)", "time"),
                Column("cause", "How", "text"),
                Column("executions", "Executions"),
                Column("lost", "Lost"),
            ),
            recorder_rows(connection, span.now),
            "None has said anything yet.",
        ),
        Table(
            "positions",
            "How far the source was read",
            (
                Column("partition", "Partition", "text"),
                Column("position", "Position"),
                Column("epoch", "Taken over"),
            ),
            queries.positions(connection),
            "Not at all.",
        ),
    ]
    note = "Of all time, as the tables were filled. `exec-events verify` checks the record itself, hash by hash."
    return Page("integrity", "Integrity", facts, tables, note=note)


def error_rate(ran: Row) -> float | None:
    """Errors of all runs, in per cent."""
    return None if not ran["runs"] else round(100 * ran["errors"] / ran["runs"], 1)


def activity_table(found: list[Row], span: Span, bucket: int) -> Table:
    """Runs and errors in each bucket of time, those in which nothing happened included."""
    columns = (Column("at", "Time (UTC)", "time"), Column("runs", "Runs"), Column("errors", "Errors"))
    by_time = {row["at"]: row for row in found}
    names = _buckets(found, span, bucket)
    rows = [
        {"runs": 0, "errors": 0, **by_time.get(name, {}), "at": f"{_begin(name):%Y-%m-%dT%H:%MZ}"} for name in names
    ]
    return Table("activity", "Runs and errors over time", columns, rows, "Nothing ran in this time.")


def bucket_seconds(at: str) -> float:
    """When a bucket begins, in seconds since 1970, for a chart."""
    return microseconds(_begin(at)) / 1_000_000


def _bucket(span: Span, first: str | None, last: str | None) -> int:
    """The buckets in which all that happened up to a span's end is drawn."""
    if first is None or last is None:
        return span.bucket
    return bucket_of((span.end or _begin(last)) - _begin(first))


def bucket_between(first_at: str, last_at: str) -> int:
    """The buckets in which what happened between two times of events is drawn."""
    return bucket_of(_begin(last_at[:16]) - _begin(first_at[:16]))


def _buckets(found: list[Row], span: Span, bucket: int) -> list[str]:
    """The names of all buckets of a span; of those that were found alone where there would be too many."""
    if not found:
        return []
    step = _STEPS[bucket]
    first = _begin(found[0]["at"]) if span.begin is None else span.begin
    last = _begin(found[-1]["at"]) if span.begin is None else span.end or span.now
    if (last - first) / step > _MOST_BUCKETS:
        return [row["at"] for row in found]
    at = _begin(f"{first.astimezone(UTC):%Y-%m-%dT%H:%M}"[:bucket])
    names = []
    while at <= last:
        names.append(f"{at:%Y-%m-%dT%H:%M}"[:bucket])
        at += step
    return names


def _begin(at: str) -> datetime:
    at = at.removesuffix("Z")
    return datetime.fromisoformat(at + _REST_OF_A_TIME[len(at) :])
