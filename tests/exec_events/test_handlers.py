"""The handler: events of any jupyter_events application arrive once, in order and sealed, and nobody ever waits."""

from __future__ import annotations

import asyncio
import copy
import logging
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from jupyter_events import EventLogger

from conftest import kind
from documented import install
from exec_events import paths
from exec_events.errors import ConfigurationError
from exec_events.handlers import EventHandler, KafkaEventHandler
from exec_events.testing import NotebookClient, RunningServer
from exec_events_schemas.chain import Verifier
from exec_events_schemas.findings import Report
from exec_events_schemas.record import event_of, seal_of
from exec_events_schemas.sources import open_source
from exec_events_schemas.sources.spool import SpoolSource, running_recorders
from kafka_fixtures import RunningKafka
from kafka_topic import messages_of, wrong_with
from kafka_topic import verified as verified_topic

SCHEMA_ID = "https://example.org/schemas/counted"
SCHEMA = {"$id": SCHEMA_ID, "version": "1", "title": "Counted", "type": "object", "properties": {"n": {}}}

# What a program of somebody's does: python -c PROGRAM HANDLER URL SPOOL, and then what is appended.
PROGRAM = f"""
import os, sys, time
from jupyter_events import EventLogger
import exec_events.handlers

made = getattr(exec_events.handlers, sys.argv[1])
handler = made(sys.argv[2], spool=sys.argv[3])
logger = EventLogger(handlers=[handler])
logger.register_event_schema({SCHEMA!r})

def emit(n):
    logger.emit(schema_id={SCHEMA_ID!r}, data={{"n": n}})
"""


def application(*handlers: logging.Handler) -> EventLogger:
    """A plain application's event logger."""
    logger = EventLogger(handlers=list(handlers))
    logger.register_event_schema(SCHEMA)
    return logger


def emit(logger: EventLogger, n: Any, **more: Any) -> None:
    """Emit one event."""
    logger.emit(schema_id=SCHEMA_ID, data={"n": n, **more})


@contextmanager
def publishing(url: str, spool: Path, made: type[EventHandler] = EventHandler, **options: Any) -> Iterator[EventLogger]:
    """An application with a handler, which is closed in the end."""
    handler = made(url, spool=spool, **options)
    try:
        yield application(handler)
    finally:
        handler.close()


def program(more: str, url: str, spool: Path, handler: str = "EventHandler") -> list[str]:
    """The command that runs `PROGRAM` and more."""
    return [sys.executable, "-c", PROGRAM + more, handler, url, str(spool)]


def until(condition: Callable[[], Any], timeout: float = 30) -> Any:
    """Wait until something is true, and return it."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return value


def verified(source: str | Path, running: set[str] = frozenset()) -> Report:  # type: ignore[assignment]
    """What verification says of a source."""
    verifier = Verifier()
    for stored in open_source(str(source)):
        verifier.add(stored)
    return verifier.finish(running)


def events_in(source: str | Path) -> list[dict[str, Any]]:
    """The events in a source, in order; none where it has not been made yet."""
    if not Path(source).exists():
        return []
    return [event_of(stored.record) for stored in open_source(str(source))]


def counted(source: str | Path) -> list[Any]:
    """What was counted, in order."""
    return [event["n"] for event in events_in(source) if event["__schema__"] == SCHEMA_ID]


def recorder_events(source: str | Path, action: str) -> list[dict[str, Any]]:
    """The recorder events of one action, in order."""
    return [event for event in events_in(source) if event.get("action") == action and kind(event) == "recorder"]


def on_disk(spool: Path) -> int:
    """How many records the files of a folder hold."""
    total = 0
    for path in spool.glob("*.db"):
        try:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
                total += connection.execute("SELECT count(*) FROM records").fetchone()[0]
        except sqlite3.OperationalError:
            continue  # it is just being made
    return total


class Hanging:
    """A sink that takes a batch and never returns, until it is let go."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        code = (
            "import threading\nentered = threading.Event()\nlet_go = threading.Event()\n"
            "class Sink:\n"
            "    def __init__(self, url, log):\n        pass\n"
            "    def deliver(self, batch):\n        entered.set()\n        let_go.wait()\n"
            "    def close(self, timeout):\n        pass\n"
        )
        folder.mkdir()
        install(
            folder, "hanging_sink", code, '[project.entry-points."exec_events.sinks"]\nhanging = "hanging_sink:Sink"\n'
        )
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.delitem(sys.modules, "hanging_sink", raising=False)
        import hanging_sink  # type: ignore[import-not-found]

        self.entered: threading.Event = hanging_sink.entered
        self.let_go: threading.Event = hanging_sink.let_go


