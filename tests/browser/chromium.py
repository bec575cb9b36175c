"""The browser the tests and the screenshot use: the distribution's, not one that is downloaded."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Playwright

_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
_NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def launched(playwright: Playwright) -> Iterator[Browser]:
    """A browser that is closed at the end; raises FileNotFoundError where there is none."""
    program = next((found for name in _NAMES if (found := shutil.which(name))), None)
    if program is None:
        raise FileNotFoundError("there is no Chromium here: apt-get install chromium")
    browser = playwright.chromium.launch(executable_path=program, args=list(_ARGUMENTS), timeout=30_000)
    try:
        yield browser
    finally:
        browser.close()
