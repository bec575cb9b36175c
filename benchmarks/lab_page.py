"""The JupyterLab extension in a notebook of 500 cells: how long its work holds up the page, beside one without it."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import nbformat
from playwright.async_api import Page, async_playwright

from exec_events.testing import RunningServer

from .figures import Figure
from .fleet import progress

CELLS = 500
LONG_MS = 50.0
KEYS = 100
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run"]

# Of each long frame the longest run of the extension's own code; each long task, whoever's.
OBSERVE = """
window.seen = {ours: [], long: []};
new PerformanceObserver(list => {
  for (const frame of list.getEntries()) {
    const ours = frame.scripts.filter(script => script.sourceURL.includes('/exec-events/static/'));
    window.seen.ours.push(...ours.map(script => script.duration));
  }
}).observe({type: 'long-animation-frame', buffered: true});
new PerformanceObserver(list => {
  for (const task of list.getEntries()) window.seen.long.push(task.duration);
}).observe({type: 'longtask', buffered: true});
"""
MARKS = ".jp-ExecEvents-mark"


async def measure(quick: bool) -> list[Figure]:
    """Open, type and run all, with the extension and without, in turns."""
    cells, rounds = (100, 1) if quick else (CELLS, 4)
    seen: dict[bool, list[dict[str, list[float]]]] = {True: [], False: []}
    async with RunningServer(application="lab") as server, async_playwright() as playwright:
        program = shutil.which("chromium") or shutil.which("google-chrome")
        browser = await playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        try:
            for turn in range(rounds):
                for with_extension in (turn % 2 == 0, turn % 2 == 1):
                    page = await (await browser.new_context()).new_page()
                    name = f"{turn}-{with_extension}.ipynb"
                    write_notebook(server.root_dir / name, cells)
                    seen[with_extension] += await use(page, server, name, cells, with_extension)
                    await page.context.close()
                    progress(f"lab-page {turn + 1}/{rounds}: {'with' if with_extension else 'without'}")
        finally:
            await browser.close()
    ours = [duration for one in seen[True] for duration in one["ours"]]
    figures = [
        Figure(
            "longest run of the extension's own code in a long frame, 500 cells",
            max(ours, default=0),
            "ms",
            LONG_MS,
            "at most",
        ),
    ]
    for with_extension, each in seen.items():
        tasks = [duration for one in each for duration in one["long"]]
        label = "with" if with_extension else "without"
        note = f"longest {max(tasks, default=0):.0f} ms"
        figures.append(Figure(f"long tasks of the page {label} it, a round", len(tasks) / rounds, note=note))
    return figures


def write_notebook(path: Path, cells: int) -> None:
    """A notebook of many cells that were not run."""
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(f"value = {number}\nvalue") for number in range(cells)]
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)


async def use(
    page: Page, server: RunningServer, name: str, cells: int, with_extension: bool
) -> list[dict[str, list[float]]]:
    """Run all cells and type, then load the page anew and scroll; what was seen in both."""
    page.set_default_timeout(120_000)
    await page.add_init_script(OBSERVE)
    if not with_extension:
        await page.route("**/extensions/exec-events/**", lambda route: route.abort())
    await page.goto(f"{server.url}lab/tree/{name}?reset&token={server.token}")
    await page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    await connected(server, name)
    await command(page, "Run All Cells")
    await ran(page, server, name)
    await page.locator(".jp-Notebook .jp-CodeCell .cm-content:visible").last.click()
    await page.keyboard.type("x" * KEYS, delay=20)
    await asyncio.sleep(3)
    if with_extension:
        await page.locator(MARKS).first.wait_for()
    async with page.expect_response(lambda answer: answer.request.method == "PUT" and "/contents/" in answer.url):
        await page.keyboard.press("Control+s")
    found: list[Any] = [await page.evaluate("window.seen")]
    await page.reload()
    await page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    if with_extension:
        await page.locator(MARKS).first.wait_for()
    await page.locator(".jp-Notebook .jp-CodeCell").first.hover()
    for _ in range(40):
        await page.mouse.wheel(0, 1000)
        await asyncio.sleep(0.1)
    await asyncio.sleep(2)
    return [*found, await page.evaluate("window.seen")]


async def command(page: Page, label: str) -> None:
    """Choose a command in the palette."""
    await page.keyboard.press("Control+Shift+C")
    await page.locator(".lm-CommandPalette-input").fill(label)
    await page.locator(".lm-CommandPalette-item").filter(has_text=label).first.click()


async def connected(server: RunningServer, name: str) -> None:
    """Wait until the page is connected to an idle kernel."""
    while not any(kernel["connections"] and kernel["execution_state"] == "idle" for kernel in kernels(server, name)):
        await asyncio.sleep(0.1)


async def ran(page: Page, server: RunningServer, name: str) -> None:
    """Wait until the kernel has been idle for a while."""
    quiet = 0
    while quiet < 20:
        await page.wait_for_timeout(100)
        quiet = quiet + 1 if all(kernel["execution_state"] == "idle" for kernel in kernels(server, name)) else 0


def kernels(server: RunningServer, name: str) -> list[dict[str, Any]]:
    """The kernels of a notebook."""
    return [session["kernel"] for session in server.rest("GET", "/api/sessions") if session["path"] == name]
