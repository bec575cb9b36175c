"""Contents: bodies are kept where the site says so, beside the events, and can be erased without a trace."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from conftest import recorded
from exec_events.cli import main
from exec_events.cli.erase import erase_subject
from exec_events.hashing import Hasher, commit
from exec_events.seal import Content
from exec_events.spool import Spool
from exec_events.testing import NotebookClient, RunningServer, records
from two_people import TWO, Person

LOG = logging.getLogger("test")
HASHER = Hasher(None)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of two people that keeps code and outputs."""
    config = TWO + "c.ExecEvents.contents = 'code+outputs'\n"
    with RunningServer(tmp_path_factory.mktemp("contents"), config=config) as running:
        yield running
        assert "exec-events: fault" not in running.log


def exec_events(server: RunningServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run exec-events as this server's user."""
    env = {**os.environ, **server.environment}
    command = [sys.executable, "-m", "exec_events", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


def bodies(server: RunningServer) -> dict[str, dict[str, Any]]:
    """The stored bodies by commitment."""
    found = {}
    for path in (server.data_dir / "exec-events").glob("*.db"):
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            for commitment, subject, kind, nonce, body in connection.execute("SELECT * FROM contents"):
                found[commitment] = {"subject": subject, "kind": kind, "nonce": nonce, "body": body}
    return found


def holding(folder: Path, text: str) -> list[str]:
    """The files of a folder that hold a text."""
    return [path.name for path in folder.iterdir() if text.encode() in path.read_bytes()]


async def run(server: RunningServer, name: str, code: str) -> dict[str, Any]:
    """Run a cell as ana or ben; its event."""
    async with NotebookClient(Person(server.url, f"token-of-{name}"), notebook=f"{name}.ipynb") as client:
        await client.execute(code)
        found = await recorded(
            server,
            1,
            kernel_id=client.kernel_id,
            code_hash=HASHER.code(code),
            settle=0,
        )
    return found[0]


async def test_bodies_are_kept_under_their_commitment(site: RunningServer) -> None:
    """Code and outputs are stored under SHA-256(nonce || body) as their event says, and are not in it."""
    code = "print('kept-1f3a'); 'kept-' + 'result'"
    event = await run(site, "ana", code)
    stored = bodies(site)
    kept_code, kept_outputs = stored[event["code_commitment"]], stored[event["outputs_commitment"]]
    assert (kept_code["kind"], kept_code["body"].decode()) == ("code", code)
    outputs = json.loads(kept_outputs["body"])
    assert [output["output_type"] for output in outputs] == ["stream", "execute_result"]
    assert HASHER.bytes(kept_outputs["body"]) == event["outputs_hash"]
    for name, kept in (("code_commitment", kept_code), ("outputs_commitment", kept_outputs)):
        assert commit(kept["nonce"], kept["body"]) == event[name]
        assert kept["subject"] == event["subject"]
    assert len({kept["nonce"] for kept in stored.values()}) == len(stored)
    everything = json.dumps(records(site.data_dir))
    assert "kept-1f3a" not in everything
    assert "kept-result" not in everything


async def test_equal_bodies_have_unequal_commitments(site: RunningServer) -> None:
    """Two runs of the same code have the same hash and different commitments, so that erasing one leaves the other."""
    first = await run(site, "ana", "'twice'  # ana")
    async with NotebookClient(Person(site.url, "token-of-ana"), notebook="ana.ipynb") as client:
        await client.execute("'twice'  # ana")
        found = await recorded(site, 2, kernel_id=client.kernel_id, code_hash=first["code_hash"])
    assert found[0]["code_commitment"] != found[1]["code_commitment"]


async def test_one_person_is_erased(site: RunningServer) -> None:
    """After `exec-events erase` on a live server a person's bodies are in no file; others', and all events, are."""
    folder = site.data_dir / "exec-events"
    marks = {"ana": "gone-77c1", "ben": "stays-22d0"}
    for name, mark in marks.items():
        for n in range(5):
            code = f"x = '{mark}'; print((x + ' ') * {1 if n % 2 else 20_000}, {n})"
            event = await run(site, name, code)
            assert event["subject_from"] == "request"
    assert holding(folder, marks["ana"])
    before = records(site.data_dir)
    count = sum(kept["subject"] == event_subject(site, "ana") for kept in bodies(site).values())
    erased = await asyncio.to_thread(exec_events, site, "erase", "ana", "--yes")
    assert (erased.returncode, erased.stdout) == (0, f"{count} bodies removed\n"), erased.stderr
    assert holding(folder, marks["ana"]) == []
    assert holding(folder, marks["ben"])
    assert {kept["subject"] for kept in bodies(site).values()} == {event_subject(site, "ben")}
    assert records(site.data_dir)[: len(before)] == before
    verified = await asyncio.to_thread(exec_events, site, "verify")
    assert verified.returncode == 0, verified.stdout
    # The server goes on, and keeps what comes.
    after = await run(site, "ana", "print('after')")
    assert bodies(site)[after["code_commitment"]]["body"] == b"print('after')"
    assert (await asyncio.to_thread(site.rest, "GET", "/exec-events/status"))["problems"] == []


def event_subject(server: RunningServer, name: str) -> str:
    """The pseudonym of a name at this server."""
    return exec_events(server, "pseudonym", name).stdout.strip()


async def test_an_unknown_person_has_nothing(site: RunningServer) -> None:
    """Erasing who has no bodies removes 0 and changes nothing; a subject can be named as events name it."""
    await run(site, "ben", "'ben was here'")
    before = bodies(site)
    nobody = await asyncio.to_thread(exec_events, site, "erase", "nobody", "--yes")
    assert (nobody.returncode, nobody.stdout) == (0, "0 bodies removed\n")
    assert bodies(site) == before
    subject = await asyncio.to_thread(event_subject, site, "ben")
    erased = await asyncio.to_thread(exec_events, site, "erase", subject, "--yes")
    assert erased.stdout != "0 bodies removed\n"
    assert subject not in {kept["subject"] for kept in bodies(site).values()}


async def test_code_alone(tmp_path: Path) -> None:
    """With contents = "code" the code is kept and outputs are not."""
    async with RunningServer(tmp_path, config="c.ExecEvents.contents = 'code'\n") as server:
        async with NotebookClient(server) as client:
            await client.execute("print('out' + 'put')")
            (event,) = await recorded(server, 1, settle=0)
        assert [kept["kind"] for kept in bodies(server).values()] == ["code"]
        assert "outputs_commitment" not in event
        assert bodies(server)[event["code_commitment"]]["body"] == b"print('out' + 'put')"
        assert holding(server.data_dir / "exec-events", "output\n") == []


# Erasing, file by file.


def keep(folder: Path, count: int, names: tuple[str, ...] = ("ana", "ben")) -> Path:
    """A spool file with bodies of several people, in turn; each body holds its owner's name, and some are large."""
    spool = Spool(folder, str(uuid.uuid4()), LOG, started_at="2026-01-01T00:00:00.000000Z")
    spool.start()
    for n in range(count):
        name = names[n % len(names)]
        body = f"body-of-{name}-{n} ".encode() * (1 if n % 5 else 3000)
        nonce = os.urandom(32)
        spool.append({"n": n}, name, contents=(Content(commit(nonce, body), name, "code", nonce, body),))
    spool.flush().result(30)
    assert spool.close(10)
    return spool.path


def test_many_bodies_leave_no_byte(tmp_path: Path) -> None:
    """Hundreds of bodies, small and large, between those of others: none is left anywhere, the others all are."""
    path = keep(tmp_path, 1000)
    result = CliRunner().invoke(main, ["erase", "ana", "--spool", str(tmp_path), "--yes"])
    assert (result.exit_code, result.stdout) == (0, "500 bodies removed\n"), result.output
    assert holding(tmp_path, "body-of-ana") == []
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM contents WHERE subject = 'ben'").fetchone() == (500,)
        assert connection.execute("SELECT count(*) FROM records").fetchone() == (1000,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_erasing_beside_a_busy_writer(tmp_path: Path) -> None:
    """Erasing again and again while a spool writes bodies loses none of its records and none of others' bodies."""
    spool = Spool(tmp_path, str(uuid.uuid4()), LOG, started_at="2026-01-01T00:00:00.000000Z")
    spool.start()
    spool.flush().result(10)
    removed = 0
    for n in range(1500):
        name = "ana" if n % 2 else "ben"
        nonce, body = os.urandom(32), f"body-of-{name}-{n}".encode()
        spool.append({"n": n}, name, contents=(Content(commit(nonce, body), name, "code", nonce, body),))
        if n % 150 == 149:
            removed += erase_subject(spool.path, ["ana"])
    spool.flush().result(30)
    assert (spool.state().problem, spool.state().damaged, spool.state().lost) == (None, None, 0)
    removed += erase_subject(spool.path, ["ana"])
    assert removed == 750
    assert holding(tmp_path, "body-of-ana") == []
    with closing(sqlite3.connect(spool.path)) as connection:
        assert connection.execute("SELECT subject, count(*) FROM contents GROUP BY 1").fetchall() == [("ben", 750)]
        assert connection.execute("SELECT count(*) FROM records").fetchone() == (1500,)
    assert spool.close(10)


def test_a_journal_in_use_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a reader keeps the journal from being emptied the command fails, and works once the reader is gone."""
    monkeypatch.setattr("exec_events.cli.erase.BUSY_SECONDS", 0.2)
    path = keep(tmp_path, 10)
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM contents").fetchone()
        result = CliRunner().invoke(main, ["erase", "ana", "--spool", str(tmp_path), "--yes"])
        assert result.exit_code == 1
        assert "run the command again" in result.stderr
    result = CliRunner().invoke(main, ["erase", "ana", "--spool", str(tmp_path), "--yes"])
    assert result.exit_code == 0
    assert holding(tmp_path, "body-of-ana") == []


def test_files_set_aside_are_erased_too(tmp_path: Path) -> None:
    """A damaged file that was set aside is erased where it can be read, and else named as what to remove."""
    keep(tmp_path, 10)
    aside = keep(tmp_path, 10)
    aside = aside.rename(f"{aside}.damaged-1")
    result = CliRunner().invoke(main, ["erase", "ana", "--spool", str(tmp_path), "--yes"])
    assert (result.exit_code, result.stdout) == (0, "10 bodies removed\n")
    assert holding(tmp_path, "body-of-ana") == []
    aside.write_bytes(b"no database any more, but body-of-ana " * 1000)
    result = CliRunner().invoke(main, ["erase", "ana", "--spool", str(tmp_path), "--yes"])
    assert result.exit_code == 1
    assert f"{aside} may still hold some" in result.stderr
    assert "remove the file yourself" in result.stderr


def test_a_person_is_asked(tmp_path: Path) -> None:
    """Without --yes the command asks first, and removes nothing on a no; with no spool it says so."""
    keep(tmp_path, 2)
    result = CliRunner().invoke(main, ["erase", "ana", "--spool", str(tmp_path)], input="n\n")
    assert result.exit_code == 1
    assert holding(tmp_path, "body-of-ana")
    (tmp_path / "empty").mkdir()
    result = CliRunner().invoke(main, ["erase", "ana", "--spool", str(tmp_path / "empty"), "--yes"])
    assert result.exit_code == 1
    assert "no spool in" in result.stderr
