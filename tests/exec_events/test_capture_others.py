"""Executions that do not come through a websocket: direct ZeroMQ, consoles, and code inside the server."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pexpect
import pytest
from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_server_documents.rooms.ynotebook_room import _source_hash

from conftest import PLAIN, recorded
from exec_events.hashing import Hasher
from exec_events.testing import NotebookClient, RunningServer

HASHER = Hasher(None)

USERS = '''
from jupyter_server.auth.identity import IdentityProvider, User

class TestUsers(IdentityProvider):
    """Who has the token is whom the X-User header names."""

    async def get_user_token(self, handler):
        user = await super().get_user_token(handler)
        return User(handler.request.headers.get("X-User", "ada")) if user else None

c.ServerApp.identity_provider_class = TestUsers
'''


@asynccontextmanager
async def direct(server: RunningServer, kernel_id: str) -> AsyncIterator[AsyncKernelClient]:
    """A client that talks to the kernel past the server."""
    client = AsyncKernelClient()
    client.load_connection_file(str(server.runtime_dir / f"kernel-{kernel_id}.json"))
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=20)
        yield client
    finally:
        client.stop_channels()


async def test_a_direct_client(server: RunningServer) -> None:
    """What a ZeroMQ client runs past the server is recorded from what the kernel publishes, and flagged as direct."""
    async with (
        NotebookClient(server, notebook="direct.ipynb") as notebook,
        direct(server, notebook.kernel_id) as client,
    ):
        for number in range(20):
            await client.execute_interactive(f"print({number})", timeout=20, output_hook=lambda _: None)
        await client.execute_interactive("1/0", timeout=20, output_hook=lambda _: None)
        await client.execute_interactive("hidden = 1", silent=True, timeout=20, output_hook=lambda _: None)
        found = await recorded(server, 22, kernel_id=notebook.kernel_id)
    assert {e["client"] for e in found} == {"direct"}
    assert {e["channel"] for e in found} == {"unknown"}
    assert not any(e["reply_seen"] for e in found)
    assert [e["code_hash"] for e in found[:20]] == [HASHER.code(f"print({n})") for n in range(20)]
    assert [e["status"] for e in found] == ["ok"] * 20 + ["error", "unknown"]
    assert "code_hash" not in found[-1], "a silent direct request's code is seen by nobody"
    assert not any("iopub_missed" in e for e in found)


async def test_jupyter_console(server: RunningServer) -> None:
    """Inputs typed into a real `jupyter console --existing` are recorded."""
    async with NotebookClient(server, notebook="console.ipynb") as notebook:
        file = server.runtime_dir / f"kernel-{notebook.kernel_id}.json"
        await asyncio.to_thread(type_into_console, file, ["a = 6", "a * 7"])
        found = await recorded(server, 3, kernel_id=notebook.kernel_id, client="direct", timeout=30)
    assert [e.get("code_hash") for e in found] == [HASHER.code(c) for c in ("a = 6", "a * 7", "exit(keep_kernel=True)")]


def type_into_console(connection_file: Path, lines: list[str]) -> None:
    """Type lines into a console attached to a kernel, and leave."""
    command = [sys.executable, "-m", "jupyter_console", "--existing", str(connection_file), "--simple-prompt"]
    child = pexpect.spawn(command[0], command[1:], timeout=40, env={**os.environ, "TERM": "dumb"}, encoding="utf-8")
    try:
        for line in lines:
            child.expect(r"In \[\d+\]:")
            child.sendline(line)
        child.expect("42")
        child.sendline("exit(keep_kernel=True)")
        child.expect(pexpect.EOF)
    finally:
        child.close(force=True)


@pytest.fixture(scope="module")
def nbmodel() -> Iterator[RunningServer]:
    """A server with jupyter_server_nbmodel, whose users have names."""
    with RunningServer(config=PLAIN + USERS, extensions={"jupyter_server_nbmodel": True}) as running:
        yield running
        assert "exec-events: fault" not in running.log


async def test_jupyter_server_nbmodel(nbmodel: RunningServer) -> None:
    """Its server-side executions carry the cell, and the user who asked, which the kernel never hears of."""
    async with NotebookClient(nbmodel, notebook="nbmodel.ipynb") as client:
        for number in range(3):
            body = {"code": f"print('server side', {number})", "metadata": {"cell_id": f"cell-{number}"}}
            await client.rest("POST", f"/api/kernels/{client.kernel_id}/execute", body)
        found = await recorded(nbmodel, 3, kernel_id=client.kernel_id)
    assert {e["client"] for e in found} == {"in_process"}
    assert [e["cell_id"] for e in found] == ["cell-0", "cell-1", "cell-2"]
    assert [e["code_hash"] for e in found] == [HASHER.code(f"print('server side', {n})") for n in range(3)]
    assert {(e["subject"], e["subject_from"]) for e in found} == {("ada", "request")}
    assert {(e["status"], e["iopub_seen"], e["reply_seen"]) for e in found} == {("ok", True, True)}


async def test_the_authenticated_user_of_a_websocket(nbmodel: RunningServer) -> None:
    """Where users have names, the subject is the user of the request, and the kernel's starter for direct ones."""
    async with NotebookClient(nbmodel, notebook="user.ipynb") as client:
        await client.execute("1")
        async with direct(nbmodel, client.kernel_id) as zmq:
            await zmq.execute_interactive("2", timeout=20, output_hook=lambda _: None)
        through, past = await recorded(nbmodel, 2, kernel_id=client.kernel_id)
    assert (through["subject"], through["subject_from"]) == ("ada", "request")
    assert (past["subject"], past["subject_from"]) == ("ada", "kernel_starter")


