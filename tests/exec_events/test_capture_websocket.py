"""Executions that come through a websocket, in every way a front end can ask for them."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import pytest

from conftest import events_of, eventually, recorded
from exec_events.hashing import Hasher
from exec_events.outputs import Outputs
from exec_events.testing import LEGACY, V1, NotebookClient, Result, RunningServer

HASHER = Hasher(None)


def outputs_hash(result: Result) -> str:
    """The hash of the outputs as the client saw them."""
    outputs = Outputs()
    for message in result.outputs:
        outputs.add(message["header"]["msg_type"], message["content"], 0)
    return HASHER.outputs(outputs.nbformat())


@pytest.mark.parametrize("subprotocol", [V1, LEGACY])
async def test_both_subprotocols(server: RunningServer, subprotocol: str) -> None:
    """A cell sent over either websocket subprotocol is one event with its code, outputs, cell, notebook and times."""
    name = f"{subprotocol or 'legacy'}.ipynb"
    code = "print('hello')\n6 * 7"
    async with NotebookClient(server, notebook=name, subprotocol=subprotocol) as client:
        result = await client.execute(code, cell_id="cell-1")
        (event,) = await recorded(server, 1, kernel_id=client.kernel_id)
    assert event["status"] == "ok"
    assert event["client"] == "websocket"
    assert event["channel"] == "shell"
    assert event["cell_id"] == "cell-1"
    assert event["notebook"] == name
    assert event["code_hash"] == HASHER.code(code)
    assert event["code_ast_hash"] == HASHER.ast(code)
    assert event["code_lines"] == 2
    assert event["outputs_hash"] == outputs_hash(result)
    assert event["execution_count"] == result.execution_count
    assert event["iopub_seen"] is event["reply_seen"] is True
    assert event["requested_at"] <= event["started_at"] <= event["finished_at"] <= event["time"]
    assert event["outputs"] == [
        {"kind": "execute_result", "mime": "text/plain", "count": 1, "bytes": 2},
        {"kind": "stream", "mime": "stdout", "count": 1, "bytes": 6},
    ]


async def test_two_clients_at_once(server: RunningServer) -> None:
    """Two front ends on one kernel get one event for each cell either of them ran."""
    async with (
        NotebookClient(server, notebook="two.ipynb") as one,
        NotebookClient(server, notebook="two.ipynb", subprotocol=LEGACY) as two,
    ):
        assert one.kernel_id == two.kernel_id
        await asyncio.gather(
            *(one.execute(f"print({n})", cell_id=f"one-{n}") for n in range(20)),
            *(two.execute(f"print({n})", cell_id=f"two-{n}") for n in range(20)),
        )
        found = await recorded(server, 40, kernel_id=one.kernel_id)
    assert sorted(e["cell_id"] for e in found) == sorted(f"{who}-{n}" for who in ("one", "two") for n in range(20))
    assert {e["code_hash"] for e in found} == {HASHER.code(f"print({n})") for n in range(20)}
    assert all("iopub_missed" not in e for e in found)


async def test_silent_and_without_history(server: RunningServer) -> None:
    """Silent requests and those without history are recorded with their code and say what they were."""
    async with NotebookClient(server, notebook="silent.ipynb") as client:
        await client.execute("x = 1", silent=True, store_history=False)
        await client.execute("x + 1", store_history=False)
        silent, unstored = await recorded(server, 2, kernel_id=client.kernel_id)
    assert (silent["silent"], silent["store_history"], silent["status"]) == (True, False, "ok")
    assert silent["code_hash"] == HASHER.code("x = 1")
    assert (unstored["silent"], unstored["store_history"]) == (False, False)
    assert unstored["code_hash"] == HASHER.code("x + 1")


async def test_user_expressions_are_code_too(server: RunningServer) -> None:
    """Code hidden in user_expressions of an empty cell leaves its hash."""
    expressions = {"a": "__import__('os').getpid()"}
    async with NotebookClient(server, notebook="expressions.ipynb") as client:
        await client.execute("", user_expressions=expressions)
        (event,) = await recorded(server, 1, kernel_id=client.kernel_id)
    assert event["user_expressions_hash"] == HASHER.json(expressions)
    assert event["code_hash"] == HASHER.code("")


async def test_the_control_channel(server: RunningServer) -> None:
    """An execute_request that a client sends on the control channel runs, and is recorded as such."""
    async with NotebookClient(server, notebook="control.ipynb") as client:
        await client.execute("print('by control')", channel="control", cell_id="c")
        (event,) = await recorded(server, 1, kernel_id=client.kernel_id)
    assert event["channel"] == "control"
    assert event["code_hash"] == HASHER.code("print('by control')")
    assert event["cell_id"] == "c"


async def test_a_reused_msg_id_hides_nothing(server: RunningServer) -> None:
    """Two executions with one msg_id are two events; the second says so."""
    msg_id = str(uuid.uuid4())
    async with NotebookClient(server, notebook="reused.ipynb") as client:
        await client.execute("print('first')", msg_id=msg_id)
        await client.execute("print('second')", msg_id=msg_id)
        first, second = await recorded(server, 2, kernel_id=client.kernel_id)
    assert first["code_hash"] == HASHER.code("print('first')")
    assert second["code_hash"] == HASHER.code("print('second')")
    assert (first["msg_id_reused"], second["msg_id_reused"]) == (False, True)
    assert first["outputs_hash"] != second["outputs_hash"]
    assert first["execution_id"] != second["execution_id"]


async def test_a_reused_msg_id_while_the_first_still_runs(server: RunningServer) -> None:
    """Reuse at once, both in the queue, still gives each execution its own code and outputs."""
    msg_id = str(uuid.uuid4())
    async with NotebookClient(server, notebook="reused-twice.ipynb") as client:
        await client.submit("import time; time.sleep(0.3); print('first')", msg_id=msg_id)
        await client.submit("print('second')", msg_id=msg_id)
        await client.wait(msg_id)
        await client.wait(msg_id)
        first, second = await recorded(server, 2, kernel_id=client.kernel_id)
    assert first["code_bytes"] > second["code_bytes"]
    assert (first["outputs"][0]["bytes"], second["outputs"][0]["bytes"]) == (6, 7)


async def test_an_abort_chain(server: RunningServer) -> None:
    """After an error the cells already queued are recorded as aborted, with the code that did not run."""
    async with NotebookClient(server, notebook="abort.ipynb") as client:
        ids = [await client.submit(code) for code in ("import time; time.sleep(0.3); 1/0", "a = 1", "b = 2")]
        for msg_id in ids:
            await client.wait(msg_id)
        found = await recorded(server, 3, kernel_id=client.kernel_id)
    assert [e["status"] for e in found] == ["error", "aborted", "aborted"]
    assert found[0]["error_name"] == "ZeroDivisionError"
    assert found[2]["code_hash"] == HASHER.code("b = 2")


async def test_an_interrupt(server: RunningServer) -> None:
    """A cell somebody interrupts is recorded as interrupted, and the interrupt as an event of the kernel's life."""
    async with NotebookClient(server, notebook="interrupt.ipynb") as client:
        msg_id = await client.submit("import time\ntime.sleep(60)")
        await asyncio.sleep(0.5)
        await client.interrupt()
        await client.wait(msg_id)
        (event,) = await recorded(server, 1, kernel_id=client.kernel_id)
        assert (event["status"], event["error_name"]) == ("interrupted", "KeyboardInterrupt")
        await eventually(server, "kernel_lifecycle", kernel_id=client.kernel_id, action="interrupted", cause="request")


