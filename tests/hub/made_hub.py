"""A Hub as `make hub` starts it: with two accounts of this machine, which are gone again at the end."""

from __future__ import annotations

import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from hub_people import Person

from tools.hub import accounts
from tools.hub.hub import free_ports

REPOSITORY = Path(__file__).parents[2]
SCREENSHOTS = REPOSITORY / "build" / "screenshots"
START_SECONDS = 180.0
STOP_SECONDS = 90.0


@dataclass
class Site:
    """A Hub that runs, what it printed, and its people."""

    url: str
    folder: Path
    printed: str
    process: subprocess.Popen[str]
    passwords: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, str]:
        """The first, who sees the dashboard, and the second."""
        first, second = self.passwords
        return first, second

    @property
    def dashboard(self) -> str:
        """Its pages."""
        return f"{self.url}/services/exec-events/"

    @property
    def log(self) -> str:
        """All the Hub has said."""
        return (self.folder / "state/hub.log").read_text(errors="replace")

    def person(self, number: int) -> Person:
        """One of its people."""
        name = self.names[number]
        return Person(self.url, name, self.passwords[name])

    def spool(self, name: str) -> Path:
        """Where somebody's records are."""
        return self.folder / "records" / name

    def arguments(self) -> list[str]:
        """What those were started with that have not ended."""
        return [" ".join(process.info["cmdline"]) for process in self.processes() if process.info["cmdline"]]

    def processes(self) -> list[psutil.Process]:
        """All that belong to it: what its people run, and what runs of its software or on its folder."""
        found = []
        for process in psutil.process_iter(["username", "cmdline"]):
            about = process.info
            is_theirs = about["username"] in self.passwords
            if is_theirs or str(self.folder) in " ".join(about["cmdline"] or ()):
                found.append(process)
        return found


@contextmanager
def started(installed: Path, *more: str) -> Iterator[Site]:
    """``make hub`` with two new accounts, until the end of the block, which is Ctrl-C's."""
    # Not pytest's own folder, which is root's alone.
    folder = Path(tempfile.mkdtemp(prefix="exec-events-hub-"))
    folder.chmod(0o755)
    (folder / "venv").symlink_to(installed)
    names = [f"{name}{secrets.token_hex(3)}" for name in ("ada", "ben")]
    arguments = [f"USERS={' '.join(names)}", f"ARGS=--folder {folder} {' '.join(more)}"]
    try:
        with running(folder, ["make", "hub", *arguments], REPOSITORY) as site:
            yield site
    finally:
        for name in names:
            for left in psutil.process_iter(["username"]):
                if left.info["username"] == name:
                    left.kill()
        accounts.remove_made(folder)
        assert not {one.pw_name for one in pwd.getpwall()} & set(names)
        shutil.rmtree(folder)


@contextmanager
def running(folder: Path, command: Sequence[str], checkout: Path) -> Iterator[Site]:
    """What that command of `make hub` for that folder starts, until the end of the block."""
    (port,) = free_ports(1)
    with tempfile.NamedTemporaryFile() as printed:
        process = subprocess.Popen(
            [*command, f"PORT={port}"],
            cwd=checkout,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
        )
        output = Path(printed.name)
        try:
            until = time.monotonic() + START_SECONDS
            while "Ctrl-C ends" not in output.read_text():
                assert process.poll() is None, output.read_text()
                assert time.monotonic() < until, output.read_text()
                time.sleep(0.2)
            text = output.read_text()
            passwords = dict(re.findall(r"^password of (\w+): (\S+)$", text, re.MULTILINE))
            yield Site(f"http://127.0.0.1:{port}", folder, text, process, passwords)
        finally:
            stop(process)


def stop(process: subprocess.Popen[str]) -> int:
    """Ctrl-C in the terminal it was started in."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)
    try:
        return process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        return process.wait(10)
