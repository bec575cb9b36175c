"""Budgets: never over, never lost, never twice, over threads, processes, kills and the ends of days."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exec_events_enclave.budgets import CELLS, EPSILON_MICRO, QUERIES, BudgetLedger, granted_of, utc_day
from exec_events_enclave.errors import BudgetSpent, StoreError
from exec_events_enclave.policy_file import parse_policy
from policies import FULL, MINIMAL, changed

DAY_US = 86_400_000_000
NOON_US = 1_793_620_800_000_000
POLICY = parse_policy(FULL)

# Debits one query after another until the budget is spent, and says each that is durable.
SPENDER = """
import sys
from pathlib import Path
from exec_events_enclave.budgets import BudgetLedger
from exec_events_enclave.errors import BudgetSpent
from exec_events_enclave.policy_file import parse_policy
path, name, text, now_us = sys.argv[1:]
policy, ledger = parse_policy(text), BudgetLedger(Path(path))
for number in range(100_000):
    cause = f"q-{name}-{number}"
    try:
        ledger.debit(policy, "ada", cause, {"queries": 1}, int(now_us))
    except BudgetSpent:
        break
    print(cause, flush=True)
"""


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[BudgetLedger]:
    """An empty ledger."""
    with closing(BudgetLedger(tmp_path / "budgets.db")) as made:
        yield made


def test_a_debit_says_what_is_spent_and_left(ledger: BudgetLedger) -> None:
    """A debit comes back with what the day has spent, what it was granted and what is left."""
    ledger.debit(POLICY, "ada", "q-1", {QUERIES: 3}, NOON_US)
    (debit,) = ledger.debit(POLICY, "ada", "q-2", {QUERIES: 4}, NOON_US)
    assert (debit.amount, debit.spent, debit.granted, debit.left, debit.day) == (4, 7, 20, 13, "2026-11-02")
    assert ledger.left(POLICY, "ada", NOON_US)[QUERIES] == 13


def test_the_last_is_granted_and_one_more_is_not(ledger: BudgetLedger) -> None:
    """A budget is used to its end, and what goes over it is refused, with what is left and when there is more."""
    ledger.debit(POLICY, "ada", "q-1", {QUERIES: 20}, NOON_US)
    with pytest.raises(BudgetSpent, match=r"queries has 0 left and 1 were asked for; there is more from 2026-11-03"):
        ledger.debit(POLICY, "ada", "q-2", {QUERIES: 1}, NOON_US)
    assert ledger.left(POLICY, "ada", NOON_US)[QUERIES] == 0


def test_a_refusal_debits_nothing_at_all(ledger: BudgetLedger) -> None:
    """Where one of several budgets is short, the others are left as they were."""
    before = ledger.left(POLICY, "ada", NOON_US)
    with pytest.raises(BudgetSpent, match="epsilon_micro"):
        ledger.debit(POLICY, "ada", "q-1", {CELLS: 1, QUERIES: 1, EPSILON_MICRO: 1_000_001}, NOON_US)
    assert ledger.left(POLICY, "ada", NOON_US) == before


def test_people_datasets_and_days_are_apart(ledger: BudgetLedger) -> None:
    """Another person, another dataset and the next UTC day have their whole budget; the second before midnight has not."""
    ledger.debit(POLICY, "ada", "q-1", {QUERIES: 20}, NOON_US)
    other = parse_policy(FULL.replace("name: attainment", "name: other"))
    assert ledger.left(POLICY, "ben", NOON_US)[QUERIES] == 20
    assert ledger.left(other, "ada", NOON_US)[QUERIES] == 20
    midnight = (NOON_US // DAY_US + 1) * DAY_US
    assert ledger.left(POLICY, "ada", midnight - 1)[QUERIES] == 0
    assert ledger.left(POLICY, "ada", midnight)[QUERIES] == 20


def test_epsilon_has_a_total_over_all_days(ledger: BudgetLedger) -> None:
    """Epsilon that is granted anew each day ends when the total of the policy is used, and says so."""
    for day in range(5):
        ledger.debit(POLICY, "ada", f"q-{day}", {EPSILON_MICRO: 1_000_000}, NOON_US + day * DAY_US)
    assert ledger.left(POLICY, "ada", NOON_US + 9 * DAY_US)[EPSILON_MICRO] == 0
    with pytest.raises(BudgetSpent, match="epsilon_micro for ever has 0 left and 1 were asked for; ask a steward"):
        ledger.debit(POLICY, "ada", "q-9", {EPSILON_MICRO: 1}, NOON_US + 9 * DAY_US)


def test_what_is_not_granted_is_refused(ledger: BudgetLedger) -> None:
    """Where a policy sets no epsilon there is none to use."""
    with pytest.raises(BudgetSpent, match="has 0 left"):
        ledger.debit(parse_policy(MINIMAL), "ada", "q-1", {EPSILON_MICRO: 1}, NOON_US)
    assert EPSILON_MICRO not in ledger.left(parse_policy(MINIMAL), "ada", NOON_US)


def test_a_cause_debits_once(ledger: BudgetLedger) -> None:
    """The same cause again, the next day even, changes nothing and gives the first debit back."""
    (first,) = ledger.debit(POLICY, "ada", "q-1", {QUERIES: 2}, NOON_US)
    (again,) = ledger.debit(POLICY, "ada", "q-1", {QUERIES: 2}, NOON_US + DAY_US)
    assert again == first
    assert ledger.left(POLICY, "ada", NOON_US + DAY_US)[QUERIES] == 20


def test_a_cause_is_nobody_elses(ledger: BudgetLedger) -> None:
    """A cause that debited one person's budget cannot stand for another's."""
    ledger.debit(POLICY, "ada", "q-1", {QUERIES: 1}, NOON_US)
    with pytest.raises(StoreError, match="a cause is used once"):
        ledger.debit(POLICY, "ben", "q-1", {QUERIES: 1}, NOON_US)


@pytest.mark.parametrize("amounts", [{QUERIES: -1}, {"money": 1}])
def test_amounts_that_are_none(ledger: BudgetLedger, amounts: dict[str, int]) -> None:
    """A negative amount, and a budget that there is not, are refused."""
    with pytest.raises(ValueError, match="amounts are whole, not negative, and of cells"):
        ledger.debit(POLICY, "ada", "q-1", amounts, NOON_US)


def test_a_smaller_grant_counts_at_once(ledger: BudgetLedger) -> None:
    """A policy that grants less than was used already leaves nothing, and never less than nothing."""
    ledger.debit(POLICY, "ada", "q-1", {QUERIES: 15}, NOON_US)
    smaller = parse_policy(changed("queries: 20", "queries: 10"))
    assert ledger.left(smaller, "ada", NOON_US)[QUERIES] == 0
    with pytest.raises(BudgetSpent, match="has 0 left"):
        ledger.debit(smaller, "ada", "q-2", {QUERIES: 1}, NOON_US)


def test_threads_do_not_overdraw(ledger: BudgetLedger) -> None:
    """Of forty debits by eight threads at once exactly the twenty that are granted succeed."""

    def spend(number: int) -> bool:
        try:
            ledger.debit(POLICY, "ada", f"q-{number}", {QUERIES: 1}, NOON_US)
        except BudgetSpent:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(spend, range(40))) == 20


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.sampled_from(["ada", "ben"]), st.integers(0, 2), st.integers(0, 25)), max_size=15))
def test_no_order_of_debits_goes_over(
    tmp_path_factory: pytest.TempPathFactory, asked: list[tuple[str, int, int]]
) -> None:
    """Whatever is asked in whatever order, each person's day equals a recount of what was granted, and is never over."""
    recount: dict[tuple[str, int], int] = {}
    with closing(BudgetLedger(tmp_path_factory.mktemp("ledger") / "budgets.db")) as ledger:
        for number, (person, day, amount) in enumerate(asked):
            used = recount.get((person, day), 0)
            try:
                ledger.debit(POLICY, person, f"q-{number}", {QUERIES: amount}, NOON_US + day * DAY_US)
                recount[person, day] = used + amount
            except BudgetSpent:
                assert used + amount > 20
        for (person, day), used in recount.items():
            assert used <= 20
            assert ledger.left(POLICY, person, NOON_US + day * DAY_US)[QUERIES] == 20 - used


