"""What people can and cannot do to the recorder of their own server: docs/jupyterhub.md, line by line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hub_people import Person, Server, run
from made_hub import Site

from exec_events.privacy import Pseudonyms, read_key
from exec_events.testing import Result
from exec_events_schemas.record import event_of, seal, seal_of
from exec_events_schemas.sources.spool import SpoolSource

SECONDS = 30.0
OFF = {"ServerApp": {"jpserver_extensions": {"exec_events": False}}}
# What a configuration or a module of theirs would do, if it were read.
TAKES_OVER = """
import os, pathlib
pathlib.Path(os.path.expanduser("~/taken-over")).touch()
try:
    c = get_config()
    c.ServerApp.jpserver_extensions = {"exec_events": False}
    c.EventLogger.handlers = []
    c.ExecEvents.spool = os.path.expanduser("~/elsewhere")
    c.ExecEvents.required = False
except NameError:
    pass
"""
IN_HOME = {
    "configurations": {
        ".jupyter/jupyter_server_config.py": TAKES_OVER,
        ".jupyter/jupyter_server_config.json": json.dumps(OFF),
        ".jupyter/jupyter_server_config.d/exec_events.json": json.dumps(OFF),
        ".jupyter/jupyter_lab_config.py": TAKES_OVER,
        ".jupyter/jupyter_exec_events_config.py": TAKES_OVER,
        ".local/etc/jupyter/jupyter_server_config.py": TAKES_OVER,
        ".local/etc/jupyter/jupyter_server_config.d/exec_events.json": json.dumps(OFF),
    },
    "configurations beside the notebooks": {
        "jupyter_server_config.py": TAKES_OVER,
        "jupyter_config.py": TAKES_OVER,
        "jupyterhub_config.py": TAKES_OVER,
    },
    "modules": {
        **{f"{name}.py": TAKES_OVER for name in ("exec_events", "jupyter_server", "jupyterhub", "sitecustomize")},
        **{
            f".local/lib/python3.{minor}/site-packages/{name}.py": TAKES_OVER
            for minor in range(11, 16)
            for name in ("exec_events", "usercustomize", "sitecustomize")
        },
    },
    "an environment": dict.fromkeys(
        (".profile", ".bashrc", ".bash_profile", ".pam_environment", ".env"),
        "export JUPYTER_NO_CONFIG=1 JUPYTER_PREFER_ENV_PATH=0 PYTHONPATH=$HOME JUPYTER_CONFIG_DIR=$HOME/.jupyter\n",
    ),
}


@contextlib.contextmanager
def home_with(name: str, files: dict[str, str]) -> Iterator[Path]:
    """Somebody's home with these files in it, as if they had written them; without them at the end."""
    account = pwd.getpwnam(name)
    home = Path(account.pw_dir)
    before = {path: path.read_bytes() for file in files if (path := home / file).exists()}
    for file, text in files.items():
        path = home / file
        for folder in reversed([one for one in path.parents if one.is_relative_to(home) and not one.exists()]):
            folder.mkdir()
            os.chown(folder, account.pw_uid, account.pw_gid)
        path.write_text(text)
        os.chown(path, account.pw_uid, account.pw_gid)
    try:
        yield home
    finally:
        for file in files:
            (home / file).unlink(missing_ok=True)
        for path, content in before.items():
            path.write_bytes(content)
            os.chown(path, account.pw_uid, account.pw_gid)


@pytest.fixture
def ben(site: Site) -> Iterator[Person]:
    """Somebody who is logged in, and has no server yet."""
    with site.person(1) as person:
        if person.servers():
            person.stop_server()
        yield person
        if person.servers():
            person.stop_server()


def events(site: Site, name: str) -> list[dict[str, Any]]:
    """What is in somebody's spool."""
    spool = site.spool(name)
    return [event_of(stored.record) for stored in SpoolSource(spool)] if spool.exists() else []


def executions(site: Site, name: str) -> int:
    """How many executions are in somebody's spool."""
    return sum("execution_id" in event and "status" in event for event in events(site, name))


def until(condition: Any) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def value(result: Result) -> str:
    """What a cell's last line came to, or what it raised."""
    for message in reversed(result.outputs):
        content = message["content"]
        if "data" in content:
            return str(content["data"]["text/plain"])
        if "ename" in content:
            return str(content["ename"])
    return ""


def ask(server: Server, code: str) -> str:
    """The value of one cell."""
    return value(asyncio.run(run(server, code))[0])


