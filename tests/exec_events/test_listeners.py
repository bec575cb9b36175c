"""Listeners of the site's: called with each sealed event, and harmless whatever they do."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import PLAIN, kind, recorded
from documented import blocks, install
from exec_events.errors import ConfigurationError
from exec_events.listeners import ListenerThread, load_listener
from exec_events.seal import Sealed
from exec_events.testing import NotebookClient, RunningServer, records
from exec_events_schemas.record import leaf_hash

LOG = logging.getLogger("test")

SITE = '''
"""Listeners of every kind; what they hear goes to files in the folder that HEARD names."""

import asyncio, json, os, time
from pathlib import Path

def note(name, record):
    with open(Path(os.environ["HEARD"]) / name, "a") as file:
        file.write(json.dumps(record) + "\\n")

async def asynchronous(record):
    await asyncio.sleep(0)
    note("asynchronous", record)

def plain(record):
    note("plain", record)
    record.clear()

class Grouped:
    @staticmethod
    def plain(record):
        note("grouped", record)

def registered(record):
    note("registered", record)

async def raising(record):
    note("raising", record)
    raise RuntimeError("broken by design")

def leaving(record):
    note("leaving", record)
    raise SystemExit(3)

async def sleeping(record):
    note("sleeping", record)
    await asyncio.sleep(1e6)

def hanging(record):
    note("hanging", record)
    time.sleep(1e6)

async def stubborn(record):
    note("stubborn", record)
    while True:
        try:
            await asyncio.sleep(1e6)
        except asyncio.CancelledError:
            pass
'''
NAMES = ["asynchronous", "plain", "Grouped.plain", "raising", "leaving", "sleeping", "hanging", "stubborn"]
UNKNOWN = ["nowhere:nothing", "site_listeners:missing", "site_listeners", "broken_module:f", "site_listeners:__doc__"]


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where listeners note what they hear."""
    return tmp_path_factory.mktemp("heard")


