"""kill -9 of the server at any moment: what was requested is in the record, what ended is there as it ended."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import PLAIN, kind
from exec_events.testing import NotebookClient, RunningServer, records
from exec_events_schemas.chain import Verifier
from exec_events_schemas.sources.spool import SpoolSource

ON_DISK_AS_BEGUN_SECONDS = 0.020
ON_DISK_AS_ENDED_SECONDS = 0.200


@dataclass
class Ran:
    """One execution as its client knows it; monotonic seconds."""

    cell_id: str
    sent_at: float
    ended_at: float | None = None
    status: str | None = None


async def run_until_killed(
    server: RunningServer, name: str, kill_after: float, rng: random.Random
) -> tuple[list[Ran], float]:
    """Run short and long cells, some queued, until the server is killed; what was run, and when it was killed."""
    client = NotebookClient(server, notebook=f"{name}.ipynb")
    await client.open()
    ran: list[Ran] = []
    waiting: set[asyncio.Task[None]] = set()

    async def wait_for(one: Ran, msg_id: str) -> None:
        result = await client.wait(msg_id, 30)
        if result.reply is not None and result.idle:
            one.ended_at, one.status = time.monotonic(), result.status

    async def drive() -> None:
        number = 0
        while True:
            number += 1
            code = rng.choice(
                ["1 + 1", "print('x' * 1000)", "1/0", f"import time; time.sleep({rng.random() * 0.15:.3f})"]
            )
            one = Ran(f"{name}-{number}", time.monotonic())
            msg_id = await client.submit(code, cell_id=one.cell_id)
            ran.append(one)
            task = asyncio.create_task(wait_for(one, msg_id))
            waiting.add(task)
            if rng.random() < 0.7:
                await asyncio.wait([task])

    driver = asyncio.create_task(drive())
    await asyncio.sleep(kill_after)
    killed_at = time.monotonic()
    os.kill(server.pid, signal.SIGKILL)
    driver.cancel()
    await asyncio.gather(driver, return_exceptions=True)
    await client.close()
    await asyncio.gather(*waiting, return_exceptions=True)
    await asyncio.to_thread(server.kill)
    return ran, killed_at


def check(ran: list[Ran], killed_at: float, recorded: dict[str, dict[str, object]]) -> list[str]:
    """What is wrong with the record of one killed server."""
    wrong = []
    for one in ran:
        event = recorded.get(one.cell_id)
        if event is None:
            if killed_at - one.sent_at > ON_DISK_AS_BEGUN_SECONDS:
                wrong.append(f"{one.cell_id}: requested {killed_at - one.sent_at:.3f} s before, not in the record")
        elif one.ended_at is not None and killed_at - one.ended_at > ON_DISK_AS_ENDED_SECONDS:
            if event["status"] != one.status:
                wrong.append(
                    f"{one.cell_id}: ended {one.status} {killed_at - one.ended_at:.3f} s before: {event['status']}"
                )
        elif event["status"] not in ("ok", "error", "aborted", "recorder_stopped"):
            wrong.append(f"{one.cell_id}: {event['status']}")
    return wrong


async def kill_many(folder: Path, kills: int, seed: int) -> None:
    """Start a server, run cells, kill it, again and again; then check the whole record."""
    rng = random.Random(seed)
    every: list[tuple[list[Ran], float]] = []
    for number in range(kills):
        server = RunningServer(folder, config=PLAIN)
        await asyncio.to_thread(server.start)
        every.append(await run_until_killed(server, f"kill-{number}", 0.05 + rng.random() * 1.5, rng))
    with RunningServer(folder, config=PLAIN) as last:
        await asyncio.sleep(1)
        last.stop()
        found = records(last.data_dir)
    executions = [r["event"] for r in found if kind(r["event"]) == "cell_execution"]
    by_cell = {str(e["cell_id"]): e for e in executions}
    assert len(by_cell) == len(executions), "an execution is recorded twice"
    wrong = [text for ran, killed_at in every for text in check(ran, killed_at, by_cell)]
    assert not wrong, wrong
    assert sum(len(ran) for ran, _ in every) > kills
    verifier = Verifier()
    for stored in SpoolSource(folder / "data" / "exec-events"):
        verifier.add(stored)
    report = verifier.finish(set())
    assert report.ok, report.findings
    started = [r["event"] for r in found if kind(r["event"]) == "recorder" and r["event"]["action"] == "started"]
    assert len(started) == kills + 1
    assert all(e.get("previous") for e in started[1:]), "every recorder links to the one before"


async def test_a_few_kills(tmp_path: Path) -> None:
    """After kills at random moments nothing requested is missing, nothing ended is other than it ended, no chain breaks."""
    await kill_many(tmp_path, 4, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(1800)
async def test_fifty_kills(tmp_path: Path) -> None:
    """The same over fifty kills."""
    await kill_many(tmp_path, 50, seed=int(os.environ.get("EXEC_EVENTS_SEED", "50")))
