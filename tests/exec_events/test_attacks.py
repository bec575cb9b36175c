"""Attempts to run unseen or to forge the record, each with what is recorded; see docs/capture.md."""

from __future__ import annotations

import asyncio
import os
import signal
import uuid

from jupyter_client.asynchronous.client import AsyncKernelClient

from conftest import recorded
from exec_events.hashing import Hasher
from exec_events.testing import NotebookClient, RunningServer

HASHER = Hasher(None)

FORGE = """
import zmq
from ipykernel.kernelapp import IPKernelApp
kernel = IPKernelApp.instance().kernel
def publish(msg_type, content, parent):
    kernel.session.send(kernel.iopub_socket, msg_type, content, parent=parent)
"""


async def test_a_kernel_invents_an_execution(server: RunningServer) -> None:
    """What a kernel publishes of a request nobody sent is recorded as direct: known from the kernel's word alone."""
    msg_id = uuid.uuid4().hex
    code = f"""{FORGE}
parent = {{"header": {{"msg_id": "{msg_id}", "msg_type": "execute_request", "session": "x", "date": "2020-01-01T00:00:00Z"}}}}
publish("status", {{"execution_state": "busy"}}, parent)
publish("execute_input", {{"code": "innocent()", "execution_count": 999}}, parent)
publish("status", {{"execution_state": "idle"}}, parent)
"""
    async with NotebookClient(server, notebook="invent.ipynb") as client:
        await client.execute(code)
        real, invented = await recorded(server, 2, kernel_id=client.kernel_id)
    assert (real["client"], real["code_hash"]) == ("websocket", HASHER.code(code))
    assert (invented["client"], invented["channel"], invented["reply_seen"]) == ("direct", "unknown", False)
    assert invented["requested_at"] > "2026", "the time is the recorder's, not the one the kernel made up"


async def test_a_kernel_says_idle_too_early(server: RunningServer) -> None:
    """A forged idle ends nothing before the reply is seen: what comes in between is still the cell's output."""
    code = f"""{FORGE}
parent = kernel.get_parent()
print("before", flush=True)
publish("status", {{"execution_state": "idle"}}, parent)
import time; time.sleep(0.05)
print("after", flush=True)
"""
    async with NotebookClient(server, notebook="early.ipynb") as client:
        await client.submit(code)
        (event,) = await recorded(server, 1, kernel_id=client.kernel_id)
    assert event["outputs"][0]["bytes"] == len("before\nafter\n")
    assert event["status"] == "ok"


async def test_a_kernel_patched_to_publish_no_code(server: RunningServer) -> None:
    """A kernel that hides execute_input changes nothing for a websocket client: the code is hashed as sent."""
    hide = (
        "from ipykernel.kernelapp import IPKernelApp\nkernel = IPKernelApp.instance().kernel\n"
        "kernel._publish_execute_input = lambda *a, **k: None"
    )
    async with NotebookClient(server, notebook="hide.ipynb") as client:
        await client.execute(hide)
        await client.execute("secret = 1", cell_id="hidden")
        _, hidden = await recorded(server, 2, kernel_id=client.kernel_id)
    assert hidden["code_hash"] == HASHER.code("secret = 1")
    assert (hidden["status"], hidden["reply_seen"]) == ("ok", True)


async def test_a_kernel_patched_to_publish_no_status(server: RunningServer) -> None:
    """A kernel that publishes nothing is recorded from request and reply, and flagged as unseen on iopub."""
    hide = (
        "from ipykernel.kernelapp import IPKernelApp\nkernel = IPKernelApp.instance().kernel\n"
        "kernel._publish_execute_input = lambda *a, **k: None\nkernel._publish_status = lambda *a, **k: None\n"
        "kernel._publish_status_and_flush = lambda *a, **k: None"
    )
    async with NotebookClient(server, notebook="mute.ipynb") as client:
        await client.submit(hide)
        await asyncio.sleep(0.5)
        await client.submit("secret = 1", cell_id="mute")
        found = {e.get("cell_id"): e for e in await recorded(server, 2, kernel_id=client.kernel_id)}
    event = found["mute"]
    assert event["code_hash"] == HASHER.code("secret = 1")
    assert (event["iopub_seen"], event["reply_seen"], event["status"]) == (False, True, "ok")


async def test_a_kernel_that_echoes_other_code(server: RunningServer) -> None:
    """When the kernel claims other code than was sent, the hash is of what was sent and the mismatch is flagged."""
    lie = (
        "from ipykernel.kernelapp import IPKernelApp\nkernel = IPKernelApp.instance().kernel\n"
        "publish = kernel._publish_execute_input\n"
        "kernel._publish_execute_input = lambda code, *a, **k: publish('innocent()', *a, **k)"
    )
    async with NotebookClient(server, notebook="lie.ipynb") as client:
        await client.execute(lie)
        await client.execute("guilty = 1")
        _, event = await recorded(server, 2, kernel_id=client.kernel_id)
    assert event["code_hash"] == HASHER.code("guilty = 1")
    assert event["code_mismatch"] is True


async def test_code_run_from_within_a_cell_is_that_cell(server: RunningServer) -> None:
    """run_cell and exec inside a cell are part of that cell's one event."""
    async with NotebookClient(server, notebook="within.ipynb") as client:
        await client.execute("get_ipython().run_cell('print(1)'); exec('print(2)')")
        (event,) = await recorded(server, 1, kernel_id=client.kernel_id)
    assert event["outputs"][0]["bytes"] == 4


