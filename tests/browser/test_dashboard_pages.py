"""The dashboard as a person sees it: in Chromium, read from the page, and compared with a recount of the log."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import recount
from dashboards import Running, running
from logs import MINUTE_US, Log, aggregate, random_log, sqlite_url
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

PATHS = ("?since=all", "person?subject=subject-1", "notebook?subject=subject-1&notebook=notebook-0")
MORE_PATHS = ("cohort?notebook=notebook-0", "integrity", "person", "cohort")


@pytest.fixture(scope="module")
def log() -> Log:
    """Runs of four people."""
    return random_log(random.Random(11), 300)


@pytest.fixture(scope="module")
def store(log: Log, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tables of the log."""
    url = sqlite_url(tmp_path_factory.mktemp("store"))
    aggregate(url, log.records)
    return url


@pytest.fixture(scope="module")
def dashboard(store: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A dashboard of them."""
    with running(tmp_path_factory.mktemp("dashboard"), ["dashboard", "--store", store, "--port", "0"]) as one:
        yield one


@pytest.fixture
def page(browser: Browser, dashboard: Running) -> Iterator[Page]:
    """A tab that came in by the URL that was printed; nothing may be wrong in its console at the end."""
    wrong: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            wrong.append(message.text)

    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(10_000)
    tab = context.new_page()
    tab.on("console", heard)
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.goto(dashboard.url)
    yield tab
    context.close()
    assert wrong == []


def shown_runs(log: Log) -> list[dict[str, Any]]:
    """The runs of a log that count."""
    return recount.runs_of(log.events, {event["execution_id"]: at for at, event in enumerate(log.events)})


def number(page: Page, fact: str) -> int:
    """A figure as it stands in the page."""
    return int(page.locator(f"#fact-{fact}").inner_text().replace(",", ""))


def rows(page: Page, table: str) -> list[dict[str, str]]:
    """A table as it stands in the page, by the columns' ids."""
    return page.locator(f"#{table} > tbody > tr").evaluate_all(
        "rows => rows.map(row => Object.fromEntries([...row.cells].map(cell => [cell.dataset.column, cell.innerText])))"
    )


def test_the_token_is_not_in_the_address(page: Page, dashboard: Running) -> None:
    """After the first page the address has no token in it, and the session goes on without."""
    assert page.url == dashboard.base
    assert page.evaluate("document.cookie") == ""
    page.get_by_role("link", name="Integrity").click()
    expect(page.locator("h1")).to_have_text("Integrity")


def test_the_pages_say_what_the_log_says(page: Page, dashboard: Running, log: Log) -> None:
    """The figures of everybody, of each person and of a cohort, read from the pages, equal a recount of the log."""
    runs = shown_runs(log)
    page.goto(f"{dashboard.base}?since=all")
    counted = recount.counts(runs)
    assert (number(page, "runs"), number(page, "errors")) == (counted["runs"], counted["errors"])
    for (subject,), theirs in recount.grouped(runs, "subject").items():
        page.goto(f"{dashboard.base}person?subject={subject}")
        counted = recount.counts(theirs)
        assert [number(page, name) for name in ("runs", "ok", "errors")] == [
            counted[k] for k in ("runs", "ok", "errors")
        ]
        for row in rows(page, "notebooks"):
            of_notebook = [run for run in theirs if run["notebook"] == row["notebook"]]
            assert {name: int(row[name]) for name in ("runs", "ok", "errors", "other")} == recount.counts(of_notebook)
    page.goto(f"{dashboard.base}cohort?notebook=notebook-1")
    by_cell = recount.grouped([run for run in runs if run["notebook"] == "notebook-1"], "cell_id")
    cells = rows(page, "cells")
    assert len(cells) == len(by_cell)
    for row in cells:
        of_cell = by_cell[row["cell_id"],]
        assert int(row["ran"]) == len({run["subject"] for run in of_cell})
        assert int(row["right"]) == len({run["subject"] for run in of_cell if run["status"] == "ok"})


def test_every_page_is_drawn(page: Page, dashboard: Running) -> None:
    """Each page's charts are there, in the light and in the dark, and nothing sticks out of the window."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for width in (1280, 400):
            page.set_viewport_size({"width": width, "height": 900})
            for path in (*PATHS, *MORE_PATHS):
                page.goto(f"{dashboard.base}{path}")
                expect(page.locator("figure canvas")).to_have_count(page.locator("figure").count())
                assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), (path, width)
        light = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (light == "rgb(255, 255, 255)") == (scheme == "light")


def test_the_keyboard_suffices(page: Page, dashboard: Running) -> None:
    """The first Tab reaches the link that skips to the figures; another range is chosen without a mouse."""
    page.goto(f"{dashboard.base}?since=all")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.locator("#since").focus()
    page.keyboard.press("ArrowUp")
    page.locator("#until").press("Enter")
    page.wait_for_url("**since=30d**")
    assert number(page, "runs") == 0


def test_a_finished_run_appears(page: Page, dashboard: Running, store: str, log: Log) -> None:
    """A run shows in an open page soon after its row, in the figures, the table and the chart, without a reload."""
    page.goto(f"{dashboard.base}?since=all")
    expect(page.locator("#live-state")).to_have_text("live")
    page.evaluate("window.isTheSame = true")
    for _ in range(3):
        before = number(page, "runs")
        at = 10_000 * MINUTE_US + len(log.records)
        log.run(1, at, notebook="live <i>notebook</i>", cell_id="new", status="ok")
        aggregate(store, log.records)
        began = time.monotonic()
        expect(page.locator("#fact-runs")).to_have_text(f"{before + 1:,}")
        assert time.monotonic() - began < 10
        assert rows(page, "latest")[0]["notebook"] == "live <i>notebook</i>"
    assert page.evaluate("window.isTheSame")
    assert number(page, "runs") == recount.counts(shown_runs(log))["runs"]


def test_the_page_says_when_it_is_not_live(browser: Browser, store: str, tmp_path: Path) -> None:
    """When the dashboard ends, open pages say that they are not live any more."""
    with running(tmp_path, ["dashboard", "--store", store, "--port", "0"]) as one:
        context = browser.new_context()
        page = context.new_page()
        page.goto(one.url)
        expect(page.locator("#live-state")).to_have_text("live")
        code, _ = one.end()
        assert code == 0
        expect(page.locator("#live-state")).to_contain_text("connection lost", timeout=10_000)
        context.close()
