"""Mode consent: nothing of a person is recorded before they agree, nor after they withdraw, whatever client they use."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from conftest import PLAIN, Event, events_of, eventually, kind, recorded
from exec_events.consent import Consents, ConsentText, consent_text
from exec_events.errors import ConfigurationError
from exec_events.testing import NotebookClient, RunningServer, records
from test_capture_others import direct
from test_required import full_disk
from two_people import TWO, ask, notebook

CONSENT = PLAIN + "c.ExecEvents.mode = 'consent'\n"
AGREE = {"version": "1"}
LATE = "import threading; threading.Timer(1, lambda: print('late')).start()"


def of_people(server: RunningServer) -> list[Event]:
    """Every event that names a subject."""
    return [record["event"] for record in records(server.data_dir) if "subject" in record["event"]]


def noted(server: RunningServer) -> list[str]:
    """The executions that are noted as begun, in the database and beside it."""
    found = []
    for path in (server.data_dir / "exec-events").glob("*.db"):
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            found += [row[0] for row in connection.execute("SELECT execution_id FROM begun")]
            found += [row[0] for row in connection.execute("SELECT commitment FROM contents")]
    for path in (server.data_dir / "exec-events").glob("*.begun"):
        found += path.read_text().splitlines()
    return found


async def put(server: RunningServer, version: str = "1") -> Any:
    """Agree, as the account of the server."""
    return await asyncio.to_thread(server.rest, "PUT", "/exec-events/consent", {"version": version})


async def delete(server: RunningServer) -> Any:
    """Withdraw."""
    return await asyncio.to_thread(server.rest, "DELETE", "/exec-events/consent")


async def policy(server: RunningServer) -> Any:
    """What the server says of the one who asks."""
    return await asyncio.to_thread(server.rest, "GET", "/exec-events/policy")


def verified(server: RunningServer) -> None:
    """`exec-events verify` finds nothing."""
    command = [sys.executable, "-m", "exec_events", "verify"]
    env = {**os.environ, **server.environment}
    run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stdout


async def test_before_yes_nothing_is_recorded_from_any_client(tmp_path: Path) -> None:
    """Before a yes, code from a websocket, a direct client and inside the server runs and leaves nothing: no event, no note, no body, no life of a kernel."""
    config = CONSENT + "c.ExecEvents.contents = 'code+outputs'\n"
    async with (
        RunningServer(tmp_path, config=config, extensions={"jupyter_server_nbmodel": True}) as server,
        NotebookClient(server, notebook="no.ipynb") as client,
    ):
        result = await client.execute("print('secret-71')", cell_id="a")
        assert (result.status, result.text) == ("ok", "secret-71\n")
        async with direct(server, client.kernel_id) as zmq:
            await zmq.execute_interactive("print('secret-71')", timeout=20, output_hook=lambda _: None)
        await client.rest("POST", f"/api/kernels/{client.kernel_id}/execute", {"code": "print('secret-71')"})
        await client.execute(LATE)
        msg_id = await client.submit("import time; time.sleep(1)")
        await asyncio.sleep(0.5)
        assert noted(server) == []
        await client.wait(msg_id)
        await client.interrupt()
        await client.restart()
        await asyncio.sleep(1)
        assert (await policy(server))["recording"] is False
        assert of_people(server) == []
        await client.shutdown()
    assert {kind(record["event"]) for record in records(server.data_dir)} == {"recorder"}
    assert noted(server) == []
    assert not any(b"secret-71" in path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
    assert [event.get("executions") for event in events_of(server, "recorder", action="stopped")] == [0]
    assert "exec-events: fault" not in server.log


async def test_from_yes_to_withdrawal(tmp_path: Path) -> None:
    """What begins after a yes is recorded; what runs at a withdrawal is dropped at once, and `withdrawn` is the chain's last word."""
    async with RunningServer(tmp_path, config=CONSENT) as server, NotebookClient(server) as client:
        msg_id = await client.submit("import time; time.sleep(0.5)", cell_id="began before yes")
        asked = (await policy(server))["consent"]
        assert (asked["given"], asked["at"]) == (False, None)
        given = await put(server)
        assert given == asked | {"given": True, "at": given["at"]}
        assert await put(server) == given
        await client.wait(msg_id)
        await client.execute("1", cell_id="after yes")
        await client.execute(LATE, cell_id="late")
        await eventually(server, "late_output", cell_id="late")
        large = "from IPython.display import display; display({'text/plain': 'x' * 400_000}, raw=True)"
        await client.execute(large, cell_id="large")
        found = await recorded(server, 3, kernel_id=client.kernel_id)
        assert [event["cell_id"] for event in found] == ["after yes", "late", "large"]
        now = await policy(server)
        assert (now["recording"], now["recording_since"]) == (True, given["at"])
        msg_id = await client.submit(f"{LATE}; import time; time.sleep(2)", cell_id="ran at the withdrawal")
        await asyncio.sleep(0.3)
        assert noted(server)
        assert (await delete(server))["given"] is False
        assert (await delete(server))["given"] is False
        await asyncio.sleep(0.3)
        assert noted(server) == []
        await client.wait(msg_id)
        await client.execute(large, cell_id="after the withdrawal")
        await client.restart()
        await asyncio.sleep(1)
        assert (await policy(server))["recording"] is False
    assert [event["cell_id"] for event in events_of(server, "late_output")] == ["late"]
    chain = [e for e in of_people(server) if kind(e) != "kernel_lifecycle" and e.get("cell_id") != "late"]
    assert [(kind(e), e.get("action", e.get("cell_id"))) for e in chain] == [
        ("consent", "given"),
        ("cell_execution", "after yes"),
        ("cell_execution", "large"),
        ("consent", "withdrawn"),
    ]
    assert {event["text_version"] for event in events_of(server, "consent")} == {"1"}
    assert {event["text_hash"] for event in events_of(server, "consent")} == {consent_text("1", "", "", "none").hash}
    assert events_of(server, "consent")[0]["time"] == given["at"]
    assert events_of(server, "recorder", action="stopped")[0]["executions"] == 3
    verified(server)
    assert "exec-events: fault" not in server.log


