"""What the pages and the metrics say of recorders that are silent, of SQLite and PostgreSQL alike."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest
from logs import Log, aggregate, sqlite_url
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine
from starlette.applications import Starlette

from exec_events_consumers.dashboard.app import Dashboard
from exec_events_consumers.dashboard.outside import Outside
from exec_events_consumers.dashboard.serve import reading_engine
from exec_events_consumers.dashboard.silence import RunningServer, Watched
from exec_events_consumers.dashboard.watching import Watching
from spool_files import SCHEMA, time_of

MINUTE_US = 60_000_000
NAMES = ("speaks", "fell-silent", "stopped", "of-nobody")
RECORDERS = {name: f"{number:08d}-0000-4000-8000-000000000000" for number, name in enumerate(NAMES)}


def moment(minutes: float) -> datetime:
    """So many minutes into the day."""
    return datetime.fromisoformat(time_of(int(minutes * 60)))


def said(log: Log, name: str, action: str, minutes: float, **members: object) -> None:
    """A recorder says something."""
    log.add(
        {
            "__schema__": SCHEMA.format("recorder"),
            "__schema_version__": "1",
            "time": time_of(int(minutes * 60)),
            "recorder_id": RECORDERS[name],
            "trust": "server",
            "action": action,
            **members,
        },
        RECORDERS[name],
    )


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """Tables of four recorders: one speaks, one fell silent, one ended, and one of no server of a Hub's fell silent."""
    url = sqlite_url(tmp_path) if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    log = Log()
    for name in NAMES:
        label = {} if name == "of-nobody" else {"server": f"label of {name}"}
        said(log, name, "started", 0, heartbeat_us=MINUTE_US, **label)
        for minute in range(1, 60 if name == "speaks" else 30):
            said(log, name, "heartbeat", minute, heartbeat_us=MINUTE_US, **label)
    said(log, "stopped", "stopped", 30, cause="stop")
    aggregate(url, log.records)
    made = reading_engine(url)
    yield made
    made.dispose()


def asked(engine: Engine, watched: Watched, *paths: str) -> list[httpx.Response]:
    """The answers an hour into the day."""
    watching = Watching(lambda: watched, timedelta(minutes=1))
    app = Starlette(routes=Dashboard(engine, Outside(watching=watching), lambda: moment(60)).routes)

    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://here") as client:
            return [await client.get(path) for path in paths]

    return asyncio.run(ask())


def samples(answer: httpx.Response) -> dict[tuple[str, ...], float]:
    """What Prometheus makes of the answer: values by name and labels."""
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(answer.text)
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


def test_servers_whose_recorders_are_silent_are_told(engine: Engine) -> None:
    """A page counts and names the servers that run while their recorders are silent, and the metrics count them by reason."""
    servers = [
        RunningServer(name, "" if name == "speaks" else "my-other", f"label of {name}", moment(0), moment(1))
        for name in ("speaks", "fell-silent", "stopped", "never")
    ]
    now, integrity, page, metrics = asked(
        engine, Watched(servers), "/?format=json", "/integrity?format=json", "/integrity", "/metrics"
    )
    for figures in (now.json(), integrity.json()):
        assert (figures["facts"]["servers"], figures["facts"]["silent-recorders"]) == (4, 3)
    assert integrity.json()["tables"]["silent"] == [
        {"user": "never", "server": "my-other", "reason": "never spoke", "since": "2026-01-01T00:00Z"},
        {"user": "fell-silent", "server": "my-other", "reason": "fell silent", "since": "2026-01-01T00:29Z"},
        {"user": "stopped", "server": "my-other", "reason": "stopped", "since": "2026-01-01T00:30Z"},
    ]
    assert '<div class="alarm"><dt>Silent recorders</dt>' in page.text
    told = samples(metrics)
    assert told["exec_events_running_servers_known",] == 1
    assert told["exec_events_running_servers",] == 4
    reasons = ("never_spoke", "fell_silent", "stopped")
    assert [told["exec_events_silent_servers", reason] for reason in reasons] == [1, 1, 1]
    assert "my-other" not in metrics.text


def test_without_a_hub_a_silent_recorder_is_no_alarm(engine: Engine) -> None:
    """Where nobody says which servers run, recorders that neither spoke nor ended are called silent, and nothing alarms."""
    watched = Watched(None, "the Hub answers 403")
    integrity, page, metrics = asked(engine, watched, "/integrity?format=json", "/integrity", "/metrics")
    figures = integrity.json()
    assert (figures["facts"]["servers"], figures["facts"]["silent-recorders"]) == (None, None)
    assert {row["recorder_id"]: row["state"] for row in figures["tables"]["recorders"]} == {
        RECORDERS["speaks"]: "speaks",
        RECORDERS["fell-silent"]: "silent",
        RECORDERS["of-nobody"]: "silent",
        RECORDERS["stopped"]: "ended",
    }
    assert "Not known: the Hub answers 403." in page.text
    assert 'class="alarm"' not in page.text
    told = samples(metrics)
    assert told["exec_events_running_servers_known",] == 0
    assert ("exec_events_running_servers",) not in told
    states = ("speaks", "silent", "ended")
    assert [told["exec_events_recorders", state] for state in states] == [1, 2, 1]
    assert told["exec_events_chains",] == 4
    assert told["exec_events_newest_event_seconds",] == 60
