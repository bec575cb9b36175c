"""One spool folder and the recorders that come and go in it: adoption, links, heartbeats, retention."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from conftest import PLAIN, eventually, kind, recorded
from exec_events.testing import NotebookClient, RunningServer, records
from exec_events_schemas.chain import Verifier
from exec_events_schemas.findings import Report
from exec_events_schemas.sources import open_source
from exec_events_schemas.sources.spool import running_recorders


def verified(source: str, running: set[str] | None = None) -> Report:
    """What verification says of a source."""
    verifier = Verifier()
    for stored in open_source(source):
        verifier.add(stored)
    return verifier.finish(running or set())


def recorder_events(data_dir: Path, action: str) -> list[dict[str, Any]]:
    """The recorder events of one action, in order."""
    found = [record["event"] for record in records(data_dir)]
    return [event for event in found if kind(event) == "recorder" and event["action"] == action]


async def test_two_servers_of_one_user_at_once(tmp_path: Path) -> None:
    """Two servers share a spool folder without meeting in one file, and verify sees both as running."""
    shared = tmp_path / "shared"
    env = {"JUPYTER_DATA_DIR": str(shared)}
    with (
        RunningServer(tmp_path / "one", config=PLAIN, env=env) as one,
        RunningServer(tmp_path / "two", config=PLAIN, env=env) as two,
    ):
        one.data_dir = two.data_dir = shared
        async with NotebookClient(one) as first, NotebookClient(two) as second:
            await asyncio.gather(*(c.execute(f"{n}") for n in range(10) for c in (first, second)))
            await recorded(one, 10, kernel_id=first.kernel_id)
            await recorded(one, 10, kernel_id=second.kernel_id)
        folder = shared / "exec-events"
        assert len(list(folder.glob("*.db"))) == 2
        running = set(running_recorders(folder))
        assert len(running) == 2
        assert verified(f"spool://{folder}", running).ok
    report = verified(f"spool://{folder}")
    assert report.ok
    assert not report.notes


async def test_a_dead_servers_file_is_adopted_beside_a_running_one(tmp_path: Path) -> None:
    """A later server closes what a killed one left, links to it, and leaves a running one's file alone."""
    shared = tmp_path / "shared"
    env = {"JUPYTER_DATA_DIR": str(shared)}
    with RunningServer(tmp_path / "running", config=PLAIN, env=env) as running:
        running.data_dir = shared
        dead = RunningServer(tmp_path / "dead", config=PLAIN, env=env)
        dead.start()
        dead.data_dir = shared
        async with NotebookClient(dead) as client:
            await client.execute("1", cell_id="done")
            await client.submit("import time; time.sleep(60)", cell_id="open")
            await client.submit("2", cell_id="queued")
            await asyncio.sleep(0.5)
            await asyncio.to_thread(dead.kill)
        with RunningServer(tmp_path / "later", config=PLAIN, env=env) as later:
            later.data_dir = shared
            await eventually(later, "recorder", count=1, action="stopped", cause="adopted")
            await eventually(later, "recorder", count=3, action="started")
            found = {
                e["cell_id"]: e["status"] for e in (r["event"] for r in records(shared)) if kind(e) == "cell_execution"
            }
            assert found == {"done": "ok", "open": "recorder_stopped", "queued": "recorder_stopped"}
            (adopted,) = recorder_events(shared, "stopped")
            third = recorder_events(shared, "started")[-1]
            assert adopted["adopted_by"] == third["recorder_id"]
            assert [link["chain"] for link in third["previous"]] == [adopted["recorder_id"]]
            assert verified(f"spool://{shared / 'exec-events'}", set(running_recorders(shared / "exec-events"))).ok
    assert verified(f"spool://{shared / 'exec-events'}").ok


async def test_every_start_links_to_what_nobody_linked_to(tmp_path: Path) -> None:
    """Over restarts each recorder links to the one before, once."""
    ids = []
    for _ in range(3):
        with RunningServer(tmp_path, config=PLAIN) as server:
            await eventually(server, "recorder", count=len(ids) + 1, action="started")
            ids.append(recorder_events(server.data_dir, "started")[-1]["recorder_id"])
    started = recorder_events(tmp_path / "data", "started")
    assert [[link["chain"] for link in e.get("previous", [])] for e in started] == [[], [ids[0]], [ids[1]]]
    assert verified(f"spool://{tmp_path / 'data' / 'exec-events'}").ok


