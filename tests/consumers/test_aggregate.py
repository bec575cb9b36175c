"""The tables: what they say is what a plain recount of the log says, however its records were delivered."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from logs import ListFeed, Log, aggregate, opened, random_log, sqlite_url, tables_of
from recount import counts, fixes, grouped, ranks, revisits, runs_of, streaks, time_on_task
from sqlalchemy import text

from exec_events_consumers import tables
from exec_events_consumers.aggregate import aggregate as step
from exec_events_consumers.errors import LostPartition
from exec_events_consumers.loop import run
from exec_events_consumers.tables import AGGREGATES
from spool_files import FIRST, SECOND

ALL = sorted(table.name for table in AGGREGATES)


def rows(url: str, query: str) -> list[dict[str, Any]]:
    """The rows of a query."""
    with opened(url) as store, store.engine.connect() as connection:
        return [dict(row) for row in connection.execute(text(query)).mappings()]


def ordered(log: Log) -> list[dict[str, Any]]:
    """The runs of a log that count, in order."""
    return runs_of(log.events, {e["execution_id"]: n for n, e in enumerate(log.events)})


def check(url: str, log: Log) -> None:
    """Every measure of every table is what the recount says."""
    runs = ordered(log)
    subjects = {row["subject"]: row for row in rows(url, "SELECT * FROM subjects")}
    assert subjects.keys() == {run["subject"] for run in runs}
    for (subject,), own in grouped(runs, "subject").items():
        row = subjects[subject]
        assert counts(own).items() <= row.items()
        assert (row["on_task_us"], row["idle_us"], row["idle_times"]) == time_on_task(own)
        assert row["duration_us"] == sum(run["duration_us"] for run in own)
        assert (row["first_at"], row["last_at"]) == (own[0]["requested_at"], own[-1]["requested_at"])
    notebooks = {(row["subject"], row["notebook"]): row for row in rows(url, "SELECT * FROM notebooks")}
    cells = {(row["subject"], row["notebook"], row["cell_id"]): row for row in rows(url, "SELECT * FROM cells")}
    by_notebook = grouped(runs, "subject", "notebook")
    assert notebooks.keys() == by_notebook.keys()
    for key, own in by_notebook.items():
        row, place = notebooks[key], ranks(own)
        assert counts(own).items() <= row.items()
        assert (row["on_task_us"], row["idle_us"], row["idle_times"]) == time_on_task(own)
        assert (row["cells"], row["revisits"]) == (len(place), revisits(own))
        assert (row["last_cell_id"], row["last_rank"]) == (own[-1]["cell_id"], place[own[-1]["cell_id"]])
        for cell_id, number in place.items():
            assert cells[(*key, cell_id)]["rank"] == number
    by_cell = grouped(runs, "subject", "notebook", "cell_id")
    assert cells.keys() == by_cell.keys()
    for key, own in by_cell.items():
        row = cells[key]
        assert counts(own).items() <= row.items()
        assert row["same_code_runs"] == sum(run["same_code_as_last_run"] for run in own)
        assert row["code_versions"] == len({run["code_hash"] for run in own})
        errors = [sum(run["status"] == "error" for run in streak) for streak in streaks(own)]
        assert row["longest_error_streak"] == max(errors, default=0)
        assert (row["fixes"], row["time_to_fix_us"]) == fixes(own)
        still_open = [streak for streak in streaks(own) if streak[-1]["status"] == "error"]
        assert row["errors_in_a_row"] == (errors[-1] if still_open else 0)
        assert row["lines_added"] == sum(run["lines_added"] for run in own)
        assert row["lines_removed"] == sum(run["lines_removed"] for run in own)
        assert (row["first_lines"], row["last_lines"]) == (own[0]["code_lines"], own[-1]["code_lines"])
        assert row["last_status"] == own[-1]["status"]
    found = {
        (row["subject"], row["notebook"], row["cell_id"], row["code_hash"]): (
            row["runs"],
            row["first_at"],
            row["last_at"],
        )
        for row in rows(url, "SELECT * FROM codes")
    }
    by_code = grouped(runs, "subject", "notebook", "cell_id", "code_hash")
    assert found == {
        key: (len(own), min(r["requested_at"] for r in own), max(r["requested_at"] for r in own))
        for key, own in by_code.items()
    }
    failed = [run for run in runs if run["status"] == "error"]
    assert {
        (row["subject"], row["notebook"], row["cell_id"], row["error_name"]): row["times"]
        for row in rows(url, "SELECT * FROM errors")
    } == {key: len(own) for key, own in grouped(failed, "subject", "notebook", "cell_id", "error_name").items()}
    minutes = rows(url, "SELECT * FROM minutes")
    assert sum(row["runs"] for row in minutes) == len(runs)
    for row in minutes:
        own = [r for r in runs if r["subject"] == row["subject"] and r["requested_at"][:16] + "Z" == row["minute"]]
        assert counts(own).items() <= row.items()
    everything = rows(url, "SELECT count(*) AS n FROM executions")
    assert everything[0]["n"] == sum(e["__schema__"].endswith("/cell_execution/v1") for e in log.events)


@pytest.mark.parametrize("seed", range(4))
def test_tables_equal_a_recount(tmp_path: Path, seed: int) -> None:
    """Delivered in order, every table says what a plain recount of the log says."""
    log = random_log(random.Random(seed), 300)
    aggregate(sqlite_url(tmp_path), log.records, batch=37)
    check(sqlite_url(tmp_path), log)


@pytest.mark.parametrize("seed", range(4))
def test_late_and_doubled_records_make_no_difference(tmp_path: Path, seed: int) -> None:
    """Out of order between two servers, late by any distance, and delivered twice: the rows are the same."""
    rng = random.Random(seed)
    log = random_log(rng, 300, recorders=(FIRST, SECOND))
    shuffled = [*log.records, *rng.sample(log.records, 60)]
    rng.shuffle(shuffled)
    progress = aggregate(sqlite_url(tmp_path), shuffled, batch=41)
    assert (progress.events, progress.dead) == (300, 0)
    check(sqlite_url(tmp_path), log)
    (chain,) = rows(sqlite_url(tmp_path), "SELECT sum(missing) AS missing, sum(duplicates) AS duplicates FROM chains")
    assert chain == {"missing": 0, "duplicates": 60}


def test_rebuild_gives_the_same_rows(tmp_path: Path) -> None:
    """Tables made batch by batch, late records among them, and tables made anew at once are equal, row by row."""
    rng = random.Random(7)
    log = random_log(rng, 400, recorders=(FIRST, SECOND))
    shuffled = list(log.records)
    rng.shuffle(shuffled)
    aggregate(sqlite_url(tmp_path, "slow.db"), shuffled, batch=13)
    aggregate(sqlite_url(tmp_path, "anew.db"), log.records, batch=1000)
    assert tables_of(sqlite_url(tmp_path, "slow.db"), *ALL) == tables_of(sqlite_url(tmp_path, "anew.db"), *ALL)


def test_a_gap_is_reported_and_filled(tmp_path: Path) -> None:
    """A record that has not come is named in its chain's gaps, and is no more once it comes."""
    log = Log()
    for number in range(6):
        log.run(1, number * 1000)
    url = sqlite_url(tmp_path)
    aggregate(url, [log.records[n] for n in (0, 1, 4, 5)])
    (chain,) = rows(url, "SELECT head_seq, missing, gaps FROM chains")
    assert chain == {"head_seq": 5, "missing": 2, "gaps": "[[2,3]]"}
    with opened(url) as store, store.transaction({}) as transaction:
        transaction.connection.execute(tables.offsets.delete())
    aggregate(url, [log.records[3], log.records[2]])
    (chain,) = rows(url, "SELECT head_seq, missing, gaps FROM chains")
    assert chain == {"head_seq": 5, "missing": 0, "gaps": "[]"}
    check(url, log)