@pytest.mark.parametrize("files", IN_HOME.values(), ids=IN_HOME)
def test_nothing_in_their_home_switches_it_off(site: Site, ben: Person, files: dict[str, str]) -> None:
    """With configurations, modules and environments of their own a user's server starts with the recorder, and records."""
    with home_with(ben.name, files) as home:
        before = executions(site, ben.name)
        server = ben.start_server()
        status = httpx.get(f"{server.url}exec-events/status", headers={"Authorization": f"token {server.token}"}).json()
        assert (status["recording"], status["healthy"], status["required"]) == (True, True, True)
        assert not (home / "taken-over").exists()
        # A kernel is theirs, and may well have read some of these.
        asyncio.run(run(server, "6 * 7"))
        until(lambda: executions(site, ben.name) == before + 1)
        assert not (home / "elsewhere").exists()
        (home / "taken-over").unlink(missing_ok=True)


def test_they_can_ask_the_hub_for_no_other_server(site: Site, ben: Person) -> None:
    """Options that a user sends along when they start their server change neither its command nor its arguments."""
    body = {
        "args": [],
        "cmd": ["true"],
        "environment": {"JUPYTERHUB_DISABLE_USER_CONFIG": "0"},
        "disable_user_config": False,
    }
    assert ben.hub_api("POST", f"/users/{ben.name}/server", body).status_code in (201, 202)
    server = ben.start_server()
    status = httpx.get(f"{server.url}exec-events/status", headers={"Authorization": f"token {server.token}"}).json()
    assert status["recording"]


def test_the_software_and_the_hubs_own_are_closed(site: Site, ben: Person) -> None:
    """A user's code can write no file of the installation, and read nothing of the Hub's or of another user's."""
    server = ben.start_server()
    other = site.names[0]
    closed = {
        "open(exec_events.__file__, 'a')": "PermissionError",
        f"os.mkdir('{site.folder}/venv/x')": "PermissionError",
        f"os.listdir('{site.folder}/state')": "PermissionError",
        f"open('{site.folder}/state/pseudonym.key')": "PermissionError",
        f"open('{site.folder}/state/cookie_secret')": "PermissionError",
        f"os.rename('{site.spool(ben.name)}', '{site.folder}/records/x')": "PermissionError",
        f"os.listdir('{site.folder}/records')": "PermissionError",
        f"os.listdir('{site.folder}/records/{other}')": "PermissionError",
        f"open('{site.folder}/keys/{other}')": "PermissionError",
        f"os.rename('{site.folder}/keys/{ben.name}', '{site.folder}/keys/x')": "PermissionError",
    }
    with site.person(0) as ada:
        ada.start_server()
    results = asyncio.run(run(server, "import os, exec_events", *closed))
    assert dict(zip(closed, map(value, results[1:]), strict=True)) == closed


def test_they_can_forge_no_event(ben: Person) -> None:
    """An execution that a user posts to the server's own event bus is refused."""
    server = ben.start_server()
    body = {"schema_id": "https://exec-events.org/schemas/cell_execution/v1", "version": "1", "data": {}}
    headers = {"Authorization": f"token {server.token}"}
    assert httpx.post(f"{server.url}api/events", json=body, headers=headers).status_code == 400


def test_what_cannot_be_recorded_does_not_run(site: Site, ben: Person) -> None:
    """Where a user closes their own spool to the recorder, cells are refused, and say why."""
    ben.start_server()
    ben.stop_server()
    spool = site.spool(ben.name)
    spool.chmod(0)
    try:
        (result,) = asyncio.run(run(ben.start_server(), "open('ran', 'w')"))
        assert value(result) == "NotRecorded"
        assert not (Path(pwd.getpwnam(ben.name).pw_dir) / "ran").exists()
    finally:
        spool.chmod(0o700)


def test_they_can_kill_their_server_and_it_shows(site: Site, ben: Person) -> None:
    """A server that its user kills has no last word of its own; the next one says that it adopted what was left."""
    before = len(events(site, ben.name))
    with contextlib.suppress(ConnectionError):
        asyncio.run(run(ben.start_server(), "import os, signal; os.kill(os.getppid(), signal.SIGKILL)"))
    until(lambda: not ben.servers())
    assert [event for event in events(site, ben.name)[before:] if event.get("action") == "stopped"] == []
    ben.start_server()
    stops = lambda: [one["cause"] for one in events(site, ben.name)[before:] if one.get("action") == "stopped"]  # noqa: E731
    until(lambda: stops() == ["adopted"])
    killed = [one["status"] for one in events(site, ben.name)[before:] if "status" in one and "execution_id" in one]
    assert killed == ["recorder_stopped"]


def test_they_can_run_what_it_does_not_see(site: Site, ben: Person) -> None:
    """Programs that a user starts, and a server of their own without the recorder, leave nothing in the record."""
    server = ben.start_server()
    before = executions(site, ben.name)
    own = (
        "import subprocess, sys; subprocess.run([sys.executable, '-I', '-m', 'jupyter_server', '--version', "
        "'--ServerApp.jpserver_extensions={}'], check=True, capture_output=True, text=True).returncode"
    )
    other = "subprocess.run([sys.executable, '-c', '6 * 7']).returncode"
    kernel = (
        "from jupyter_client.manager import run_kernel\n"
        "with run_kernel() as client: reply = client.execute_interactive('6 * 7', timeout=60)\n"
        "reply['content']['status']"
    )
    assert [value(one) for one in asyncio.run(run(server, own, other, kernel))] == ["0", "0", "'ok'"]
    until(lambda: executions(site, ben.name) == before + 3)


