"""The JupyterLab extension's modules that need no page, and what its package says."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from exec_events import __version__

LAB_EXTENSION = Path(__file__).parents[2] / "labextension"


def test_modules_that_need_no_page() -> None:
    """The front end's own tests pass: what answers are read as, which mark a cell gets, when the server is asked."""
    done = subprocess.run(
        ["npm", "test", "--silent"], cwd=LAB_EXTENSION, capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\n# fail 0\n" in done.stdout


def test_its_version_is_the_packages() -> None:
    """The front end has the version of the Python package."""
    assert json.loads((LAB_EXTENSION / "package.json").read_text())["version"] == __version__


def test_the_lock_file_has_no_addresses() -> None:
    """No package of the lock file says where it was downloaded from, and each has its hash."""
    lock = json.loads((LAB_EXTENSION / "package-lock.json").read_text())
    packages = {name: one for name, one in lock["packages"].items() if name}
    assert len(packages) > 100
    assert [name for name, one in packages.items() if "resolved" in one] == []
    assert [name for name, one in packages.items() if "integrity" not in one] == []


def test_it_writes_no_html() -> None:
    """No module of the front end writes HTML: what servers and notebooks say is shown as text."""
    sources = "".join(path.read_text() for path in (LAB_EXTENSION / "src").iterdir())
    assert "innerHTML" not in sources
    assert "dangerouslySetInnerHTML" not in sources
