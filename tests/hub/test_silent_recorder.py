"""A real JupyterHub, its users' servers, their recorders, and the dashboard that hears when one of them is silent."""

from __future__ import annotations

import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from hub_people import Person
from hub_process import START_SECONDS, Hub, running_hub, until
from prometheus_client.parser import text_string_to_metric_families

from tools.hub.hub import free_ports

HEARTBEAT_SECONDS = 5
USERS = ("ada", "ben", "cleo", "dan")
DOCUMENTED = (
    (Path(__file__).parents[2] / "docs/silent-recorders.md").read_text().split("```python\n")[1].split("```")[0]
)
CONFIG = """
c.JupyterHub.shutdown_on_logout = True
c.Spawner.args = ["--allow-root", "--ExecEvents.spool={spool}", "--ExecEvents.heartbeat_seconds={heartbeat}"]
"""


THEIRS = {
    # Switches it off.
    "cleo": "c.ServerApp.jpserver_extensions = {'exec_events': False}\n",
    # Stops it while the server runs, at a signal from the user.
    "dan": """
import asyncio, gc, signal

def stop(*_):
    from exec_events.app import ExecEvents
    (recorder,) = (one for one in gc.get_objects() if isinstance(one, ExecEvents))
    loop = asyncio.get_running_loop()
    loop.call_soon_threadsafe(lambda: loop.create_task(recorder.stop_extension()))

signal.signal(signal.SIGUSR2, stop)
""",
}


class Site:
    """The Hub with its dashboard, as Prometheus and an admin see it."""

    def __init__(self, hub: Hub, prometheus: str) -> None:
        self.hub = hub
        self.dashboard = f"{hub.url}/services/exec-events"
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
        until(condition, self.hub, START_SECONDS)

    def log_out(self, user: str) -> None:
        """Log in as a user does, and out again, upon which the Hub stops their server."""
        with Person(self.hub.url, user, self.hub.token) as person:
            assert person.browser.get(f"{self.hub.url}/hub/logout").status_code == 200


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
    """An aggregate that takes what recorders put into the spool, and has made its tables: the dashboard needs them."""
    command = [sys.executable, "-m", "exec_events", "aggregate", "--from", f"spool://{spool}", "--store", store]
    subprocess.run([*command, "--once"], check=True, timeout=60)
    with (folder / "aggregate.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A Hub with a dashboard, which reads its users' configurations; cleo and dan have one."""
    (service,) = free_ports(1)
    prometheus = secrets.token_hex(16)
    spool, tables = tmp_path / "spool", tmp_path / "tables.db"
    spool.mkdir(mode=0o700)
    for user, lines in THEIRS.items():
        folder = tmp_path / "home" / user / ".jupyter"
        folder.mkdir(parents=True)
        (folder / "jupyter_server_config.py").write_text(lines)
    token_file = tmp_path / "prometheus.token"
    token_file.touch(mode=0o600)
    token_file.write_text(prometheus)
    store = f"sqlite:///{tables}"
    config = documented(tmp_path, store, service) + CONFIG.format(spool=spool, heartbeat=HEARTBEAT_SECONDS)
    with aggregating(tmp_path, spool, store), running_hub(tmp_path, USERS, config) as hub:
        try:
            yield Site(hub, prometheus)
        finally:
            for child in psutil.Process(hub.process.pid).children(recursive=True):
                child.resume()
    assert prometheus not in hub.log


@pytest.mark.timeout(400)
def test_a_recorder_that_falls_silent_while_its_server_runs_is_an_alarm(site: Site) -> None:
    """A halted process, a recorder switched off and one stopped by its user raise the alarm; logging out raises none."""
    for user in USERS:
        site.hub.start_server(user)
    # Switched off by its user: no recorder of hers ever speaks.
    alarms = {"cleo": "never spoke"}
    site.wait(lambda: site.silent() == alarms)
    ben = site.hub.process_of("ben")
    ben.suspend()
    site.wait(lambda: site.silent() == alarms | {"ben": "fell silent"})
    # Its last word is that it ends; the server goes on.
    site.hub.process_of("dan").send_signal(signal.SIGUSR2)
    site.wait(lambda: site.silent() == alarms | {"ben": "fell silent", "dan": "stopped"})
    assert site.hub.servers_of("dan")[""]["ready"]
    told = site.metrics()
    assert told["exec_events_running_servers",] == 4
    reasons = ("never_spoke", "fell_silent", "stopped")
    assert [told["exec_events_silent_servers", reason] for reason in reasons] == [1, 1, 1]
    alarms["dan"] = "stopped"
    ben.resume()
    site.wait(lambda: site.silent() == alarms)
    site.were_silent.clear()
    site.log_out("ada")
    site.wait(lambda: site.hub.servers_of("ada") == {})
    # By the time another alarm has come, her recorder has been silent for as long.
    ben.suspend()
    site.wait(lambda: site.silent().get("ben") == "fell silent")
    assert "ada" not in site.were_silent
    assert site.metrics()["exec_events_running_servers",] == 3
    with pytest.raises(AssertionError, match="403"):
        Site(site.hub, site.hub.token).metrics()
