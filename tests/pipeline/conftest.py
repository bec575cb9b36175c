"""Takes out the tests of a real Learning Observer server where there is none, and says so."""

from __future__ import annotations

import os
from collections import Counter

import pytest

_NOT_RUN = pytest.StashKey[Counter[str]]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect what cannot be asked of a real server: it would not be a pass, nor a failure."""
    why = {item: reason for item in items if (reason := _missing(item))}
    if why:
        config.stash[_NOT_RUN] = Counter(why.values())
        config.hook.pytest_deselected(items=list(why))
        items[:] = [item for item in items if item not in why]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """A line for each reason."""
    for reason, tests in config.stash.get(_NOT_RUN, Counter()).items():
        terminalreporter.write_line(f"NOT RUN: {tests} tests of a real Learning Observer server: {reason}", yellow=True)


def _missing(item: pytest.Item) -> str | None:
    """What a test of a real server lacks."""
    if item.get_closest_marker("live_lo") is None:
        return None
    if not os.environ.get("LO_URL"):
        return "LO_URL names none"
    marker = item.get_closest_marker("configured")
    if marker is None or marker.args[0] in os.environ.get("LO_HAS", "").split(","):
        return None
    return f"LO_HAS does not say that it has {marker.args[0]!r}"
