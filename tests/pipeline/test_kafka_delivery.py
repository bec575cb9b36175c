"""From a real server's kernels to a real Kafka: what is executed is on the topic, whoever is killed on the way."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from exec_events.testing import NotebookClient, RunningServer, executions_of, wait_for_records
from exec_events_schemas.chain import Verifier
from exec_events_schemas.record import event_of, place_of
from exec_events_schemas.sources import open_source
from exec_events_schemas.sources.spool import SpoolSource
from exec_events_schemas.topics import topics_of
from kafka_fixtures import RunningKafka
from kafka_sites import wait_until
from kafka_topic import messages_of, verified, wrong_with
from tools.kafka_broker import Broker

SEED = int(os.environ.get("EXEC_EVENTS_SEED", "100"))
SOAK_SECONDS = float(os.environ.get("EXEC_EVENTS_SOAK_SECONDS", "300"))


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """A broker that tests may kill, and leave running."""
    with Broker() as running:
        yield running


def configuration(servers: str, prefix: str, more: str = "") -> str:
    """A server's configuration that delivers to Kafka."""
    return f"""
c.ExecEvents.identity = "plain"
c.ExecEvents.deliver_to = ["kafka://{servers}/{prefix}"]
c.ExecEvents.stop_seconds = 20
{more}
"""


def sink_of(server: RunningServer) -> dict[str, Any]:
    """What the server's status says of its only sink."""
    (sink,) = server.rest("GET", "/exec-events/status")["sinks"].values()
    return dict(sink)


def name_of_schema(event: Mapping[str, Any]) -> str:
    """The short name of an event's schema."""
    return str(event["__schema__"]).split("/")[-2]


@dataclass(frozen=True)
class Checked:
    """A topic that was held against the spools of a folder, and found whole."""

    messages: int
    events: list[dict[str, Any]]

    def __str__(self) -> str:
        return f"{len(self.events)} events, {self.duplicates} copies"

    @property
    def duplicates(self) -> int:
        """How many messages came again."""
        return self.messages - len(self.events)

    def executions(self) -> dict[str, str]:
        """The status of each execution by its cell."""
        cells = [event for event in self.events if name_of_schema(event) == "cell_execution"]
        found = {str(event["cell_id"]): str(event["status"]) for event in cells}
        assert len(found) == len(cells), "an execution is there twice"
        return found


def check(settings: Mapping[str, Any], servers: str, prefix: str, data_dir: Path) -> Checked:
    """Hold the topic of events against the spool: the same records, each at least once, in order; and verify it."""
    messages = messages_of(settings, topics_of(prefix).events)
    wrong = wrong_with(messages, SpoolSource(data_dir / "exec-events"))
    assert not wrong, wrong[:20]
    report = verified(messages)
    assert report.ok, report.findings[:20]
    verifier = Verifier()
    for stored in open_source(f"kafka://{servers}/{prefix}"):
        verifier.add(stored)
    again = verifier.finish()
    assert (again.findings, again.records, again.duplicates) == ((), report.records, report.duplicates)
    firsts = {place_of(message.value): event_of(message.value) for message in messages}
    assert report.duplicates == len(messages) - len(firsts)
    return Checked(len(messages), list(firsts.values()))


def has_all(settings: Mapping[str, Any], prefix: str, data_dir: Path, recorders: int) -> bool:
    """Whether so many recorders have begun, and each record of all their spools is on the topic."""
    spooled = {place_of(stored.record) for stored in SpoolSource(data_dir / "exec-events")}
    if sum(b"/" not in chain and seq == b"0" for chain, seq in spooled) < recorders:
        return False  # the last one still adopts what the others left
    return {place_of(message.value) for message in messages_of(settings, topics_of(prefix).events)} >= spooled


async def test_executions_arrive(kafka: RunningKafka, kafka_prefix: str, tmp_path: Path) -> None:
    """What is executed over two starts of a server is on the topic as it is in the spool; no body is anywhere."""
    server = RunningServer(tmp_path, config=configuration(kafka.servers, kafka_prefix))
    cells = {"sum": "1 + 1", "text": "print('said-4711')", "fault": "1/0"}
    for start in range(2):
        async with server, NotebookClient(server, notebook=f"{start}.ipynb") as client:
            for name, code in cells.items():
                await client.execute(code, cell_id=f"{name}-{start}")
            await asyncio.to_thread(wait_for_records, server.data_dir, executions_of(3 * (start + 1)))
            await asyncio.to_thread(wait_until, lambda: sink_of(server)["lag"] == 0)
            sink = await asyncio.to_thread(sink_of, server)
            assert (sink["problem"], sink["errors"]) == (None, 0)
            metrics = await asyncio.to_thread(server.rest, "GET", "/metrics")
            assert f'exec_events_delivery_lag{{sink="kafka://{kafka.servers}/{kafka_prefix}"}} 0.0' in metrics
    found = await asyncio.to_thread(check, kafka.settings, kafka.servers, kafka_prefix, server.data_dir)
    assert found.executions() == {
        f"{name}-{start}": "error" if name == "fault" else "ok" for name in cells for start in range(2)
    }
    assert found.duplicates == 0
    actions = [event["action"] for event in found.events if name_of_schema(event) == "recorder"]
    assert (actions.count("started"), actions.count("stopped")) == (2, 2)
    assert "said-4711" not in json.dumps(found.events)
    assert await asyncio.to_thread(messages_of, kafka.settings, topics_of(kafka_prefix).contents) == []


