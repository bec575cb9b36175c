"""What the pages ask the tables: the same of SQLite and PostgreSQL, and of very many runs soon enough."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from logs import MINUTE_US, aggregate, random_log, sqlite_url, time_at
from sqlalchemy import Engine
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


def test_a_costly_page_is_made_once() -> None:
    """A kept page is given for ten seconds while the tables change, for a minute while they do not, and no longer."""
    at = [0.0]
    memo: Memo[int] = Memo(lambda: at[0])
    made: list[int] = []

    def make() -> int:
        made.append(len(made))
        return made[-1]

    told = []
    for seconds, change in ((0, "a"), (9, "b"), (11, "b"), (70, "b"), (72, "b"), (72.5, "c"), (90, "c")):
        at[0] = seconds
        told.append(memo.get("page", change, make))
    assert told == [0, 0, 1, 1, 2, 2, 3]