async def test_late_outputs_after_a_withdrawal(tmp_path: Path) -> None:
    """What comes late of an execution that was recorded before a withdrawal is not recorded after it."""
    async with RunningServer(tmp_path, config=CONSENT) as server, NotebookClient(server) as client:
        await put(server)
        await client.execute(LATE.replace("1", "2", 1), cell_id="late")
        await recorded(server, 1, kernel_id=client.kernel_id, settle=0)
        await delete(server)
        await client.wait_for(lambda m: m["header"]["msg_type"] == "stream" and "late" in m["content"]["text"])
        await asyncio.sleep(1)
    assert [kind(event) for event in of_people(server)] == ["consent", "cell_execution", "consent"]


async def test_yes_and_no_on_one_server(tmp_path: Path) -> None:
    """Of two people in one notebook's kernel, only who agreed is recorded, and direct clients are the one's who started it."""
    async with RunningServer(tmp_path, config=CONSENT + TWO) as server:
        assert ask(server, "ana", "PUT", "consent", AGREE).status == 200
        async with notebook(server, "ana", "both.ipynb") as hers:
            async with notebook(server, "ben", "both.ipynb") as his:
                await hers.execute("1", cell_id="a")
                await his.execute("2", cell_id="b")
                await hers.execute("3", cell_id="c")
                found = await recorded(server, 2, kernel_id=hers.kernel_id)
            async with direct(server, hers.kernel_id) as zmq:
                await zmq.execute_interactive("4", timeout=20, output_hook=lambda _: None)
            await recorded(server, 3, kernel_id=hers.kernel_id)
        async with notebook(server, "ben", "his.ipynb") as his, direct(server, his.kernel_id) as zmq:
            await zmq.execute_interactive("5", timeout=20, output_hook=lambda _: None)
            await asyncio.sleep(0.5)
    assert [event["cell_id"] for event in found] == ["a", "c"]
    assert {event["subject"] for event in of_people(server)} == {"ana"}


async def test_consent_survives_a_restart_but_not_another_text(tmp_path: Path) -> None:
    """A yes holds on the next start of the server, in a file for its owner alone; another version or another text is asked for again."""
    async with RunningServer(tmp_path, config=CONSENT) as server:
        given = await put(server)
    (file,) = (server.data_dir / "exec-events").glob("consent-*")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    async with RunningServer(tmp_path, config=CONSENT) as server, NotebookClient(server) as client:
        assert (await policy(server))["consent"] == given
        await client.execute("1")
        await recorded(server, 1, kernel_id=client.kernel_id)
    for more in ("c.ExecEvents.consent_version = '2'\n", "c.ExecEvents.consent_text = 'Something else'\n"):
        async with RunningServer(tmp_path, config=CONSENT + more) as server, NotebookClient(server) as client:
            told = await policy(server)
            assert (told["recording"], told["consent"]["given"]) == (False, False)
            await client.execute("2")
            await asyncio.sleep(0.5)
            assert not events_of(server, "cell_execution", kernel_id=client.kernel_id)
    verified(server)


