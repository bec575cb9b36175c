"""
The teacher's page in Chromium, served by Dash, beside a stand-in of the server's communication protocol.

The stand-in answers one query as facts of the real one say: updates by path, again after the delay that was asked for.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dash
import pytest
import server_names  # noqa: F401
import uvicorn
from chromium import launched
from logs import Log
from playwright.sync_api import Browser, Page, expect, sync_playwright
from sent import frames_of
from starlette.applications import Starlette
from starlette.routing import Mount, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from exec_events_consumers.learning_observer.reductions import reduce_student
from lo_exec_events import module, page, queries

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from starlette.middleware.wsgi import WSGIMiddleware

MINUTE = 60_000_000
ERROR = {"status": "error", "error_name": "ValueError"}
PATH = "/lo_exec_events/dash/board/"


def value(name: str, *runs: tuple[float, str, dict[str, Any]]) -> dict[str, Any]:
    """What the query gives of a student with these runs, each so many minutes ago."""
    log, state = Log(), None
    for ago, cell, members in runs:
        at = datetime.fromtimestamp(time.time() - ago * 60, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        times = {"time": at, "requested_at": at, "started_at": at, "finished_at": at}
        log.run(0, 0, notebook="p:0a1b2c3d:feedbeef00112233445566778899aabb", cell_id=cell, **times, **members)
    for frame in frames_of(log):
        state = reduce_student(state, frame)
    if state is None:
        state = module.REDUCERS[0]["default"]
    picked: dict[str, Any] = {"user_id": name, "profile": {"name": {"full_name": name}}}
    for path, short in queries.BOARD_FIELDS.items():
        found: Any = state
        for part in path.split("."):
            found = found[part]
        picked[short] = found
    return picked


@dataclass
class Course:
    """A stand-in of a server with one course."""

    url: str = ""
    students: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[dict[str, Any]] = field(default_factory=list)
    is_down: bool = False

    async def answer(self, websocket: WebSocket) -> None:
        """Give all students, again and again, until the connection ends or is ended."""
        if self.is_down:
            await websocket.close()
            return
        await websocket.accept()
        try:
            query = json.loads(await websocket.receive_text())
            self.asked.append(query)
            while not self.is_down:
                updates = [{"op": "update", "path": f"students.{n}", "value": v} for n, v in self.students.items()]
                if updates:
                    await websocket.send_text(json.dumps(updates))
                # It asks for five seconds; tests do not wait for them.
                await asyncio.sleep(0.2)
            await websocket.close()
        except WebSocketDisconnect:
            return


@pytest.fixture(scope="module")
def course() -> Iterator[Course]:
    """The page as Learning Observer sets it up: one Dash application for all modules, with their assets in one folder."""
    made = Course()
    app = dash.Dash(
        "stand_in",
        use_pages=True,
        pages_folder="",
        assets_folder=str(Path(page.__file__).parent / "assets"),
        assets_url_path="dash/assets",
        update_title=None,
    )
    app.layout = dash.html.Div([dash.page_container])
    (shown,) = module.DASH_PAGES
    dash.register_page(shown["MODULE"].__name__, layout=shown["LAYOUT"], title=shown["TITLE"], path=PATH)
    routes = [
        WebSocketRoute("/wsapi/communication_protocol", made.answer),
        Mount("/", WSGIMiddleware(app.server)),
    ]
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), log_level="error", lifespan="off"))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        made.url = f"http://127.0.0.1:{listening.getsockname()[1]}{PATH}"
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        yield made
        server.should_exit = True
        made.is_down = True
        thread.join(20)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without a window."""
    with sync_playwright() as playwright, launched(playwright) as one:
        yield one


@pytest.fixture
def tab(browser: Browser, course: Course) -> Iterator[Page]:
    """A tab; at the end nothing may have gone wrong in it, and nothing may have been asked for elsewhere."""
    course.students, course.asked, course.is_down = {}, [], False
    wrong: list[str] = []
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(15_000)
    opened = context.new_page()
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("request", lambda request: "//127.0.0.1:" in request.url or wrong.append(request.url))
    yield opened
    context.close()
    assert wrong == []


def said(tab: Page) -> list[list[str]]:
    """The lines of the table."""
    return [row.locator("th, td").all_inner_texts() for row in tab.locator(".lo-exec-events tbody tr").all()]


def test_without_a_course_it_says_what_to_do(tab: Page, course: Course) -> None:
    """Opened without a course the page says where to open it from, shows no table, and asks the server for nothing."""
    tab.goto(course.url)
    expect(tab.get_by_text("No course was chosen")).to_be_visible()
    assert tab.locator("table").count() == 0
    assert course.asked == []


def test_an_empty_course_is_told(tab: Page, course: Course) -> None:
    """Of a course of which nothing is heard the page says so, and shows no table."""
    tab.goto(f"{course.url}#course_id=12")
    expect(tab.get_by_text("nobody of this course was heard of yet")).to_be_visible()
    assert tab.locator("table").count() == 0


