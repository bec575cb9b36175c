"""The JupyterLab extension as a person sees it: real JupyterLab, kernels and records, in Chromium."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import nbformat
import pytest
from lab_pages import RECORDED, WAIT_MS, LabPage, lab_page, write_notebook
from playwright.sync_api import Browser, Route, expect

from exec_events.testing import NotebookClient, Record, RunningServer, events, executions_of, records, wait_for_records

pytestmark = pytest.mark.timeout(300)
expect.set_options(timeout=WAIT_MS)

CELLS = ["6 * 7", "1 / 0", "print('text')"]


def executions(server: RunningServer) -> dict[str, Record]:
    """The last recorded execution of each cell."""
    found = [record for record in records(server.data_dir) if "/cell_execution/" in record["event"]["__schema__"]]
    return {record["event"]["cell_id"]: record for record in found if "cell_id" in record["event"]}


def run_elsewhere(server: RunningServer, notebook: str, cell_id: str, code: str) -> None:
    """Run a cell of a notebook without a page; in a thread, since this one's event loop is Playwright's."""

    async def run() -> None:
        async with NotebookClient(server, notebook=notebook) as client:
            assert (await client.execute(code, cell_id=cell_id)).status == "ok"

    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, run()).result(60)


def test_each_run_gets_its_mark(lab: LabPage, server: RunningServer) -> None:
    """The mark of each cell has the hashes, the number and the outcome that are in the record; a cell not run has none."""
    path = write_notebook(server, [*CELLS, "never()"])
    lab.open(server, f"lab/tree/{path.name}")
    for index in range(len(CELLS)):
        lab.run(index)
        expect(lab.mark(index)).to_have_attribute("data-kind", "recorded")
    last = executions(server)
    for index, cell in enumerate(nbformat.read(path, 4).cells[:3]):
        record = last[cell.id]
        text = lab.mark(index).inner_text()
        for name in ("code", "outputs"):
            assert f"{name} {record['event'][f'{name}_hash'].removeprefix('sha256:')[:8]}" in text
        assert f"no. {record['seal']['seq']}" in text
        assert ("ZeroDivisionError" in text) == (record["event"]["status"] == "error")
    expect(lab.mark(3)).to_have_count(0)
    lab.screenshot("lab-marks")


def test_marks_are_there_again(lab: LabPage, server: RunningServer) -> None:
    """A cell that another client ran has its mark when the page opens, and after a reload each has the mark it had."""
    path = write_notebook(server, [*CELLS, "other = 1"], "again.ipynb")
    run_elsewhere(server, path.name, nbformat.read(path, 4).cells[3].id, "other = 1")
    lab.open(server, f"lab/tree/{path.name}")
    expect(lab.mark(3)).to_contain_text(RECORDED)
    lab.run(0)
    lab.run(2)
    expect(lab.mark(0)).to_contain_text(RECORDED)
    expect(lab.mark(2)).to_contain_text(RECORDED)
    before = [lab.mark(index).inner_text() for index in (0, 2, 3)]
    lab.save()
    lab.reload()
    for index, text in zip((0, 2, 3), before, strict=True):
        expect(lab.mark(index)).to_have_text(text.replace("\n", ""))
    expect(lab.mark(1)).to_have_count(0)


def test_an_edited_cell_says_so(lab: LabPage, server: RunningServer) -> None:
    """A cell whose code is changed after its run says so, and says so no more when the change is taken back."""
    path = write_notebook(server, ["a = 1"], "edited.ipynb")
    lab.open(server, f"lab/tree/{path.name}")
    lab.run(0)
    expect(lab.mark(0)).to_contain_text(RECORDED)
    lab.cell(0).locator(".cm-content").click()
    lab.page.keyboard.type("234")
    expect(lab.mark(0)).to_contain_text("Edited since recorded")
    lab.screenshot("lab-edited")
    for _ in range(3):
        lab.page.keyboard.press("Backspace")
    expect(lab.mark(0)).to_have_attribute("data-kind", "recorded")
    assert lab.cell(0).locator(".cm-content").inner_text() == "a = 1"


def test_a_cell_that_runs_is_being_recorded(lab: LabPage, server: RunningServer) -> None:
    """While a cell runs its mark says that it is being recorded, in a tab that was opened meanwhile too."""
    source = "import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(.05)"
    path = write_notebook(server, [source], "runs.ipynb")
    lab.open(server, f"lab/tree/{path.name}")
    lab.run(0)
    expect(lab.mark(0)).to_have_attribute("data-kind", "recording")
    lab.page.reload()
    expect(lab.mark(0)).to_have_attribute("data-kind", "recording")
    (server.root_dir / "go").touch()
    expect(lab.mark(0)).to_contain_text(RECORDED)


def test_the_keyboard_suffices(lab: LabPage, server: RunningServer) -> None:
    """By keyboard alone the whole record of the selected cell is shown, copied and closed, and the notebook stays as it was."""
    path = write_notebook(server, ["6 * 7"], "keys.ipynb")
    lab.open(server, f"lab/tree/{path.name}")
    lab.run(0)
    expect(lab.mark(0)).to_contain_text(RECORDED)
    lab.command("Show the Record of the Selected Cell")
    button = lab.mark(0).locator("> button")
    expect(button).to_be_focused()
    expect(button).to_have_attribute("aria-expanded", "true")
    record = executions(server)[nbformat.read(path, 4).cells[0].id]
    facts = lab.page.locator(f"#{button.get_attribute('aria-controls')}")
    expect(facts).to_contain_text(record["hash"])
    lab.screenshot("lab-facts")
    lab.page.keyboard.press("Tab")
    lab.page.keyboard.press("Enter")
    expect(facts.get_by_role("status")).to_have_text("Copied.")
    copied = lab.page.evaluate("navigator.clipboard.readText()")
    for part in (
        record["hash"],
        record["seal"]["chain"],
        record["event"]["code_hash"],
        record["event"]["outputs_hash"],
    ):
        assert part in copied
    lab.page.keyboard.press("Escape")
    expect(button).to_be_focused()
    expect(button).to_have_attribute("aria-expanded", "false")
    lab.page.keyboard.press("Enter")
    expect(button).to_have_attribute("aria-expanded", "true")
    expect(lab.page.locator(".jp-Notebook .jp-Cell")).to_have_count(1)


def test_the_panel_tells_and_verifies(lab: LabPage, server: RunningServer) -> None:
    """The panel says what is collected as configured, lists new events by itself, and has a verdict on each cell."""
    path = write_notebook(server, [*CELLS, "never()"], "panel.ipynb")
    lab.open(server, f"lab/tree/{path.name}")
    lab.page.get_by_role("button", name="Recording").click()
    expect(lab.panel).to_contain_text("This site records everybody who runs code here.")
    expect(lab.panel).to_contain_text("Your code and its outputs: they cannot be read from a record.")
    for index in range(3):
        lab.run(index)
        expect(lab.mark(index)).to_contain_text(RECORDED)
    last = executions(server)
    ids = [cell.id for cell in nbformat.read(path, 4).cells]
    listed = lab.panel.locator(".jp-ExecEvents-events > li")
    expect(listed.first).to_contain_text(last[ids[2]]["hash"].removeprefix("sha256:")[:8])
    expect(listed.nth(1)).to_contain_text("ZeroDivisionError")
    lab.cell(0).locator(".cm-content").click()
    lab.page.keyboard.type(" # changed")
    lab.panel.get_by_role("button", name="Verify this notebook").click()
    verdicts = lab.panel.locator(".jp-ExecEvents-verdicts > li")
    expect(verdicts).to_have_count(4)
    results = [verdicts.nth(index).get_attribute("data-result") for index in range(4)]
    assert results == ["edited since", "recorded", "recorded", "never run here"]
    expect(lab.panel).to_contain_text("No record was changed.")
    lab.screenshot("lab-panel")
    verdicts.nth(3).get_by_role("button").focus()
    lab.page.keyboard.press("Enter")
    expect(lab.cell(3)).to_have_class(re.compile("jp-mod-active"))
    lab.command("Theme: JupyterLab Dark")
    expect(lab.page.locator("body")).to_have_attribute("data-jp-theme-light", "false")
    expect(lab.page.locator(".jp-splash, #jupyterlab-splash")).to_have_count(0)
    lab.screenshot("lab-dark")


def test_consent_is_asked_for_given_and_withdrawn(browser: Browser) -> None:
    """Nothing is recorded before yes and after withdrawing, the marks say so, and both decisions are in the record."""
    text = "We study how people mend mistakes.\\n\\nYou may say no; nothing follows from it."
    config = f"c.ExecEvents.mode = 'consent'\nc.ExecEvents.consent_version = '3'\nc.ExecEvents.consent_text = '{text}'"
    with RunningServer(application="lab", config=config) as server, lab_page(browser) as lab:
        path = write_notebook(server, ["first = 1", "second = 2", "third = 3"])
        lab.come_in(server, f"lab/tree/{path.name}")
        dialog = lab.page.get_by_role("dialog")
        expect(dialog).to_contain_text("We study how people mend mistakes.")
        expect(dialog).to_contain_text("Version of this text: 3")
        lab.screenshot("lab-consent")
        # Who presses Enter without reading has not agreed.
        lab.page.keyboard.press("Enter")
        lab.wait_until_ready()
        lab.run(0)
        expect(lab.mark(0)).to_contain_text("Not recorded")
        expect(lab.mark(0)).to_contain_text("you have not agreed to being recorded")
        lab.page.get_by_role("button", name="Not recording").click()
        lab.panel.get_by_role("button", name="Read what would be recorded, and decide").click()
        lab.page.get_by_role("dialog").get_by_role("button", name="Yes, record what I run").click()
        expect(lab.panel).to_contain_text("You agreed to this (text 3).")
        lab.run(1)
        expect(lab.mark(1)).to_contain_text(RECORDED)
        lab.panel.get_by_role("button", name="Withdraw").click()
        expect(lab.panel).to_contain_text("Nothing is recorded: you have not agreed to it.")
        lab.run(2)
        expect(lab.mark(2)).to_contain_text("Not recorded")
        lab.screenshot("lab-withdrawn")
        ids = [cell.id for cell in nbformat.read(path, 4).cells]
        seen = [event["cell_id"] for event in events(server.data_dir, "cell_execution") if "cell_id" in event]
        assert seen == [ids[1]]
        decisions = [(event["action"], event["text_version"]) for event in events(server.data_dir, "consent")]
        assert decisions == [("given", "3"), ("withdrawn", "3")]


def test_a_no_is_not_asked_again(browser: Browser) -> None:
    """Who has said no is not asked again by the next page, and nothing of theirs is in the record."""
    with (
        RunningServer(application="lab", config="c.ExecEvents.mode = 'consent'") as server,
        lab_page(browser) as lab,
    ):
        path = write_notebook(server, ["1 + 1"])
        lab.come_in(server, f"lab/tree/{path.name}")
        lab.page.get_by_role("button", name="No, record nothing").click()
        expect(lab.page.get_by_role("dialog")).to_have_count(0)
        lab.reload()
        lab.run(0)
        expect(lab.mark(0)).to_contain_text("Not recorded")
        expect(lab.page.get_by_role("dialog")).to_have_count(0)
        assert events(server.data_dir, "cell_execution") == []


def test_a_server_without_the_recorder_is_left_alone(browser: Browser) -> None:
    """On a server without the recorder cells run, nothing of the extension shows, and it asked once."""
    with RunningServer(application="lab", recorder=False) as server, lab_page(browser) as lab:
        path = write_notebook(server, CELLS)
        lab.open(server, f"lab/tree/{path.name}")
        for index in range(3):
            lab.run(index)
            expect(lab.cell(index).locator(".jp-InputPrompt")).to_have_text(f"[{index + 1}]:")
        expect(lab.cell(0).locator(".jp-OutputArea-output").last).to_have_text("42")
        assert lab.asked == ["GET policy"]
        expect(lab.page.locator("[class*=jp-ExecEvents]:visible")).to_have_count(0)
        expect(lab.page.get_by_role("dialog")).to_have_count(0)
        # That one answer of 404 is the browser's to log, and all that is.
        assert [text for text in lab.wrong if "404" not in text] == []
        lab.wrong.clear()


@pytest.mark.parametrize("fault", ["refuses", "breaks", "hangs", "talks nonsense"])
def test_a_recorder_in_trouble_does_not_disturb(browser: Browser, server: RunningServer, fault: str) -> None:
    """While the recorder's routes are cut off, fail, hang or answer nonsense, cells run and edit as ever; it is asked seldom, and found again."""

    def fail(route: Route) -> None:
        if fault == "refuses":
            route.abort()
        elif fault == "breaks":
            route.fulfill(status=500, body="<html>it broke</html>")
        elif fault == "talks nonsense":
            route.fulfill(json={"cells": [None], "policy": {"mode": 7}, "events": {}})

    with lab_page(browser) as lab:
        path = write_notebook(server, CELLS, f"{fault.replace(' ', '-')}.ipynb")
        lab.open(server, f"lab/tree/{path.name}")
        lab.run(0)
        expect(lab.mark(0)).to_contain_text(RECORDED)
        lab.page.route("**/exec-events/*", fail)
        lab.asked.clear()
        for index in (1, 2):
            lab.run(index)
            expect(lab.cell(index).locator(".jp-InputPrompt")).to_have_text(f"[{index + 1}]:")
        lab.cell(0).locator(".cm-content").click()
        lab.page.keyboard.type(" + 123456789", delay=20)
        expect(lab.cell(0).locator(".cm-content")).to_have_text("6 * 7 + 123456789")
        expect(lab.page.get_by_role("button", name="Recorder unreachable")).to_be_visible(timeout=60_000)
        expect(lab.mark(2)).to_contain_text("Record unknown")
        assert len(lab.asked) < 12, lab.asked
        lab.screenshot(f"lab-{fault.replace(' ', '-')}")
        lab.page.unroute("**/exec-events/*")
        expect(lab.mark(2)).to_contain_text(RECORDED, timeout=90_000)
        expect(lab.mark(0)).to_have_attribute("data-kind", "edited", timeout=90_000)
        # A request that was cut off is the browser's to log.
        lab.wrong = [text for text in lab.wrong if "Failed to load resource" not in text]


