"""JupyterLab in a tab, as a person uses it: open a notebook, run and edit cells, read their marks."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import nbformat
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request

from exec_events.testing import RunningServer

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
START_MS = 60_000
WAIT_MS = 20_000
# A mark that says all of a record.
RECORDED = re.compile("Recorded.*code [0-9a-f]{8}.*no. [0-9]+")


def write_notebook(server: RunningServer, sources: Sequence[str], name: str = "first.ipynb") -> Path:
    """A notebook of code cells that were not run, in the server's folder."""
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_code_cell(source) for source in sources]
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = server.root_dir / name
    nbformat.write(notebook, path)
    return path


class LabPage:
    """A tab of JupyterLab (or Notebook 7), and what went wrong in it that is the extension's."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.server: RunningServer | None = None
        self.asked: list[str] = []
        self.wrong: list[str] = []
        page.on("request", self._requested)
        page.on("console", self._logged)
        page.on("pageerror", lambda error: self._note(f"{error}\n{error.stack}"))

    def open(self, server: RunningServer, path: str) -> None:
        """Come in by the URL with the token, and wait until the notebook can be run."""
        self.come_in(server, path)
        self.wait_until_ready()

    def come_in(self, server: RunningServer, path: str) -> None:
        """Come in by the URL with the token."""
        self.server = server
        # Without the notebooks that another test left open.
        self.page.goto(f"{server.url}{path}?reset&token={server.token}", timeout=START_MS)

    def wait_until_ready(self) -> None:
        """Wait until the notebook is there, and the page is connected to an idle kernel."""
        self.page.locator(".jp-Notebook .jp-CodeCell").first.wait_for(timeout=START_MS)
        name = self.page.url.partition("?")[0].rpartition("/")[2]
        deadline = time.monotonic() + START_MS / 1000
        while not self._is_connected(name):
            assert time.monotonic() < deadline, f"no kernel for {name}"
            self.page.wait_for_timeout(100)

    def _is_connected(self, name: str) -> bool:
        assert self.server is not None
        kernels = [one["kernel"] for one in self.server.rest("GET", "/api/sessions") if one["path"] == name]
        return any(kernel["connections"] and kernel["execution_state"] == "idle" for kernel in kernels)

    def reload(self) -> None:
        """Load the page anew."""
        self.page.reload(timeout=START_MS)
        self.wait_until_ready()

    def cell(self, index: int) -> Locator:
        """The cell at ``index``, all of it."""
        return self.page.locator(".jp-Notebook .jp-CodeCell").nth(index)

    def mark(self, index: int) -> Locator:
        """The mark of the cell at ``index``."""
        return self.cell(index).locator(".jp-ExecEvents-mark")

    def run(self, index: int) -> None:
        """Run the cell at ``index``, and stay on it."""
        self.cell(index).locator(".cm-content").click()
        self.page.keyboard.press("Control+Enter")

    def run_all(self) -> None:
        """Run all cells, from the menu."""
        self.command("Run All Cells")

    def command(self, label: str) -> None:
        """Choose a command in the palette."""
        self.page.keyboard.press("Escape")
        self.page.keyboard.press("Control+Shift+C")
        search = self.page.locator(".lm-CommandPalette-input")
        search.fill(label)
        self.page.locator(".lm-CommandPalette-item").filter(has_text=label).first.click()

    def save(self) -> None:
        """Save the notebook, and wait until the server has it."""
        with self.page.expect_response(
            lambda answer: "/api/contents/" in answer.url and answer.request.method == "PUT"
        ):
            self.page.keyboard.press("Control+s")

    @property
    def panel(self) -> Locator:
        """The side panel."""
        return self.page.locator("#exec-events-panel")

    def screenshot(self, name: str) -> None:
        """Keep what is to be seen now in build/screenshots."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png")

    def _requested(self, request: Request) -> None:
        if "/exec-events/" in request.url and "/static/" not in request.url:
            self.asked.append(f"{request.method} {request.url.partition('/exec-events/')[2].partition('?')[0]}")

    def _logged(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self._note(f"{message.text} {message.location.get('url', '')}")

    def _note(self, text: str) -> None:
        # JupyterLab and other extensions have warnings of their own.
        if "exec-events" in text:
            self.wrong.append(text)


@contextmanager
def lab_page(browser: Browser) -> Iterator[LabPage]:
    """A tab of its own; nothing of the extension's may have gone wrong in it at the end."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.set_default_timeout(WAIT_MS)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    try:
        lab = LabPage(context.new_page())
        yield lab
    finally:
        context.close()
    assert lab.wrong == []