def killed_spenders(path: Path, policy: str, rounds: int) -> tuple[set[str], set[str]]:
    """Two processes that spend, killed -9 at random points, again and again; the causes they said and those in the file."""
    said: set[str] = set()
    for number in range(rounds):
        spenders = [
            subprocess.Popen(
                [sys.executable, "-c", SPENDER, str(path), f"{number}-{which}", policy, str(NOON_US)],
                stdout=subprocess.PIPE,
                text=True,
            )
            for which in "ab"
        ]
        for spender in spenders:
            assert spender.stdout is not None
            lines = random.randint(1, 60)
            said.update(line.strip() for _, line in zip(range(lines), spender.stdout, strict=False))
            os.kill(spender.pid, signal.SIGKILL)
            # What it had said and nobody read yet. A short line is written whole.
            said.update(spender.stdout.read().splitlines())
            spender.wait(timeout=30)
    with closing(sqlite3.connect(path)) as connection:
        kept = {row[0] for row in connection.execute("SELECT cause FROM debits")}
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    return said, kept


def test_a_kill_loses_no_debit_and_grants_none_twice(tmp_path: Path) -> None:
    """Over kill -9 of two spenders every debit that was said is in the file, and the budget is spent exactly, never over."""
    text = changed("queries: 20", "queries: 300")
    path = tmp_path / "budgets.db"
    said, kept = killed_spenders(path, text, rounds=3)
    assert said <= kept
    with closing(BudgetLedger(path)) as ledger:
        policy = parse_policy(text)
        left = ledger.left(policy, "ada", NOON_US)[QUERIES]
        assert left == 300 - len(kept) >= 0
        ledger.debit(policy, "ada", "q-rest", {QUERIES: left}, NOON_US)
        with pytest.raises(BudgetSpent):
            ledger.debit(policy, "ada", "q-more", {QUERIES: 1}, NOON_US)