def test_a_teacher_sees_who_is_stuck(tab: Page, course: Course) -> None:
    """The course's query is asked, and its students are lines of words, the one who is stuck first."""
    course.students = {
        "tc-ada": value("Ada", (3, "load", {}), (2, "mean", {})),
        "tc-ben": value("Ben", *((n, "plot", ERROR) for n in (4, 3, 2))),
        "tc-cem": value("Cem"),
    }
    tab.goto(f"{course.url}#course_id=12; other=1")
    expect(tab.locator(".lo-exec-events tbody tr")).to_have_count(3)
    lines = said(tab)
    assert [line[:4] for line in lines] == [
        ["Ben", "Seems stuck", "ValueError, 3 times in a row, in cell plot of notebook feedbeef", "2 min ago"],
        ["Ada", "Working", "cell mean of notebook feedbeef", "2 min ago"],
        ["Cem", "No run yet", "", "never"],
    ]
    assert {line[-1] for line in lines} == {"whole"}
    assert (
        tab.locator("#lo-exec-events-summary").inner_text()
        == "Of 3 students: 1 stuck, it seems; 1 working; 1 not begun."
    )
    ((_, query),) = course.asked[0].items()
    assert (query["execution_dag"], query["target_exports"]) == ("lo_exec_events", ["board"])
    assert query["kwargs"]["course_id"] == "12"
    assert query["kwargs"]["rerun_dag_delay"] > 0


def test_it_changes_by_itself(tab: Page, course: Course) -> None:
    """What a student does next is on the page without a reload."""
    course.students = {"s": value("Ada", *((n, "plot", ERROR) for n in (4, 3, 2)))}
    tab.goto(f"{course.url}#course_id=12")
    expect(tab.get_by_role("cell", name="Seems stuck")).to_be_visible()
    course.students = {"s": value("Ada", *((n, "plot", ERROR) for n in (4, 3, 2)), (1, "plot", {}))}
    expect(tab.get_by_role("cell", name="Working")).to_be_visible()
    assert tab.get_by_text("Seems stuck", exact=True).count() == 0


def test_a_lost_server_is_told_and_found_again(tab: Page, course: Course) -> None:
    """While the server is away the page says so and keeps what it heard; once it is back, it goes on by itself."""
    course.students = {"s": value("Ada", (2, "load", {}))}
    tab.goto(f"{course.url}#course_id=12")
    expect(tab.get_by_role("rowheader", name="Ada")).to_be_visible()
    course.is_down = True
    expect(tab.get_by_text("Not connected to the server; what is below is what was heard last.")).to_be_visible()
    assert len(said(tab)) == 1
    course.students["t"] = value("Ben", (1, "load", {}))
    course.is_down = False
    expect(tab.get_by_role("rowheader", name="Ben")).to_be_visible(timeout=40_000)
    expect(tab.get_by_text("Not connected")).to_have_count(0)


def test_names_are_text(tab: Page, course: Course) -> None:
    """A name that is HTML is shown as it is written, and does nothing."""
    name = "<img src=x onerror=document.title='run'>"
    course.students = {"s": value(name, (2, "<b>c</b>", {}))}
    tab.goto(f"{course.url}#course_id=12")
    expect(tab.get_by_role("rowheader", name=name)).to_be_visible()
    assert "cell <b>c</b> of" in said(tab)[0][2]
    assert tab.locator(".lo-exec-events img").count() == 0
    assert tab.title() == page.TITLE


def test_it_can_be_heard(tab: Page, course: Course) -> None:
    """The table has a caption and heads of its rows and columns, changes of its sentences are announced, and no word is hidden."""
    course.students = {"s": value("Ada", *((n, "plot", ERROR) for n in (4, 3, 2)))}
    tab.goto(f"{course.url}#course_id=12")
    expect(tab.get_by_role("table", name="Students, those who seem to need help most first")).to_be_visible()
    assert tab.get_by_role("columnheader").count() == 7
    assert tab.get_by_role("rowheader").count() == 1
    assert tab.get_by_role("status").count() == 2
    assert tab.get_by_role("main").count() == 1
    assert tab.get_by_role("heading", level=1).inner_text() == page.TITLE


@pytest.mark.parametrize("width", [1280, 700])
def test_words_are_not_cut(tab: Page, course: Course, width: int) -> None:
    """On a wide and on a narrow window the page needs no sideways scrolling, and contrast is that of dark on light."""
    course.students = {"s": value("Ada Byron", *((n, "plot", ERROR) for n in (4, 3, 2)))}
    tab.set_viewport_size({"width": width, "height": 800})
    tab.goto(f"{course.url}#course_id=12")
    expect(tab.get_by_role("rowheader", name="Ada Byron")).to_be_visible()
    assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    colour = tab.locator("tbody td").first.evaluate("(cell) => getComputedStyle(cell).color")
    assert max(int(part) for part in re.findall(r"\d+", colour)[:3]) < 100
