"""Privacy: names become pseudonyms, keys stay private, and nothing but the configuration decides what is recorded."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import PLAIN, events_of, recorded
from exec_events.errors import ConfigurationError
from exec_events.hashing import Hasher
from exec_events.owner_pseudonym import given, pseudonym_of_spawner
from exec_events.privacy import Pseudonyms, clean, error_name, load_key, read_key
from exec_events.testing import NotebookClient, RunningServer, records

CANARY = "canary-4b1d6c0e-in-the-environment"
HASH_KEY = "5c" * 32
ACCOUNT = getpass.getuser()
PATH = "course/private notes.ipynb"
GIVEN = f"p:{'a1' * 4}:{'b2' * 16}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the site keeps its folders and its hash key."""
    return tmp_path_factory.mktemp("private")


@pytest.fixture(scope="module")
def site(folder: Path) -> Iterator[RunningServer]:
    """A server with pseudonyms, keyed hashes, and a secret in its environment."""
    key = folder / "hash.key"
    key.write_text(HASH_KEY + "\n")
    key.chmod(0o600)
    config = f"c.ExecEvents.hash_key_file = {str(key)!r}\n"
    with RunningServer(folder / "site", config=config, env={"CANARY": CANARY}) as running:
        (running.root_dir / "course").mkdir()
        yield running


