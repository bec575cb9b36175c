"""Software of a Hub for the tests that start one, and one Hub for those that leave it as it was."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# The browser is that of the pages' tests, and the logs are the consumers'.
sys.path += [str(Path(__file__).parents[1] / name) for name in ("browser", "consumers")]

from made_hub import Site, started

from tools.hub import software
from tools.hub.place import FOLDER_OF_ROOT

# Built once for all tests, and used again while the checkout is the same.
SOFTWARE = FOLDER_OF_ROOT.with_name("exec-events-hub-tests")


@pytest.fixture(scope="session")
def installed() -> Path:
    """The software of a Hub, in a place where every account gets to."""
    assert os.getuid() == 0, "accounts of this machine are made and logged in to, which takes root"
    SOFTWARE.mkdir(mode=0o755, exist_ok=True)
    about = SOFTWARE.stat()
    assert about.st_uid == 0
    assert not stat.S_IMODE(about.st_mode) & 0o022
    software.install(SOFTWARE / "venv", print)
    return SOFTWARE / "venv"


@pytest.fixture(scope="session")
def site(installed: Path) -> Iterator[Site]:
    """One Hub for every test that leaves it as it was."""
    with started(installed) as one:
        yield one
