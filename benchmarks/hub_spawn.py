"""A Hub that starts users' servers: how long until one answers, with the recorder and without, in turns."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median

import httpx
import psutil

from tools.hub import accounts, software
from tools.hub.hub import Hub, bring_up_to_date, free_ports, settings
from tools.hub.place import FOLDER_OF_ROOT, Place

from .figures import Figure
from .fleet import median_ratio, progress

# The software of benchmarks, kept from run to run.
SOFTWARE = FOLDER_OF_ROOT.with_name("exec-events-hub-tests") / "venv"
SECONDS = 120.0
CONFIG = """
import os
c.JupyterHub.services.append({{"name": "benchmark", "api_token": open({token!r}).read()}})
c.JupyterHub.load_roles.append({{"name": "benchmark", "services": ["benchmark"], "scopes": ["admin:users", "servers"]}})
prepared = c.Spawner.pre_spawn_hook
def without(spawner):
    prepared(spawner)
    if spawner.user.name == {without!r}:
        spawner.args = ["--ServerApp.jpserver_extensions={{'exec_events': False}}"]
c.Spawner.pre_spawn_hook = without
"""


async def measure(quick: bool) -> list[Figure]:
    """The median of the ratios of neighbours in time."""
    if os.getuid() != 0:
        raise RuntimeError("a Hub starts servers under other accounts as root alone")
    # In this thread: the Hub keeps a second Ctrl-C from its end, and nothing else runs meanwhile.
    return _measure(3 if quick else 20)


def _measure(rounds: int) -> list[Figure]:
    folder = Path(tempfile.mkdtemp(prefix="exec-events-hub-"))
    folder.chmod(0o755)
    names = {name: f"{name}{secrets.token_hex(3)}" for name in ("with", "stock")}
    try:
        spawns = _spawned(folder, names, rounds)
    finally:
        accounts.remove_made(folder)
        shutil.rmtree(folder)
    return [
        _figure("time until a user's server answers", 1.05, *([one[0] for one in spawns[name]] for name in names)),
        # What else the machine does changes this little.
        _figure("CPU until a user's server answers", None, *([one[1] for one in spawns[name]] for name in names)),
    ]


def _figure(what: str, target: float | None, measured: list[float], stock: list[float]) -> Figure:
    ratio, ratios = median_ratio(measured, stock)
    note = f"{median(measured):.2f} s, stock {median(stock):.2f} s"
    return Figure(f"Hub: {what}", ratio, "x", target, "at most", note, ratios)


def _spawned(folder: Path, names: dict[str, str], rounds: int) -> dict[str, list[tuple[float, float]]]:
    place = Place(folder)
    place.make()
    SOFTWARE.parent.mkdir(mode=0o755, exist_ok=True)
    software.install(SOFTWARE, progress)
    (folder / "venv").symlink_to(SOFTWARE)
    accounts.let_pam_ask()
    accounts.make(list(names.values()), folder)
    token = place.state / "benchmark-token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(16))
    more = place.state / "benchmark.py"
    more.write_text(CONFIG.format(token=str(token), without=names["stock"]))
    (port,) = free_ports(1)
    environment = settings(place, port=port, authenticator="pam", users=names.values(), readers=(), more=[more])
    bring_up_to_date(place, environment["EXEC_EVENTS_HUB_SOURCE"])
    spawns: dict[str, list[tuple[float, float]]] = defaultdict(list)
    headers = {"Authorization": f"token {token.read_text()}"}
    with (
        Hub(place, environment) as hub,
        httpx.Client(base_url=f"http://127.0.0.1:{port}/hub/api", headers=headers, timeout=SECONDS) as api,
    ):
        hub.wait_until_ready()
        for name in names.values():
            _spawn(api, name)  # its first, which makes a home of it
        for turn in range(rounds):
            for which in sorted(names, reverse=bool(turn % 2)):
                spawns[which].append(_spawn(api, names[which]))
            progress(f"hub-spawn {turn + 1}/{rounds}: " + ", ".join(f"{k} {v[-1][0]:.2f} s" for k, v in spawns.items()))
    return spawns


def _spawn(api: httpx.Client, name: str) -> tuple[float, float]:
    """Seconds, and its own of CPU, until somebody's server answers; it is stopped again."""
    # The Hub looks for its servers ever less often: it would see this one up to seconds later.
    began = time.perf_counter()
    with contextlib.suppress(httpx.ReadTimeout):
        api.post(f"/users/{name}/server", timeout=0.05)
    process = None
    while process is None or not _answers(process):
        if time.perf_counter() - began > SECONDS:
            raise RuntimeError(f"{name}'s server did not start")
        process = process or _server_of(name)
        time.sleep(0.01)
    seconds = time.perf_counter() - began
    times = process.cpu_times()
    _until(lambda: api.get(f"/users/{name}").json()["servers"].get("", {}).get("ready"))
    api.delete(f"/users/{name}/server")
    _until(lambda: not api.get(f"/users/{name}").json()["servers"])
    return seconds, times.user + times.system


def _server_of(name: str) -> psutil.Process | None:
    for process in psutil.process_iter(["username", "cmdline"]):
        if process.info["username"] == name and "jupyterhub.singleuser" in (process.info["cmdline"] or ()):
            return process
    return None


def _answers(process: psutil.Process) -> bool:
    with contextlib.suppress(httpx.HTTPError, psutil.Error, KeyError):
        return httpx.get(f"{process.environ()['JUPYTERHUB_SERVICE_URL']}api", timeout=5).status_code == 200
    return False


def _until(condition: Callable[[], object]) -> None:
    until = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > until:
            raise RuntimeError("the Hub did not come so far")
        time.sleep(0.1)
