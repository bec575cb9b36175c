"""The tables on PostgreSQL: the same migrations, the same rows, the same fence as on SQLite."""

from __future__ import annotations

import random
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from logs import Log, aggregate, opened, random_log, sqlite_url, tables_of
from sqlalchemy import text
from test_aggregate import ALL, check, rows

from exec_events_consumers import aggregate as aggregating
from exec_events_consumers import tables
from exec_events_consumers.errors import LostPartition, StoreError
from exec_events_consumers.migrations import configuration
from exec_events_consumers.store import Store, open_engine
from spool_files import FIRST, SECOND


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store of either kind."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path)
    made: str = request.getfixturevalue("postgres_url")
    return made


def test_migrations_make_the_tables_as_they_are_written_down(url: str) -> None:
    """A store brought up to date by the migrations has exactly the tables, columns and indexes of `tables.metadata`."""
    with closing(Store(url, "x")) as store, store.engine.connect() as connection:
        options: dict[str, Any] = {
            "compare_type": True,
            "include_object": lambda _object, name, *_: name != "exec_events_version",
        }
        assert compare_metadata(MigrationContext.configure(connection, opts=options), tables.metadata) == []


def test_a_store_of_the_first_tables_keeps_its_rows(url: str) -> None:
    """A store of an earlier version is brought up to date with its recorders, of which nothing more is known."""
    engine = open_engine(url)
    with engine.begin() as connection:
        command.upgrade(configuration(connection), "0001")
        connection.exec_driver_sql(
            "INSERT INTO recorders (recorder_id, last_at, lost, executions) VALUES ('old', '2026-01-01', 0, 7)"
        )
    engine.dispose()
    with closing(Store(url, "x")) as store, store.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT recorder_id, executions, heartbeat_us, server FROM recorders").all()
    assert rows == [("old", 7, None, None)]


def test_two_that_start_at_once_both_come_up(url: str) -> None:
    """Several consumers that open an empty store at the same moment all find its tables."""
    came: list[object] = []
    together = threading.Barrier(4)

    def start() -> None:
        try:
            together.wait(10)
            with closing(Store(url, "x")) as store:
                came.append(store.claim(["p"]))
        except Exception as error:
            came.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert came == [{"p": 0}] * 4


def test_a_store_that_is_up_to_date_is_left_alone(url: str) -> None:
    """Opened again, a store has the rows it had."""
    log = random_log(random.Random(1), 20)
    aggregate(url, log.records)
    before = tables_of(url, *ALL)
    assert tables_of(url, *ALL) == before


@pytest.mark.parametrize("seed", range(3))
def test_tables_equal_a_recount(url: str, seed: int) -> None:
    """Every table says what a plain recount of the log says, on either database."""
    log = random_log(random.Random(seed), 300)
    aggregate(url, log.records, batch=37)
    check(url, log)


@pytest.mark.parametrize("seed", range(3))
def test_late_and_doubled_records_make_no_difference(url: str, seed: int) -> None:
    """Out of order between two servers, late by any distance, and delivered twice: the rows are the same."""
    rng = random.Random(seed)
    log = random_log(rng, 300, recorders=(FIRST, SECOND))
    shuffled = [*log.records, *rng.sample(log.records, 60)]
    rng.shuffle(shuffled)
    progress = aggregate(url, shuffled, batch=41)
    assert (progress.events, progress.dead) == (300, 0)
    check(url, log)
    (chain,) = rows(url, "SELECT sum(missing) AS missing, sum(duplicates) AS duplicates FROM chains")
    assert (int(chain["missing"]), int(chain["duplicates"])) == (0, 60)


def test_both_databases_hold_the_same_rows(tmp_path: Path, postgres_url: str) -> None:
    """What one log gives on SQLite and on PostgreSQL is equal, row by row."""
    log = random_log(random.Random(9), 400, recorders=(FIRST, SECOND))
    aggregate(sqlite_url(tmp_path), log.records)
    aggregate(postgres_url, log.records, batch=133)
    assert plain(tables_of(postgres_url, *ALL)) == plain(tables_of(sqlite_url(tmp_path), *ALL))


def plain(found: dict[str, list[tuple[Any, ...]]]) -> dict[str, list[tuple[Any, ...]]]:
    """Rows without what tells the databases apart: SQLite's booleans are 0 and 1."""
    return {name: sorted((tuple(map(_plain, row)) for row in of), key=repr) for name, of in found.items()}


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, bool) else bytes(value) if isinstance(value, memoryview) else value


