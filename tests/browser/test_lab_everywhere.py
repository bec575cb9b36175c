"""The JupyterLab extension in each way JupyterLab shows a notebook, and for those who do not see or point."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lab_pages import RECORDED, START_MS, WAIT_MS, LabPage, lab_page, write_notebook
from playwright.sync_api import Browser, expect

from exec_events.testing import RunningServer, executions_of, wait_for_records

pytestmark = pytest.mark.timeout(300)
expect.set_options(timeout=WAIT_MS)

CELLS = 40
AXE = Path(__file__).parents[2] / "tools" / "node" / "node_modules" / "axe-core" / "axe.min.js"


@pytest.mark.parametrize("mode", ["full", "none", "defer", "contentVisibility"])
def test_marks_in_each_windowing_mode(lab: LabPage, server: RunningServer, mode: str) -> None:
    """However JupyterLab renders the cells that are out of sight, each has its mark when it comes into sight, and one alone."""
    settings = "/lab/api/settings/@jupyterlab/notebook-extension:tracker"
    server.rest("PUT", settings, {"raw": json.dumps({"windowingMode": mode})})
    path = write_notebook(server, [f"number = {number}\nnumber" for number in range(CELLS)], f"{mode}.ipynb")
    lab.open(server, f"lab/tree/{path.name}")
    lab.run_all()
    last = lab.page.locator(".jp-Notebook .jp-CodeCell").filter(has_text=f"number = {CELLS - 1}")
    expect(last.locator(".jp-ExecEvents-mark")).to_contain_text(RECORDED, timeout=START_MS)
    lab.save()
    lab.reload()
    first = lab.page.locator(".jp-Notebook .jp-CodeCell").first
    expect(first.locator(".jp-ExecEvents-mark")).to_contain_text(RECORDED)
    first.hover()
    for _ in range(200):
        if last.count() and last.locator(".jp-ExecEvents-mark").is_visible():
            break
        lab.page.mouse.wheel(0, 500)
        lab.page.wait_for_timeout(50)
    expect(last.locator(".jp-ExecEvents-mark")).to_contain_text(RECORDED)
    expect(last.locator(".jp-ExecEvents-mark")).to_have_count(1)
    server.rest("PUT", settings, {"raw": "{}"})


def faults(lab: LabPage, *places: str) -> list[tuple[str, list[Any]]]:
    """What axe-core, which checks the accessibility of pages, finds wrong in these parts of a page."""
    lab.page.evaluate(AXE.read_text())
    found = lab.page.evaluate("places => axe.run({include: places.map(place => [place])})", list(places))
    checked = {rule["id"] for rule in found["passes"]}
    assert "button-name" in checked, checked
    return [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found["violations"]]


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_what_is_shown_is_accessible(lab: LabPage, server: RunningServer, theme: str) -> None:
    """Axe-core finds nothing wrong with marks, an open record, the panel and the status item, in either theme."""
    settings = "/lab/api/settings/@jupyterlab/apputils-extension:themes"
    server.rest("PUT", settings, {"raw": json.dumps({"theme": theme})})
    path = write_notebook(server, ["6 * 7", "1 / 0", "edited = 1"], f"{theme.split()[1]}.ipynb")
    lab.open(server, f"lab/tree/{path.name}")
    expect(lab.page.locator("body")).to_have_attribute("data-jp-theme-name", theme)
    for index in range(3):
        lab.run(index)
        expect(lab.mark(index)).to_contain_text(RECORDED)
    lab.cell(2).locator(".cm-content").click()
    lab.page.keyboard.type("1")
    expect(lab.mark(2)).to_contain_text("Edited since recorded")
    lab.mark(0).locator("> button").click()
    lab.page.get_by_role("button", name="Recording").click()
    lab.panel.get_by_role("button", name="Verify this notebook").click()
    expect(lab.panel.locator(".jp-ExecEvents-verdicts > li")).to_have_count(3)
    expect(lab.panel.locator(".jp-ExecEvents-events > li").first).to_be_visible()
    lab.screenshot(f"lab-{theme.split()[1].lower()}")
    assert faults(lab, ".jp-ExecEvents-mark", "#exec-events-panel", ".jp-ExecEvents-status") == []
    server.rest("PUT", settings, {"raw": "{}"})
    wait_for_records(server.data_dir, executions_of(3))


def test_the_question_is_accessible(browser: Browser) -> None:
    """Axe-core finds nothing wrong with the question for consent, which has a name, the focus, and two buttons."""
    with (
        RunningServer(application="lab", config="c.ExecEvents.mode = 'consent'") as server,
        lab_page(browser) as lab,
    ):
        path = write_notebook(server, ["1 + 1"])
        lab.come_in(server, f"lab/tree/{path.name}")
        question = lab.page.get_by_role("dialog")
        expect(question).to_contain_text("May what you run be recorded?")
        expect(question.get_by_role("button", name="No, record nothing")).to_be_focused()
        expect(question.get_by_role("button", name="Yes, record what I run")).to_be_visible()
        assert faults(lab, ".jp-Dialog") == []
