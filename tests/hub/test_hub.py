"""A real JupyterHub, with its real proxy, publishes its own events through the handler to a real Kafka."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from exec_events_schemas.record import event_of
from exec_events_schemas.sources.spool import SpoolSource
from kafka_fixtures import RunningKafka
from kafka_topic import messages_of, verified, wrong_with

PROXY = Path(__file__).parents[2] / "tools/node/node_modules/.bin/configurable-http-proxy"
SERVER_ACTION = "https://schema.jupyter.org/jupyterhub/events/server-action"
START_SECONDS = 90.0
STOP_SECONDS = 60.0

DOCUMENTED = (Path(__file__).parents[2] / "docs" / "handlers.md").read_text().split("```python\n")[1].split("```")[0]
LOGIN = "https://exec-events.org/jupyterhub/login"
CONFIG = """
c.JupyterHub.bind_url = "http://127.0.0.1:{public}"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{hub}"
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{proxy_api}"
c.ConfigurableHTTPProxy.auth_token = {proxy_token!r}
c.ConfigurableHTTPProxy.command = {proxy!r}
c.JupyterHub.authenticator_class = "firstuse"
c.Authenticator.allowed_users = {{"ada", "bob"}}
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = {home!r}
c.Spawner.cmd = [{python!r}, "-m", "jupyterhub.singleuser"]
c.Spawner.args = ["--allow-root", "--ServerApp.jpserver_extensions={{'exec_events': False}}"]
c.Spawner.environment = {{"JUPYTERHUB_SINGLEUSER_APP": "jupyter_server.serverapp.ServerApp"}}
c.Spawner.start_timeout = 60
c.Spawner.http_timeout = 60
c.JupyterHub.services = [{{"name": "test", "api_token": {token!r}}}]
c.JupyterHub.load_roles = [
    {{"name": "test", "services": ["test"], "scopes": ["admin:users", "admin:servers", "servers"]}},
]
"""


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


def until(condition: Callable[[], Any], timeout: float, hub: Hub) -> None:
    """Wait until something is true; the hub's log says why it never was."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, hub.log[-6000:]
        time.sleep(0.2)


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(each.getsockname()[1]) for each in sockets]


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


def documented(kafka_url: str, spool: Path) -> str:
    """The lines of docs/handlers.md, for this broker and folder."""
    lines = DOCUMENTED
    for there, here in (
        ("kafka://broker-1:9092,broker-2:9092/jupyterhub", kafka_url),
        ("/srv/jupyterhub/events", str(spool)),
    ):
        assert lines.count(there) == 1
        lines = lines.replace(there, here)
    return lines


@contextmanager
def running_hub(folder: Path, kafka_url: str, spool: Path) -> Iterator[Hub]:
    """A hub in a folder of its own, with ports, tokens and a database of its own."""
    assert PROXY.exists(), "JupyterHub's proxy is not installed; run npm ci --prefix tools/node"
    public, hub_port, proxy_api = free_ports(3)
    token = secrets.token_hex(16)
    config = folder / "jupyterhub_config.py"
    config.touch(mode=0o600)
    config.write_text(
        documented(kafka_url, spool)
        + CONFIG.format(
            public=public,
            hub=hub_port,
            proxy_api=proxy_api,
            proxy_token=secrets.token_hex(16),
            proxy=[str(PROXY)],
            token=token,
            home=str(folder / "home" / "{username}"),
            python=sys.executable,
        )
    )
    folders = {f"JUPYTER_{kind}_DIR": str(folder / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    log = folder / "hub.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterhub", "-f", str(config)],
            cwd=folder,
            env={**os.environ, **folders},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    hub = Hub(f"http://127.0.0.1:{public}", token, log, process)
    try:
        until(hub.is_ready, START_SECONDS, hub)
        yield hub
    finally:
        status = end(process)
    assert status == 0, hub.log[-6000:]


def log_in(hub: Hub, user: str, password: str) -> int:
    """What the Hub answers a browser with that logs in."""
    with closing(httpx.Client(timeout=30)) as browser:
        browser.get(f"{hub.url}/hub/login", follow_redirects=True)
        form = {"username": user, "password": password, "_xsrf": browser.cookies["_xsrf"]}
        return browser.post(f"{hub.url}/hub/login", data=form).status_code


@pytest.mark.timeout(400)
def test_starting_and_stopping_a_users_server_arrives_on_the_topic(
    tmp_path: Path, kafka: RunningKafka, kafka_prefix: str
) -> None:
    """With the documented lines each start, stop and login is on the topic, once and in order, in a record that verifies."""
    spool, topic = tmp_path / "spool", f"{kafka_prefix}.events"
    with running_hub(tmp_path, f"kafka://{kafka.servers}/{kafka_prefix}", spool) as hub:
        for user in ("ada", "bob"):
            with contextlib.suppress(urllib.error.HTTPError):  # it knows its allowed users already
                hub.rest("POST", f"/users/{user}")
            hub.rest("POST", f"/users/{user}/server")
            until(lambda user=user: hub.servers_of(user).get("", {}).get("ready"), START_SECONDS, hub)
        until(lambda: len(_actions(kafka, topic)) == 2, 30, hub)
        for user in ("bob", "ada"):
            hub.rest("DELETE", f"/users/{user}/server")
            until(lambda user=user: "" not in hub.servers_of(user), STOP_SECONDS, hub)
        until(lambda: len(_actions(kafka, topic)) == 4, 30, hub)
        # The first password that somebody gives is theirs.
        assert log_in(hub, "ada", hub.token) == 302
        assert log_in(hub, "ada", "another-password") == 403
    assert _actions(kafka, topic) == [("start", "ada"), ("start", "bob"), ("stop", "bob"), ("stop", "ada")]
    (login,) = _events(kafka, topic, LOGIN)
    assert (login["username"], login["authenticator"]) == ("ada", "FirstUseAuthenticator")
    messages = messages_of(kafka.settings, topic)
    assert wrong_with(messages, SpoolSource(spool)) == []
    report = verified(messages)
    assert (report.ok, report.recorders, report.notes) == (True, 1, ())
    assert "exec-events: fault" not in hub.log


def _actions(kafka: RunningKafka, topic: str) -> list[tuple[str, str]]:
    """What became of whose server, in order."""
    return [(event["action"], event["username"]) for event in _events(kafka, topic, SERVER_ACTION)]


def _events(kafka: RunningKafka, topic: str, schema: str) -> list[dict[str, Any]]:
    """The events of one schema, in order."""
    events = [event_of(message.value) for message in messages_of(kafka.settings, topic)]
    return [event for event in events if event["__schema__"] == schema]