async def test_bodies_that_are_kept_arrive(kafka: RunningKafka, kafka_prefix: str, tmp_path: Path) -> None:
    """Where the site keeps them, code and outputs are on the contents topic under what their event commits to."""
    config = configuration(kafka.servers, kafka_prefix, "c.ExecEvents.contents = 'code+outputs'")
    async with RunningServer(tmp_path, config=config) as server, NotebookClient(server) as client:
        await client.execute("print('said-4711')", cell_id="a")
        await asyncio.to_thread(wait_for_records, server.data_dir, executions_of(1))
    found = await asyncio.to_thread(check, kafka.settings, kafka.servers, kafka_prefix, server.data_dir)
    (event,) = (event for event in found.events if name_of_schema(event) == "cell_execution")
    messages = await asyncio.to_thread(messages_of, kafka.settings, topics_of(kafka_prefix).contents)
    bodies = {message.key.decode(): message.value for message in messages}
    assert bodies.keys() == {event["code_commitment"], event["outputs_commitment"]}
    assert all(f"sha256:{sha256(value).hexdigest()}" == commitment for commitment, value in bodies.items())
    assert bodies[event["code_commitment"]][32:] == b"print('said-4711')"
    assert json.loads(bodies[event["outputs_commitment"]][32:])[0]["text"] == "said-4711\n"


async def test_a_stop_keeps_to_its_deadline_and_the_next_server_delivers(
    broker: Broker, kafka_prefix: str, tmp_path: Path
) -> None:
    """A server whose broker is gone stops in time; what it could not deliver the next server of its user delivers."""
    config = configuration(broker.servers, kafka_prefix, "c.ExecEvents.stop_seconds = 2")
    async with RunningServer(tmp_path, config=config) as server, NotebookClient(server) as client:
        await client.execute("1", cell_id="before")
        await asyncio.to_thread(wait_until, lambda: sink_of(server)["lag"] == 0)
        broker.kill()
        try:
            for number in range(5):
                result = await client.execute(str(number), cell_id=f"away-{number}")
                assert result.seconds < 5
            await asyncio.to_thread(wait_for_records, server.data_dir, executions_of(6))
            assert (await asyncio.to_thread(sink_of, server))["lag"] >= 5
            began = time.monotonic()
            assert await asyncio.to_thread(server.stop) == 0
            assert time.monotonic() - began < 30
        finally:
            await asyncio.to_thread(broker.restart)
    async with RunningServer(tmp_path, config=configuration(broker.servers, kafka_prefix)) as server:
        recorders = {path.stem for path in (server.data_dir / "exec-events").glob("*.db")}
        await asyncio.to_thread(wait_until, lambda: has_all(broker.settings, kafka_prefix, server.data_dir, 2))
    found = await asyncio.to_thread(check, broker.settings, broker.servers, kafka_prefix, server.data_dir)
    assert found.executions().keys() == {"before", *(f"away-{number}" for number in range(5))}
    assert {event["recorder_id"] for event in found.events} == recorders


# A request is on disk so soon; see the promise of the spool.
ON_DISK_SECONDS = 0.1


class RunningTime:
    """A clock of the time in which this process ran: while the whole machine stands still, no server can write."""

    TICK_SECONDS = 0.005

    def __init__(self) -> None:
        self.seconds = 0.0

    async def count(self) -> None:
        """Go on until cancelled; a tick that comes late counts as one that is twice as long at most."""
        before = time.monotonic()
        while True:
            await asyncio.sleep(self.TICK_SECONDS)
            now = time.monotonic()
            self.seconds += min(now - before, 2 * self.TICK_SECONDS)
            before = now


