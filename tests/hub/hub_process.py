"""A real JupyterHub with its real proxy, as a configuration has it: started, asked over its API, and ended."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import psutil

from tools.hub.hub import free_ports
from tools.hub.place import PROXY

START_SECONDS = 90.0
STOP_SECONDS = 60.0

# What a test adds comes before, and may set the services, roles and the environment that this adds to.
CONFIG = """
c.JupyterHub.bind_url = "http://127.0.0.1:{public}"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{hub}"
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{proxy_api}"
c.ConfigurableHTTPProxy.auth_token = {proxy_token!r}
c.ConfigurableHTTPProxy.command = [{proxy!r}]
c.JupyterHub.authenticator_class = "firstuse"
c.FirstUseAuthenticator.dbm_path = {passwords!r}
c.Authenticator.allowed_users = {users!r}
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = {home!r}
c.Spawner.cmd = [{python!r}, "-m", "jupyterhub.singleuser"]
c.Spawner.environment.update({{"JUPYTERHUB_SINGLEUSER_APP": "jupyter_server.serverapp.ServerApp"}})
c.Spawner.start_timeout = 60
c.Spawner.http_timeout = 60
c.JupyterHub.services.append({{"name": "test", "api_token": {token!r}}})
c.JupyterHub.load_roles.append(
    {{"name": "test", "services": ["test"], "scopes": ["admin:users", "admin:servers", "servers"]}}
)
"""


class Speaks(Protocol):
    """What has a log."""

    @property
    def log(self) -> str:
        """All it has said."""


class Hub:
    """A hub that runs, and its REST API."""

    def __init__(self, url: str, token: str, log: Path, process: subprocess.Popen[bytes]) -> None:
        self.url = url
        self.token = token
        self._log = log
        self.process = process

    @property
    def log(self) -> str:
        """All it has said so far."""
        return self._log.read_text(errors="replace")

    def rest(self, method: str, path: str, body: Any = None) -> Any:
        """Call ``/hub/api`` and return its JSON, None where there is none; raises urllib.error.URLError."""
        request = urllib.request.Request(
            f"{self.url}/hub/api{path}",
            method=method,
            data=json.dumps(body).encode() if body is not None else (b"" if method == "POST" else None),
            headers={"Authorization": f"token {self.token}"},
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            text = response.read()
        return json.loads(text) if text else None

    def is_ready(self) -> bool:
        """Whether it answers; the test fails where it has ended."""
        assert self.process.poll() is None, self.log
        with contextlib.suppress(OSError, ValueError):
            return bool(self.rest("GET", "/"))  # its version, for which nobody needs a scope
        return False

    def servers_of(self, user: str) -> dict[str, Any]:
        """A user's servers that are ready, or on their way."""
        servers: dict[str, Any] = self.rest("GET", f"/users/{user}")["servers"]
        return servers

    def start_server(self, user: str) -> None:
        """Start a user's server, and wait until the Hub says that it is ready."""
        self.rest("POST", f"/users/{user}/server")
        until(lambda: self.servers_of(user).get("", {}).get("ready"), self, START_SECONDS)

    def process_of(self, user: str) -> psutil.Process:
        """The process of a user's server."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        (found,) = (one for one in family if one.environ().get("JUPYTERHUB_USER") == user)
        return found


def until(condition: Callable[[], Any], one: Speaks, seconds: float = 30.0) -> None:
    """Wait until something is true; the end of the log says why it never was."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, one.log[-6000:]
        time.sleep(0.2)


@contextmanager
def running_hub(folder: Path, users: Iterable[str], config: str = "") -> Iterator[Hub]:
    """
    A hub in a folder of its own, with ports, tokens and a database of its own.

    Its token is also the password that its users log in with: the first that somebody gives is theirs.
    """
    assert PROXY.exists(), "JupyterHub's proxy is not installed; run npm ci --prefix tools/node"
    public, hub_port, proxy_api = free_ports(3)
    token = secrets.token_hex(16)
    file, log = folder / "jupyterhub_config.py", folder / "hub.log"
    file.touch(mode=0o600)
    file.write_text(
        config
        + CONFIG.format(
            public=public,
            hub=hub_port,
            proxy_api=proxy_api,
            proxy_token=secrets.token_hex(16),
            proxy=str(PROXY),
            passwords=str(folder / "passwords.dbm"),
            users=set(users),
            home=str(folder / "home" / "{username}"),
            python=sys.executable,
            token=token,
        )
    )
    folders = {f"JUPYTER_{kind}_DIR": str(folder / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterhub", "-f", str(file)],
            cwd=folder,
            env={**os.environ, **folders},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    hub = Hub(f"http://127.0.0.1:{public}", token, log, process)
    try:
        until(hub.is_ready, hub, START_SECONDS)
        yield hub
    finally:
        status = end(process)
    assert status == 0, hub.log[-6000:]
    assert token not in hub.log


def end(process: subprocess.Popen[bytes]) -> int:
    """Stop a hub as its supervisor does; whatever of its own outlives it in vain is killed, by pid."""
    family = []
    with contextlib.suppress(psutil.Error):
        family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGTERM)
    try:
        status = process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        status = process.wait(10)
    _, alive = psutil.wait_procs(family, timeout=5)
    for child in alive:
        with contextlib.suppress(psutil.Error):
            child.kill()
    return status
