"""required = True: nothing runs that is not on disk first."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from conftest import PLAIN, events_of, recorded
from exec_events.testing import LEGACY, V1, NotebookClient, RunningServer, ServerStartError

REQUIRED = PLAIN + "c.ExecEvents.required = True\n"


@pytest.fixture(scope="module")
def required() -> Iterator[RunningServer]:
    """A server in required mode, with server-side execution."""
    with RunningServer(config=REQUIRED, extensions={"jupyter_server_nbmodel": True}) as running:
        yield running
        assert "exec-events: fault" not in running.log


def begun_on_disk(server: RunningServer) -> int:
    """How many executions are noted as begun, as another process sees it."""
    (path,) = (server.data_dir / "exec-events").glob("*.db")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM begun").fetchone()[0])


@contextlib.contextmanager
def full_disk(server: RunningServer) -> Iterator[None]:
    """The server can write no file beyond its first bytes, as on a full disk."""
    process = psutil.Process(server.pid)
    soft, hard = process.rlimit(psutil.RLIMIT_FSIZE)
    process.rlimit(psutil.RLIMIT_FSIZE, (4096, hard))
    try:
        yield
    finally:
        process.rlimit(psutil.RLIMIT_FSIZE, (soft, hard))


async def test_the_request_is_durable_before_the_kernel_sees_it(required: RunningServer) -> None:
    """By the time the kernel says busy, the execution is on disk as begun."""
    async with NotebookClient(required, notebook="durable.ipynb") as client:
        msg_id = await client.submit("import time; time.sleep(1)")
        await client.wait_for(
            lambda m: (
                m["header"]["msg_type"] == "status"
                and m["parent_header"].get("msg_id") == msg_id
                and m["content"]["execution_state"] == "busy"
            )
        )
        assert await asyncio.to_thread(begun_on_disk, required) == 1
        await client.wait(msg_id)
        (event,) = await recorded(required, 1, kernel_id=client.kernel_id)
    assert event["status"] == "ok"


async def test_order_is_kept(required: RunningServer) -> None:
    """Cells sent in one go run in the order they were sent, other messages between them too."""
    async with NotebookClient(required, notebook="order.ipynb") as client:
        await client.execute("seen = []")
        ids = [await client.submit(f"seen.append({n})") for n in range(100)]
        for msg_id in ids:
            await client.wait(msg_id)
        result = await client.execute("print(seen == list(range(100)))")
        assert result.text == "True\n"
        await recorded(required, 102, kernel_id=client.kernel_id)


@pytest.mark.parametrize("subprotocol", [V1, LEGACY])
async def test_what_cannot_be_recorded_does_not_run(required: RunningServer, subprotocol: str) -> None:
    """With a full disk a cell is refused with an execute_reply that says why; with room again the next one runs."""
    notebook = f"full-{subprotocol or 'legacy'}.ipynb"
    async with NotebookClient(required, notebook=notebook, subprotocol=subprotocol) as client:
        await client.execute("ran = []")
        with full_disk(required):
            result = await client.execute("ran.append('unrecorded')")
            assert result.status == "error"
            assert result.reply is not None
            assert result.reply["content"]["ename"] == "NotRecorded"
            assert "runs only what it can record" in result.reply["content"]["evalue"]
            assert [m["header"]["msg_type"] for m in result.outputs] == ["error"]
        await asyncio.sleep(6)
        result = await client.execute("print(ran)")
        assert result.text == "[]\n"
        await recorded(required, 2, kernel_id=client.kernel_id)


async def test_server_side_execution_is_refused_too(required: RunningServer) -> None:
    """In-process requests run only when they are on disk."""
    async with NotebookClient(required, notebook="inside.ipynb") as client:
        await client.execute("ran = []")
        execute = f"/api/kernels/{client.kernel_id}/execute"
        await client.rest("POST", execute, {"code": "ran.append(1)"})
        await recorded(required, 2, kernel_id=client.kernel_id)
        with full_disk(required):
            await client.rest("POST", execute, {"code": "ran.append(2)"})
            await asyncio.sleep(2)
        await asyncio.sleep(6)
        result = await client.execute("print(ran)")
        assert result.text == "[1]\n"
        found = await recorded(required, 3, kernel_id=client.kernel_id)
    assert [e["client"] for e in found] == ["websocket", "in_process", "websocket"]


async def test_without_required_a_full_disk_is_not_in_the_way(tmp_path: Path) -> None:
    """On an ordinary server cells run while the disk is full; status says so; with room again all of them are recorded."""
    async with RunningServer(tmp_path, config=PLAIN) as server, NotebookClient(server) as client:
        await client.execute("0")
        with full_disk(server):
            for number in range(20):
                assert (await client.execute(f"{number}")).status == "ok"
            await asyncio.sleep(0.5)
            status = await client.rest("GET", "/exec-events/status")
            assert status["healthy"] is False
            assert any("cannot write the spool" in problem for problem in status["problems"])
            assert "exec_events_healthy 0.0" in await client.rest("GET", "/metrics")
        found = await recorded(server, 21, kernel_id=client.kernel_id, timeout=30)
        assert {e["status"] for e in found} == {"ok"}
        status = await client.rest("GET", "/exec-events/status")
        assert (status["healthy"], status["lost"]) == (True, 0)
        assert not events_of(server, "late_output")


THREAD = '''
import threading
from jupyter_client.blocking.client import BlockingKernelClient

def _load_jupyter_server_extension(app):
    """Runs what the test posts as code, from a thread of the server's."""
    from jupyter_server.base.handlers import APIHandler

    class RunHandler(APIHandler):
        async def post(self, kernel_id):
            code = self.get_json_body()["code"]
            kernel = app.kernel_manager.get_kernel(kernel_id)
            answer = {}
            def run():
                client = BlockingKernelClient(parent=kernel)
                client.load_connection_file(kernel.connection_file)
                client.start_channels()
                try:
                    client.wait_for_ready(timeout=20)
                    client.execute_interactive(code, timeout=20, output_hook=lambda _: None)
                    answer["result"] = "ran"
                except Exception as error:
                    answer["result"] = f"{type(error).__name__}: {error}"
                finally:
                    client.stop_channels()
            thread = threading.Thread(target=run)
            thread.start()
            import asyncio
            while thread.is_alive():
                await asyncio.sleep(0.05)
            self.finish(answer)

    app.web_app.add_handlers(".*", [(r"/run-in-thread/([\\w-]+)", RunHandler)])
