"""
Subjects in, the ids that a Learning Observer server knows them by out, from a list the site keeps.

The list is a CSV file or a table in the store. Who is not in it is nobody: an id is never made up from a name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection, delete, select

from ..store import Transaction
from .holding import people
from .pairs import Pairs, PairsFile, read_pairs

SUBJECT, LO_ID = "subject", "learning_observer_id"


class People(Protocol):
    """Who is who."""

    def known(self, subjects: Collection[str], transaction: Transaction) -> Pairs:
        """The ids of those of ``subjects`` that are in the list."""


class PeopleFile:
    """The list is a CSV file with the columns ``subject`` and ``learning_observer_id``; it may change at any time."""

    def __init__(self, path: Path, say: Callable[[str], None] = lambda text: None) -> None:
        self._file = PairsFile(path, SUBJECT, LO_ID, is_one_to_one=True, say=say)

    def known(self, subjects: Collection[str], transaction: Transaction) -> Pairs:
        """From the file as it is now."""
        listed = self._file.now()
        return {subject: listed[subject] for subject in subjects if subject in listed}


class PeopleTable:
    """The list is a table in the store, which `import_people` fills."""

    def known(self, subjects: Collection[str], transaction: Transaction) -> Pairs:
        """From the table as the transaction sees it."""
        rows = transaction.rows(people, [(subject,) for subject in subjects])
        return {row["subject"]: row["lo_id"] for row in rows.values()}


def import_people(connection: Connection, path: Path) -> int:
    """Put a CSV file in place of what is in the table; returns how many people it names. Raises PairsError."""
    pairs = read_pairs(path, SUBJECT, LO_ID, is_one_to_one=True)
    connection.execute(delete(people))
    if pairs:
        rows = [{"subject": subject, "lo_id": lo_id} for subject, lo_id in pairs.items()]
        connection.execute(people.insert(), rows)
    return len(pairs)


def listed_people(connection: Connection) -> list[tuple[str, str]]:
    """What is in the table, in the order of subjects."""
    found = connection.execute(select(people.c.subject, people.c.lo_id).order_by(people.c.subject))
    return [(subject, lo_id) for subject, lo_id in found]
