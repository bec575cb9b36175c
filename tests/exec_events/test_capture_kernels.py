"""Kernels that start, restart, die, are shut down, and servers that stop: every execution still ends in one event."""

from __future__ import annotations

import asyncio
from pathlib import Path

from conftest import PLAIN, events_of, eventually, kind, recorded
from exec_events.hashing import Hasher
from exec_events.testing import LEGACY, NotebookClient, RunningServer, records

HASHER = Hasher(None)


async def test_the_first_cell_right_after_start(server: RunningServer) -> None:
    """A request sent the moment the websocket opens, on a kernel just started, is recorded whole."""
    for number in range(6):
        client = NotebookClient(server, notebook=f"start-{number}.ipynb")
        session = await client.rest("POST", "/api/sessions", client._session_request())
        client.kernel_id = session["kernel"]["id"]
        await client.connect(hello=False)
        await client.execute("print('first')")
        (event,) = await recorded(server, 1, settle=0.1, kernel_id=client.kernel_id)
        assert (event["status"], event["iopub_seen"], event["reply_seen"]) == ("ok", True, True)
        assert event["outputs"][0]["bytes"] == 6
        await client.rest("DELETE", f"/api/sessions/{session['id']}")
        await client.close()


async def test_the_first_cell_right_after_restart(server: RunningServer) -> None:
    """A request sent on the old websocket at once after a restart is held until the kernel is heard, and recorded whole."""
    async with NotebookClient(server, notebook="restart-first.ipynb") as client:
        for number in range(8):
            await client.restart(reconnect=False)
            # The client's own subscription may miss its idle: a stock server does not wait for it after a restart.
            await client.submit(f"print('after', {number})", cell_id=f"after-{number}")
            await eventually(server, "cell_execution", kernel_id=client.kernel_id, cell_id=f"after-{number}")
        found = await recorded(server, 8, kernel_id=client.kernel_id)
    assert {(e["status"], e["iopub_seen"], e["reply_seen"]) for e in found} == {("ok", True, True)}
    assert all(e["outputs"] for e in found)


async def test_a_restart_while_a_cell_runs(server: RunningServer) -> None:
    """The running and the queued cell of a restarted kernel are closed as such; the next one is itself."""
    async with NotebookClient(server, notebook="restart.ipynb") as client:
        await client.submit("print('begun'); import time; time.sleep(60)", cell_id="running")
        await client.submit("1 + 1", cell_id="queued")
        await asyncio.sleep(0.5)
        await client.restart()
        await client.execute("2 + 2", cell_id="after")
        found = {e["cell_id"]: e for e in await recorded(server, 3, kernel_id=client.kernel_id)}
    assert (found["running"]["status"], found["after"]["status"]) == ("kernel_restarted", "ok")
    # A restart interrupts the kernel first: what is queued is aborted with it, unless it was faster and did run.
    ran = any(row["kind"] == "execute_result" for row in found["queued"]["outputs"])
    assert found["queued"]["status"] == "kernel_restarted" or (found["queued"]["status"] == "ok" and ran)
    assert {"kind": "stream", "mime": "stdout", "count": 1, "bytes": 6} in found["running"]["outputs"]
    assert found["queued"]["code_hash"] == HASHER.code("1 + 1")
    (life,) = events_of(server, "kernel_lifecycle", kernel_id=client.kernel_id, action="restarted")
    assert life["cause"] == "request"


async def test_a_kernel_that_dies(server: RunningServer) -> None:
    """What a dying kernel printed is kept, its cell is closed as kernel_died, and the restarted kernel is recorded."""
    async with NotebookClient(server, notebook="dies.ipynb") as client:
        await client.submit(
            "print('last words', flush=True); import os, time; time.sleep(0.3); os._exit(1)", cell_id="dying"
        )
        await eventually(server, "cell_execution", kernel_id=client.kernel_id, cell_id="dying", timeout=30)
        await eventually(server, "kernel_lifecycle", kernel_id=client.kernel_id, action="died", timeout=30)
        await client.submit("1", cell_id="after")
        dying, after = await recorded(server, 2, kernel_id=client.kernel_id)
    assert (dying["status"], dying["outputs"][0]["bytes"]) == ("kernel_died", 11)
    assert (after["status"], after["iopub_seen"]) == ("ok", True)
    (again,) = events_of(server, "kernel_lifecycle", kernel_id=client.kernel_id, action="restarted")
    assert again["cause"] == "autorestart"


async def test_a_kernel_shut_down_while_a_cell_runs(server: RunningServer) -> None:
    """Shutting a kernel down ends its executions and its life."""
    async with NotebookClient(server, notebook="shutdown.ipynb", subprotocol=LEGACY) as client:
        await client.submit("import time; time.sleep(60)")
        await asyncio.sleep(0.3)
        await client.shutdown()
        (event,) = await recorded(server, 1, kernel_id=client.kernel_id)
    assert event["status"] == "kernel_shut_down"
    actions = [e["action"] for e in events_of(server, "kernel_lifecycle", kernel_id=client.kernel_id)]
    assert actions == ["started", "shut_down"]


async def test_a_server_that_stops_with_cells_running(tmp_path: Path) -> None:
    """An orderly stop closes what runs as recorder_stopped, and the recorder's chain with the heads of the others."""
    async with RunningServer(tmp_path, config=PLAIN) as server:
        client = NotebookClient(server)
        await client.open()
        await client.execute("1")
        await client.submit("import time; time.sleep(60)")
        await client.submit("2")
        await asyncio.sleep(0.3)
        await asyncio.to_thread(server.stop)
        await client.close()
        found = records(server.data_dir)
    executions = [r["event"] for r in found if kind(r["event"]) == "cell_execution"]
    assert [e["status"] for e in executions] == ["ok", "recorder_stopped", "recorder_stopped"]
    last = found[-1]
    assert (last["event"]["action"], last["event"]["cause"], last["event"]["open_executions"]) == ("stopped", "stop", 0)
    chain = next(r["seal"]["chain"] for r in found if kind(r["event"]) == "cell_execution")
    heads = {head["chain"]: head["seq"] for head in last["event"]["heads"]}
    assert heads == {chain: 2}


async def test_a_kernel_life_from_start_to_end(server: RunningServer) -> None:
    """A kernel's start names who started it, and its notebook."""
    async with NotebookClient(server, notebook="life.ipynb") as client:
        await client.execute("1")
        (started,) = await eventually(server, "kernel_lifecycle", kernel_id=client.kernel_id, action="started")
        assert (started["cause"], started["kernel_name"]) == ("request", "python3")
        await client.shutdown()
        (ended,) = await eventually(server, "kernel_lifecycle", kernel_id=client.kernel_id, action="shut_down")
        assert ended["notebook"] == "life.ipynb"