def exec_events(server: RunningServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run exec-events as this server's user."""
    env = {**os.environ, **server.environment}
    command = [sys.executable, "-m", "exec_events", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


async def run(server: RunningServer, code: str, notebook: str = PATH, **options: Any) -> dict[str, Any]:
    """Run a cell and return its event."""
    async with NotebookClient(server, notebook=notebook) as client:
        await client.execute(code, **options)
        (event,) = await recorded(server, 1, kernel_id=client.kernel_id, settle=0)
        await client.shutdown()
    return event


def test_the_key_is_made_for_its_owner_alone(site: RunningServer) -> None:
    """The first start makes a key of 64 hexadecimal digits that nobody else can read, in a folder of the owner's."""
    key = site.data_dir / "exec-events" / "pseudonym.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    assert len(read_key(key)) == 32


async def test_names_are_pseudonyms(site: RunningServer) -> None:
    """Events carry pseudonyms for user and notebook, and `exec-events pseudonym` gives them to the key's holder."""
    event = await run(site, "1")
    for value, arguments in ((event["subject"], [ACCOUNT]), (event["notebook"], [PATH, "--notebook"])):
        assert value.startswith("p:")
        told = await asyncio.to_thread(exec_events, site, "pseudonym", *arguments)
        assert (told.returncode, told.stdout) == (0, value + "\n")
    everything = json.dumps(records(site.data_dir))
    assert "private notes" not in everything
    assert f'"{ACCOUNT}"' not in everything


async def test_hashes_are_keyed(site: RunningServer) -> None:
    """With hash_key_file, hashes name their key and can be recomputed with it, and with nothing else."""
    code = "print( 'keyed' )"
    event = await run(site, code)
    keyed = Hasher(bytes.fromhex(HASH_KEY))
    assert event["code_hash"] == keyed.code(code)
    assert event["code_ast_hash"] == keyed.ast(code)
    assert event["outputs_hash"] == keyed.outputs([{"output_type": "stream", "name": "stdout", "text": "keyed\n"}])
    assert all(event[name].startswith("hmac-sha256:") for name in ("code_hash", "code_ast_hash", "outputs_hash"))
    assert event["code_hash"] != Hasher(b"\0" * 32).code(code)


async def test_nothing_of_code_outputs_or_environment_gets_out(site: RunningServer) -> None:
    """No code, output, error text, variable, token or key is in any event, log line, status, metric or spool file."""
    written = "written-9e1f"
    await run(site, f"import os; print(os.environ['CANARY'], '{written}'); raise ValueError('{written}')")
    status = await asyncio.to_thread(site.rest, "GET", "/exec-events/status")
    metrics = await asyncio.to_thread(site.rest, "GET", "/metrics")
    told = await asyncio.to_thread(exec_events, site, "status", "--json")
    pseudonym_key = (site.data_dir / "exec-events" / "pseudonym.key").read_text().strip()
    secrets = [CANARY, written, site.token, pseudonym_key, HASH_KEY, "private notes"]
    places = {
        "events": json.dumps(records(site.data_dir)),
        "status": json.dumps(status),
        "metrics": metrics,
        "command": told.stdout + told.stderr,
        "log": "\n".join(line for line in site.log.splitlines() if "exec-events" in line),
    }
    for path in (site.data_dir / "exec-events").iterdir():
        if path.name != "pseudonym.key":
            places[path.name] = path.read_bytes().decode("latin-1")
    found = [(place, secret) for place, text in places.items() for secret in secrets if secret in text]
    assert found == []


async def test_a_notebook_cannot_change_what_is_recorded(site: RunningServer, folder: Path) -> None:
    """Metadata of a notebook, a cell or a message that names sinks, names or settings changes nothing at all."""
    stolen = folder / "stolen.jsonl"
    wish = {
        "ExecEvents": {"deliver_to": [f"file://{stolen}"], "identity": "plain", "contents": "code+outputs"},
        "exec_events": {"deliver_to": [f"file://{stolen}"], "subject": "mallory", "record": False},
        "exporter": [{"type": "file", "path": str(stolen)}],
        "subject": "mallory",
        "trust": "enclave",
        "username": "mallory",
    }
    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": wish, "cells": []}
    model = {"type": "notebook", "format": "json", "content": notebook}
    await asyncio.to_thread(site.rest, "PUT", "/api/contents/wishes.ipynb", model)
    await asyncio.to_thread(site.rest, "GET", "/api/contents/wishes.ipynb")
    before = await asyncio.to_thread(site.rest, "GET", "/exec-events/status")
    event = await run(site, "print(1)", "wishes.ipynb", metadata=wish)
    plain = await run(site, "print(1)", "plain.ipynb")
    after = await asyncio.to_thread(site.rest, "GET", "/exec-events/status")
    assert event.keys() == plain.keys()
    assert (event["subject"], event["trust"]) == (plain["subject"], "server")
    assert "mallory" not in json.dumps(records(site.data_dir))
    assert not stolen.exists()
    for name in ("identity", "contents", "required", "sinks", "listeners", "problems"):
        assert after[name] == before[name]


async def test_the_key_is_used_again(site: RunningServer) -> None:
    """After a restart of the server the same names get the same pseudonyms."""
    before = await run(site, "1")
    key = (site.data_dir / "exec-events" / "pseudonym.key").read_bytes()
    await asyncio.to_thread(site.stop)
    await asyncio.to_thread(site.start)
    after = await run(site, "1")
    assert (after["subject"], after["notebook"]) == (before["subject"], before["notebook"])
    assert after["recorder_id"] != before["recorder_id"]
    assert (site.data_dir / "exec-events" / "pseudonym.key").read_bytes() == key


async def test_a_key_others_can_read_is_refused(site: RunningServer) -> None:
    """With such a key nothing is recorded, cells run, and log, status and command say what to do."""
    key = site.data_dir / "exec-events" / "pseudonym.key"
    await asyncio.to_thread(site.stop)
    count = len(records(site.data_dir))
    key.chmod(0o640)
    try:
        await asyncio.to_thread(site.start)
        async with NotebookClient(site, notebook="refused.ipynb") as client:
            assert (await client.execute("print(1)")).status == "ok"
        status = await asyncio.to_thread(site.rest, "GET", "/exec-events/status")
        told = await asyncio.to_thread(exec_events, site, "pseudonym", "jo")
        await asyncio.to_thread(site.stop)
    finally:
        key.chmod(0o600)
    advice = f"others may read the key {key}: run chmod 600 on it"
    assert status["recording"] is False
    assert any(advice in problem for problem in status["problems"])
    assert advice in site.log
    assert (told.returncode, told.stdout) == (1, "")
    assert advice in told.stderr
    assert len([r for r in records(site.data_dir) if r["event"].get("status")]) <= count


@pytest.mark.parametrize("owner", [ACCOUNT, "somebody-else"])
async def test_a_pseudonym_that_a_hub_gives_is_its_owners(tmp_path: Path, owner: str) -> None:
    """The owner's name becomes the given pseudonym, and anybody else's, as every notebook's, one under the server's own key."""
    env = {"EXEC_EVENTS_OWNER_PSEUDONYM": GIVEN, "JUPYTERHUB_USER": owner}
    async with RunningServer(tmp_path, env=env) as server:
        event = await run(server, "1", "notes.ipynb")
        own = Pseudonyms(read_key(server.data_dir / "exec-events" / "pseudonym.key"))
    assert event["subject"] == (GIVEN if owner == ACCOUNT else own.subject(ACCOUNT))
    assert event["notebook"] == own.notebook("notes.ipynb")


async def test_a_given_pseudonym_that_is_none_is_refused(tmp_path: Path) -> None:
    """With one that is no pseudonym nothing is recorded, cells run, and the status says what to give."""
    env = {"EXEC_EVENTS_OWNER_PSEUDONYM": ACCOUNT, "JUPYTERHUB_USER": ACCOUNT}
    async with RunningServer(tmp_path, env=env) as server:
        async with NotebookClient(server) as client:
            assert (await client.execute("print(1)")).status == "ok"
        status = await asyncio.to_thread(server.rest, "GET", "/exec-events/status")
    assert status["recording"] is False
    assert any("exec-events pseudonym" in problem for problem in status["problems"])
    assert records(server.data_dir) == []


@pytest.fixture
async def plain_server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    """A server with plain names."""
    async with RunningServer(tmp_path, config=PLAIN) as running:
        yield running


async def test_plain_names(plain_server: RunningServer) -> None:
    """With identity = "plain" events carry the account and the notebook's path, and no key is made."""
    async with NotebookClient(plain_server, notebook="notes.ipynb") as client:
        await client.execute("1")
        (event,) = await recorded(plain_server, 1, settle=0)
    assert (event["subject"], event["notebook"]) == (ACCOUNT, "notes.ipynb")
    assert not list((plain_server.data_dir / "exec-events").glob("*.key*"))
    assert events_of(plain_server, "kernel_lifecycle", subject=ACCOUNT)


# Keys and names by themselves.


def test_servers_that_start_together_share_one_key(tmp_path: Path) -> None:
    """Many that make the key at once all get the same whole one, and leave nothing else behind."""
    path = tmp_path / "new" / "pseudonym.key"
    keys: list[bytes] = []
    threads = [threading.Thread(target=lambda: keys.append(load_key(path))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(keys) == 16
    assert set(keys) == {read_key(path)}
    assert list(path.parent.iterdir()) == [path]


def test_a_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no hard link can be made the key is made all the same."""

    def refused(source: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    path = tmp_path / "pseudonym.key"
    assert load_key(path) == read_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 64, b"g" * 64, b"00" * 33])
def test_a_file_that_holds_no_key(tmp_path: Path, content: bytes) -> None:
    """A file that holds no key is refused with what to do, and left as it is."""
    path = tmp_path / "pseudonym.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigurationError, match="does not hold a key"):
        load_key(path)
    assert path.read_bytes() == content


def test_a_key_that_cannot_be_had(tmp_path: Path) -> None:
    """A key that is missing, or cannot be made, is a ConfigurationError that names the file."""
    with pytest.raises(ConfigurationError, match="cannot read the key"):
        read_key(tmp_path / "missing.key")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="the key"):
        load_key(tmp_path / "file" / "pseudonym.key")


def test_pseudonyms_tell_names_apart_and_kinds() -> None:
    """Equal names are equal, others are not; a user is no notebook of that name; another key gives other names."""
    one, other = Pseudonyms(b"1" * 32), Pseudonyms(b"2" * 32)
    assert one.subject("jo") == one.subject("jo")
    named = [one.subject("jo"), one.subject("jo "), one.notebook("jo"), other.subject("jo"), one.subject("\udc80")]
    assert len(set(named)) == len(named)


def test_a_given_pseudonym_is_one_and_somebodys() -> None:
    """What the Hub's own function makes is taken for the user it names; what has another form, or no owner, is refused."""

    class Spawner:
        class user:  # noqa: N801
            name = "jo"

    made = pseudonym_of_spawner(b"1" * 32)(Spawner())
    assert made == Pseudonyms(b"1" * 32).subject("jo")
    assert given(made, {"JUPYTERHUB_USER": "jo"}) == {"jo": made}
    assert given("", {"JUPYTERHUB_USER": "jo"}) == {}
    for wrong in ("jo", made.upper(), made[:-1], f"{made}\n", f" {made}", "p::"):
        with pytest.raises(ConfigurationError, match="exec-events pseudonym"):
            given(wrong, {"JUPYTERHUB_USER": "jo"})
    for nobody in ({}, {"JUPYTERHUB_USER": ""}):
        with pytest.raises(ConfigurationError, match="JUPYTERHUB_USER"):
            given(made, nobody)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("ZeroDivisionError", "ZeroDivisionError"),
        ("pandas.errors.ParserError", "pandas.errors.ParserError"),
        ("the name is Jo", "other"),
        ("x" * 129, "other"),
        ("line\nbreak", "other"),
        ("Error\n", "other"),
        ("", None),
        (None, None),
    ],
)
def test_error_names_hold_no_text(name: str | None, kept: str | None) -> None:
    """An error's name is kept when it is a plain identifier, and is ``other`` when it could be a message."""
    assert error_name(name) == kept


def test_plain_names_are_cleaned() -> None:
    """A plain name has no control character or lone surrogate, and keeps to its length."""
    assert clean("jo\n\x1b[1m\udc80é" + "x" * 300, 10) == "jo��[1m?éx"
    assert Pseudonyms(None).subject("") == "unknown"
