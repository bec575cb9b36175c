"""
What cannot be sent yet, kept in the store until it can be: records of people nobody knows, or whom the server blocks.

Who has one record here has all that come after it here, too, so that they go in the order they came. ``waiting``
has a row for each of these people, ``held`` their records. ``people`` says who is who; ``runs`` what each run of a
forwarder did, written in the transactions in which it did it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    bindparam,
    delete,
    func,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from ..decode import Decoded
from ..store import Transaction

UNKNOWN = "nobody has said which Learning Observer id is theirs"

metadata = MetaData()


def _text(name: str, *, is_key: bool = False) -> Column[str]:
    return Column(name, Text, primary_key=is_key, nullable=False)


def _count(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


people = Table(
    "forward_people",
    metadata,
    _text("subject", is_key=True),
    Column("lo_id", Text, nullable=False, unique=True),
)

waiting = Table(
    "forward_waiting",
    metadata,
    _text("subject", is_key=True),
    _text("reason"),
    _text("until"),  # "" where it is no time that is waited for
    _text("since"),
)

held = Table(
    "forward_held",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    _text("subject"),
    _text("partition"),
    _count("position"),
    Column("record", LargeBinary, nullable=False),
    Index("forward_held_of", "subject", "id"),
    Index("forward_held_at", "partition", "position", unique=True),
)

runs = Table(
    "forward_runs",
    metadata,
    _text("run", is_key=True),
    _text("began_at"),
    _count("events"),
    _count("sent"),
    _count("held"),
    _count("dead"),
    _count("of_nobody"),
    _count("released"),
    _count("released_dead"),
)

# The server keeps checkpoints under this name: those of another store are not ours.
streams = Table("forward_stream", metadata, Column("id", Integer, primary_key=True), _text("stream"))


class Held(NamedTuple):
    """A record that waits."""

    id: int
    partition: str
    position: int
    record: bytes


class Waiting(NamedTuple):
    """Somebody whose records wait, why, and until when where that is known."""

    subject: str
    reason: str
    until: str
    since: str


def stream_of(connection: Connection, new: str) -> str:
    """The name under which checkpoints of this store are kept; ``new`` where it has none yet."""
    _insert_new(connection, streams, [{"id": 1, "stream": new}])
    return str(connection.execute(select(streams.c.stream)).scalar_one())


def hold(transaction: Transaction, events: Iterable[Decoded], subject: str) -> None:
    """Keep events of one person."""
    rows = [
        {"subject": subject, "partition": event.partition, "position": event.position, "record": event.record}
        for event in events
    ]
    _insert_new(transaction.connection, held, rows)


def wait(transaction: Transaction, rows: Sequence[Waiting]) -> None:
    """Note who waits, or that they wait for something else now."""
    transaction.upsert(waiting, [row._asdict() for row in rows])


def waiting_of(transaction: Transaction, subjects: Iterable[str]) -> dict[str, Waiting]:
    """Who of these waits."""
    rows = transaction.rows(waiting, [(subject,) for subject in subjects])
    return {row["subject"]: Waiting(**row) for row in rows.values()}


def all_waiting(connection: Connection) -> list[Waiting]:
    """Everybody who waits, whoever has waited longest first."""
    row = waiting.c
    found = connection.execute(select(row.subject, row.reason, row.until, row.since).order_by(row.since, row.subject))
    return [Waiting(*one) for one in found]


def held_of(transaction: Transaction, subject: str, limit: int) -> list[Held]:
    """The first of a person's records that wait."""
    row = held.c
    query = select(row.id, row.partition, row.position, row.record).where(row.subject == subject)
    found = transaction.connection.execute(query.order_by(row.id).limit(limit))
    return [Held(one.id, one.partition, one.position, bytes(one.record)) for one in found]


def partitions_of(connection: Connection, subject: str | None = None) -> set[str]:
    """Where the records came from that wait, of one person or of all."""
    query = select(held.c.partition).distinct()
    if subject is not None:
        query = query.where(held.c.subject == subject)
    return set(connection.execute(query).scalars())


def let_go(transaction: Transaction, subject: str, ids: Sequence[int]) -> None:
    """Records wait no more, nor does the person if these were the last."""
    if ids:
        transaction.connection.execute(
            delete(held).where(held.c.id == bindparam("gone")), [{"gone": one} for one in ids]
        )
    left = transaction.connection.execute(select(held.c.id).where(held.c.subject == subject).limit(1)).first()
    if left is None:
        transaction.connection.execute(delete(waiting).where(waiting.c.subject == subject))


def held_count(connection: Connection) -> int:
    """How many records wait."""
    return int(connection.execute(select(func.count()).select_from(held)).scalar_one())


def counts_by_subject(connection: Connection) -> Iterator[tuple[Waiting, int]]:
    """Everybody who waits, with how many of their records do."""
    found = connection.execute(select(held.c.subject, func.count()).group_by(held.c.subject))
    counts: dict[str, int] = dict(found.tuples().all())
    for one in all_waiting(connection):
        yield one, counts.get(one.subject, 0)


def _insert_new(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """What is there already stays as it is."""
    if rows:
        dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
        connection.execute(dialect.insert(table).on_conflict_do_nothing(), rows)