async def test_unsigned_messages_are_not_believed(server: RunningServer) -> None:
    """Frames that carry a wrong signature change nothing and break nothing."""
    code = """
from ipykernel.kernelapp import IPKernelApp
kernel = IPKernelApp.instance().kernel
from jupyter_client.session import Session
liar = Session(key=b"not the kernel's key")
parent = kernel.get_parent()
for n in range(5):
    liar.send(kernel.iopub_socket, "stream", {"name": "stdout", "text": "forged"}, parent=parent)
kernel.iopub_socket.send_multipart([b"no", b"message", b"at all"])
kernel.iopub_socket.send_multipart([b"x", b"<IDS|MSG>", b"", b"{", b"[]", b"7"])
print("true")
"""
    async with NotebookClient(server, notebook="unsigned.ipynb") as client:
        await client.submit(code)
        (event,) = await recorded(server, 1, kernel_id=client.kernel_id)
        await client.submit("print('next')")
        _, after = await recorded(server, 2, kernel_id=client.kernel_id)
    assert event["outputs"] == [{"kind": "stream", "mime": "stdout", "count": 1, "bytes": 5}]
    assert after["status"] == "ok"


async def test_hostile_contents_break_nothing(server: RunningServer) -> None:
    """Contents that are not what the protocol says are recorded as far as they can be, without a fault."""
    code = f"""{FORGE}
parent = kernel.get_parent()
for content in ({{}}, {{"name": 7, "text": ["a", 1]}}, {{"data": "no dict"}}, {{"data": {{"x/y" * 99: [1.5, None], "text/plain": 3}}}},
                {{"name": "stdout", "text": "\\ud800"}}, {{"ename": ["x"], "evalue": {{}}, "traceback": "t"}}):
    for msg_type in ("stream", "display_data", "execute_result", "error", "update_display_data", "clear_output", "status"):
        try:
            publish(msg_type, content, parent)
        except Exception:
            pass
print("survived")
"""
    async with NotebookClient(server, notebook="hostile.ipynb") as client:
        await client.submit(code, cell_id="hostile")
        await client.submit("print('next')", cell_id="next")
        found = await recorded(server, 2, kernel_id=client.kernel_id)
    assert [e["cell_id"] for e in found] == ["hostile", "next"]


async def test_hostile_requests_break_nothing(server: RunningServer) -> None:
    """Requests with values of the wrong type, and frames that are no message, do not hurt the recorder."""
    async with NotebookClient(server, notebook="requests.ipynb") as client:
        await client.send(
            "execute_request", {"code": 7, "silent": "x", "user_expressions": []}, metadata={"cellId": [1]}
        )
        await client.send("execute_request", {})
        await client.execute("print('fine')", cell_id="fine")
        found = await recorded(server, 1, kernel_id=client.kernel_id, cell_id="fine")
        assert found[0]["status"] == "ok"
        await client.send_frame(b"\x03\0\0\0\0\0\0\0garbage execute_request")
    async with NotebookClient(server, notebook="requests.ipynb") as client:
        await client.execute("print('still here')", cell_id="again")
        await recorded(server, 1, kernel_id=client.kernel_id, cell_id="again")


async def test_long_names_are_cut(server: RunningServer) -> None:
    """A cell id or error name of any length or alphabet becomes what an event may carry."""
    async with NotebookClient(server, notebook="names.ipynb") as client:
        await client.execute("1", cell_id="ü\n" + "x" * 1000)
        await client.execute("class Ünïcode(Exception): pass\nraise Ünïcode")
        cell, error = await recorded(server, 2, kernel_id=client.kernel_id)
    assert len(cell["cell_id"]) == 128
    assert "\n" not in cell["cell_id"]
    assert error["error_name"] == "other"


async def test_a_paused_server_notices_what_it_missed(server: RunningServer) -> None:
    """When messages are dropped on the kernel's side, the event says how many are known to be missing."""
    code = "from IPython.display import display\nfor n in range(12_000): display(n)"
    async with NotebookClient(server, notebook="paused.ipynb") as notebook:
        client = AsyncKernelClient()
        client.load_connection_file(str(server.runtime_dir / f"kernel-{notebook.kernel_id}.json"))
        client.start_channels()
        try:
            await client.wait_for_ready(timeout=20)
            os.kill(server.pid, signal.SIGSTOP)
            try:
                client.execute(code)
                reply = await client.get_shell_msg(timeout=60)
                while reply["msg_type"] != "execute_reply":
                    reply = await client.get_shell_msg(timeout=60)
            finally:
                os.kill(server.pid, signal.SIGCONT)
        finally:
            client.stop_channels()
        # The idle itself may be among what was dropped: the next cell shows that this one is over.
        await notebook.submit("1", cell_id="next")
        found = {e.get("cell_id"): e for e in await recorded(server, 2, kernel_id=notebook.kernel_id)}
    paused = found[None]
    shown = sum(row["count"] for row in paused["outputs"])
    assert shown < 12_000, "nothing was dropped: this machine buffers more than the test sends"
    # Its idle is missing too; how many others are is known once the kernel is heard again.
    assert paused["iopub_seen"] is False
    assert paused.get("iopub_missed", 12_000) >= 12_000 - shown