@pytest.fixture
def hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hanging]:
    """The sink behind hanging://, let go in the end."""
    sink = Hanging(tmp_path / "package", monkeypatch)
    yield sink
    sink.let_go.set()


def test_ten_thousand_events_of_four_threads_arrive_once_and_in_order(tmp_path: Path) -> None:
    """Every event is in the spool and at the sink, each thread's in its order, and both verify."""
    spool, out = tmp_path / "spool", tmp_path / "out.jsonl"
    with publishing(f"file://{out}", spool) as logger:
        threads = [
            threading.Thread(target=lambda who=who: [emit(logger, [who, n]) for n in range(2500)]) for who in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    for source in (spool, out):
        found = counted(source)
        assert len(found) == 10_000
        for who in range(4):
            assert [n for of, n in found if of == who] == list(range(2500))
        report = verified(source)
        assert report.ok, report.findings
        assert (report.duplicates, report.recorders, report.chains, report.notes) == (0, 1, 2, ())
    (started,), (stopped,) = recorder_events(out, "started"), recorder_events(out, "stopped")
    assert started["configuration_digest"].startswith("sha256:")
    assert (stopped["cause"], stopped["lost"], [head["seq"] for head in stopped["heads"]]) == ("stop", 0, [9999])


def test_an_event_is_published_as_it_is(tmp_path: Path) -> None:
    """What arrives is the capsule, with jupyter_events' own members, and nothing is added or taken away."""
    out = tmp_path / "out.jsonl"
    captured: list[dict[str, Any]] = []

    class Capture(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            captured.append(copy.deepcopy(record.msg))  # type: ignore[arg-type]

    handler = EventHandler(f"file://{out}", spool=tmp_path / "spool")
    logger = application(Capture(), handler)
    emit(logger, {"deep": [1, 2.5, None, True, "\N{SNOWMAN}"]}, password="hunter2", subject="ada")
    handler.close()
    assert [event for event in events_in(out) if event["__schema__"] == SCHEMA_ID] == captured
    assert set(captured[0]) == {
        *("__timestamp__", "__schema__", "__schema_version__", "__metadata_version__"),
        *("n", "password", "subject"),
    }


def test_nobody_waits_for_a_sink_that_hangs(tmp_path: Path, hanging: Hanging) -> None:
    """While a sink takes its first batch and never returns, every emit returns and what was emitted is on disk."""
    spool = tmp_path / "spool"
    handler = EventHandler("hanging://sink", spool=spool, stop_seconds=0.2)
    logger = application(handler)
    emit(logger, 0)
    assert hanging.entered.wait(20)
    for number in range(1, 3000):
        emit(logger, number)
    until(lambda: on_disk(spool) >= 3000)
    state = handler.state()
    assert state is not None
    assert (state.sink.delivered, state.lost) == (0, 0)
    assert not hanging.let_go.is_set(), "the sink still holds its first batch"
    handler.close()
    assert counted(spool) == list(range(3000))


def test_closing_ends_in_time_and_leaves_the_rest_to_the_next_start(
    tmp_path: Path, hanging: Hanging, caplog: pytest.LogCaptureFixture
) -> None:
    """A close gives a hanging sink up and seals the end; a later handler with a sink that works delivers it all."""
    spool, out = tmp_path / "spool", tmp_path / "out.jsonl"
    handler = EventHandler("hanging://sink", spool=spool, stop_seconds=0.5)
    logger = application(handler)
    for number in range(10):
        emit(logger, number)
    assert hanging.entered.wait(20)
    handler.close()
    assert not hanging.let_go.is_set(), "close returned although the sink did not"
    assert "wait in" in caplog.text
    assert handler.state() is None
    handler.close()
    assert [event["cause"] for event in recorder_events(spool, "stopped")] == ["stop"]
    assert verified(spool).ok
    with publishing(f"file://{out}", spool):
        until(lambda: out.exists() and len(counted(out)) == 10)
    assert verified(out).ok
    assert len(recorder_events(spool, "started")[1]["previous"]) == 1


def test_an_event_after_a_close_starts_the_handler_again(tmp_path: Path) -> None:
    """Who is closed while in use goes on: a new recorder, linked to the one before, and no event is missing."""
    spool, out = tmp_path / "spool", tmp_path / "out.jsonl"
    handler = EventHandler(f"file://{out}", spool=spool)
    logger = application(handler)
    emit(logger, 1)
    handler.close()
    emit(logger, 2)
    handler.close()
    assert counted(out) == [1, 2]
    report = verified(out)
    assert (report.ok, report.recorders, report.notes) == (True, 2, ())


def test_what_a_killed_process_had_on_disk_arrives(tmp_path: Path) -> None:
    """After kill -9 a new process delivers all that was on disk, without an event of its own, and closes the record."""
    spool, out = tmp_path / "spool", tmp_path / "out.jsonl"
    forever = "n = 0\nwhile True:\n    emit(n)\n    n += 1\n    time.sleep(0.0002)\n"
    process = subprocess.Popen(program(forever, f"file://{out}", spool))
    try:
        until(lambda: on_disk(spool) > 500)
    finally:
        process.kill()
        process.wait(10)
    kept = counted(spool)
    assert len(kept) > 400
    with publishing(f"file://{out}", spool) as logger:
        until(lambda: len(set(counted(out))) == len(kept) and recorder_events(out, "started")[1:])
        assert logger.handlers
        assert verified(spool, set(running_recorders(spool))).ok
    assert set(counted(out)) == set(range(len(kept)))
    for source in (spool, out):
        report = verified(source)
        assert report.ok, report.findings
        assert not report.notes
    assert [event["cause"] for event in recorder_events(out, "stopped")] == ["adopted", "stop"]


ENDINGS = {
    "falls off its end": ("", 0),
    "sys.exit": ("sys.exit(3)\n", 3),
    "an exception": ("raise RuntimeError\n", 1),
    "a worker of a pool emits last": (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "def last():\n    time.sleep(0.3)\n    emit('last')\n"
        "ThreadPoolExecutor().submit(last)\n",
        0,
    ),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_process_that_ends_delivers_first(tmp_path: Path, ending: str) -> None:
    """However a program ends in order, what it emitted is delivered and its record sealed, without any call."""
    spool, out = tmp_path / "spool", tmp_path / "out.jsonl"
    code, status = ENDINGS[ending]
    done = subprocess.run(
        program(f"for n in range(2000):\n    emit(n)\n{code}", f"file://{out}", spool), timeout=60, check=False
    )
    assert done.returncode == status
    found = counted(out)
    assert found[:2000] == list(range(2000))
    assert found[2000:] == (["last"] if "pool" in ending else [])
    report = verified(out)
    assert (report.ok, report.notes) == (True, ())


def test_a_forked_child_starts_anew_and_leaves_its_parent_alone(tmp_path: Path) -> None:
    """Parent and child of a fork both go on, each with a recorder of its own, and every event arrives once."""
    spool, out = tmp_path / "spool", tmp_path / "out.jsonl"
    forking = """
for n in range(500):
    emit(n)
time.sleep(0.3)  # connections and locks are open
child = os.fork()
first = 1000 if child else 2000
for n in range(first, first + 500):
    emit(n)
if child:
    assert os.waitpid(child, 0)[1] == 0
    for n in range(1500, 1600):
        emit(n)
"""
    subprocess.run(program(forking, f"file://{out}", spool), timeout=60, check=True)
    expected = {*range(500), *range(1000, 1600), *range(2000, 2500)}
    for source in (spool, out):
        assert Counter(counted(source)) == Counter(expected)
        report = verified(source)
        assert report.ok, report.findings
        assert (report.recorders, report.notes) == (2, ())


def test_a_multiprocessing_child_delivers_before_it_ends(tmp_path: Path) -> None:
    """A worker process of multiprocessing, which ends without atexit, delivers what it emitted."""
    spool, out = tmp_path / "spool", tmp_path / "out.jsonl"
    working = """
import multiprocessing
emit("parent")
worker = multiprocessing.get_context("fork").Process(target=lambda: [emit(n) for n in range(100)])
worker.start()
worker.join(30)
"""
    subprocess.run(program(working, f"file://{out}", spool), timeout=60, check=True)
    assert Counter(counted(out)) == Counter(["parent", *range(100)])
    report = verified(out)
    assert (report.ok, report.recorders, report.notes) == (True, 2, ())


def test_a_preexec_child_does_no_harm(tmp_path: Path) -> None:
    """A subprocess with a preexec_fn, as a hub's spawner starts servers, leaves the handler working."""
    spool, out = tmp_path / "spool", tmp_path / "out.jsonl"
    spawning = """
import subprocess
emit(1)
time.sleep(0.2)
for n in range(5):
    subprocess.run([sys.executable, "-c", ""], preexec_fn=lambda: os.setsid(), timeout=30, check=True)
emit(2)
"""
    subprocess.run(program(spawning, f"file://{out}", spool), timeout=60, check=True)
    assert counted(out) == [1, 2]
    report = verified(out)
    assert (report.ok, report.recorders, report.notes) == (True, 1, ())


def test_making_a_handler_starts_nothing(tmp_path: Path) -> None:
    """A configuration that only makes a handler leaves no thread and no file, and a copy of it holds the same one."""
    threads = set(threading.enumerate())
    handler = EventHandler(f"file://{tmp_path / 'out.jsonl'}", spool=tmp_path / "spool")
    assert copy.deepcopy({"handlers": [handler]})["handlers"] == [handler]
    handler.flush()
    handler.close()
    assert set(threading.enumerate()) == threads
    assert not list(tmp_path.iterdir())


def test_a_changed_logging_configuration_loses_nothing(tmp_path: Path) -> None:
    """logging.config closes every handler there is, before and in use; events go on arriving."""
    spool, out = tmp_path / "spool", tmp_path / "out.jsonl"
    configuring = """
import logging.config
unused = made(sys.argv[2], spool=sys.argv[3])
emit(1)
logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
emit(2)
logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
emit(3)
"""
    subprocess.run(program(configuring, f"file://{out}", spool), timeout=60, check=True)
    assert counted(out) == [1, 2, 3]
    assert verified(out).ok


UNSEALABLE = {
    "not a number": float("nan"),
    "infinity": float("inf"),
    "an integer JSON readers would round": 2**53,
    "a huge integer": 10**400,
    "half a character": "\ud800",
    "bytes": b"x",
    "an object": object(),
    "a key that is no string": {1: 2},
    "a half character in a key": {"\udfff": 1},
}
SEALABLE = {
    "a float": 0.1,
    "a large float": 1e300,
    "a float that is whole": 3.0,
    "minus zero": -0.0,
    "the largest integer": 2**53 - 1,
    "no ASCII": "Ünïcödé \N{SNOWMAN} \N{GRINNING FACE}",
    "keys sorted by UTF-16": {"\N{GRINNING FACE}": 1, "\ufb33": 2},
    "a control character": '\0\n"\\',
    "a tuple": (1, 2),
    "nothing": None,
    "much": "x" * 1_000_000,
    "our own members": {"seal": {"chain": "x", "prev": None, "seq": 0}},
}


def test_unusual_values_arrive_or_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What can be sealed arrives; what cannot is logged, counted, and said in the sealed record; all else goes on."""
    spool, out = tmp_path / "spool", tmp_path / "out.jsonl"
    handler = EventHandler(f"file://{out}", spool=spool)
    logger = application(handler)
    for value in UNSEALABLE.values():
        emit(logger, value)
    for value in SEALABLE.values():
        emit(logger, value)
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    handler.emit(logging.makeLogRecord({"msg": {"__schema__": SCHEMA_ID, "n": nested}}))
    handler.emit(logging.makeLogRecord({"msg": {"__schema__": SCHEMA_ID, "subject": "\ud800", "n": 1}}))
    handler.emit(logging.makeLogRecord({"msg": "a line of text"}))
    lost = len(UNSEALABLE) + 3
    assert handler.refused == lost
    state = handler.state()
    assert state is not None
    assert state.lost == lost
    handler.close()
    assert counted(out) == [list(value) if isinstance(value, tuple) else value for value in SEALABLE.values()]
    assert recorder_events(out, "stopped")[0]["lost"] == lost
    assert verified(out).ok
    (message,) = [record.getMessage() for record in caplog.records if "could not be published" in record.getMessage()]
    assert SCHEMA_ID in message


def test_events_of_our_own_are_left_to_their_recorder(tmp_path: Path) -> None:
    """Whoever emits what looks like an execution, no handler publishes it."""
    out = tmp_path / "out.jsonl"
    handler = EventHandler(f"file://{out}", spool=tmp_path / "spool")
    logger = application(handler)
    forged = "https://exec-events.org/schemas/cell_execution/v1"
    logger.register_event_schema({**SCHEMA, "$id": forged})
    logger.emit(schema_id=forged, data={"n": "forged"})
    emit(logger, "own")
    handler.close()
    assert counted(out) == ["own"]
    assert "forged" not in out.read_text()
    assert handler.refused == 0


def test_a_full_disk_keeps_events_in_memory(tmp_path: Path) -> None:
    """While the spool cannot be made emit goes on, and when it can, everything is written."""
    blocked, out = tmp_path / "blocked", tmp_path / "out.jsonl"
    blocked.write_text("a file where a folder should be")
    handler = EventHandler(f"file://{out}", spool=blocked / "spool")
    logger = application(handler)
    for number in range(100):
        emit(logger, number)
    state = handler.state()
    assert state is not None
    assert state.spool.records == 0
    blocked.unlink()
    until(lambda: out.exists() and len(counted(out)) == 100)
    handler.close()
    assert counted(out) == list(range(100))
    assert verified(out).ok


def test_events_stay_as_long_as_retention_says(tmp_path: Path) -> None:
    """Delivered events younger than the limit stay, by the time jupyter_events gave them; heartbeats say all is well."""
    spool, out = tmp_path / "spool", tmp_path / "out.jsonl"
    with publishing(f"file://{out}", spool, retention_days=1, heartbeat_seconds=0.1) as logger:
        for number in range(20):
            emit(logger, number, time="1970")
        until(lambda: len(recorder_events(spool, "heartbeat")) > 5)
        assert len(counted(out)) == 20
        assert not recorder_events(spool, "pruned")
        assert counted(spool) == list(range(20))
        assert recorder_events(spool, "heartbeat")[-1]["heads"][0]["seq"] == 19
        assert recorder_events(spool, "heartbeat")[-1]["heartbeat_us"] == 100_000


def test_what_is_older_is_cut_and_the_cut_is_sealed(tmp_path: Path) -> None:
    """Delivered events beyond the limit go from the spool; what stays verifies, and the sink has all."""
    spool, out = tmp_path / "spool", tmp_path / "out.jsonl"
    with publishing(f"file://{out}", spool, retention_days=0.3 / 86_400, heartbeat_seconds=0.2) as logger:
        for number in range(20):
            emit(logger, number)
        until(lambda: recorder_events(spool, "pruned") and not counted(spool))
    assert verified(spool).ok
    assert counted(out) == list(range(20))
    assert verified(out).ok


@pytest.mark.parametrize(
    ("made", "arguments", "says"),
    [
        (EventHandler, {"url": "file:///x.jsonl", "name": "../x"}, "name of a handler"),
        (EventHandler, {"url": "file:///x.jsonl", "name": ""}, "name of a handler"),
        (EventHandler, {"url": "file:///x.jsonl", "spool": paths.spool_folder()}, "recorder's own spool"),
        (KafkaEventHandler, {"url": "file:///x.jsonl"}, "kafka://host:port"),
        (KafkaEventHandler, {"url": "kafka://ada:hunter2@broker"}, "settings"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_at_once(
    made: type[EventHandler], arguments: dict[str, Any], says: str
) -> None:
    """A wrong address, name or folder is an error where the configuration is read, and repeats no password."""
    with pytest.raises(ConfigurationError, match=says) as raised:
        made(**arguments)
    assert "hunter2" not in str(raised.value)


def test_without_the_kafka_client_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where kafka-python is missing, the handler for Kafka names the extra, and the one for any sink is there."""
    for module in [name for name in sys.modules if name.partition(".")[0] == "kafka"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "kafka", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'exec-events\[kafka\]'"):
        KafkaEventHandler("kafka://broker")
    EventHandler("file:///x.jsonl")


def test_a_sink_nobody_knows_is_logged_and_everything_else_works(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A URL without a sink leaves the events in the spool, and the log says why."""
    with publishing("nowhere://x", tmp_path, stop_seconds=0.2) as logger:
        emit(logger, 1)
        until(lambda: "no sink for" in caplog.text)
    assert counted(tmp_path) == [1]
    assert verified(tmp_path).ok


def test_a_handler_needs_neither_server_nor_broker_to_be_imported() -> None:
    """An application that is no Jupyter server gets none with the handler, and no Kafka client before it is used."""
    check = (
        "import sys, exec_events.handlers\n"
        "found = {name.partition('.')[0] for name in sys.modules}\n"
        "assert not found & {'jupyter_server', 'jupyter_client', 'tornado', 'zmq', 'kafka'}, found\n"
    )
    subprocess.run([sys.executable, "-c", check], timeout=60, check=True)


# With a real Kafka.


def test_events_are_keyed_by_subject_on_the_topic(tmp_path: Path, kafka: RunningKafka, kafka_prefix: str) -> None:
    """Everything spooled is on the topic, each chain in order in one partition, all of one subject under its key."""
    with publishing(f"kafka://{kafka.servers}/{kafka_prefix}", tmp_path, KafkaEventHandler) as logger:
        for number in range(300):
            subject = ("ada", "bob", None)[number % 3]
            emit(logger, number, **({"subject": subject} if subject else {}))
    messages = messages_of(kafka.settings, f"{kafka_prefix}.events")
    assert wrong_with(messages, SpoolSource(tmp_path)) == []
    report = verified_topic(messages)
    assert (report.ok, report.chains, report.notes) == (True, 4, ())
    keys = Counter(message.key.decode() for message in messages)
    assert (keys["ada"], keys["bob"]) == (100, 100)
    (recorder,) = {seal_of(message.value).chain.partition("/")[0] for message in messages}
    assert keys[recorder] == 2, "started and stopped"
    assert len(keys) == 4


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_process_that_ends_delivers_to_kafka_first(
    tmp_path: Path, kafka: RunningKafka, kafka_prefix: str, ending: str
) -> None:
    """Also where the Kafka client closes itself at exit, everything emitted was published before."""
    code, status = ENDINGS[ending]
    command = program(
        f"for n in range(500):\n    emit(n)\n{code}",
        f"kafka://{kafka.servers}/{kafka_prefix}",
        tmp_path,
        "KafkaEventHandler",
    )
    done = subprocess.run(command, timeout=90, check=False)
    assert done.returncode == status
    messages = messages_of(kafka.settings, f"{kafka_prefix}.events")
    assert wrong_with(messages, SpoolSource(tmp_path)) == []
    report = verified_topic(messages)
    assert (report.ok, report.notes) == (True, ())
    assert report.records >= 502


def test_while_the_broker_is_away_events_wait(tmp_path: Path, kafka: RunningKafka, kafka_prefix: str) -> None:
    """Events emitted to a broker that takes connections and never answers are published by a later start."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        handler = KafkaEventHandler(f"kafka://127.0.0.1:{port}/{kafka_prefix}", spool=tmp_path, stop_seconds=0.5)
        logger = application(handler)
        for number in range(1000):
            emit(logger, number)
        connection, _ = silent.accept()
        with connection:
            until(lambda: on_disk(tmp_path) >= 1001)
            handler.close()
    with publishing(f"kafka://{kafka.servers}/{kafka_prefix}", tmp_path, KafkaEventHandler):
        until(lambda: _count(kafka, kafka_prefix) >= 1003, timeout=60)
    messages = messages_of(kafka.settings, f"{kafka_prefix}.events")
    assert wrong_with(messages, SpoolSource(tmp_path)) == []
    assert verified_topic(messages).ok


def _count(kafka: RunningKafka, prefix: str) -> int:
    try:
        return len(messages_of(kafka.settings, f"{prefix}.events", 20))
    except AssertionError:  # the topic is not there yet
        return 0


async def test_a_servers_own_events_arrive_on_the_topic(tmp_path: Path, kafka: RunningKafka, kafka_prefix: str) -> None:
    """A server with the handler in its configuration publishes what it emits of contents and kernels, ours left out."""
    config = (
        "from exec_events.handlers import KafkaEventHandler\n"
        f"c.EventLogger.handlers = [KafkaEventHandler('kafka://{kafka.servers}/{kafka_prefix}', name='server')]\n"
        "c.ServerApp.log_level = 'DEBUG'\n"
    )
    with RunningServer(tmp_path, config=config) as server:
        async with NotebookClient(server) as client:
            assert (await client.execute("1 + 1")).status == "ok"
            await asyncio.to_thread(server.rest, "PUT", "/api/contents/a.txt", _text("a"))
            await asyncio.to_thread(server.rest, "GET", "/api/contents/a.txt")
        spool = server.data_dir / paths.HANDLERS_FOLDER_NAME / "server"
        assert list(spool.glob("*.db"))
    assert "exec-events: fault" not in server.log
    messages = messages_of(kafka.settings, f"{kafka_prefix}.events")
    assert wrong_with(messages, SpoolSource(spool)) == []
    report = verified_topic(messages)
    assert (report.ok, report.notes) == (True, ())
    events = [event_of(message.value) for message in messages]
    of_contents = [e["action"] for e in events if e["__schema__"].endswith("/contents_service/v1")]
    of_kernels = [e["action"] for e in events if e["__schema__"].endswith("/kernel_actions/v1")]
    assert {"get", "save"} <= set(of_contents)
    assert {"start", "shutdown"} <= set(of_kernels)
    ours = [kind(event) for event in events if event["__schema__"].startswith("https://exec-events.org/")]
    assert set(ours) == {"recorder"}, "executions are published by the recorder, if it is told to"
    recorded = open_source(server.data_dir / paths.FOLDER_NAME)
    assert any(kind(event_of(stored.record)) == "cell_execution" for stored in recorded)


def _text(content: str) -> dict[str, str]:
    return {"type": "file", "format": "text", "content": content}
