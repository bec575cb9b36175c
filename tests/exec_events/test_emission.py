"""Emission through the server's own event bus: who else sees our events, and who cannot forge or hinder them."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from jupyter_events import EventLogger

from conftest import PLAIN, events_of, kind, recorded
from exec_events import isolate
from exec_events.describe import Describer, LastRuns
from exec_events.emit import PREFIX, Emitter, FastValidator, ForgedEvent
from exec_events.hashing import Hasher
from exec_events.isolate import IsolatedHandler
from exec_events.privacy import Pseudonyms
from exec_events.recorder import Recorder, Settings
from exec_events.spool import Spool
from exec_events.testing import NotebookClient, RestError, RunningServer, records
from exec_events_schemas import catalogue, load
from exec_events_schemas.catalogue import examples

NAMES = catalogue()
RESTARTED = "https://events.jupyter.org/jupyter_server/kernel_actions/v1"
LOG = logging.getLogger("test")
FORGER = "f0f0f0f0-f0f0-4f0f-8f0f-f0f0f0f0f0f0"

# What an admin may have configured beside us: one that works, one that raises, one that blocks.
HANDLERS = """
import logging, time

class Raises(logging.Handler):
    def emit(self, record):
        if "exec-events.org" in record.msg["__schema__"]:
            raise RuntimeError("somebody else's handler is broken")

class Blocks(logging.Handler):
    def emit(self, record):
        if "exec-events.org" in record.msg["__schema__"]:
            time.sleep({blocks})

c.EventLogger.handlers = [Raises(), logging.FileHandler({path!r}), Blocks()]
"""

# Another server extension, with listeners of its own.
EXTENSION = """
import json, os
from pathlib import Path

def _jupyter_server_extension_points():
    return [{"module": "other_extension"}]

def _load_jupyter_server_extension(server):
    schema = "https://exec-events.org/schemas/cell_execution/v1"
    async def heard(logger, schema_id, data):
        with open(os.environ["HEARD"], "a") as file:
            file.write(json.dumps(data) + "\\n")
        data.clear()
    async def broken(logger, schema_id, data):
        raise RuntimeError("somebody else's listener is broken")
    server.event_logger.add_listener(schema_id=schema, listener=heard)
    server.event_logger.add_listener(schema_id=schema, listener=broken)
"""


@pytest.fixture(scope="module")
def handlers_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the handler that works writes to."""
    return tmp_path_factory.mktemp("handlers") / "events.jsonl"


