"""
A database in, transactions out in which rows, positions and dead letters are written together or not at all.

SQLite (in WAL mode) by default, PostgreSQL where several consumers share the work; through SQLAlchemy Core alone.
A consumer writes rows of a partition only while it owns it: who claims a partition fences off whoever had it.
"""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from . import tables
from .chaining import Chain
from .decode import DeadLetter
from .errors import LostPartition, StoreError
from .statements import (
    Key,
    Merge,
    columns_of,
    key_places,
    postgresql_copy,
    postgresql_count,
    postgresql_select,
    postgresql_upsert,
    sqlite_count,
    sqlite_insert,
    sqlite_select,
    sqlite_upsert,
)

_BUSY_SECONDS = 30


class Store:
    """
    One database, as the consumer ``consumer`` uses it.

    ``url`` is SQLAlchemy's (``sqlite:///aggregates.db``, ``postgresql+psycopg://…``). Raises StoreError when it
    cannot be opened, and SQLAlchemyError when it fails later.
    """

    def __init__(self, url: str, consumer: str, *, migrate: bool = True) -> None:
        self.consumer = consumer
        self.owner = str(uuid.uuid4())
        self.engine = open_engine(url)
        self._epochs: dict[str, int] = {}
        self._positions: dict[str, int] = {}
        if migrate:
            from .migrations import upgrade

            upgrade(self.engine)

    def claim(self, partitions: Collection[str]) -> dict[str, int]:
        """Make partitions this consumer's own, and say where to go on with each; 0 where it never began."""
        positions = {}
        with self.engine.begin() as connection:
            for partition in sorted(partitions):
                # One statement, so that two who claim at once do so one after the other.
                new = {"consumer": self.consumer, "partition": partition, "position": 0, "epoch": 1}
                statement = _insert(connection, tables.offsets).values(**new, owner=self.owner)
                statement = statement.on_conflict_do_update(
                    index_elements=["consumer", "partition"],
                    set_={"owner": self.owner, "epoch": tables.offsets.c.epoch + 1},
                ).returning(tables.offsets.c.position, tables.offsets.c.epoch)
                position, epoch = connection.execute(statement).one()
                positions[partition], self._epochs[partition] = position, epoch
        self._positions.update(positions)
        return positions

    def claimed(self) -> set[str]:
        """The partitions that are this process's, so far as it knows."""
        return set(self._epochs)

    def positions(self, partitions: Collection[str]) -> dict[str, int]:
        """Where this process stands with partitions it has claimed."""
        return {partition: self._positions[partition] for partition in partitions}

    @contextmanager
    def transaction(self, next_positions: Mapping[str, int]) -> Iterator[Transaction]:
        """
        A transaction that ends with the partitions at ``next_positions``.

        Raises LostPartition, having written nothing, when one of them is not this consumer's any more, and
        StoreError or SQLAlchemyError when the database fails.
        """
        driver: Any = self.engine.dialect.dbapi
        try:
            with self.engine.begin() as connection:
                # First, not last: on PostgreSQL the rows of offsets are then locked for as long as it takes.
                for partition, position in sorted(next_positions.items()):
                    self._advance(connection, partition, position)
                yield Transaction(connection, self.consumer)
        except driver.Error as error:
            raise StoreError(f"the store could not be written: {_first_line(error)}") from error
        self._positions.update(next_positions)

    def _advance(self, connection: Connection, partition: str, position: int) -> None:
        row = tables.offsets.c
        moved = connection.execute(
            update(tables.offsets)
            .where(
                row.consumer == self.consumer,
                row.partition == partition,
                row.owner == self.owner,
                row.epoch == self._epochs.get(partition, -1),
                row.position == self._positions.get(partition, -1),
            )
            .values(position=position)
        )
        if moved.rowcount != 1:
            self._epochs.pop(partition, None)
            raise LostPartition(partition, self.consumer)

    def close(self) -> None:
        """Let go of the database."""
        self.engine.dispose()