POISON: list[tuple[bytes | None, bytes | None]] = [
    (b"junk", None),
    (b"", None),
    (None, None),
    (b"\x00\xff", None),
    (b'{"event":{"\x00":"' + b"x" * 2000 + b'"},"seal":{"chain":"c","prev":null,"seq":0}}', None),
    (b'{"event":{},"seal":{"chain":"c","prev":null,"seq":0}}', b"0" * 32),
    (b'{"event":{"__schema__":"x\\u0000y"},"seal":{"chain":"nul","prev":null,"seq":0}}', None),
    (b'{"event":{"__schema__":"x","time":"\\ud800"},"seal":{"chain":"half","prev":null,"seq":0}}', None),
]


@pytest.mark.parametrize("value", POISON, ids=range(len(POISON)))
def test_poison_does_not_stop_it(url: str, value: tuple[bytes | None, bytes | None]) -> None:
    """Whatever bytes come, what is around them counts, on a database that takes no NUL in a text as well."""
    log = Log()
    log.run(1, 0)
    log.run(1, 1000)
    progress = aggregate(url, [log.records[0], value, log.records[1]])
    assert progress.records == 3
    check(url, log)
    for letter in rows(url, "SELECT value FROM dead_letters"):
        assert (None if letter["value"] is None else bytes(letter["value"])) == value[0]


def test_text_of_any_kind_is_kept_as_it_is(url: str) -> None:
    """Names with tabs, backslashes, quotes and signs of every plane come out as they went in."""
    odd = "tab\t new\nline \\N \\. \"quote\" 'single' \U0001f40d é \u200f"
    log = Log()
    for number in range(3):
        log.run(1, number * 1000, cell_id=odd, notebook=odd)
    aggregate(url, log.records)
    check(url, log)
    assert {row["notebook"] for row in rows(url, "SELECT notebook FROM executions")} == {odd}


def test_names_that_no_text_can_hold(url: str) -> None:
    """A NUL in a name, which PostgreSQL does not take, is U+FFFD in the tables; its event counts as any other."""
    log = Log()
    log.run(1, 0)
    log.run(1, 1000, cell_id="a\x00b", notebook="\\u0000")
    assert aggregate(url, log.records).events == 2
    (run,) = rows(url, "SELECT cell_id, notebook FROM executions WHERE seq = 1")
    assert run == {"cell_id": "a\ufffdb", "notebook": "\\u0000"}


def test_who_lost_a_partition_cannot_write(url: str) -> None:
    """Once another process has claimed a partition, the first one's transaction fails, and nothing of it is there."""
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


def test_who_is_in_the_middle_of_a_batch_finishes_it_first(url: str) -> None:
    """A claim waits for the transaction that is under way, and goes on behind it: no batch is taken twice."""
    with opened(url) as first, opened(url) as second:
        first.claim(["p"])
        claimed: list[dict[str, int]] = []
        with first.transaction({"p": 10}):
            thread = threading.Thread(target=lambda: claimed.append(second.claim(["p"])))
            thread.start()
            thread.join(0.3)
            assert claimed == []
        thread.join(40)
        assert claimed == [{"p": 10}]


def test_forgetting_leaves_other_consumers_alone(url: str) -> None:
    """What a rebuild empties is the aggregate's; another consumer's positions and chains stay."""
    log = random_log(random.Random(2), 30)
    aggregate(url, log.records)
    with opened(url, "other") as store:
        store.claim(["p"])
        with store.transaction({"p": 7}):
            pass
    with opened(url) as store, store.transaction({}) as transaction:
        aggregating.forget(transaction)
    assert rows(url, "SELECT consumer, position FROM offsets") == [{"consumer": "other", "position": 7}]
    assert rows(url, "SELECT * FROM executions") == []
    aggregate(url, log.records)
    check(url, log)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("mysql://there", "the store cannot be opened|a store is SQLite or PostgreSQL"),
        ("nonsense", "it is no SQLAlchemy URL"),
        ("postgresql+psycopg://me:secret@127.0.0.1:1/none", "cannot be opened"),
        ("sqlite:////no/such/folder/x.db", "cannot be opened"),
    ],
)
def test_a_store_that_cannot_be_opened_says_so(wrong: str, says: str) -> None:
    """The error is one line, names the store, and keeps its password to itself."""
    with pytest.raises(StoreError, match=says) as told:
        open_engine(wrong)
    assert "secret" not in str(told.value)


def test_readers_read_while_it_writes(url: str) -> None:
    """A transaction that is open does not keep others from reading what was there before it."""
    log = random_log(random.Random(4), 20)
    aggregate(url, log.records)
    reading = open_engine(url, read_only=True)
    try:
        with opened(url) as store, store.transaction({}) as transaction:
            transaction.connection.execute(text("DELETE FROM executions"))
            with reading.connect() as connection:
                assert connection.execute(text("SELECT count(*) FROM executions")).scalar_one() == 20
    finally:
        reading.dispose()