async def test_a_keyboard_interrupt_that_the_code_raises_is_an_error(server: RunningServer) -> None:
    """Only an interrupt from outside makes an execution interrupted."""
    async with NotebookClient(server, notebook="raises.ipynb") as client:
        await client.execute("raise KeyboardInterrupt")
        (event,) = await recorded(server, 1, kernel_id=client.kernel_id)
    assert (event["status"], event["error_name"]) == ("error", "KeyboardInterrupt")


async def test_stdin(server: RunningServer) -> None:
    """A cell that asks for input is one event, with nothing counted as missed."""
    async with NotebookClient(server, notebook="stdin.ipynb", answer=lambda prompt, password: "Ada") as client:
        result = await client.execute("print('hello', input('name? '))")
        assert "hello Ada" in result.text
        (event,) = await recorded(server, 1, kernel_id=client.kernel_id)
    assert event["status"] == "ok"
    assert "iopub_missed" not in event


async def test_subshells(server: RunningServer) -> None:
    """A cell in a subshell runs beside one in the main shell; each is recorded with its own outputs."""
    async with NotebookClient(server, notebook="subshell.ipynb") as client:
        reply = await client.request("create_subshell_request", channel="control")
        subshell = reply["content"]["subshell_id"]
        slow = await client.submit("import time\ntime.sleep(0.5)\nprint('main')", cell_id="main")
        await client.execute("print('sub')", cell_id="sub", subshell_id=subshell)
        await client.wait(slow)
        found = {e["cell_id"]: e for e in await recorded(server, 2, kernel_id=client.kernel_id)}
    assert found["sub"]["subshell"] is True
    assert "subshell" not in found["main"]
    assert found["sub"]["finished_at"] < found["main"]["finished_at"]
    assert (found["sub"]["outputs"][0]["bytes"], found["main"]["outputs"][0]["bytes"]) == (4, 5)


