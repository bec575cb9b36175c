"""What the pages ask the tables: the same of SQLite and PostgreSQL, and of very many runs soon enough."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from logs import MINUTE_US, aggregate, random_log, sqlite_url, time_at
from many_runs import fill
from sqlalchemy import Engine, create_engine
from starlette.applications import Starlette

from exec_events_consumers.dashboard.app import Dashboard
from exec_events_consumers.dashboard.memo import Memo
from exec_events_consumers.dashboard.serve import reading_engine

PATHS = (
    "/",
    "/?since=all",
    "/person",
    "/person?subject=subject-1",
    "/notebook?subject=subject-1&notebook=notebook-0",
    "/cohort",
    "/cohort?notebook=notebook-0",
    "/integrity",
)
SPAN = f"since={time_at(100 * MINUTE_US)}&until={time_at(900 * MINUTE_US)}"
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def asked(engine: Engine, *paths: str, now: datetime = NOW) -> list[httpx.Response]:
    """The answers of the pages of a store."""
    app = Starlette(routes=Dashboard(engine, clock=lambda: now).routes)

    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://here") as client:
            return [await client.get(path) for path in paths]

    return asyncio.run(ask())


def test_postgresql_says_what_sqlite_says(tmp_path: Path, postgres_url: str) -> None:
    """Every page of a PostgreSQL store, of all time and of a span, has the figures of a SQLite store of the same log."""
    log = random_log(random.Random(8), 300)
    spans = [f"{path}{'&' if '?' in path else '?'}{SPAN}" for path in PATHS]
    paths = [f"{path}{'&' if '?' in path else '?'}format=json" for path in (*PATHS, *spans)]
    figures: list[list[Any]] = []
    for url in (sqlite_url(tmp_path), postgres_url):
        aggregate(url, log.records)
        engine = reading_engine(url)
        answers = asked(engine, *paths)
        assert [answer.status_code for answer in answers] == [200] * len(paths)
        figures.append([answer.json() for answer in answers])
        engine.dispose()
    for path, one, other in zip(paths, *figures, strict=True):
        for letters in (one, other):
            letters["tables"].pop("dead-letters", None)
        assert one == other, path


class Maker:
    """Makes 0, 1, 2 …, each in ``seconds`` of the clock ``at``."""

    def __init__(self, seconds: float) -> None:
        self.at = 0.0
        self.seconds = seconds
        self.made = 0

    def __call__(self) -> int:
        self.at += self.seconds
        self.made += 1
        return self.made - 1


def test_what_is_costly_is_given_while_it_is_made_anew() -> None:
    """It is given for ten seconds, up to a minute while it is made anew behind, and no longer."""
    make = Maker(0.5)
    behind: list[Callable[[], None]] = []
    memo: Memo[int] = Memo(lambda: make.at, behind.append)
    told = []
    for seconds, change in ((0, "a"), (9, "b"), (11, "a"), (12, "b"), (13, "b"), (15, "b"), (76, "b"), (88, "c")):
        make.at = seconds
        told.append(memo.get("page", change, make, make))
        if seconds == 13:
            assert len(behind) == 1
            behind.pop()()
    # Made when first asked for; behind, once, when tables had changed; and where a minute had passed.
    assert told == [0, 0, 0, 0, 0, 1, 2, 2]
    assert len(behind) == 1


def test_what_is_cheap_is_made_anew_whenever_tables_have_changed() -> None:
    """It is never given of tables that have changed since, and given for a minute of those that have not."""
    make = Maker(0.05)
    memo: Memo[int] = Memo(lambda: make.at, lambda work: None)
    told = []
    for seconds, change in ((0, "a"), (1, "a"), (2, "b"), (3, "c"), (30, "c"), (65, "c")):
        make.at = seconds
        told.append(memo.get("page", change, make, make))
    assert told == [0, 0, 1, 2, 2, 3]


def test_what_cannot_be_made_behind_is_made_for_who_asks_next() -> None:
    """What goes wrong while nobody waits keeps nobody from the page when it is asked for a minute later."""
    make = Maker(0.5)
    memo: Memo[int] = Memo(lambda: make.at, lambda work: work())

    def broken() -> int:
        raise OSError("the tables are gone")

    assert memo.get("page", 1, make, make) == 0
    make.at = 20
    assert memo.get("page", 2, broken, broken) == 0
    make.at = 61
    with pytest.raises(OSError, match="the tables are gone"):
        memo.get("page", 2, broken, broken)
    assert memo.get("page", 2, make, make) == 1


def test_pages_of_many_runs_take_one_connection_each(tmp_path: Path) -> None:
    """Every page of tables as the benchmark fills them is made with the one connection of who asks for it."""
    url = sqlite_url(tmp_path)
    fill(url, 3000, 1_760_000_000_000_000, people=30).dispose()
    engine = create_engine(url, pool_size=1, max_overflow=0, pool_timeout=1)
    paths = [*PATHS[:3], "/person?subject=person-1", "/notebook?subject=person-1&notebook=notebook-1"]
    answers = asked(engine, *paths, "/cohort", "/cohort?notebook=notebook-1", "/integrity")
    assert {answer.status_code for answer in answers} == {200}
    engine.dispose()
