"""A real JupyterHub, its users' servers, their recorders, and the dashboard that hears when one of them is silent."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from test_hub import PROXY, START_SECONDS, Hub, end, free_ports, until

HEARTBEAT_SECONDS = 5
USERS = ("ada", "ben", "cleo")
DOCUMENTED = (
    (Path(__file__).parents[2] / "docs/silent-recorders.md").read_text().split("```python\n")[1].split("```")[0]
)
CONFIG = """
c.JupyterHub.services.append({{"name": "test", "api_token": {token!r}}})
c.JupyterHub.load_roles.append(
    {{"name": "test", "services": ["test"], "scopes": ["admin:users", "admin:servers", "servers"]}}
)
c.Spawner.environment["JUPYTERHUB_SINGLEUSER_APP"] = "jupyter_server.serverapp.ServerApp"
c.JupyterHub.bind_url = "http://127.0.0.1:{public}"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{hub}"
c.JupyterHub.shutdown_on_logout = True
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{proxy_api}"
c.ConfigurableHTTPProxy.auth_token = {proxy_token!r}
c.ConfigurableHTTPProxy.command = {proxy!r}
c.JupyterHub.authenticator_class = "firstuse"
c.Authenticator.allowed_users = set({users!r})
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = {home!r}
c.Spawner.cmd = [{python!r}, "-m", "jupyterhub.singleuser"]
c.Spawner.args = ["--allow-root", "--ExecEvents.spool={spool}", "--ExecEvents.heartbeat_seconds={heartbeat}"]
c.Spawner.start_timeout = 60
c.Spawner.http_timeout = 60
"""


class Site:
    """The Hub with its dashboard, as Prometheus and an admin see it."""

    def __init__(self, hub: Hub, public: int, token: str, prometheus: str) -> None:
        self.hub = hub
        self.url = f"http://127.0.0.1:{public}"
        self.dashboard = f"{self.url}/services/exec-events"
        self.token = token
        self._bearer = {"authorization": f"Bearer {prometheus}"}
        self.were_silent: set[str] = set()

    def silent(self) -> dict[str, str]:
        """Whose servers run while their recorders are silent, and how that came; each is remembered."""
        answer = httpx.get(f"{self.dashboard}/integrity?format=json", headers=self._bearer, timeout=20)
        if answer.status_code != 200:
            return {}
        found = {row["user"]: row["reason"] for row in answer.json()["tables"]["silent"]}
        self.were_silent |= set(found)
        return found

    def metrics(self) -> dict[tuple[str, ...], float]:
        """What Prometheus reads."""
        answer = httpx.get(f"{self.dashboard}/metrics", headers=self._bearer, timeout=20)
        assert answer.status_code == 200, answer.text
        families = text_string_to_metric_families(answer.text)
        return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}

    def wait(self, condition: Callable[[], Any]) -> None:
        """Until it holds; bounded."""
        until(condition, START_SECONDS, self.hub)

    def start(self, user: str) -> None:
        """Start a user's server."""
        self.hub.rest("POST", f"/users/{user}/server")
        self.wait(lambda: self.hub.servers_of(user).get("", {}).get("ready"))

    def process_of(self, user: str) -> psutil.Process:
        """The process of a user's server."""
        family = psutil.Process(self.hub.process.pid).children(recursive=True)
        (found,) = (one for one in family if one.environ().get("JUPYTERHUB_USER") == user)
        return found

    def log_out(self, user: str) -> None:
        """Log in as a user does, and out again, upon which the Hub stops their server."""
        with closing(httpx.Client(follow_redirects=True, timeout=30)) as browser:
            browser.get(f"{self.url}/hub/login")
            form = {"username": user, "password": self.token, "_xsrf": browser.cookies["_xsrf"]}
            answer = browser.post(f"{self.url}/hub/login", data=form, follow_redirects=False)
            assert answer.status_code == 302, answer.text
            assert browser.get(f"{self.url}/hub/logout").status_code == 200