async def test_late_outputs(server: RunningServer) -> None:
    """What a thread prints after its cell is over is an event of its own, and says what the notebook saves now."""
    code = "import threading, time\ndef late():\n    time.sleep(0.4)\n    print('late')\nthreading.Thread(target=late).start()\nprint('early')"
    async with NotebookClient(server, notebook="late.ipynb") as client:
        await client.execute(code, cell_id="c")
        (event,) = await recorded(server, 1, kernel_id=client.kernel_id)
        (late,) = await eventually(server, "late_output", kernel_id=client.kernel_id)
        await client.wait_for(lambda m: m["header"]["msg_type"] == "stream" and "late" in m["content"]["text"])
    assert late["execution_id"] == event["execution_id"]
    assert (late["cause"], late["cell_id"]) == ("output", "c")
    assert late["outputs"] == [{"kind": "stream", "mime": "stdout", "count": late["outputs"][0]["count"], "bytes": 5}]
    assert late["late_hash"] == HASHER.outputs([{"output_type": "stream", "name": "stdout", "text": "late\n"}])
    both = [{"output_type": "stream", "name": "stdout", "text": "early\nlate\n"}]
    assert late["outputs_hash"] == HASHER.outputs(both)
    assert event["outputs_hash"] == HASHER.outputs([{"output_type": "stream", "name": "stdout", "text": "early\n"}])


async def test_clear_output_and_updates_within_a_cell(server: RunningServer) -> None:
    """outputs_hash is of what the notebook would save: cleared outputs are gone, updated displays show the last."""
    code = (
        "from IPython.display import display, clear_output\n"
        "print('gone')\nclear_output()\nhandle = display('one', display_id=True)\nhandle.update('two')"
    )
    async with NotebookClient(server, notebook="clear.ipynb") as client:
        result = await client.execute(code)
        (event,) = await recorded(server, 1, kernel_id=client.kernel_id)
    kept = [{"output_type": "display_data", "data": {"text/plain": "'two'"}, "metadata": {}}]
    assert event["outputs_hash"] == outputs_hash(result) == HASHER.outputs(kept)


async def test_another_cell_updates_a_display(server: RunningServer) -> None:
    """An update from a later cell is recorded against the cell whose output it changes."""
    async with NotebookClient(server, notebook="update.ipynb") as client:
        await client.execute(
            "from IPython.display import display\nhandle = display('one', display_id=True)", cell_id="a"
        )
        await client.execute("handle.update('two')", cell_id="b")
        first, second = await recorded(server, 2, kernel_id=client.kernel_id)
        (late,) = await eventually(server, "late_output", kernel_id=client.kernel_id)
    assert (late["cause"], late["execution_id"]) == ("display_update", first["execution_id"])
    saved_now = [{"output_type": "display_data", "data": {"text/plain": "'two'"}, "metadata": {}}]
    assert late["outputs_hash"] == HASHER.outputs(saved_now)
    assert second["outputs_hash"] == HASHER.outputs([])


