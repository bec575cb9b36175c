"""
A table in, the text of a statement on many of its rows out, for SQLite's driver or PostgreSQL's; made once each (pure).

SQLite is asked row by row, which costs it next to nothing; PostgreSQL once for all, with an array for each column.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any, Literal

from sqlalchemy import BigInteger, Boolean, Integer, LargeBinary, Table, Text

# What becomes of a column when a row is there already.
Merge = Literal["add", "min", "max"]
Merges = tuple[tuple[str, Merge], ...] | None
Key = tuple[Any, ...]

_POSTGRESQL_TYPES = {BigInteger: "bigint", Boolean: "boolean", Integer: "integer", LargeBinary: "bytea", Text: "text"}


@cache
def columns_of(table: Table) -> tuple[str, ...]:
    """The names of its columns, in the order in which rows have them."""
    return tuple(column.name for column in table.columns)


@cache
def key_of(table: Table) -> tuple[str, ...]:
    """The names of the columns of its primary key."""
    return tuple(column.name for column in table.primary_key.columns)


@cache
def key_places(table: Table) -> tuple[int, ...]:
    """Where in a row the columns of its primary key are."""
    return tuple(columns_of(table).index(name) for name in key_of(table))


@cache
def sqlite_select(table: Table) -> str:
    """The row of a key."""
    return f"SELECT {_listed(columns_of(table))} FROM {table.name} WHERE {_given(key_of(table))}"  # noqa: S608


@cache
def sqlite_count(table: Table, columns: tuple[str, ...]) -> str:
    """How many rows have given values in these columns."""
    return f"SELECT count(*) FROM {table.name} WHERE {_given(columns)}"  # noqa: S608


@cache
def sqlite_insert(table: Table) -> str:
    """A row that is not there yet."""
    names = columns_of(table)
    return f"INSERT INTO {table.name} ({_listed(names)}) VALUES ({', '.join('?' * len(names))})"  # noqa: S608


@cache
def sqlite_upsert(table: Table, merges: Merges) -> str:
    """A row in place of the one of its key, or merged with it."""
    return sqlite_insert(table) + _on_conflict(table, merges, {"min": "min", "max": "max"})


@cache
def postgresql_select(table: Table) -> str:
    """The rows of many keys."""
    names = ", ".join(f'{table.name}."{name}"' for name in columns_of(table))
    return f"SELECT {names} FROM {table.name} JOIN {_arrays(table, key_of(table))} USING ({_listed(key_of(table))})"  # noqa: S608


@cache
def postgresql_count(table: Table, columns: tuple[str, ...]) -> str:
    """Values of these columns, and how many rows have them."""
    names = _listed(columns)
    return f"SELECT {names}, count(*) FROM {table.name} JOIN {_arrays(table, columns)} USING ({names}) GROUP BY {names}"  # noqa: S608


@cache
def postgresql_copy(table: Table) -> str:
    """Rows that are not there yet."""
    return f"COPY {table.name} ({_listed(columns_of(table))}) FROM STDIN"


@cache
def postgresql_upsert(table: Table, merges: Merges) -> str:
    """Rows in place of those of their keys, or merged with them."""
    names = columns_of(table)
    insert = f"INSERT INTO {table.name} ({_listed(names)}) SELECT {_listed(names)} FROM {_arrays(table, names)}"  # noqa: S608
    return insert + _on_conflict(table, merges, {"min": "least", "max": "greatest"})


def _on_conflict(table: Table, merges: Merges, functions: dict[str, str]) -> str:
    if merges is None:
        sets = [f'"{name}" = excluded."{name}"' for name in columns_of(table) if name not in key_of(table)]
    else:
        sets = [f'"{name}" = {_merged(table, name, how, functions)}' for name, how in merges]
    return f" ON CONFLICT ({_listed(key_of(table))}) DO UPDATE SET {', '.join(sets)}"


def _merged(table: Table, name: str, how: Merge, functions: dict[str, str]) -> str:
    mine, new = f'{table.name}."{name}"', f'excluded."{name}"'
    return f"{mine} + {new}" if how == "add" else f"{functions[how]}({mine}, {new})"


def _arrays(table: Table, names: tuple[str, ...]) -> str:
    """Rows of given values, which come as an array for each column."""
    types = [_POSTGRESQL_TYPES[type(table.columns[name].type)] for name in names]
    return f"unnest({', '.join(f'%s::{one}[]' for one in types)}) AS given ({_listed(names)})"


def _given(names: Iterable[str]) -> str:
    return " AND ".join(f'"{name}" = ?' for name in names)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