def test_a_fork_is_an_alarm_wherever_it_stands(tmp_path: Path) -> None:
    """A second record of a chain and seq with another hash goes to the dead letters, and changes no row."""
    log, other = Log(), Log()
    for number in range(5):
        log.run(1, number * 1000)
        other.run(1, number * 1000, status="error" if number == 2 else "ok")
    url = sqlite_url(tmp_path)
    progress = aggregate(url, [*log.records, other.records[2], other.records[4]])
    assert (progress.events, progress.dead) == (5, 2)
    letters = rows(url, "SELECT value, reason FROM dead_letters ORDER BY position")
    assert [bytes(letter["value"]) for letter in letters] == [other.records[2][0], other.records[4][0]]
    assert all("a fork" in letter["reason"] for letter in letters)
    check(url, log)


@pytest.mark.parametrize(
    ("value", "stored", "reason"),
    [
        (b"junk", None, "does not end in a seal"),
        (None, None, "it has no value"),
        (b'{"event":{},"seal":{"chain":"c","prev":null,"seq":0}}', b"0" * 32, "its hash is not the one stored"),
        (
            b'{"event":{"__schema__":"https://exec-events.org/schemas/cell_execution/v9"},"seal":{"chain":"c","prev":null,"seq":0}}',
            None,
            "is newer than version",
        ),
        (
            b'{"event":{"__schema__":"https://exec-events.org/schemas/cell_execution/v1"},"seal":{"chain":"c","prev":null,"seq":0}}',
            None,
            "not an event of cell_execution v1",
        ),
        (
            b'{"event":{"__schema__":"https://exec-events.org/schemas/nonsense/v1"},"seal":{"chain":"c","prev":null,"seq":0}}',
            None,
            "there is no schema",
        ),
    ],
)
def test_what_cannot_be_used_is_buried_and_the_rest_goes_on(
    tmp_path: Path, value: bytes | None, stored: bytes | None, reason: str
) -> None:
    """A poison record goes to the dead letters, its bytes untouched and with its reason; those around it count."""
    log = Log()
    log.run(1, 0)
    log.run(1, 1000)
    url = sqlite_url(tmp_path)
    aggregate(url, [log.records[0], (value, stored), log.records[1]])
    (letter,) = rows(url, "SELECT * FROM dead_letters")
    assert (letter["value"], letter["partition"], letter["position"]) == (value, "p", 1)
    assert reason in letter["reason"]
    check(url, log)