def test_actions_are_sent_where_the_site_wants_them(browser: Browser) -> None:
    """Where the site switched it on, opening, adding, saving and closing are in the record, in order, as the browser's word."""
    with (
        RunningServer(application="lab", config="c.ExecEvents.actions = True") as server,
        lab_page(browser) as lab,
    ):
        path = write_notebook(server, ["1 + 1"])
        lab.open(server, f"lab/tree/{path.name}")
        wait_for_records(server.data_dir, actions_include("opened", "visible"))
        lab.cell(0).locator(".jp-InputPrompt").click()
        lab.page.keyboard.press("b")
        lab.save()
        wait_for_records(server.data_dir, actions_include("cell_added", "saved"))
        lab.page.locator(".lm-TabBar-tabCloseIcon").first.click()
        wait_for_records(server.data_dir, actions_include("closed"))
        sent = events(server.data_dir, "notebook_action")
        names = [event["action"] for event in sent]
        assert [name for name in names if name in ("opened", "cell_added", "saved", "closed")] == [
            "opened",
            "cell_added",
            "saved",
            "closed",
        ]
        assert {event["trust"] for event in sent} == {"browser"}


def actions_include(*names: str) -> Callable[[list[Record]], bool]:
    """A predicate for `wait_for_records`: there are notebook actions of these names."""

    def there(found: list[Record]) -> bool:
        return set(names) <= {record["event"].get("action") for record in found}

    return there


