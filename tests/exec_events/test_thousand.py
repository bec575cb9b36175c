"""A thousand mixed executions come out as exactly a thousand events with the right hashes."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.asynchronous.client import AsyncKernelClient

from conftest import PLAIN, recorded
from exec_events.hashing import Hasher
from exec_events.outputs import Outputs
from exec_events.testing import LEGACY, V1, NotebookClient, RunningServer

HASHER = Hasher(None)
FLOOD = "for _ in range(3000): print('z' * 999)"
DISPLAYS = "from IPython.display import display\nfor n in range(3000): display(n)"


def code_of(number: int) -> str:
    """A cell of some kind or other, different for each number."""
    kinds: list[Callable[[int], str]] = [
        lambda n: f"{n} + 1",
        lambda n: f"print('line {n}')\nprint('more')",
        lambda n: f"raise ValueError({n})",
        lambda n: f"import sys; print('out {n}'); print('err {n}', file=sys.stderr)",
        lambda n: f"for i in range(5): print(i, end='\\r')\nprint({n})",
        lambda n: f"from IPython.display import display, HTML; display(HTML('<b>{n}</b>')); {n}",
        lambda n: f"x{n} = {n}",
    ]
    return kinds[number % len(kinds)](number)


def hash_of(messages: list[dict[str, Any]]) -> str:
    """The hash of outputs as a client saw them."""
    outputs = Outputs()
    for message in messages:
        outputs.add(message["header"]["msg_type"], message["content"], 0)
    return HASHER.outputs(outputs.nbformat())


async def mixed(server: RunningServer, count: int) -> None:
    """Run ``count`` executions from three clients at once, and compare the record with what the clients saw."""
    expected: dict[str, tuple[str, str]] = {}  # cell id -> (status, outputs hash)
    codes: Counter[str] = Counter()
    special = {count // 5: FLOOD, count // 4: DISPLAYS, count // 3: "import time; time.sleep(30)"}
    async with (
        NotebookClient(server, notebook="mixed.ipynb", subprotocol=V1, keep_messages=False) as one,
        NotebookClient(server, notebook="mixed.ipynb", subprotocol=LEGACY, keep_messages=False) as two,
    ):
        direct = AsyncKernelClient()
        direct.load_connection_file(str(server.runtime_dir / f"kernel-{one.kernel_id}.json"))
        direct.start_channels()
        await direct.wait_for_ready(timeout=20)

        async def through(client: NotebookClient, numbers: range) -> None:
            for number in numbers:
                code, cell_id = special.get(number, code_of(number)), f"c{number}"
                codes[HASHER.code(code)] += 1
                msg_id = await client.submit(code, cell_id=cell_id, stop_on_error=False)
                if "sleep" in code:
                    await asyncio.sleep(1)
                    await client.interrupt()
                result = await client.wait(msg_id, 60)
                status = "interrupted" if "sleep" in code else result.status
                limited = code in (FLOOD, DISPLAYS)
                expected[cell_id] = (status, "" if limited else hash_of(result.outputs))

        async def past(numbers: range) -> None:
            for number in numbers:
                codes[HASHER.code(code_of(number))] += 1
                await direct.execute_interactive(
                    code_of(number), timeout=60, output_hook=lambda _: None, stop_on_error=False, allow_stdin=False
                )

        share = count // 5
        work: list[Coroutine[Any, Any, None]] = [
            through(one, range(2 * share)),
            through(two, range(2 * share, 4 * share)),
            past(range(4 * share, count)),
        ]
        await asyncio.gather(*work)
        direct.stop_channels()
        found = await recorded(server, count, kernel_id=one.kernel_id, settle=1, timeout=60)
    assert Counter(event["code_hash"] for event in found) == codes
    assert len({event["execution_id"] for event in found}) == count
    by_cell = {event["cell_id"]: event for event in found if "cell_id" in event}
    assert set(by_cell) == set(expected)
    for cell_id, (status, outputs_hash) in expected.items():
        event = by_cell[cell_id]
        assert (event["status"], event["iopub_seen"], event["reply_seen"]) == (status, True, True), event
        assert not outputs_hash or event["outputs_hash"] == outputs_hash, event
    assert sum("iopub_missed" in event for event in found) == 0
    flood = by_cell[f"c{count // 5}"]
    assert flood["outputs"][0]["bytes"] == 3_000_000
    assert by_cell[f"c{count // 4}"]["outputs"][0]["count"] == 3000


@pytest.mark.timeout(300)
async def test_a_thousand_executions(tmp_path: Path) -> None:
    """1,000 executions of two websocket clients and a direct one, with errors, floods and an interrupt, are 1,000 events."""
    async with RunningServer(tmp_path, config=PLAIN) as server:
        await mixed(server, 1000)
        assert "exec-events: fault" not in server.log


@pytest.mark.soak
@pytest.mark.timeout(3600)
async def test_twenty_thousand_executions(tmp_path: Path) -> None:
    """The same with 20,000."""
    async with RunningServer(tmp_path, config=PLAIN) as server:
        await mixed(server, 20_000)
        assert "exec-events: fault" not in server.log