def test_who_lost_a_partition_cannot_write(tmp_path: Path) -> None:
    """Once another process has claimed a partition, the first one's transaction fails, and nothing of it is there."""
    url = sqlite_url(tmp_path)
    with opened(url) as first, opened(url) as second:
        first.claim(["p"])
        with first.transaction({"p": 10}):
            pass
        assert second.claim(["p"]) == {"p": 10}
        with pytest.raises(LostPartition), first.transaction({"p": 20}) as transaction:
            transaction.insert(
                tables.other_records, [dict.fromkeys(("chain", "kind", "time"), "x") | {"seq": 0, "record_hash": b""}]
            )
        with second.transaction({"p": 15}):
            pass
    assert rows(url, "SELECT position FROM offsets") == [{"position": 15}]
    assert rows(url, "SELECT * FROM other_records") == []


def test_a_step_that_fails_moves_nothing(tmp_path: Path) -> None:
    """When a step raises, neither its rows nor the positions are kept, and the next try begins where it was."""
    log = random_log(random.Random(3), 50)
    url = sqlite_url(tmp_path)

    def fails(events: Any, transaction: Any) -> None:
        step(events, transaction)
        raise RuntimeError("after writing")

    with opened(url) as store, pytest.raises(RuntimeError):
        run(ListFeed(log.records), store, fails, once=True)
    assert rows(url, "SELECT * FROM executions") == []
    assert rows(url, "SELECT position FROM offsets") == [{"position": 0}]
    aggregate(url, log.records)
    check(url, log)
