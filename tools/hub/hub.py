"""Settings in, a running Hub out, with all that belongs to it; and nothing of it left after its end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path

from . import orphans
from .errors import HubError
from .place import CONFIG, LOCAL_CONFIG, PROXY, Place

START_SECONDS = 120.0
STOP_SECONDS = 60.0
HOST = "127.0.0.1"


def settings(
    place: Place, *, port: int, authenticator: str, users: Iterable[str], readers: Iterable[str], more: Iterable[Path]
) -> dict[str, str]:
    """What docker/jupyterhub_config.py reads."""
    hub, proxy_api, dashboard = free_ports(3)
    return {
        "EXEC_EVENTS_HUB_STATE": str(place.state),
        "EXEC_EVENTS_HUB_AUTHENTICATOR": authenticator,
        "EXEC_EVENTS_HUB_USERS": " ".join(users),
        "EXEC_EVENTS_HUB_DASHBOARD_USERS": " ".join(readers),
        "EXEC_EVENTS_HUB_PYTHON": str(place.python),
        "EXEC_EVENTS_HUB_STORE": place.store,
        "EXEC_EVENTS_HUB_SOURCE": f"spools://{place.records}",
        "EXEC_EVENTS_HUB_DASHBOARD_URL": f"http://{HOST}:{dashboard}",
        "EXEC_EVENTS_HUB_CONFIG": os.pathsep.join(map(str, (LOCAL_CONFIG, *more))),
        "EXEC_EVENTS_HUB_BIND_URL": f"http://{HOST}:{port}",
        "EXEC_EVENTS_HUB_HUB_URL": f"http://{HOST}:{hub}",
        "EXEC_EVENTS_HUB_PROXY_API_URL": f"http://{HOST}:{proxy_api}",
        "EXEC_EVENTS_HUB_PROXY_COMMAND": str(PROXY),
        "EXEC_EVENTS_HUB_RECORDS": str(place.records),
        "EXEC_EVENTS_HUB_KEYS": str(place.keys),
    }


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server((HOST, 0))) for _ in range(count)]
        return [int(each.getsockname()[1]) for each in sockets]


def is_free(port: int) -> bool:
    """Whether nobody listens on a port."""
    with contextlib.suppress(OSError), socket.create_server((HOST, port)):
        return True
    return False


def running(place: Place) -> int | None:
    """The process of a Hub that runs on this folder already."""
    with contextlib.suppress(OSError, ValueError):
        pid = int((place.state / "jupyterhub.pid").read_text())
        os.kill(pid, 0)
        return pid
    return None


def bring_up_to_date(place: Place, source: str) -> None:
    """Make the tables, or take in what was recorded while nobody aggregated."""
    aggregate = [str(place.python), "-I", "-m", "exec_events", "aggregate", "--once"]
    command = [*aggregate, "--from", source, "--store", place.store]
    if subprocess.run(command, cwd=place.state, check=False, umask=0o077, stdout=subprocess.DEVNULL).returncode:
        raise HubError("the tables could not be made; the reason is above")


class Hub:
    """One Hub, its proxy, its services and its users' servers: ``with`` starts it and ends all of it."""

    def __init__(self, place: Place, environment: Mapping[str, str]) -> None:
        self._place = place
        self._environment = environment
        self._url = environment["EXEC_EVENTS_HUB_BIND_URL"]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Hub:
        orphans.adopt()
        # What happens to be set here is not the Hub's, and its users' still less.
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "HOME", "TMPDIR") if name in os.environ}
        with os.fdopen(os.open(self._place.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as log:
            self._process = subprocess.Popen(
                [str(self._place.python), "-I", "-m", "jupyterhub", "-f", str(CONFIG)],
                cwd=self._place.state,
                env={**kept, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=0o077,
            )
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._process is not None
        # A second Ctrl-C must not leave half of it running.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
            orphans.end()
        finally:
            signal.signal(signal.SIGINT, before)

    def wait_until_ready(self) -> None:
        """Until Hub and dashboard answer; raises HubError with the end of the log where they do not."""
        until = time.monotonic() + START_SECONDS
        for path in ("/hub/api/", "/services/exec-events/"):
            while not _answers(f"{self._url}{path}"):
                self.check()
                if time.monotonic() > until:
                    raise HubError(f"{path} does not answer. {self.last_words()}")
                time.sleep(0.3)

    def check(self) -> None:
        """Raise HubError where the Hub has ended."""
        assert self._process is not None
        if self._process.poll() is not None:
            raise HubError(f"the Hub ended by itself. {self.last_words()}")

    def last_words(self) -> str:
        """The end of its log."""
        text = self._place.log.read_text(errors="replace")
        return f"Its log is {self._place.log}, and ends with\n\n{text[-3000:]}"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:  # type: ignore[override]
        return None


def _answers(url: str) -> bool:
    """Whether somebody answers there, be it that one has to log in first."""
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect).open(url, timeout=5) as answer:
            json.load(answer)
            return True
    except urllib.error.HTTPError as error:
        return error.code < 400
    except (OSError, ValueError):
        return False