@pytest.fixture(scope="module")
def busy_server(handlers_log: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with three handlers of others and another extension."""
    folder = tmp_path_factory.mktemp("extension")
    (folder / "other_extension.py").write_text(EXTENSION)
    config = PLAIN + HANDLERS.format(path=str(handlers_log), blocks=30)
    env = {"PYTHONPATH": str(folder), "HEARD": str(folder / "heard.jsonl")}
    with RunningServer(config=config, extensions={"other_extension": True}, env=env) as running:
        running.heard = folder / "heard.jsonl"  # type: ignore[attr-defined]
        yield running


def lines_of(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a file, none when there is none."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def without_envelope(event: dict[str, Any]) -> dict[str, Any]:
    """An event as the bus shows it, without what the bus adds."""
    return {key: value for key, value in event.items() if key not in ("__timestamp__", "__metadata_version__")}


async def until(condition: Callable[[], Any], timeout: float = 10) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + timeout
    while not await asyncio.to_thread(condition):
        assert time.monotonic() < deadline, "it never held"
        await asyncio.sleep(0.05)


async def test_handlers_of_others_see_the_record(busy_server: RunningServer, handlers_log: Path) -> None:
    """A FileHandler sees every event of the record, equal and in order, while its neighbours raise and block."""
    async with NotebookClient(busy_server, notebook="handlers.ipynb") as client:
        for n in range(5):
            result = await client.execute(f"print({n})")
            assert result.seconds < 2
        await recorded(busy_server, 5, kernel_id=client.kernel_id)

    def same() -> bool:
        ours = [line for line in lines_of(handlers_log) if line["__schema__"].startswith(PREFIX)]
        return [without_envelope(e) for e in ours] == [r["event"] for r in records(busy_server.data_dir)]

    await until(same)


async def test_a_handler_that_blocks_or_raises_is_reported(busy_server: RunningServer) -> None:
    """A handler that raises and one that blocks for half a minute are named in the log, and cells stay quick."""
    async with NotebookClient(busy_server, notebook="blocked.ipynb") as client:
        await asyncio.sleep(2.1)
        assert (await client.execute("1 + 1")).seconds < 2
        await recorded(busy_server, 1, kernel_id=client.kernel_id)
    await until(lambda: "somebody else's handler is broken" in busy_server.log)
    await until(lambda: "blocks: it has been busy with one event" in busy_server.log)


async def test_other_events_do_not_wait_for_a_handler_we_keep_busy(
    busy_server: RunningServer, handlers_log: Path
) -> None:
    """While a handler is stuck with an event of ours, the server's own events still reach the others at once."""
    async with NotebookClient(busy_server, notebook="others.ipynb") as client:
        started = time.monotonic()
        await client.interrupt()
        await client.rest("PUT", "/api/contents/saved.txt", {"type": "file", "format": "text", "content": "x"})
        assert time.monotonic() - started < 5
        kernel_id = client.kernel_id

    def others() -> set[str]:
        return {line.get("action", "") for line in lines_of(handlers_log) if line.get("kernel_id") == kernel_id}

    await until(lambda: {"start", "interrupt"} <= others())
    await until(lambda: any(line.get("path") == "saved.txt" for line in lines_of(handlers_log)))


async def test_a_listener_of_another_extension(busy_server: RunningServer) -> None:
    """Another extension's listener hears our events; neither what it does to them nor one that raises reaches us."""
    async with NotebookClient(busy_server, notebook="extension.ipynb") as client:
        await client.execute("x = 1")
        (event,) = await recorded(busy_server, 1, kernel_id=client.kernel_id)
    heard: Path = busy_server.heard  # type: ignore[attr-defined]
    await until(lambda: any(line["execution_id"] == event["execution_id"] for line in lines_of(heard)))
    (line,) = (line for line in lines_of(heard) if line["execution_id"] == event["execution_id"])
    assert line == {key: value for key, value in event.items() if not key.startswith("__")}
    await until(lambda: "somebody else's listener is broken" in busy_server.log)
    assert "exec-events: fault" not in busy_server.log


@pytest.mark.parametrize("name", NAMES, ids=str)
def test_a_forged_event_is_refused(busy_server: RunningServer, name: Any, handlers_log: Path) -> None:
    """A user who posts one of our events to /api/events gets a 400, and it is neither recorded nor handed on."""
    data = next(iter(examples(name).values()))
    body = {"schema_id": name.id, "version": str(load(name.id)["version"]), "data": {**data, "recorder_id": FORGER}}
    with pytest.raises(RestError) as refused:
        busy_server.rest("POST", "/api/events", body)
    assert refused.value.status == 400
    assert "the recorder alone" in refused.value.text
    time.sleep(0.2)
    assert FORGER not in json.dumps(records(busy_server.data_dir))
    assert FORGER not in handlers_log.read_text()


async def test_a_forged_restart_closes_nothing(busy_server: RunningServer) -> None:
    """A forged kernel_actions restart of the server's is no lifecycle event, and leaves a running cell running."""
    async with NotebookClient(busy_server, notebook="forged.ipynb") as client:
        msg_id = await client.submit("import time; time.sleep(1); print('whole')")
        data = {"action": "restart", "kernel_id": client.kernel_id, "msg": "forged"}
        await client.rest("POST", "/api/events", {"schema_id": RESTARTED, "version": "1", "data": data})
        result = await client.wait(msg_id)
        (event,) = await recorded(busy_server, 1, kernel_id=client.kernel_id)
    assert result.text == "whole\n"
    assert event["status"] == "ok"
    assert not events_of(busy_server, "kernel_lifecycle", kernel_id=client.kernel_id, action="restarted")


async def test_a_handler_that_never_returns_does_not_keep_the_server(tmp_path: Path) -> None:
    """A server whose handler never returns from an event stops within seconds, its record whole and closed."""
    config = PLAIN + HANDLERS.format(path=str(tmp_path / "events.jsonl"), blocks=1e6)
    async with RunningServer(tmp_path / "server", config=config) as running:
        async with NotebookClient(running) as client:
            await client.execute("1")
        started = time.monotonic()
        await asyncio.to_thread(running.stop)
        assert time.monotonic() - started < 12
    last = records(running.data_dir)[-1]["event"]
    assert (kind(last), last["action"]) == ("recorder", "stopped")
    assert "hangs" in running.log
    handed_on = [without_envelope(line) for line in lines_of(tmp_path / "events.jsonl")]
    assert last in handed_on


# The validator.


@pytest.mark.parametrize("name", NAMES, ids=str)
def test_the_validator_agrees_with_jsonschema(name: Any) -> None:
    """FastValidator accepts and refuses every example as jsonschema does, and names the same place."""
    schema = load(name.id)
    fast, slow = FastValidator(schema), jsonschema.Draft7Validator(schema)
    for data in examples(name).values():
        fast.validate(data)
        slow.validate(data)
    bad = examples(name, bad=True)
    assert bad
    for file, data in bad.items():
        with pytest.raises(jsonschema.ValidationError) as caught:
            fast.validate(data)
        places = {tuple(error.path) for error in slow.iter_errors(data)}
        assert tuple(caught.value.path) in places, file
        assert caught.value.message


# The emitter, on an EventLogger of its own.


class Kept(logging.Handler):
    """Keeps what it is given; can be held up."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict[str, Any]] = []
        self.go = threading.Event()
        self.go.set()

    def emit(self, record: logging.LogRecord) -> None:
        assert isinstance(record.msg, dict)
        self.go.wait(20)
        self.seen.append(dict(record.msg))
        record.msg.clear()


CELL = f"{PREFIX}cell_execution/v1"
DATA = next(data for name in NAMES if name.id == CELL for data in examples(name).values())
OTHER = "https://example.org/other/v1"


@contextmanager
def emitting(*handlers: logging.Handler) -> Iterator[tuple[EventLogger, Emitter]]:
    """An event logger with an emitter of ours on it, and a schema of somebody else's."""
    event_logger = EventLogger(handlers=list(handlers))
    event_logger.register_event_schema(
        {"$id": OTHER, "version": "1", "title": "other", "type": "object", "properties": {"n": {"type": "integer"}}}
    )
    emitter = Emitter(event_logger, LOG)
    emitter.install()
    try:
        yield event_logger, emitter
    finally:
        emitter.remove()


def wait_until(condition: Callable[[], Any]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it never held"
        time.sleep(0.01)


def test_what_is_sent_comes_back() -> None:
    """The event that is sealed is the data with its schema, without what the bus adds."""
    with emitting() as (_, emitter):
        assert emitter.send(CELL, DATA) == {"__schema__": CELL, "__schema_version__": "1", **DATA}


def test_nobody_else_can_emit() -> None:
    """Emitting one of our events raises for everyone but the recorder, from its own thread or another."""
    with emitting() as (event_logger, _), pytest.raises(ForgedEvent, match="recorder alone"):
        event_logger.emit(schema_id=CELL, data=DATA)


def test_a_handler_cannot_change_the_record() -> None:
    """What a handler does to an event it was given changes neither the record nor what its neighbour gets."""
    one, two = Kept(), Kept()
    with emitting(one, two) as (_, emitter):
        for _ in range(50):
            assert emitter.send(CELL, DATA) == {"__schema__": CELL, "__schema_version__": "1", **DATA}
        wait_until(lambda: len(one.seen) == len(two.seen) == 50)
        assert one.seen == two.seen
        assert all(DATA.items() <= event.items() for event in one.seen)


def test_order_is_kept_for_a_slow_handler() -> None:
    """Events of others go straight to an idle handler, and wait their turn behind ours at a busy one."""
    handler = Kept()
    with emitting(handler) as (event_logger, emitter):
        event_logger.emit(schema_id=OTHER, data={"n": 0})
        assert [event["n"] for event in handler.seen] == [0]
        handler.go.clear()
        emitter.send(CELL, DATA)
        started = time.monotonic()
        event_logger.emit(schema_id=OTHER, data={"n": 1})
        assert time.monotonic() - started < 1
        handler.go.set()
        wait_until(lambda: len(handler.seen) == 3)
        assert [event["__schema__"] for event in handler.seen] == [OTHER, CELL, OTHER]


def test_a_handler_too_slow_misses_events_and_nobody_else_does(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Beyond the bound events are dropped for the slow handler alone, counted and logged."""
    monkeypatch.setattr(isolate, "FOREIGN_QUEUE", 10)
    slow, quick = Kept(), Kept()
    slow.go.clear()
    with emitting(slow, quick) as (_, emitter):
        for n in range(15):
            emitter.send(CELL, DATA)
            wait_until(lambda n=n: len(quick.seen) == n + 1)
        slow.go.set()
        wait_until(lambda: len(slow.seen) == 10)
    assert "too slow: 1 events dropped" in caplog.text


def test_handlers_come_and_go() -> None:
    """A handler registered later is isolated too, once; removed, it gets nothing more; at the end it is given back."""
    first, later = Kept(), Kept()
    event_logger = EventLogger(handlers=[first])
    emitter = Emitter(event_logger, LOG)
    emitter.install()
    event_logger.register_handler(later)
    event_logger.register_handler(later)
    emitter.send(CELL, DATA)
    wait_until(lambda: len(later.seen) == 1 and len(first.seen) == 1)
    event_logger.remove_handler(later)
    emitter.send(CELL, DATA)
    wait_until(lambda: len(first.seen) == 2)
    assert len(later.seen) == 1
    emitter.remove()
    assert event_logger._logger.handlers == [first]
    assert event_logger.handlers == [first]
    assert not any(isinstance(handler, IsolatedHandler) for handler in event_logger._logger.handlers)


@pytest.mark.parametrize("fault", ["raises", "breaks"])
def test_a_modifier_of_somebody_else_loses_nothing(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    """A modifier of others that raises, or makes an event invalid, is logged; the event is recorded as it was."""

    def modifier(schema_id: str, data: dict[str, Any]) -> dict[str, Any]:
        if fault == "raises":
            raise RuntimeError("a broken modifier")
        return {**data, "nonsense": 1}

    with emitting() as (event_logger, emitter):
        event_logger.add_modifier(schema_id=CELL, modifier=modifier)
        assert emitter.send(CELL, DATA) == {"__schema__": CELL, "__schema_version__": "1", **DATA}
    assert "while others were told of an event" in caplog.text


def test_a_handler_that_logs_an_event_of_its_own_is_not_taken_for_ours() -> None:
    """A modifier of others that emits another event while ours passes does not put it in the record's place."""
    with emitting() as (event_logger, emitter):

        def modifier(schema_id: str, data: dict[str, Any]) -> dict[str, Any]:
            event_logger.emit(schema_id=OTHER, data={"n": 1})
            raise RuntimeError("after that, ours does not pass")

        event_logger.add_modifier(schema_id=CELL, modifier=modifier)
        assert emitter.send(CELL, DATA)["execution_id"] == DATA["execution_id"]


def test_an_event_that_breaks_its_schema_is_refused() -> None:
    """The emitter raises ValidationError, hands the event to nobody, and sends the next one."""
    handler = Kept()
    with emitting(handler) as (_, emitter):
        with pytest.raises(jsonschema.ValidationError, match="surprise"):
            emitter.send(CELL, {**DATA, "surprise": 1})
        emitter.send(CELL, DATA)
        wait_until(lambda: handler.seen)
        assert "surprise" not in handler.seen[0]


def test_a_broken_event_is_a_fault_and_harms_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The recorder counts and logs an event that breaks its schema, and records what comes after."""
    recorder_id = DATA["recorder_id"]
    spool = Spool(tmp_path, recorder_id, LOG, started_at=DATA["time"])
    spool.start()
    with emitting() as (_, emitter):
        describer = Describer(recorder_id, "server", Pseudonyms(None), Hasher(None), LastRuns())
        recorder = Recorder(Settings(), describer, emitter, spool, None, LOG)
        recorder.say("nonsense")
        recorder.say("heartbeat", heads=[])
        spool.flush().result(10)
    assert recorder.faults == 1
    assert "breaks its schema" in caplog.text
    assert spool.last_id == 1
    assert spool.close(10)
