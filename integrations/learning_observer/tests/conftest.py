"""What stands in the project's own tests, and in this folder's parent, is used here too; nothing passes without a server."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1]
REPOSITORY = FOLDER.parents[1]
sys.path += [str(FOLDER), *(str(REPOSITORY / "tests" / name) for name in ("", "consumers", "browser"))]

_NOT_RUN = pytest.StashKey[int]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests of a real server where LO_URL names none: that is neither a pass nor a failure."""
    live = [item for item in items if item.get_closest_marker("live_lo")] if not os.environ.get("LO_URL") else []
    if live:
        config.stash[_NOT_RUN] = len(live)
        config.hook.pytest_deselected(items=live)
        items[:] = [item for item in items if item not in live]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say how many were not run."""
    if not_run := config.stash.get(_NOT_RUN, 0):
        line = f"NOT RUN: {not_run} tests of a real Learning Observer server: LO_URL names none"
        terminalreporter.write_line(line, yellow=True)