class Transaction:
    """What a step writes with: ``connection`` for its own tables, and what all steps need."""

    def __init__(self, connection: Connection, consumer: str) -> None:
        self.connection = connection
        self._consumer = consumer
        self._is_sqlite = connection.dialect.name == "sqlite"
        # What runs for every row goes around SQLAlchemy, which takes longer over a statement than SQLite does.
        self._driver: Any = connection.connection.driver_connection

    def rows(self, table: Table, keys: Collection[tuple[Any, ...]]) -> dict[tuple[Any, ...], dict[str, Any]]:
        """Rows by their primary keys; those that are not there are not in the answer."""
        names = columns_of(table)
        return {key: dict(zip(names, row, strict=True)) for key, row in self._found(table, keys)}

    def _found(self, table: Table, keys: Collection[Key]) -> Iterator[tuple[Key, Sequence[Any]]]:
        if self._is_sqlite:
            statement = sqlite_select(table)
            for key in keys:
                row = self._driver.execute(statement, key).fetchone()
                if row is not None:
                    yield key, row
        elif keys:
            places = key_places(table)
            for row in self._driver.execute(postgresql_select(table), _by_column(keys)):
                yield tuple(row[place] for place in places), row

    def counts(self, table: Table, columns: tuple[str, ...], keys: Collection[Key]) -> dict[Key, int]:
        """How many rows have these values in these columns; keys that no row has may be missing in the answer."""
        if self._is_sqlite:
            statement = sqlite_count(table, columns)
            return {key: self._driver.execute(statement, key).fetchone()[0] for key in keys}
        if not keys:
            return {}
        found = self._driver.execute(postgresql_count(table, columns), _by_column(keys))
        return {tuple(key): count for *key, count in found}

    def insert(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows that are not there yet; each has every column."""
        if not rows:
            return
        values = map(itemgetter(*columns_of(table)), rows)
        if self._is_sqlite:
            self._driver.executemany(sqlite_insert(table), values)
        else:
            with self._driver.cursor() as cursor, cursor.copy(postgresql_copy(table)) as copy:
                for row in values:
                    copy.write_row(row)

    def upsert(
        self,
        table: Table,
        rows: Collection[Mapping[str, Any]],
        merge: Mapping[str, Merge] | None = None,
    ) -> None:
        """
        Write rows that each have every column, in place of those with their primary keys.

        With ``merge`` the columns it names are added to what is there, or the lesser or greater of the two stays,
        and all others stay as they are.
        """
        if not rows:
            return
        values = map(itemgetter(*columns_of(table)), rows)
        how = None if merge is None else tuple(merge.items())
        if self._is_sqlite:
            self._driver.executemany(sqlite_upsert(table, how), values)
        else:
            self._driver.execute(postgresql_upsert(table, how), _by_column(values))

    def chains(self, names: Collection[str]) -> dict[str, Chain]:
        """The state of these chains, of those that were seen before."""
        keys = {(self._consumer, name) for name in names}
        return {row["chain"]: _chain(row) for row in self.rows(tables.chains, keys).values()}

    def keep_chains(self, chains: Iterable[Chain]) -> None:
        """Write the state of chains."""
        self.upsert(tables.chains, [{"consumer": self._consumer, **_chain_row(chain)} for chain in chains])

    def bury(self, letters: Sequence[DeadLetter]) -> None:
        """Keep what could not be used; what was found at the same place before is there once."""
        if not letters:
            return
        found_at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"
        rows = [{"consumer": self._consumer, **letter._asdict(), "found_at": found_at} for letter in letters]
        self.connection.execute(_insert(self.connection, tables.dead_letters).on_conflict_do_nothing(), rows)


def open_engine(url: str, *, read_only: bool = False) -> Engine:
    """An engine for a store's URL, that of a SQLite file with what it takes to be read while it is written."""
    try:
        engine = create_engine(make_url(url))
    except (ArgumentError, ModuleNotFoundError) as error:
        # An ArgumentError repeats the URL, which may hold a password.
        reason = "pip install psycopg" if isinstance(error, ModuleNotFoundError) else "it is no SQLAlchemy URL"
        raise StoreError(
            f"the store cannot be opened: {reason}. Give sqlite:///FILE.db or postgresql+psycopg://HOST/DATABASE"
        ) from error
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine, read_only=read_only)
    elif engine.dialect.name != "postgresql":
        raise StoreError(f"a store is SQLite or PostgreSQL, not {engine.dialect.name}")
    try:
        with engine.connect():
            pass
    except SQLAlchemyError as error:
        where = engine.url.render_as_string(hide_password=True)
        raise StoreError(f"the store {where} cannot be opened: {_first_line(error)}") from error
    return engine


def _prepare_sqlite(engine: Engine, *, read_only: bool) -> None:
    @event.listens_for(engine, "connect")
    def connected(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions begin where SQLAlchemy says, below
        for pragma in (
            f"busy_timeout={_BUSY_SECONDS * 1000}",
            "synchronous=NORMAL",
            "cache_size=-16384",
            "wal_autocheckpoint=16000",
            "foreign_keys=ON",
        ):
            connection.execute(f"PRAGMA {pragma}")
        if not read_only:
            _write_ahead(connection)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def _write_ahead(connection: sqlite3.Connection) -> None:
    # Changing the journal's mode is the one thing for which SQLite does not wait: of several who open a new file at
    # once, all but one are told at once that it is locked.
    until = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
        time.sleep(0.005)


def _insert(connection: Connection, table: Table) -> Any:
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    return dialect.insert(table)


def _by_column(rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _chain(row: Mapping[str, Any]) -> Chain:
    return Chain(
        chain=row["chain"],
        head_seq=row["head_seq"],
        head_hash=bytes(row["head_hash"]),
        records=row["records"],
        gaps=json.loads(row["gaps"]),
        duplicates=row["duplicates"],
        forks=row["forks"],
        first_at=row["first_at"],
        last_at=row["last_at"],
        closed=bool(row["closed"]),
    )


def _chain_row(chain: Chain) -> dict[str, Any]:
    names = ("chain", "head_seq", "head_hash", "records", "missing", "duplicates", "forks", "first_at", "last_at")
    return {name: getattr(chain, name) for name in names} | {
        "gaps": json.dumps(chain.gaps, separators=(",", ":")),
        "closed": chain.closed,
    }


def _first_line(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).partition("\n")[0]