def test_actions_are_not_sent_otherwise(lab: LabPage, server: RunningServer) -> None:
    """Where the site did not switch it on, the page posts no event."""
    posted: list[str] = []
    lab.page.on("request", lambda request: posted.append(request.url) if "/api/events" in request.url else None)
    path = write_notebook(server, ["1 + 1"], "quiet.ipynb")
    lab.open(server, f"lab/tree/{path.name}")
    lab.run(0)
    expect(lab.mark(0)).to_contain_text(RECORDED)
    lab.cell(0).locator(".jp-InputPrompt").click()
    lab.page.keyboard.press("b")
    lab.save()
    assert [url for url in posted if "subscribe" not in url] == []


def test_notebook_7_has_it_too(browser: Browser) -> None:
    """In Notebook 7 cells get their marks, and the panel opens from the palette."""
    with RunningServer(application="notebook") as server, lab_page(browser) as lab:
        path = write_notebook(server, CELLS)
        lab.open(server, f"notebooks/{path.name}")
        lab.run(0)
        expect(lab.mark(0)).to_contain_text(RECORDED)
        lab.command("Show What Is Recorded")
        expect(lab.panel).to_contain_text("What you run is recorded.")
        lab.screenshot("notebook-7")
        wait_for_records(server.data_dir, executions_of(1))


def test_a_move_keeps_the_mark_and_a_setting_hides_all(lab: LabPage, server: RunningServer) -> None:
    """A cell that is moved keeps its mark; marks are signs alone, or gone, where the person set that."""
    path = write_notebook(server, ["one = 1", "two = 2"], "moved.ipynb")
    lab.open(server, f"lab/tree/{path.name}")
    lab.run(0)
    expect(lab.mark(0)).to_contain_text(RECORDED)
    lab.cell(0).locator(".jp-InputPrompt").click()
    lab.page.keyboard.press("Control+Shift+ArrowDown")
    expect(lab.cell(1).locator(".cm-content")).to_have_text("one = 1")
    expect(lab.mark(1)).to_contain_text(RECORDED)
    settings = "/lab/api/settings/exec-events:marks"
    server.rest("PUT", settings, {"raw": '{"show": "off"}'})
    lab.page.reload()
    expect(lab.page.locator("body")).to_have_attribute("data-exec-events-marks", "off")
    lab.wait_until_ready()
    expect(lab.page.locator(".jp-ExecEvents-mark:visible")).to_have_count(0)
    server.rest("PUT", settings, {"raw": "{}"})
