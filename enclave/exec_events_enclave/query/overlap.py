"""A query and earlier ones go in, the earlier one that it could be subtracted from comes out (pure)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .model import Query


class Asked(NamedTuple):
    """A query that was answered, or is being answered."""

    query_id: str
    query: Query


def overlapping(query: Query, earlier: Iterable[Asked]) -> Asked | None:
    """
    The first earlier query with another filter on the same variables, or where one's variables include the other's.

    The difference of two such tables is the table of those whom one filter lets through and the other does not, who
    may be one person. The total of a table counts as a table of no variables: it is in every other.
    """
    return next(
        (asked for asked in earlier if _other_filter(query, asked.query) and _comparable(query, asked.query)), None
    )


def with_other_filters(query: Query, earlier: Iterable[Asked]) -> list[Asked]:
    """Those on the same table with another filter, whose populations the worker compares."""
    return [asked for asked in earlier if _other_filter(query, asked.query)]


def _other_filter(one: Query, other: Query) -> bool:
    return one.table == other.table and one.where != other.where


def _comparable(one: Query, other: Query) -> bool:
    return one.variables <= other.variables or other.variables <= one.variables
