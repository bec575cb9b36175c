"""
What a person wants to use goes in, and is debited durably or refused, before anything is given (SQLite).

A debit is known by its cause (a run or a query) and its budget: what is debited again after a crash is debited once.
A budget counts per dataset, person and UTC day; epsilon has a total, too, over all days.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from sqlite3 import Connection
from types import MappingProxyType
from typing import NamedTuple

from .durable_file import DurableFile
from .errors import BudgetSpent, StoreError
from .policy import Policy, micro

CELLS = "cells"
RELEASED_BYTES = "released_bytes"
QUERIES = "queries"
EPSILON_MICRO = "epsilon_micro"
KINDS = (CELLS, RELEASED_BYTES, QUERIES, EPSILON_MICRO)

_TABLES = """
CREATE TABLE IF NOT EXISTS debits (
    dataset TEXT NOT NULL,
    person TEXT NOT NULL,
    budget TEXT NOT NULL,
    day TEXT NOT NULL,
    cause TEXT NOT NULL,
    amount INTEGER NOT NULL CHECK (typeof(amount) = 'integer' AND amount >= 0),
    PRIMARY KEY (dataset, person, budget, day, cause)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX IF NOT EXISTS once ON debits (cause, budget);
"""


class Debit(NamedTuple):
    """One debit as it stands in the ledger: what the event budget_debited says of it."""

    budget: str
    day: str
    amount: int
    spent: int
    granted: int
    cause: str

    @property
    def left(self) -> int:
        """What the day has left."""
        return max(self.granted - self.spent, 0)


class BudgetLedger:
    """The debits of every dataset and person, in one SQLite file that several processes may use."""

    def __init__(self, path: Path) -> None:
        self._file = DurableFile(path, _TABLES, "budgets")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def debit(
        self, policy: Policy, person: str, cause: str, amounts: Mapping[str, int], now_us: int
    ) -> tuple[Debit, ...]:
        """
        Debit all of ``amounts`` or nothing; what the cause debited before is given back as it was.

        Raises:
            BudgetSpent: a budget does not have that much.
            StoreError: the debit could not be made durable.
        """
        if any(amount < 0 for amount in amounts.values()) or not set(KINDS) >= amounts.keys():
            raise ValueError(f"amounts are whole, not negative, and of {', '.join(KINDS)}: {dict(amounts)}")
        day = utc_day(now_us)
        with self._file.transaction() as connection:
            return tuple(
                _debit(connection, policy, person, cause, budget, amount, day)
                for budget, amount in sorted(amounts.items())
            )

    def left(self, policy: Policy, person: str, now_us: int) -> dict[str, int]:
        """What a person has left today, by budget; epsilon only where the policy grants some."""
        day = utc_day(now_us)
        granted = granted_of(policy)
        with self._file.transaction() as connection:
            left = {
                budget: max(granted[budget] - _spent(connection, policy.name, person, budget, day), 0)
                for budget in granted
            }
            total = _total_of(policy)
            if total is not None:
                remaining = max(total - _spent(connection, policy.name, person, EPSILON_MICRO), 0)
                left[EPSILON_MICRO] = min(left[EPSILON_MICRO], remaining)
        return left


def _debit(
    connection: Connection, policy: Policy, person: str, cause: str, budget: str, amount: int, day: str
) -> Debit:
    granted = granted_of(policy).get(budget, 0)
    row = connection.execute(
        "SELECT dataset, person, day, amount FROM debits WHERE cause = ? AND budget = ?", (cause, budget)
    ).fetchone()
    if row is not None:
        if row[:2] != (policy.name, person):
            raise StoreError(f"{cause} has debited the budget of another person or dataset; a cause is used once")
        return Debit(budget, row[2], row[3], _spent(connection, policy.name, person, budget, row[2]), granted, cause)
    spent = _spent(connection, policy.name, person, budget, day)
    if spent + amount > granted:
        raise BudgetSpent(budget, max(granted - spent, 0), amount, _again(day))
    total = _total_of(policy) if budget == EPSILON_MICRO else None
    if total is not None:
        used = _spent(connection, policy.name, person, budget)
        if used + amount > total:
            raise BudgetSpent(f"{budget} for ever", max(total - used, 0), amount, "ask a steward")
    connection.execute(
        "INSERT INTO debits (dataset, person, budget, day, cause, amount) VALUES (?, ?, ?, ?, ?, ?)",
        (policy.name, person, budget, day, cause, amount),
    )
    return Debit(budget, day, amount, spent + amount, granted, cause)


def _spent(connection: Connection, dataset: str, person: str, budget: str, day: str | None = None) -> int:
    """Of one day, or of all."""
    query = "SELECT coalesce(sum(amount), 0) FROM debits WHERE dataset = ? AND person = ? AND budget = ?"
    of_day = " AND day = ?" if day is not None else ""
    found = connection.execute(query + of_day, (dataset, person, budget, *([day] if day else [])))
    return int(found.fetchone()[0])


def granted_of(policy: Policy) -> Mapping[str, int]:
    """What a policy grants a person for one day, by budget."""
    budgets = policy.budgets
    granted = {CELLS: budgets.cells, RELEASED_BYTES: budgets.released_bytes, QUERIES: budgets.queries}
    if budgets.epsilon is not None:
        granted[EPSILON_MICRO] = micro(budgets.epsilon)
    return MappingProxyType(granted)


def utc_day(now_us: int) -> str:
    """The UTC day of a time in microseconds since the epoch."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=now_us)).date().isoformat()


def _total_of(policy: Policy) -> int | None:
    total = policy.budgets.epsilon_total
    return None if total is None else micro(total)


def _again(day: str) -> str:
    tomorrow = datetime.fromisoformat(day) + timedelta(days=1)
    return f"there is more from {tomorrow.date().isoformat()} 00:00 UTC on"