'''


async def test_a_thread_of_the_server_is_refused_too(tmp_path: Path) -> None:
    """A blocking client on another thread of the server runs only what is on disk, and is recorded as in-process."""
    (tmp_path / "thread_runner.py").write_text(THREAD)
    env = {"PYTHONPATH": str(tmp_path)}
    async with (
        RunningServer(tmp_path / "server", config=REQUIRED, env=env, extensions={"thread_runner": True}) as server,
        NotebookClient(server) as client,
    ):
        await client.execute("ran = []")
        run = f"/run-in-thread/{client.kernel_id}"
        assert (await client.rest("POST", run, {"code": "ran.append(1)"}))["result"] == "ran"
        with full_disk(server):
            assert "NotRecorded" in (await client.rest("POST", run, {"code": "ran.append(2)"}))["result"]
        await asyncio.sleep(6)
        assert (await client.execute("print(ran)")).text == "[1]\n"
        found = await recorded(server, 3, kernel_id=client.kernel_id)
    assert [e["client"] for e in found] == ["websocket", "in_process", "websocket"]


def test_a_recorder_that_cannot_start_ends_the_server(tmp_path: Path) -> None:
    """In required mode a recorder that cannot start takes the server with it; without, the server serves and says so."""
    broken = "c.ExecEvents.hash_key_file = '/nowhere/key'\n"
    with pytest.raises(ServerStartError, match="required is set and nothing can be recorded"):
        RunningServer(tmp_path / "required", config=REQUIRED + broken).start()
    with RunningServer(tmp_path / "ordinary", config=PLAIN + broken) as server:
        status = server.rest("GET", "/exec-events/status")
        assert (status["recording"], status["healthy"]) == (False, False)
        assert "/nowhere/key" in status["problems"][0]
        assert "exec_events_healthy 0.0" in server.rest("GET", "/metrics")