async def test_heartbeats_carry_the_heads_of_all_chains(tmp_path: Path) -> None:
    """A heartbeat says where every chain stands, so that a tail cut later shows."""
    with RunningServer(tmp_path, config=PLAIN + "c.ExecEvents.heartbeat_seconds = 0.3\n") as server:
        async with NotebookClient(server) as client:
            for number in range(3):
                await client.execute(f"{number}")
            await recorded(server, 3, kernel_id=client.kernel_id)
            await asyncio.sleep(0.7)
        beat = recorder_events(server.data_dir, "heartbeat")[-1]
        assert [head["seq"] for head in beat["heads"]] == [2]
        assert (beat["executions"], beat["lost"]) == (3, 0)


async def test_a_recorder_says_when_its_next_word_is_due_and_of_which_server(tmp_path: Path) -> None:
    """Start and heartbeats carry the interval and the label that a Hub gave the server, which is no part of its policy."""
    config = PLAIN + "c.ExecEvents.heartbeat_seconds = 0.3\n"
    digests = set()
    for label in ("s:1:ada", ""):
        folder = tmp_path / (label or "none")
        with RunningServer(folder, config=config, env={"EXEC_EVENTS_SERVER_LABEL": label}) as server:
            await eventually(server, "recorder", count=2)
        for event in (recorder_events(server.data_dir, name)[0] for name in ("started", "heartbeat")):
            assert event["heartbeat_us"] == 300_000
            assert event.get("server", "") == label
        digests.add(recorder_events(server.data_dir, "started")[0]["configuration_digest"])
    assert len(digests) == 1


async def test_delivered_records_are_pruned_and_the_cut_is_sealed(tmp_path: Path) -> None:
    """What retention removes from the front is named in a sealed event; what stays verifies, and the sink has all."""
    sink = tmp_path / "out.jsonl"
    with RunningServer(tmp_path / "user", config=PLAIN) as server:
        async with NotebookClient(server) as client:
            for number in range(20):
                await client.execute(f"{number}")
            await recorded(server, 20, kernel_id=client.kernel_id)
    folder = tmp_path / "user" / "data" / "exec-events"
    config = (
        f"c.ExecEvents.deliver_to = ['file://{sink}']\n"
        "c.ExecEvents.heartbeat_seconds = 0.5\nc.ExecEvents.retention_days = 0.5 / 86400\n"
    )
    with RunningServer(tmp_path / "user", config=PLAIN + config) as server:
        async with NotebookClient(server) as client:
            for number in range(20):
                await client.execute(f"{number}")
            await eventually(server, "recorder", action="pruned", count=2, timeout=30)
            await asyncio.sleep(2)
            report = verified(f"spool://{folder}", set(running_recorders(folder)))
            assert report.ok, report.findings
            await client.execute("'after the cut'")
    report = verified(f"spool://{folder}")
    assert report.ok, report.findings
    assert report.records < 30
    assert len(list(folder.glob("*.db"))) == 1, "the first recorder's file is gone whole"
    delivered = verified(str(sink))
    assert delivered.ok, delivered.findings
    executions = sink.read_text().count("cell_execution/v1")
    assert executions == 41


async def test_without_a_sink_nothing_is_ever_pruned(tmp_path: Path) -> None:
    """When nothing else holds the records they stay, whatever retention says."""
    config = "c.ExecEvents.heartbeat_seconds = 0.2\nc.ExecEvents.retention_days = 0.1 / 86400\n"
    with RunningServer(tmp_path, config=PLAIN + config) as server:
        async with NotebookClient(server) as client:
            for number in range(5):
                await client.execute(f"{number}")
            await asyncio.sleep(1.5)
            await recorded(server, 5, kernel_id=client.kernel_id)
        assert not recorder_events(server.data_dir, "pruned")