@pytest.mark.parametrize("withdraws", ["never", "before", "since"])
async def test_a_kill_while_a_cell_runs(tmp_path: Path, withdraws: str) -> None:
    """After a kill the next start closes an execution of who agreed, and none of who withdrew before, or since at another server."""
    async with RunningServer(tmp_path, config=CONSENT) as server:
        await put(server)
        async with NotebookClient(server) as client:
            await client.submit("import time; time.sleep(60)", cell_id="killed")
            await asyncio.sleep(0.5)
            if withdraws == "before":
                await delete(server)
                await client.submit("import time; time.sleep(60)", cell_id="unrecorded")
                await asyncio.sleep(0.5)
            server.kill()
    if withdraws == "since":
        (file,) = (server.data_dir / "exec-events").glob("consent-*.json")
        file.unlink()
    async with RunningServer(tmp_path, config=CONSENT) as server:
        await asyncio.sleep(1)
    found = [(event["cell_id"], event["status"]) for event in events_of(server, "cell_execution")]
    assert found == ([("killed", "recorder_stopped")] if withdraws == "never" else [])
    assert noted(server) == []
    verified(server)


async def test_servers_that_share_a_folder_agree(tmp_path: Path) -> None:
    """What a person decides at one server holds at their other one at once, for what runs there too."""
    config = f"{CONSENT}c.ExecEvents.spool = {str(tmp_path / 'spool')!r}\n"
    async with (
        RunningServer(tmp_path / "one", config=config) as one,
        RunningServer(tmp_path / "two", config=config) as two,
        NotebookClient(two) as client,
    ):
        await put(one)
        await client.execute("1", cell_id="recorded")
        msg_id = await client.submit("import time; time.sleep(1)", cell_id="withdrawn elsewhere")
        await asyncio.sleep(0.3)
        assert (await policy(two))["recording"] is True
        await delete(one)
        await client.wait(msg_id)
        await client.execute("2", cell_id="after")
        await asyncio.sleep(0.5)
        assert (await policy(two))["recording"] is False
        cells = {"path": client.notebook, "cells": [{"id": c, "source": ""} for c in ("recorded", "after")]}
        assert list((await asyncio.to_thread(two.rest, "POST", "/exec-events/cells", cells))["cells"]) == ["recorded"]
        events = (await asyncio.to_thread(two.rest, "GET", "/exec-events/events"))["events"]
    executions = [e["event"]["cell_id"] for e in events if kind(e["event"]) == "cell_execution"]
    assert executions == ["recorded"]


async def test_required_asks_nothing_of_who_said_no(tmp_path: Path) -> None:
    """In required mode code of who did not agree runs unrecorded, with a full disk too; of who agreed it does not run unless it is on disk."""
    config = CONSENT + "c.ExecEvents.required = True\n"
    async with (
        RunningServer(tmp_path, config=config, extensions={"jupyter_server_nbmodel": True}) as server,
        NotebookClient(server) as client,
    ):
        await client.execute("ran = []")
        with full_disk(server):
            assert (await client.execute("ran.append(1)")).status == "ok"
            await client.rest("POST", f"/api/kernels/{client.kernel_id}/execute", {"code": "ran.append(2)"})
            await asyncio.sleep(1)
        await asyncio.sleep(6)
        assert of_people(server) == []
        await put(server)
        assert (await client.execute("ran.append(3)")).status == "ok"
        with full_disk(server):
            assert (await client.execute("ran.append(4)")).status == "error"
        await asyncio.sleep(6)
        await delete(server)
        assert (await client.execute("print(ran)")).text == "[1, 2, 3]\n"
        await recorded(server, 1, kernel_id=client.kernel_id)