@pytest.fixture(scope="module")
def site(heard: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with listeners of every kind; it has to stop within seconds all the same."""
    folder = tmp_path_factory.mktemp("site")
    entry_point = '[project.entry-points."exec_events.listeners"]\nours = "site_listeners:registered"\n'
    install(folder, "site_listeners", SITE, entry_point)
    (folder / "broken_module.py").write_text("raise RuntimeError('broken on import')")
    names = [f"site_listeners:{name}" for name in NAMES]
    config = PLAIN + f"c.ExecEvents.listeners = {names + UNKNOWN!r}\nc.ExecEvents.listener_timeout = 0.5\n"
    with RunningServer(config=config, env={"PYTHONPATH": str(folder), "HEARD": str(heard)}) as running:
        yield running
        started = time.monotonic()
        running.stop()
        assert time.monotonic() - started < 10
        last = records(running.data_dir)[-1]["event"]
        assert (kind(last), last["action"]) == ("recorder", "stopped")


def noted(folder: Path, name: str) -> list[dict[str, Any]]:
    """What one listener has heard."""
    path = folder / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def until(condition: Callable[[], Any], timeout: float = 15) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + timeout
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, "it never held"
        await asyncio.sleep(0.05)


async def test_listeners_hear_the_record(site: RunningServer, heard: Path) -> None:
    """Coroutines, plain functions and entry points get every committed record, in order, as {event, seal, hash}."""
    async with NotebookClient(site, notebook="heard.ipynb") as client:
        for n in range(3):
            assert (await client.execute(f"print({n})")).seconds < 2
        await recorded(site, 3, kernel_id=client.kernel_id)
    for name in ("asynchronous", "plain", "grouped", "registered"):
        await until(lambda name=name: noted(heard, name) == records(site.data_dir))
    assert all(set(record) == {"event", "seal", "hash"} for record in noted(heard, "plain"))


async def test_one_that_raises_is_reported_and_called_again(site: RunningServer, heard: Path) -> None:
    """A listener that raises, SystemExit included, is logged, counted and called with the next event."""
    for name in ("raising", "leaving"):
        await until(lambda name=name: len(noted(heard, name)) >= 2)
        state = (await asyncio.to_thread(site.rest, "GET", "/exec-events/status"))["listeners"][
            f"site_listeners:{name}"
        ]
        assert state["failed"] >= 1
    assert "listener site_listeners:raising raised RuntimeError: broken by design" in site.log
    assert "listener site_listeners:leaving raised SystemExit" in site.log


async def test_one_that_never_returns_is_timed_out(site: RunningServer, heard: Path) -> None:
    """A coroutine that sleeps for ever is cancelled at its limit, logged, and called with the next event."""
    await until(lambda: len(noted(heard, "sleeping")) >= 2)
    state = (await asyncio.to_thread(site.rest, "GET", "/exec-events/status"))["listeners"]["site_listeners:sleeping"]
    assert state["timed_out"] >= 1
    assert "listener site_listeners:sleeping did not return within 0.5 s" in site.log


@pytest.mark.parametrize("name", ["hanging", "stubborn"])
async def test_one_that_cannot_be_stopped_is_reported(site: RunningServer, heard: Path, name: str) -> None:
    """A function that never gives the thread back, or refuses to be cancelled, hangs: status and log say so."""
    await until(lambda: noted(heard, name))

    def reported() -> bool:
        status = site.rest("GET", "/exec-events/status")
        hangs = status["listeners"][f"site_listeners:{name}"]["hanging_seconds"] > 0
        return hangs and f"listener site_listeners:{name} hangs" in status["problems"]

    await until(reported)
    assert f"listener site_listeners:{name} hangs: over its limit of 0.5 s" in site.log
    assert len(noted(heard, name)) == 1


@pytest.mark.parametrize("name", UNKNOWN)
def test_one_that_cannot_be_loaded_is_reported(site: RunningServer, name: str) -> None:
    """A listener that does not exist, cannot be imported or called is a problem in log and status, and no more."""
    status = site.rest("GET", "/exec-events/status")
    assert status["recording"] is True
    assert any(repr(name) in problem for problem in status["problems"])
    assert repr(name) in site.log


def test_failures_are_on_the_metrics(site: RunningServer) -> None:
    """/metrics counts the failed calls of each listener, and those that work have none."""
    figures = {}
    for line in site.rest("GET", "/metrics").splitlines():
        if line.startswith("exec_events_listener_failures_total{"):
            name, _, value = line.partition("} ")
            figures[name.split('"')[1].rpartition(":")[2]] = float(value)
    assert figures["raising"] > 0
    assert figures["sleeping"] > 0
    assert figures["plain"] == figures["asynchronous"] == 0


async def test_one_that_computes_for_ever_harms_no_kernel(tmp_path: Path) -> None:
    """A listener in an endless loop is reported; cells go on, all is recorded, and the server stops within seconds."""
    (tmp_path / "spinning.py").write_text("def spin(record):\n    while True:\n        pass\n")
    config = PLAIN + "c.ExecEvents.listeners = ['spinning:spin']\nc.ExecEvents.listener_timeout = 0.2\n"
    async with RunningServer(tmp_path / "server", config=config, env={"PYTHONPATH": str(tmp_path)}) as server:
        async with NotebookClient(server) as client:
            for n in range(3):
                assert (await client.execute(f"print({n})")).seconds < 2
            await recorded(server, 3, kernel_id=client.kernel_id)
            status = await client.rest("GET", "/exec-events/status")
        assert "listener spinning:spin hangs" in status["problems"]
        started = time.monotonic()
        await asyncio.to_thread(server.stop)
        assert time.monotonic() - started < 12
    last = records(server.data_dir)[-1]["event"]
    assert (kind(last), last["action"]) == ("recorder", "stopped")


async def test_the_listener_of_the_documentation_works(tmp_path: Path) -> None:
    """The listener that docs/listeners.md shows, configured and registered as it says, logs a failed execution once."""
    code = next(block for block in blocks("listeners.md", "python") if "async def report" in block)
    (setting,) = (block for block in blocks("listeners.md", "python") if block.startswith("c.ExecEvents.listeners"))
    (entry_points,) = blocks("listeners.md", "toml")
    install(tmp_path, "errors_log", code, entry_points)
    async with RunningServer(config=PLAIN + setting, env={"PYTHONPATH": str(tmp_path)}) as server:
        async with NotebookClient(server) as client:
            await client.execute("1")
            await client.execute("1 / 0")
            _, failed = await recorded(server, 2, kernel_id=client.kernel_id)
        await until(lambda: f"ZeroDivisionError in execution {failed['execution_id']}" in server.log)
        assert server.log.count(" in execution ") == 1
        status = await asyncio.to_thread(server.rest, "GET", "/exec-events/status")
        assert (status["problems"], list(status["listeners"])) == ([], ["errors_log:report"])


# One listener by itself.


def sealed(number: int) -> Sealed:
    """A record as the spool commits it."""
    record = b'{"event":{"n":%d},"seal":{"chain":"c","prev":null,"seq":%d}}' % (number, number)
    return Sealed(number, "c", record, leaf_hash(record))


@pytest.fixture
def thread(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ListenerThread]:
    """Makes a running listener thread for a function."""

    def make(function: Callable[[dict[str, Any]], Any], timeout: float = 5) -> ListenerThread:
        monkeypatch.setattr(sys.modules[__name__], "under_test", function, raising=False)
        listener = ListenerThread(f"{__name__}:under_test", timeout, LOG)
        listener.start()
        request.addfinalizer(lambda: listener.stop(1))
        return listener

    return make


def wait_until(condition: Callable[[], Any]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it never held"
        time.sleep(0.01)


def test_a_stop_calls_with_what_is_queued(thread: Callable[..., ListenerThread]) -> None:
    """A stop comes after the events that were committed before it."""
    seen: list[int] = []
    listener = thread(lambda record: seen.append(record["event"]["n"]))
    listener.committed([sealed(n) for n in range(100)])
    listener.stop(10)
    assert seen == list(range(100))
    assert listener.state().called == 100


def test_a_plain_function_over_its_limit_counts_as_timed_out(
    thread: Callable[..., ListenerThread], caplog: pytest.LogCaptureFixture
) -> None:
    """A plain function cannot be cancelled, but one that takes too long and returns is counted and logged."""
    listener = thread(lambda record: time.sleep(0.1), timeout=0.05)
    listener.committed([sealed(0)])
    wait_until(lambda: listener.state().timed_out == 1)
    assert "did not return within 0.05 s" in caplog.text


def test_one_that_hangs_is_logged_though_nobody_asks(
    thread: Callable[..., ListenerThread], caplog: pytest.LogCaptureFixture
) -> None:
    """The next commit after the limit logs that a listener hangs, once."""
    listener = thread(lambda record: time.sleep(1), timeout=0.05)
    listener.committed([sealed(0)])
    time.sleep(0.2)
    listener.committed([sealed(1)])
    listener.committed([sealed(2)])
    assert caplog.text.count("hangs: over its limit") == 1


def test_one_that_is_too_slow_misses_events(
    thread: Callable[..., ListenerThread], caplog: pytest.LogCaptureFixture
) -> None:
    """Beyond the bound events are dropped for a slow listener, counted and logged; its stop does not wait for it."""
    listener = thread(lambda record: time.sleep(2))
    listener.committed([sealed(n) for n in range(10_105)])
    assert 100 <= listener.state().dropped <= 105
    assert "too slow: 1 events dropped" in caplog.text
    started = time.monotonic()
    listener.stop(0.5)
    assert time.monotonic() - started < 1


@pytest.mark.parametrize("name", ["nonsense", "os", "os:", ":path", "os:nothing", "no.such.module:f", "os:sep", ""])
def test_a_name_that_is_none(name: str) -> None:
    """A name that leads to no function is a ConfigurationError that shows it."""
    with pytest.raises(ConfigurationError) as caught:
        load_listener(name)
    assert repr(name) in str(caught.value)