async def run_cells(
    server: RunningServer, name: str, seconds: float, rng: random.Random, *, kill: bool = False, pause: float = 0
) -> list[str]:
    """
    Run short cells for so long, some queued behind others, and with ``kill`` then kill -9 the server.

    Returns the cells that must be recorded: those sent a moment before the kill, or all.
    """
    client = NotebookClient(server, notebook=f"{name}.ipynb", keep_messages=False)
    sent: list[tuple[str, float]] = []
    running = RunningTime()
    waiting: set[asyncio.Task[Any]] = set()

    async def drive() -> None:
        while True:
            sleep = f"import time; time.sleep({rng.random() * 0.05:.3f})"
            cell_id = f"{name}-{len(sent)}"
            at = running.seconds
            msg_id = await client.submit(rng.choice(["1 + 1", "print('x' * 1000)", "1/0", sleep]), cell_id=cell_id)
            sent.append((cell_id, at))
            task = asyncio.create_task(client.wait(msg_id, 60))
            waiting.add(task)
            task.add_done_callback(waiting.discard)
            if rng.random() < 0.7:
                await asyncio.wait([task])
            await asyncio.sleep(pause)

    await client.open()
    tasks = [asyncio.create_task(running.count()), asyncio.create_task(drive())]
    await asyncio.sleep(seconds)
    over_at = running.seconds
    if kill:
        os.kill(server.pid, signal.SIGKILL)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    if not kill:
        await asyncio.gather(*waiting)
    await client.close()
    await asyncio.gather(*waiting, return_exceptions=True)
    if kill:
        await asyncio.to_thread(server.kill)
    return [cell_id for cell_id, at in sent if not kill or over_at - at > ON_DISK_SECONDS]


async def kill_many(kafka: RunningKafka, prefix: str, folder: Path, kills: int, seed: int) -> Checked:
    """Kill the server at random moments while it delivers, again and again; then check the whole topic."""
    rng = random.Random(seed)
    cells: list[str] = []
    config = configuration(kafka.servers, prefix)
    for number in range(kills):
        server = RunningServer(folder, config=config)
        await asyncio.to_thread(server.start)
        cells += await run_cells(server, f"kill-{number}", 0.05 + rng.random() * 1.5, rng, kill=True)
    async with RunningServer(folder, config=config) as last:
        await asyncio.to_thread(wait_until, lambda: has_all(kafka.settings, prefix, last.data_dir, kills + 1))
    found = await asyncio.to_thread(check, kafka.settings, kafka.servers, prefix, folder / "data")
    missing = set(cells) - found.executions().keys()
    assert not missing, sorted(missing)
    assert len(cells) > kills
    started = [e for e in found.events if name_of_schema(e) == "recorder" and e["action"] == "started"]
    assert len(started) == kills + 1
    return found


async def test_a_few_kills_of_the_server(kafka: RunningKafka, kafka_prefix: str, tmp_path: Path) -> None:
    """Over kill -9 of the server each event is on the topic, once but for equal copies, and no chain is broken."""
    await kill_many(kafka, kafka_prefix, tmp_path, 4, SEED)


@pytest.mark.soak
@pytest.mark.timeout(3000)
async def test_a_hundred_kills_of_the_server(
    kafka: RunningKafka, kafka_prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same over a hundred kills."""
    began = time.monotonic()
    found = await kill_many(kafka, kafka_prefix, tmp_path, 100, SEED)
    with capsys.disabled():
        print(f"\n100 kills, {found}, {time.monotonic() - began:.0f} s")


@pytest.mark.soak
@pytest.mark.timeout(int(SOAK_SECONDS) + 600)
async def test_hours_in_minutes(
    broker: Broker, kafka_prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Executions all the while, the broker killed or stopped and started now and then: all ends up on the topic."""
    rng = random.Random(SEED)
    failures = 0

    async def fail_now_and_then() -> None:
        nonlocal failures
        while True:
            await asyncio.sleep(5 + rng.random() * 15)
            await asyncio.to_thread(rng.choice([broker.kill, broker.terminate]))
            await asyncio.sleep(rng.random() * 8)
            await asyncio.to_thread(broker.restart)
            failures += 1

    try:
        async with RunningServer(tmp_path, config=configuration(broker.servers, kafka_prefix)) as server:
            failing = asyncio.create_task(fail_now_and_then())
            names = [f"soak-{number}" for number in range(3)]
            runs = [run_cells(server, name, SOAK_SECONDS, rng, pause=0.05) for name in names]
            cells = {cell_id for sent in await asyncio.gather(*runs) for cell_id in sent}
            failing.cancel()
            await asyncio.wait([failing])
            await asyncio.to_thread(broker.restart)
            await asyncio.to_thread(wait_until, lambda: sink_of(server)["lag"] == 0)
            sink = await asyncio.to_thread(sink_of, server)
    finally:
        if not broker.pids:
            await asyncio.to_thread(broker.restart)
    found = await asyncio.to_thread(check, broker.settings, broker.servers, kafka_prefix, server.data_dir)
    assert found.executions().keys() == cells
    assert failures
    with capsys.disabled():
        print(f"\n{SOAK_SECONDS:.0f} s, {failures} ends of the broker, {found}; {sink}")