@pytest.mark.soak
def test_many_kills_lose_no_debit(tmp_path: Path) -> None:
    """The same holds over forty rounds of kills."""
    said, kept = killed_spenders(tmp_path / "budgets.db", changed("queries: 20", "queries: 2000"), rounds=40)
    assert said <= kept
    assert len(kept) <= 2000


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    """Whatever the umask, nobody else may read who used what."""
    before = os.umask(0)
    try:
        with closing(BudgetLedger(tmp_path / "budgets.db")) as ledger:
            ledger.debit(POLICY, "ada", "q-1", {QUERIES: 1}, NOON_US)
            modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == {0o600}


def test_a_file_that_cannot_be_used(tmp_path: Path) -> None:
    """A folder that is not there, and a file that is no database, are told as such."""
    with pytest.raises(StoreError, match="cannot be opened"):
        BudgetLedger(tmp_path / "missing" / "budgets.db")
    (tmp_path / "text.db").write_text("no database at all, but long enough to be looked at" * 50)
    with pytest.raises(StoreError, match="cannot be opened"):
        BudgetLedger(tmp_path / "text.db")


def test_a_ledger_that_cannot_be_written_grants_nothing(tmp_path: Path) -> None:
    """Where the debit cannot be written StoreError says that nothing was granted, and the budget is as before."""
    path = tmp_path / "budgets.db"
    with closing(BudgetLedger(path)) as ledger:
        with closing(sqlite3.connect(path)) as other:
            other.execute(
                "CREATE TRIGGER no BEFORE INSERT ON debits BEGIN SELECT RAISE(ABORT, 'the disk is full'); END"
            )
        with pytest.raises(StoreError, match=r"nothing was granted: the disk is full"):
            ledger.debit(POLICY, "ada", "q-1", {QUERIES: 1}, NOON_US)
        with closing(sqlite3.connect(path)) as other:
            other.execute("DROP TRIGGER no")
        assert ledger.left(POLICY, "ada", NOON_US)[QUERIES] == 20


def test_grants_are_whole_numbers() -> None:
    """Epsilon is granted in millionths, so that no sum of debits is off."""
    assert granted_of(POLICY)[EPSILON_MICRO] == 1_000_000
    assert all(type(amount) is int for amount in granted_of(POLICY).values())


def test_days_are_utc() -> None:
    """The day of a time does not depend on the machine's time zone."""
    assert utc_day(0) == "1970-01-01"
    assert utc_day(DAY_US - 1) == "1970-01-01"
    assert utc_day(DAY_US) == "1970-01-02"
