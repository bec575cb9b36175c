"""Dashboards as people start them: a process of its own, and who asks it for pages."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx

START_SECONDS = 30.0
STOP_SECONDS = 15.0
SECRET = "not-to-be-shown-anywhere"


class Running:
    """A process that serves a dashboard; ``url`` as it printed it, with the token."""

    def __init__(self, process: subprocess.Popen[str], url: str, folder: Path) -> None:
        self.process = process
        self.url = url
        self.token = parse_qs(urlsplit(url).query)["token"][0]
        self.base = url.partition("?")[0]
        self._folder = folder

    def get(self, path: str = "", **query: str) -> httpx.Response:
        """A page, as whoever has the token."""
        headers = {"authorization": f"Bearer {self.token}"}
        return httpx.get(f"{self.base}{path}{'?' if query else ''}{urlencode(query)}", headers=headers, timeout=20)

    def figures(self, path: str = "", **query: str) -> Any:
        """A page's figures."""
        answer = self.get(path, **query, format="json")
        assert answer.status_code == 200, answer.text
        return answer.json()

    @property
    def errors(self) -> str:
        """What it has said on standard error."""
        return (self._folder / "stderr").read_text()

    def end(self, number: signal.Signals = signal.SIGINT) -> tuple[int, str]:
        """End it as Ctrl-C does: what it ended with, and what else it printed."""
        self.process.send_signal(number)
        rest, _ = self.process.communicate(timeout=STOP_SECONDS)
        return self.process.returncode, rest


@contextmanager
def running(folder: Path, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Iterator[Running]:
    """``exec-events`` with these arguments, until the end of the block; its data in ``folder``."""
    command = [sys.executable, "-m", "exec_events", *arguments]
    more = {"JUPYTER_DATA_DIR": str(folder / "data"), "SOME_SECRET": SECRET, "PYTHONUNBUFFERED": "1"}
    with (folder / "stderr").open("w") as stderr:
        process = subprocess.Popen(
            command,
            env={**os.environ, **more, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=folder,
        )
    timer = threading.Timer(START_SECONDS, process.kill)
    timer.start()
    try:
        assert process.stdout is not None
        url = next((found[0] for line in process.stdout if (found := re.search(r"http://\S+", line))), None)
        timer.cancel()
        assert url is not None, (folder / "stderr").read_text()
        yield Running(process, url, folder)
    finally:
        timer.cancel()
        if process.poll() is None:
            process.kill()
        process.wait(STOP_SECONDS)
        assert process.stdout is not None
        process.stdout.close()


def first_messages(lines: Iterator[str]) -> Iterator[Any]:
    """The JSON of each message of a stream of server-sent events."""
    return (json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: "))