async def test_floods_beyond_the_rate_limit(server: RunningServer) -> None:
    """What the server's rate limit keeps from the client is recorded whole."""
    text = "y" * 999 + "\n"
    async with NotebookClient(server, notebook="flood.ipynb", keep_messages=False) as client:
        result = await client.execute("for _ in range(12_000): print('y' * 999)", timeout=60)
        await client.execute("from IPython.display import display\nfor n in range(5000): display(n)", timeout=60)
        stream, displays = await recorded(server, 2, kernel_id=client.kernel_id)
    assert len(result.text) < 12_000_000, "the client was limited"
    assert stream["outputs"][0]["bytes"] == 12_000_000
    assert stream["outputs_hash"] == HASHER.outputs(
        [{"output_type": "stream", "name": "stdout", "text": text * 12_000}]
    )
    assert displays["outputs"] == [
        {"kind": "display_data", "mime": "text/plain", "count": 5000, "bytes": sum(len(str(n)) for n in range(5000))}
    ]
    assert "iopub_missed" not in stream
    assert "iopub_missed" not in displays


async def test_widgets(server: RunningServer) -> None:
    """A widget's comm messages are no outputs, and what its callback prints is nobody's new execution."""
    async with NotebookClient(server, notebook="widgets.ipynb") as client:
        code = (
            "import ipywidgets\nfrom IPython.display import display\nslider = ipywidgets.IntSlider()\n"
            "slider.observe(lambda change: print('moved'), 'value')\ndisplay(slider)\nprint(slider.model_id)"
        )
        result = await client.execute(code)
        model = next(m for m in result.messages if m["header"]["msg_type"] == "stream")["content"]["text"].strip()
        data = {"method": "update", "state": {"value": 7}, "buffer_paths": []}
        await client.send("comm_msg", {"comm_id": model, "data": data})
        await client.wait_for(lambda m: m["header"]["msg_type"] == "stream" and "moved" in m["content"]["text"])
        await client.execute("print(slider.value)")
        shown, after = await recorded(server, 2, kernel_id=client.kernel_id)
    assert {row["kind"] for row in shown["outputs"]} == {"display_data", "stream"}
    assert after["outputs"][0]["bytes"] == 2
    assert "iopub_missed" not in after


async def test_what_changed_since_the_last_run(server: RunningServer) -> None:
    """A rerun says whether the code is the same, and how many lines came and went."""
    async with NotebookClient(server, notebook="rerun.ipynb") as client:
        for code in ("a = 1\nb = 2", "a = 1\nb = 2", "a = 1\nb = 3\nc = 4"):
            await client.execute(code, cell_id="same")
        first, again, changed = await recorded(server, 3, kernel_id=client.kernel_id)
    assert "same_code_as_last_run" not in first
    assert again["same_code_as_last_run"] is True
    assert (changed["same_code_as_last_run"], changed["lines_added"], changed["lines_removed"]) == (False, 2, 1)
    assert first["code_ast_hash"] == again["code_ast_hash"] != changed["code_ast_hash"]


async def test_code_that_does_not_parse_has_no_syntax_tree(server: RunningServer) -> None:
    """Magics and syntax errors are hashed as text alone."""
    async with NotebookClient(server, notebook="magic.ipynb") as client:
        await client.execute("%time 1 + 1")
        await client.execute("def (")
        magic, broken = await recorded(server, 2, kernel_id=client.kernel_id)
    assert "code_ast_hash" not in magic
    assert "code_ast_hash" not in broken
    assert broken["error_name"] == "SyntaxError"


