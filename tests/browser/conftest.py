"""A real Chromium, and a dashboard of runs that were made up for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

# What stands beside the consumers' tests is theirs too.
sys.path.append(str(Path(__file__).parents[1] / "consumers"))

from chromium import launched
from lab_pages import LabPage, lab_page

from exec_events.testing import RunningServer


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without a window; for one module, since Playwright keeps an event loop running meanwhile."""
    with sync_playwright() as playwright, launched(playwright) as one:
        yield one


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """JupyterLab with the recorder, in mode audit."""
    with RunningServer(application="lab") as one:
        yield one


@pytest.fixture
def lab(browser: Browser) -> Iterator[LabPage]:
    """A new tab."""
    with lab_page(browser) as one:
        yield one