def documented(folder: Path, store: str, port: int) -> str:
    """The lines of docs/silent-recorders.md, for this folder, store and port, and for impatient recorders."""
    lines = DOCUMENTED
    for there, here in (
        ("/srv/jupyterhub/servers.key", str(folder / "servers.key")),
        ("/srv/jupyterhub/prometheus.token", str(folder / "prometheus.token")),
        ("postgresql+psycopg://dashboard@db/exec_events", store),
        ("http://127.0.0.1:8790", f"http://127.0.0.1:{port}"),
        ('["exec-events", "dashboard",', f'["{sys.executable}", "-m", "exec_events", "dashboard",'),
        ("str(key_file)]", f'str(key_file), "--heartbeat-seconds", "{HEARTBEAT_SECONDS}"]'),
    ):
        assert lines.count(there) == 1, there
        lines = lines.replace(there, here)
    return lines


@contextmanager
def aggregating(folder: Path, spool: Path, store: str) -> Iterator[None]:
    """An aggregate that takes what recorders put into the spool."""
    command = [sys.executable, "-m", "exec_events", "aggregate", "--from", f"spool://{spool}", "--store", store]
    with (folder / "aggregate.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A Hub with a dashboard; cleo has switched the recorder of her server off."""
    assert PROXY.exists(), "JupyterHub's proxy is not installed; run npm ci --prefix tools/node"
    public, hub_port, proxy_api, service = free_ports(4)
    token, prometheus = secrets.token_hex(16), secrets.token_hex(16)
    spool, store = tmp_path / "spool", f"sqlite:///{tmp_path / 'tables.db'}"
    spool.mkdir(mode=0o700)
    hers = tmp_path / "home" / "cleo" / ".jupyter"
    hers.mkdir(parents=True)
    (hers / "jupyter_server_config.py").write_text("c.ServerApp.jpserver_extensions = {'exec_events': False}\n")
    config = tmp_path / "jupyterhub_config.py"
    config.touch(mode=0o600)
    token_file = tmp_path / "prometheus.token"
    token_file.touch(mode=0o600)
    token_file.write_text(prometheus)
    config.write_text(
        documented(tmp_path, store, service)
        + CONFIG.format(
            python=sys.executable,
            heartbeat=HEARTBEAT_SECONDS,
            token=token,
            public=public,
            hub=hub_port,
            proxy_api=proxy_api,
            proxy_token=secrets.token_hex(16),
            proxy=[str(PROXY)],
            users=USERS,
            home=str(tmp_path / "home" / "{username}"),
            spool=spool,
        )
    )
    log = tmp_path / "hub.log"
    with aggregating(tmp_path, spool, store):
        until_tables(tmp_path / "tables.db")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "jupyterhub", "-f", str(config)],
                cwd=tmp_path,
                env={**os.environ, "JUPYTER_DATA_DIR": str(tmp_path / "data")},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        hub = Hub(f"http://127.0.0.1:{public}", token, log, process)
        try:
            until(hub.is_ready, START_SECONDS, hub)
            yield Site(hub, public, token, prometheus)
        finally:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.resume()
            end(process)
    assert prometheus not in hub.log


def until_tables(file: Path) -> None:
    """Until the aggregate has made the store, which the dashboard needs to start."""
    deadline = time.monotonic() + START_SECONDS
    while not file.exists() or not file.stat().st_size:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.timeout(400)
def test_a_recorder_that_falls_silent_while_its_server_runs_is_an_alarm(site: Site) -> None:
    """A stopped process and a recorder switched off by its user raise the alarm, until it speaks; logging out raises none."""
    for user in USERS:
        site.start(user)
    # Switched off by its user: no recorder of hers ever speaks.
    site.wait(lambda: site.silent() == {"cleo": "never spoke"})
    ben = site.process_of("ben")
    ben.suspend()
    site.wait(lambda: site.silent() == {"cleo": "never spoke", "ben": "fell silent"})
    told = site.metrics()
    assert told["exec_events_running_servers",] == 3
    reasons = ("never_spoke", "fell_silent", "stopped")
    assert [told["exec_events_silent_servers", reason] for reason in reasons] == [1, 1, 0]
    ben.resume()
    site.wait(lambda: site.silent() == {"cleo": "never spoke"})
    site.were_silent.clear()
    site.log_out("ada")
    site.wait(lambda: site.hub.servers_of("ada") == {})
    # By the time another alarm has come, her recorder has been silent for as long.
    ben.suspend()
    site.wait(lambda: site.silent().get("ben") == "fell silent")
    assert "ada" not in site.were_silent
    assert site.metrics()["exec_events_running_servers",] == 2
    with pytest.raises(AssertionError, match="403"):
        Site(site.hub, int(site.url.rpartition(":")[2]), "", site.token).metrics()