async def test_what_cannot_be_kept_is_said(tmp_path: Path) -> None:
    """A yes that cannot be kept is 500 and records nothing; a withdrawal that cannot be kept is 500 and holds until the server stops."""
    async with RunningServer(tmp_path, config=CONSENT + TWO) as server:
        assert ask(server, "ana", "PUT", "consent", AGREE).status == 200
        (file,) = (server.data_dir / "exec-events").glob("consent-*.json")
        file.unlink()
        file.mkdir()
        (file / "in the way").touch()
        refused = ask(server, "ana", "PUT", "consent", AGREE)
        assert (refused.status, "cannot be kept" in refused.json["message"]) == (500, True)
        assert ask(server, "ana", "GET", "policy").json["recording"] is False
        withdrawn = ask(server, "ana", "DELETE", "consent")
        assert (withdrawn.status, "until this server stops" in withdrawn.json["message"]) == (500, True)
        assert ask(server, "ana", "GET", "policy").json["recording"] is False
        async with notebook(server, "ana", "a.ipynb") as client:
            assert (await client.execute("1")).status == "ok"
            await asyncio.sleep(0.5)
    assert not events_of(server, "cell_execution")
    assert not list((server.data_dir / "exec-events").glob("consent-*.????????????????"))


def test_what_cannot_be_read_is_a_no(tmp_path: Path) -> None:
    """A consent that is damaged, of another text, or of later than the execution, is none."""
    consents = Consents(tmp_path, ConsentText("1", "text"))
    assert consents.given_at("jo") is None
    consents.give("jo", consents.draft("jo", "2026-11-02T09:00:00.000000Z"))
    assert consents.covers("jo", "2026-11-02T09:00:00.000000Z")
    assert not consents.covers("jo", "2026-11-02T08:59:59.999999Z")
    assert not consents.covers("ada", "2026-11-02T09:00:00.000000Z")
    assert Consents(tmp_path, ConsentText("1", "text")).given_at("jo") == "2026-11-02T09:00:00.000000Z"
    assert Consents(tmp_path, ConsentText("2", "text")).given_at("jo") is None
    assert Consents(tmp_path, ConsentText("1", "another")).given_at("jo") is None
    whole = consents.path("jo").read_text()
    for damaged in ("", "[]", "{", json.dumps({**json.loads(whole), "version": None}), "\udcff"):
        consents.path("jo").write_text(damaged, errors="surrogateescape")
        assert consents.given_at("jo") is None
    consents.path("jo").write_text(whole)
    assert consents.given_at("jo") is not None
    consents.withdraw("jo")
    consents.sync()
    assert consents.given_at("jo") is None
    assert list(tmp_path.iterdir()) == []


def test_the_text(tmp_path: Path) -> None:
    """The text is the site's, from a setting or a file, or says what the settings keep; what cannot be asked for is refused."""
    assert consent_text("1", " Yes? \n", "", "none").text == "Yes?"
    (tmp_path / "text").write_text("Ja?\n")
    assert consent_text("1", "", str(tmp_path / "text"), "none").text == "Ja?"
    texts = {consent_text("1", "", "", contents).text for contents in ("none", "code", "code+outputs")}
    assert len(texts) == 3
    (tmp_path / "empty").write_text("\n")
    for version, text, file in (
        ("", "", ""),
        ("v" * 65, "", ""),
        ("a\nb", "", ""),
        ("1", "", str(tmp_path / "missing")),
        ("1", "", str(tmp_path / "empty")),
        ("1", "both", str(tmp_path / "text")),
    ):
        with pytest.raises(ConfigurationError, match=r"c\.ExecEvents\.consent_"):
            consent_text(version, text, file, "none")


async def test_a_notebook_cannot_agree(tmp_path: Path) -> None:
    """Nothing in a notebook, its cells or its messages agrees for who opens it, or sends anything anywhere."""
    wish = {"mode": "audit", "consent": {"version": "1", "given": True}, "deliver_to": [f"file://{tmp_path}/stolen"]}
    metadata = {"exec_events": wish, "exec-events": wish, "ExecEvents": wish, "consent": wish}
    cell = {"cell_type": "code", "id": "a", "source": "1", "outputs": [], "execution_count": None}
    document = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": metadata,
        "cells": [cell | {"metadata": metadata}],
    }
    async with RunningServer(tmp_path, config=CONSENT) as server:
        (server.root_dir / "wishes.ipynb").write_text(json.dumps(document))
        async with NotebookClient(server, notebook="wishes.ipynb") as client:
            await client.rest("GET", "/api/contents/wishes.ipynb")
            await client.execute("1", cell_id="a", metadata=metadata)
            await client.rest("POST", "/exec-events/verify", {"path": "wishes.ipynb", "notebook": document})
            await asyncio.sleep(0.5)
            assert (await policy(server))["recording"] is False
    assert of_people(server) == []
    assert not (tmp_path / "stolen").exists()