async def test_the_page_is_closed_while_a_cell_runs(server: RunningServer) -> None:
    """A cell whose websocket goes away is recorded to its end; its reply was seen by nobody, and that is said."""
    async with NotebookClient(server, notebook="closed.ipynb") as client:
        await client.submit("import time; time.sleep(0.6); print('done')")
        await asyncio.sleep(0.2)
    (event,) = await recorded(server, 1, kernel_id=client.kernel_id)
    assert event["status"] == "ok"
    assert (event["iopub_seen"], event["reply_seen"]) == (True, False)
    assert event["outputs"][0]["bytes"] == 5


async def test_several_kernels(server: RunningServer) -> None:
    """Executions of kernels that run at once are told apart."""
    async with (
        NotebookClient(server, notebook="k1.ipynb") as one,
        NotebookClient(server, notebook="k2.ipynb") as two,
        NotebookClient(server, notebook="k3.ipynb") as three,
    ):
        clients = {"k1": one, "k2": two, "k3": three}
        await asyncio.gather(*(c.execute(f"print('{k}', {n})") for k, c in clients.items() for n in range(10)))
        for name, client in clients.items():
            found = await recorded(server, 10, kernel_id=client.kernel_id)
            assert {e["notebook"] for e in found} == {f"{name}.ipynb"}
            assert {e["code_hash"] for e in found} == {HASHER.code(f"print('{name}', {n})") for n in range(10)}


async def test_a_kernel_that_is_not_python(server: RunningServer) -> None:
    """A bash kernel's cells are recorded, errors too, without a syntax tree."""
    async with NotebookClient(server, notebook="bash.ipynb", kernel_name="bash") as client:
        await client.execute("echo hello; echo $((6 * 7))")
        await client.execute("ls /nowhere")
        hello, failed = await recorded(server, 2, kernel_id=client.kernel_id)
    assert (hello["kernel_name"], hello["status"], hello["outputs"][0]["bytes"]) == ("bash", "ok", 9)
    assert "code_ast_hash" not in hello
    assert failed["status"] == "error"


async def test_a_renamed_notebook(server: RunningServer) -> None:
    """After a rename, executions carry the new path."""
    async with NotebookClient(server, notebook="old.ipynb") as client:
        await client.execute("1")
        await client.rest("PATCH", f"/api/sessions/{client.notebook_session_id}", {"path": "new.ipynb"})
        await client.execute("2")
        before, after = await recorded(server, 2, kernel_id=client.kernel_id)
    assert (before["notebook"], after["notebook"]) == ("old.ipynb", "new.ipynb")


async def test_a_kernel_without_a_session(server: RunningServer) -> None:
    """A kernel that belongs to no notebook is recorded without one."""
    kernel = await asyncio.to_thread(server.rest, "POST", "/api/kernels", {"name": "python3"})
    async with NotebookClient(server, kernel_id=kernel["id"]) as client:
        await client.execute("1")
        (event,) = await recorded(server, 1, kernel_id=kernel["id"])
    assert "notebook" not in event


async def test_pager_payloads_are_outputs(server: RunningServer, tmp_path: Path) -> None:
    """What JupyterLab shows of `name?` comes in the reply, and is hashed with the outputs."""
    async with NotebookClient(server, notebook="pager.ipynb") as client:
        await client.execute("len?")
        (event,) = await recorded(server, 1, kernel_id=client.kernel_id)
    assert event["outputs"] == [row for row in event["outputs"] if row["kind"] == "display_data"] != []


async def test_no_code_output_or_error_text_in_any_event(server: RunningServer) -> None:
    """Nothing of a cell's text, output or error reaches an event."""
    canary = f"canary{uuid.uuid4().hex}"
    async with NotebookClient(server, notebook="canary.ipynb") as client:
        await client.execute(f"print('{canary}')")
        await client.execute(f"class {canary}(Exception): pass\nraise ValueError('{canary}')")
        await client.execute(f"'{canary}'")
        await recorded(server, 3, kernel_id=client.kernel_id)
    text = str(events_of(server, "cell_execution")) + str(events_of(server, "late_output"))
    assert canary not in text
