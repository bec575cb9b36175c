"""
The module in a real Learning Observer server, where there is one.

    LO_URL=ws://127.0.0.1:8888/wsapi/in/ pytest -m live_lo integrations/learning_observer/tests

The server must have this module installed, with testcase_auth, test_case_insecure, a roster of all, and no students but those of tests.
"""

from __future__ import annotations

import json
import os
import random
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from chromium import launched
from logs import Log, aggregate, random_log, sqlite_url
from playwright.sync_api import expect, sync_playwright
from sent import frames_of
from test_learning_observer_reductions import check, late_by
from websockets.sync.client import ClientConnection, connect

from exec_events_consumers.learning_observer.frames import SOURCE
from exec_events_consumers.learning_observer.recent import RECENT
from spool_files import FIRST, SECOND

pytestmark = pytest.mark.live_lo

PATIENCE_SECONDS = 60
ERROR = {"status": "error", "error_name": "ValueError"}


def intake() -> str:
    """Where frames go."""
    return os.environ["LO_URL"]


def questions() -> str:
    """Where queries go."""
    return intake().replace("/wsapi/in/", "/wsapi/communication_protocol")


@pytest.fixture
def student() -> str:
    """Somebody the server has heard nothing of."""
    return f"ada{uuid.uuid4().hex[:12]}"


def answer(socket: ClientConnection) -> Any:
    """The next answer."""
    return json.loads(socket.recv(PATIENCE_SECONDS))


def send(student: str, frames: list[dict[str, Any]]) -> None:
    """Send frames, and wait until they were processed."""
    with connect(intake()) as socket:
        socket.send(json.dumps({"event": "lock_fields", "fields": {"source": SOURCE}}))
        socket.send(json.dumps({"event": "test_framework_fake_identity", "user_id": student}))
        assert answer(socket)["status"] == "auth"
        for frame in frames:
            socket.send(json.dumps(frame))
        socket.send(json.dumps({"event": "fetch_blob", "activity": "nothing"}))
        assert answer(socket)["status"] == "fetch_blob"


def found(export: str, student: str, wanted: int) -> dict[str, Any]:
    """What a query gives of this student, by the rest of the path, once there is as much as is wanted."""
    query = {
        "execution_dag": "lo_exec_events",
        "target_exports": [export],
        "kwargs": {"course_id": "12345678901", "rerun_dag_delay": -1},
    }
    path = f"students.tc-testcase-{student}"
    given: dict[str, Any] = {}
    deadline = time.monotonic() + PATIENCE_SECONDS
    with connect(questions(), max_size=None) as socket:
        socket.send(json.dumps({"q": query}))
        while len(given) < wanted:
            assert time.monotonic() < deadline, given.keys()
            for update in answer(socket):
                if update["path"].startswith(path):
                    given[update["path"][len(path) :]] = update["value"]
    return given


def test_the_server_and_the_tables_never_disagree(student: str, tmp_path: Path) -> None:
    """On the same events, late and doubled, a real server's figures of a student and of each notebook are the tables'."""
    rng = random.Random(5)
    log = random_log(rng, 3 * RECENT, subjects=1, recorders=(FIRST, SECOND))
    frames = frames_of(log)
    numbers = [(bytes([n // 256, n % 256]), b"") for n in range(len(frames))]
    late = [record[0][0] * 256 + record[0][1] for record in late_by(numbers, RECENT // 2, {7, 90, 150, 151})]
    send(student, [frames[n] for n in late] + frames[-20:])
    aggregate(sqlite_url(tmp_path), log.records)
    notebooks = {path.rpartition(".")[2]: state for path, state in found("notebooks", student, 2).items()}
    (state,) = found("students", student, 1).values()
    check(sqlite_url(tmp_path), state, notebooks)
    assert state["record"] == {
        "frames": len(frames) + 20,
        "duplicates": 20,
        "missing": 0,
        "too_late": 0,
        "refused": 0,
        "forgotten_chains": 0,
    }


def test_the_page_shows_who_is_stuck(student: str) -> None:
    """In Chromium, a real server's page of this module says of somebody stuck that they are, and asks nobody else for anything."""
    log = Log()
    for ago in (4, 3, 2):
        at = datetime.fromtimestamp(time.time() - ago * 60, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        times = {"time": at, "requested_at": at, "started_at": at, "finished_at": at}
        log.run(0, 0, notebook="n", cell_id="plot", **times, **ERROR)
    send(student, frames_of(log))
    elsewhere: list[str] = []
    page = intake().replace("ws", "http", 1).replace("/wsapi/in/", "/lo_exec_events/dash/board/#course_id=12345678901")
    host = page.split("/")[2]
    with sync_playwright() as playwright, launched(playwright) as browser:
        tab = browser.new_page()
        tab.on("request", lambda request: f"//{host}/" in request.url or elsewhere.append(request.url))
        tab.goto(page)
        line = tab.locator(".lo-exec-events tbody tr", has_text=student)
        expect(line).to_contain_text("Seems stuck", timeout=PATIENCE_SECONDS * 1000)
        expect(line).to_contain_text("ValueError, 3 times in a row, in cell plot of notebook n")
    assert elsewhere == []
