"""The distribution as it is installed: built as a wheel, its files, license and entry point are there, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1]
MODULES = ("__init__", "board", "module", "notebooks", "page", "queries", "reducers")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built in isolation as pip does."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(FOLDER)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


def read(wheel: Path, name: str) -> str:
    """One of its files, by the end of its path."""
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (path for path in archive.namelist() if path.endswith(name))
        return archive.read(path).decode()


def test_it_holds_this_folder_and_no_more(wheel: Path) -> None:
    """In the wheel are this module's own files alone: no test, no file of the server it is for, none of the other license."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assets = ("assets/board.css", "assets/listen.js", "py.typed")
    assert names == {f"lo_exec_events/{name}" for name in (*(f"{module}.py" for module in MODULES), *assets)}


def test_license_is_the_servers(wheel: Path) -> None:
    """The metadata names AGPL-3.0-only, and its whole text is there."""
    metadata = Parser().parsestr(read(wheel, ".dist-info/METADATA"))
    assert metadata["License-Expression"] == "AGPL-3.0-only"
    text = read(wheel, "licenses/LICENSE")
    assert text.split("\n")[0].strip() == "GNU AFFERO GENERAL PUBLIC LICENSE"
    assert "13. Remote Network Interaction" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_server_is_no_requirement(wheel: Path) -> None:
    """It requires what registries have, which the server is not in, and names its module where the server looks."""
    metadata = Parser().parsestr(read(wheel, ".dist-info/METADATA"))
    assert metadata.get_all("Requires-Dist") == ["dash>=2.17", "exec-events>=0.1"]
    assert read(wheel, ".dist-info/entry_points.txt").split() == [
        "[lo_modules]",
        "lo_exec_events",
        "=",
        "lo_exec_events.module",
    ]


def test_the_rest_is_under_the_other_license() -> None:
    """The license at the root stays BSD, and the pages for users and contributors say which folder is not under it."""
    root = FOLDER.parents[1]
    assert "Redistribution and use in source and binary forms" in (root / "LICENSE").read_text()
    for page in ("README.md", "CONTRIBUTING.md"):
        text = (root / page).read_text()
        assert "integrations/learning_observer" in text
        assert "AGPL-3.0" in text