@pytest.fixture(scope="module")
def documents() -> Iterator[RunningServer]:
    """A server with jupyter_server_documents, which replaces the websocket and session classes."""
    extensions = {"jupyter_server_documents": True, "jupyter_server_fileid": True}
    with RunningServer(config=PLAIN + USERS, extensions=extensions) as running:
        yield running
        assert "exec-events: fault" not in running.log


async def test_the_websocket_class_of_jupyter_server_documents(documents: RunningServer) -> None:
    """Its websocket connection, which shares nothing with the stock one, is tapped as well."""
    async with NotebookClient(documents, notebook="plain.ipynb") as client:
        for number in range(5):
            await client.execute(f"print({number})", cell_id=f"c{number}")
        found = await recorded(documents, 5, kernel_id=client.kernel_id)
    assert [e["cell_id"] for e in found] == [f"c{n}" for n in range(5)]
    assert {(e["status"], e["reply_seen"], e["iopub_seen"], e["client"]) for e in found} == {
        ("ok", True, True, "websocket")
    }


async def test_server_side_execution_of_jupyter_server_documents(documents: RunningServer) -> None:
    """Cells that it runs from the shared document carry cell id and user."""
    cells = [
        {
            "id": f"cell-{n}",
            "cell_type": "code",
            "source": f"print({n})",
            "metadata": {},
            "outputs": [],
            "execution_count": None,
        }
        for n in range(3)
    ]
    notebook = {
        "cells": cells,
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    (documents.root_dir / "shared.ipynb").write_text(json.dumps(notebook))
    async with NotebookClient(documents, notebook="shared.ipynb") as client:
        file_id = (await client.rest("GET", "/api/fileid/id?path=shared.ipynb"))["id"]
        asked = [{"cell_id": cell["id"], "source_hash": _source_hash(cell["source"])} for cell in cells]
        body = {"document_id": f"json:notebook:{file_id}", "cells": asked}
        await client.rest("POST", f"/api/kernels/{client.kernel_id}/execute", body)
        found = await recorded(documents, 3, kernel_id=client.kernel_id)
    assert {e["client"] for e in found} == {"in_process"}
    assert [e["cell_id"] for e in found] == ["cell-0", "cell-1", "cell-2"]
    assert [e["code_hash"] for e in found] == [HASHER.code(f"print({n})") for n in range(3)]
    assert {(e["subject"], e["subject_from"]) for e in found} == {("ada", "request")}