def test_they_can_read_the_key_of_notebooks(site: Site, ben: Person) -> None:
    """The key of notebooks' pseudonyms is theirs to read: who also gets others' records can try paths."""
    key = (site.folder / "state/notebook.key").read_text()
    assert ask(ben.start_server(), f"open('{site.folder}/keys/{ben.name}').read()") == repr(key)


def test_they_cannot_make_another_users_pseudonym(site: Site, ben: Person) -> None:
    """A user's server has their own pseudonym, given by the Hub, and no key under which another user's is made."""
    server, other = ben.start_server(), site.names[0]
    theirs = Pseudonyms(read_key(site.folder / "state/pseudonym.key"))
    names = "('EXEC_EVENTS_OWNER_PSEUDONYM', 'JUPYTERHUB_USER')"
    told = ask(server, f"import os; [os.environ[name] for name in {names}]")
    assert told == repr([theirs.subject(ben.name), ben.name])
    key = site.folder / "keys" / ben.name
    made = ask(server, f"from exec_events.privacy import *; Pseudonyms(read_key(Path('{key}'))).subject('{other}')")
    assert made != repr(theirs.subject(other))
    before = executions(site, ben.name)
    ask(server, "1")
    until(lambda: executions(site, ben.name) > before)
    assert {event["subject"] for event in events(site, ben.name) if "subject" in event} == {theirs.subject(ben.name)}
    # Arguments of programs are for every account of the machine to read.
    assert site.arguments()
    assert not any(theirs.subject(ben.name) in arguments for arguments in site.arguments())


def test_they_can_remove_their_records_but_not_what_was_counted(site: Site, ben: Person) -> None:
    """Records that a user removes from their spool stay in the tables, which are not theirs."""
    server = ben.start_server()
    with site.person(0) as ada:
        counted = runs(ada, site)
        asyncio.run(run(server, "1", "2"))
        until(lambda: runs(ada, site) == counted + 2)
        files = list(site.spool(ben.name).glob("*.db"))
        ask(server, f"import pathlib; [path.unlink() for path in pathlib.Path('{site.spool(ben.name)}').glob('*.db')]")
        assert [path for path in files if path.exists()] == []
        assert runs(ada, site) >= counted + 2


def test_they_can_write_their_history_anew_and_it_shows(site: Site, ben: Person) -> None:
    """A record that a user exchanges for another after it was counted is a fork on the dashboard."""
    ben.start_server()
    ben.stop_server()
    asyncio.run(run(ben.start_server(), "1", "2"))
    ben.stop_server()
    spool = site.spool(ben.name)
    with site.person(0) as ada:
        before = integrity(ada, site)["forks"]
        last = max(spool.glob("*.db"), key=lambda path: path.stat().st_mtime)
        forged = forge(last, pwd.getpwnam(ben.name).pw_uid)
        until(lambda: integrity(ada, site)["forks"] > before)
    forged.unlink()


def forge(path: Path, owner: int) -> Path:
    """A copy of a spool file in which every execution went well in another way, with hashes and chains that fit."""
    # It comes to the spool as a whole: of a file that has been read, records that change later are not read again.
    copy = path.parents[2] / "forged.db"
    shutil.copyfile(path, copy)
    os.chown(copy, owner, -1)
    heads: dict[str, Any] = {}
    with contextlib.closing(sqlite3.connect(copy)) as connection, connection:
        rows = connection.execute("SELECT id, CAST(record AS BLOB) FROM records ORDER BY id").fetchall()
        for row_id, record in rows:
            chain = seal_of(record).chain
            event = {**event_of(record), "time": "2026-01-01T00:00:00.000000Z"}
            made, heads[chain] = seal(event, chain, heads.get(chain))
            connection.execute(
                "UPDATE records SET record = ?, hash = ? WHERE id = ?", (made, heads[chain].hash, row_id)
            )
    return copy.rename(path.with_name(copy.name))


def runs(person: Person, site: Site) -> int:
    """How many runs the dashboard shows."""
    answer = person.browser.get(site.dashboard, params={"format": "json", "since": "all"})
    return int(answer.json()["facts"]["runs"])


def integrity(person: Person, site: Site) -> dict[str, int]:
    """The facts of the dashboard's page of chains."""
    facts: dict[str, int] = person.browser.get(f"{site.dashboard}integrity", params={"format": "json"}).json()["facts"]
    return facts
