"""A server whose kernels run behind a gateway: the websockets are all it sees, and they are recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from conftest import PLAIN, eventually, recorded
from exec_events.hashing import Hasher
from exec_events.testing import LEGACY, NotebookClient, RunningServer

HASHER = Hasher(None)


@pytest.fixture(scope="module")
def behind() -> Iterator[RunningServer]:
    """A server with the recorder whose kernels run on another one, which has none."""
    with RunningServer(recorder=False, config="c.ServerApp.allow_remote_access = True") as gateway:
        config = f"c.GatewayClient.url = {gateway.url!r}\nc.GatewayClient.auth_token = {gateway.token!r}\n"
        with RunningServer(config=PLAIN + config) as server:
            yield server
            assert "exec-events: fault" not in server.log


async def test_websocket_executions_through_a_gateway(behind: RunningServer) -> None:
    """Cells of two clients at once are recorded once each, with code, outputs and status."""
    async with (
        NotebookClient(behind, notebook="remote.ipynb", subprotocol=LEGACY) as one,
        NotebookClient(behind, notebook="remote.ipynb", subprotocol=LEGACY) as two,
    ):
        await one.execute("print('first')\n1", cell_id="a")
        await two.execute("1/0", cell_id="b")
        await asyncio.gather(*(one.execute(f"print({n})", cell_id=f"c{n}") for n in range(10)))
        found = await recorded(behind, 12, kernel_id=one.kernel_id)
        first, failed = found[0], found[1]
        assert (first["status"], first["cell_id"], first["notebook"]) == ("ok", "a", "remote.ipynb")
        assert first["code_hash"] == HASHER.code("print('first')\n1")
        assert first["outputs"] == [
            {"kind": "execute_result", "mime": "text/plain", "count": 1, "bytes": 1},
            {"kind": "stream", "mime": "stdout", "count": 1, "bytes": 6},
        ]
        assert (failed["status"], failed["error_name"]) == ("error", "ZeroDivisionError")
        assert all(e["iopub_seen"] and e["reply_seen"] for e in found)
        await eventually(behind, "kernel_lifecycle", kernel_id=one.kernel_id, action="started")
        await one.shutdown()
        await eventually(behind, "kernel_lifecycle", kernel_id=one.kernel_id, action="shut_down")
