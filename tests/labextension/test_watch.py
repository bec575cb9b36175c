"""The front end's second terminal, as CONTRIBUTING.md has it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

REPOSITORY = Path(__file__).parents[2]
COMMAND = ["npm", "run", "watch"]
SECONDS = 90.0


def waits_for(text: str, bundle: Path, log: Path) -> None:
    """Until what JupyterLab would load has this text."""
    until = time.monotonic() + SECONDS
    while not any(text in file.read_text(errors="replace") for file in bundle.rglob("*.js")):
        assert time.monotonic() < until, log.read_text(errors="replace")[-4000:]
        time.sleep(0.3)


@pytest.mark.timeout(420)
def test_what_is_changed_is_in_the_bundle(tmp_path: Path) -> None:
    """While the documented command runs, a change of the sources arrives in what JupyterLab is shown, without another command."""
    assert f"cd labextension\n{' '.join(COMMAND)}\n" in (REPOSITORY / "CONTRIBUTING.md").read_text()
    modules = REPOSITORY / "labextension/node_modules"
    assert modules.is_dir(), "the extension's packages are not here; run make labextension"
    folder, bundle, log = tmp_path / "labextension", tmp_path / "exec_events/labextension", tmp_path / "log"
    # With what `make labextension` has built once, as the page says.
    shutil.copytree(REPOSITORY / "labextension", folder, ignore=shutil.ignore_patterns("node_modules"))
    (folder / "node_modules").symlink_to(modules)
    words = folder / "src/words.ts"
    with log.open("wb") as output:
        process = subprocess.Popen(COMMAND, cwd=folder, stdout=output, stderr=output, start_new_session=True)
    try:
        waits_for("exec-events", bundle, log)
        with words.open("a") as source:
            source.write("\nexport const CHANGED = 'changed while it is watched';\nconsole.debug(CHANGED);\n")
        waits_for("changed while it is watched", bundle, log)
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)
        _, alive = psutil.wait_procs([*family, process], timeout=10)
        for left in alive:
            left.kill()
        process.wait(10)
