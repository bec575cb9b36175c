"""Delivery: every record reaches every sink, in order, whatever happens to sinks and servers."""

from __future__ import annotations

import asyncio
import http.server
import json
import logging
import os
import stat
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from conftest import PLAIN, kind, recorded
from documented import blocks, install
from exec_events import deliver, undelivered
from exec_events.deliver import Deliverer, without_secrets
from exec_events.errors import ConfigurationError, SinkError
from exec_events.sinks import Delivery, name_of, open_sink
from exec_events.sinks.file import FileSink, line_of
from exec_events.spool import Spool
from exec_events.testing import NotebookClient, RunningServer, records
from exec_events_schemas.record import event_of, leaf_hash

LOG = logging.getLogger("test")
STARTED = "2026-01-01T00:00:00.000000Z"
SECRET = "hunter2secret"


def deliveries(count: int, first: int = 1) -> list[Delivery]:
    """Records numbered from ``first``, as a spool would hand them over."""
    made = []
    for number in range(first, first + count):
        record = b'{"event":{"n":%d},"seal":{"chain":"c","prev":null,"seq":%d}}' % (number, number)
        made.append(Delivery(number, record, leaf_hash(record)))
    return made


def numbers(path: Path) -> list[int]:
    """The events of a file sink's file."""
    return [json.loads(line)["event"]["n"] for line in path.read_bytes().splitlines()]


def wait_until(condition: Any, timeout: float = 10) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it never held"
        time.sleep(0.01)


# Names and URLs.


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("file:///var/log/a@b.jsonl?max_bytes=3", "file:///var/log/a@b.jsonl"),
        ("kafka://one:9092,two:9092/prefix?acks=all", "kafka://one:9092,two:9092/prefix"),
        (f"kafka://user:{SECRET}@one:9092,two:9092", "kafka://one:9092,two:9092"),
        (f"kafka://user:{SECRET}/{SECRET}@one:9092", "kafka://one:9092"),
        (f"kafka://user:{SECRET}@{SECRET}@one:9092", "kafka://one:9092"),
        (f"kafka://user:{SECRET}?x@one", "kafka://one"),
        (f"kafka://user:{SECRET}#x@one", "kafka://one"),
        (f"kafka://one:9092?user=a@b&password={SECRET}", "kafka://one:9092"),
        (f"kafka://one:9092#{SECRET}", "kafka://one:9092"),
        ("kafka://[::1]:9092?a=b@c", "kafka://[::1]:9092"),
        (f"kafka://[broken:{SECRET}@x", "kafka://x"),
        (f"user:{SECRET}@one:9092", "one:9092"),
        ("nonsense", "nonsense"),
    ],
)
def test_a_name_keeps_no_secret(url: str, name: str) -> None:
    """The name of a sink is its URL without user, password and query, also where the URL is written badly."""
    assert name_of(url) == name
    assert SECRET not in name_of(url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (f"nowhere://user:{SECRET}@host", "registers 'nowhere'"),
        (f"file://user:{SECRET}@host/a.jsonl", "is no file"),
        ("file:relative.jsonl", "is no file"),
        (f"file:///a.jsonl?max_bytes=0&password={SECRET}", "max_bytes"),
        (f"file:///a.jsonl?max_bytes=many&password={SECRET}", "max_bytes"),
    ],
)
def test_a_url_that_cannot_work_is_a_clear_error(url: str, reason: str) -> None:
    """A URL of no sink, or none that the file sink can use, is refused with the reason and without its secrets."""
    with pytest.raises(ConfigurationError, match=reason) as caught:
        open_sink(url, LOG)
    assert SECRET not in str(caught.value)


# The file sink.


def test_lines_are_the_records_and_private(tmp_path: Path) -> None:
    """Each line is the record's own bytes with its hash put in, in a file only its owner may read."""
    path = tmp_path / "new" / "a file.jsonl"
    sink = FileSink(f"file://{str(path).replace(' ', '%20')}", LOG)
    batch = deliveries(3)
    sink.deliver(batch)
    sink.close(1)
    assert path.read_bytes() == b"".join(line_of(delivery) for delivery in batch)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_rotation_keeps_order(tmp_path: Path) -> None:
    """Rotated files hold, from the highest number down to the file itself, every record in order."""
    path = tmp_path / "events.jsonl"
    sink = FileSink(f"file://{path}?max_bytes=2000", LOG)
    for first in range(1, 121, 5):
        sink.deliver(deliveries(5, first))
    sink.close(1)
    older = sorted(tmp_path.glob("events.jsonl.*"), key=lambda file: -int(file.suffix[1:]))
    assert len(older) > 3
    assert all(file.stat().st_size >= 2000 for file in older)
    files = [*older, path] if path.exists() else older
    assert [n for file in files for n in numbers(file)] == list(range(1, 121))


def test_a_torn_last_line_is_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Half a line that a power cut left, however long, is cut off when the file is opened, and said so."""
    path = tmp_path / "events.jsonl"
    whole = b"".join(line_of(delivery) for delivery in deliveries(2))
    path.write_bytes(whole + b'{"event":' + b"x" * 200_000)
    sink = FileSink(f"file://{path}", LOG)
    sink.deliver(deliveries(1, 3))
    sink.close(1)
    assert numbers(path) == [1, 2, 3]
    assert "half a line" in caplog.text


def test_a_batch_counts_once_it_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """deliver syncs before it returns; when syncing or writing fails it raises and leaves nothing of the batch."""
    path = tmp_path / "events.jsonl"
    sink = FileSink(f"file://{path}", LOG)
    sink.deliver(deliveries(2))
    synced: list[int] = []
    sync = os.fsync

    def failing(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_size)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(OSError, match="No space"):
        sink.deliver(deliveries(2, 3))
    assert synced == [sum(len(line_of(delivery)) for delivery in deliveries(4))]
    assert numbers(path) == [1, 2]
    monkeypatch.setattr(os, "fsync", sync)
    sink.deliver(deliveries(2, 3))
    sink.close(1)
    assert numbers(path) == [1, 2, 3, 4]


def test_a_failed_cut_leaves_no_torn_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When half a batch is written and cannot even be cut off again, the next batch does not follow half a line."""
    path = tmp_path / "events.jsonl"
    sink = FileSink(f"file://{path}", LOG)
    sink.deliver(deliveries(1))
    write, cut = os.write, os.ftruncate

    def half(descriptor: int, data: bytes) -> int:
        write(descriptor, bytes(data)[:20])
        raise OSError(5, "Input/output error")

    def broken(descriptor: int, length: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", half)
        patched.setattr(os, "ftruncate", broken)
        with pytest.raises(OSError, match="Input/output"):
            sink.deliver(deliveries(1, 2))
    assert os.ftruncate is cut
    sink.deliver(deliveries(1, 2))
    sink.close(1)
    assert numbers(path) == [1, 2]


def test_a_file_that_cannot_be_rotated_grows_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A rotation that fails is logged once; what was delivered is not delivered again."""

    def refused(self: Path, target: Path) -> Path:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refused)
    path = tmp_path / "events.jsonl"
    sink = FileSink(f"file://{path}?max_bytes=10", LOG)
    for first in (1, 2, 3):
        sink.deliver(deliveries(1, first))
    sink.close(1)
    assert numbers(path) == [1, 2, 3]
    assert caplog.text.count("cannot rotate") == 1


def test_a_file_moved_away_is_made_anew(tmp_path: Path) -> None:
    """After another program moved or removed the file, records go to a new one at its path."""
    path = tmp_path / "events.jsonl"
    sink = FileSink(f"file://{path}", LOG)
    sink.deliver(deliveries(1))
    path.rename(tmp_path / "moved")
    sink.deliver(deliveries(1, 2))
    path.unlink()
    sink.deliver(deliveries(1, 3))
    sink.close(1)
    assert (numbers(tmp_path / "moved"), numbers(path)) == ([1], [3])


WRITER = """
import logging, sys
from exec_events_schemas.record import leaf_hash
from exec_events.sinks import Delivery
from exec_events.sinks.file import FileSink
sink = FileSink(sys.argv[1], logging.getLogger())
for n in range(int(sys.argv[2]), int(sys.argv[2]) + 300, 3):
    records = [b'{"event":{"n":%d},"seal":{}}' % m for m in range(n, n + 3)]
    sink.deliver([Delivery(0, record, leaf_hash(record)) for record in records])
"""


def test_two_servers_share_a_file(tmp_path: Path) -> None:
    """Two processes that write to one file and rotate it lose, tear and repeat nothing."""
    url = f"file://{tmp_path}/events.jsonl?max_bytes=4000"
    running = [subprocess.Popen([sys.executable, "-c", WRITER, url, str(first)]) for first in (0, 1000)]
    assert [process.wait(60) for process in running] == [0, 0]
    found = [n for path in tmp_path.glob("events.jsonl*") for n in numbers(path)]
    assert sorted(found) == [*range(300), *range(1000, 1300)]
    assert len(list(tmp_path.glob("events.jsonl.*"))) > 3


# Deliverers, with a real spool.


class Memory:
    """A sink that keeps what it takes; fails as often as it is told, and can be held up."""

    def __init__(self, failures: int = 0) -> None:
        self.taken: list[Delivery] = []
        self.offered: list[list[int]] = []
        self.failures = failures
        self.go = threading.Event()
        self.go.set()
        self.closed = False

    def __call__(self, url: str, log: logging.Logger) -> Memory:
        return self

    def deliver(self, batch: Sequence[Delivery]) -> None:
        self.offered.append([delivery.id for delivery in batch])
        self.go.wait(30)
        if self.failures:
            self.failures -= 1
            raise SinkError("not now")
        self.taken += batch

    def close(self, timeout: float) -> None:
        self.closed = True

    @property
    def ids(self) -> list[int]:
        return [delivery.id for delivery in self.taken]


@contextmanager
def spooling(folder: Path, recorder_id: str) -> Iterator[Spool]:
    """A spool that runs."""
    spool = Spool(folder, recorder_id, LOG, started_at=STARTED)
    spool.start()
    try:
        yield spool
    finally:
        assert spool.close(10)


def append(spool: Spool, count: int) -> None:
    """Put in events of two chains, and wait until they are on disk."""
    for n in range(count):
        spool.append({"n": n}, "one" if n % 2 else "two")
    spool.flush().result(10)


def delivering(spool: Spool, sink: Memory, url: str = "memory://sink") -> Deliverer:
    """A deliverer from a spool to a sink, started."""
    deliverer = Deliverer(url, LOG, open_sink=sink)
    deliverer.add(spool)
    deliverer.start()
    return deliverer


def test_all_records_come_in_order_in_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sink gets the records of the spool in the order of sealing, with the bytes and hashes they have there."""
    monkeypatch.setattr(undelivered, "BATCH_RECORDS", 10)
    sink = Memory()
    with spooling(tmp_path, str(uuid.uuid4())) as spool:
        append(spool, 25)
        deliverer = delivering(spool, sink)
        append(spool, 25)
        assert deliverer.stop(10)
    assert sink.ids == list(range(1, 51))
    assert max(map(len, sink.offered)) == 10
    assert all(leaf_hash(delivery.record) == delivery.hash for delivery in sink.taken)
    assert [event_of(delivery.record)["n"] for delivery in sink.taken] == [*range(25), *range(25)]
    assert sink.closed


def test_nothing_is_acknowledged_before_deliver_returns(tmp_path: Path) -> None:
    """The position in the spool moves only after the sink has taken the batch."""
    sink = Memory()
    sink.go.clear()
    with spooling(tmp_path, str(uuid.uuid4())) as spool:
        append(spool, 5)
        deliverer = delivering(spool, sink)
        wait_until(lambda: sink.offered)
        time.sleep(0.1)
        assert spool.position("memory://sink") == 0
        assert (deliverer.state().lag, deliverer.state().delivered) == (5, 0)
        sink.go.set()
        wait_until(lambda: spool.position("memory://sink") == 5)
        assert deliverer.stop(10)
        assert (deliverer.state().lag, deliverer.state().delivered) == (0, 5)


def test_a_batch_that_fails_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A sink that raises gets the same batch again, nothing is lost or reordered, and it is told and taken back."""
    monkeypatch.setattr(deliver, "RETRY_SECONDS", (0.01,))
    sink = Memory(failures=3)
    with spooling(tmp_path, str(uuid.uuid4())) as spool:
        append(spool, 5)
        deliverer = delivering(spool, sink)
        wait_until(lambda: deliverer.state().delivered == 5)
        wait_until(lambda: deliverer.state().problem is None)
        assert deliverer.state().retries == 3
        append(spool, 5)
        assert deliverer.stop(10)
    assert sink.offered[:4] == [[1, 2, 3, 4, 5]] * 4
    assert sink.ids == list(range(1, 11))
    assert caplog.text.count("does not take records: SinkError: not now") == 1
    assert "takes records again" in caplog.text


def test_a_stop_delivers_what_is_left(tmp_path: Path) -> None:
    """A stop waits for the sink to take what came before it, also after a failure."""
    sink = Memory(failures=1)
    with spooling(tmp_path, str(uuid.uuid4())) as spool:
        deliverer = delivering(spool, sink)
        append(spool, 3000)
        assert deliverer.stop(10)
    assert sink.ids == list(range(1, 3001))


@pytest.mark.parametrize("how", ["hangs", "fails"])
def test_a_stop_keeps_to_its_deadline(tmp_path: Path, how: str) -> None:
    """A sink that hangs or only fails holds up a stop no longer than the stop allows, and loses nothing."""
    recorder_id = str(uuid.uuid4())
    sink = Memory(failures=0 if how == "hangs" else 10**6)
    if how == "hangs":
        sink.go.clear()
    with spooling(tmp_path, recorder_id) as spool:
        append(spool, 5)
        deliverer = delivering(spool, sink)
        wait_until(lambda: sink.offered)
        started = time.monotonic()
        assert not deliverer.stop(0.5)
        assert time.monotonic() - started < 3
        assert spool.position("memory://sink") == 0
    sink.failures = 0
    sink.go.set()
    with spooling(tmp_path, recorder_id) as spool:
        spool.flush().result(10)
        again = Memory()
        assert delivering(spool, again).stop(10)
    assert again.ids == [1, 2, 3, 4, 5]


def test_a_restart_goes_on_from_the_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart a sink gets what it had not acknowledged, and of what it had only whole batches again."""
    monkeypatch.setattr(undelivered, "BATCH_RECORDS", 10)
    recorder_id = str(uuid.uuid4())
    first = Memory()
    with spooling(tmp_path, recorder_id) as spool:
        append(spool, 25)
        assert delivering(spool, first).stop(10)
        # As after a crash between taking a batch and noting it: the last batch is not acknowledged.
        spool.acknowledge("memory://sink", 20)
        append(spool, 15)
    second = Memory()
    with spooling(tmp_path, recorder_id) as spool:
        spool.flush().result(10)
        assert delivering(spool, second).stop(10)
    assert first.offered == [list(range(1, 11)), list(range(11, 21)), list(range(21, 26))]
    assert second.offered == [list(range(21, 31)), list(range(31, 41))]


def test_two_sinks_each_get_everything(tmp_path: Path) -> None:
    """A sink that hangs does not keep another from the same records."""
    stuck, quick = Memory(), Memory()
    stuck.go.clear()
    with spooling(tmp_path, str(uuid.uuid4())) as spool:
        one, two = delivering(spool, stuck, "memory://stuck"), delivering(spool, quick, "memory://quick")
        append(spool, 10)
        wait_until(lambda: len(quick.ids) == 10)
        assert spool.position("memory://stuck") == 0
        stuck.go.set()
        assert one.stop(10)
        assert two.stop(10)
    assert stuck.ids == quick.ids == list(range(1, 11))


# Servers.


def exec_events(server: RunningServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run exec-events as this server's user."""
    env = {**os.environ, **server.environment}
    command = [sys.executable, "-m", "exec_events", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)


async def test_the_file_sink_end_to_end(tmp_path: Path) -> None:
    """What a server delivered to a file, over two starts, is line by line what its spool holds, and verifies."""
    path = tmp_path / "out" / "events.jsonl"
    config = PLAIN + f"c.ExecEvents.deliver_to = ['file://{path}?max_bytes=6000']\n"
    server = RunningServer(tmp_path / "server", config=config)
    for start in range(2):
        async with server, NotebookClient(server, notebook=f"{start}.ipynb") as client:
            for n in range(4):
                await client.execute(f"print({n})")
            await recorded(server, 4, kernel_id=client.kernel_id, settle=0)
    files = sorted(path.parent.glob("events.jsonl.*"), key=lambda file: -int(file.suffix[1:]))
    assert files
    files += [path] if path.exists() else []
    spooled = await asyncio.to_thread(exec_events, server, "cat")
    assert spooled.returncode == 0, spooled.stderr
    assert b"".join(file.read_bytes() for file in files).decode() == spooled.stdout
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)
    path.touch()
    verified = await asyncio.to_thread(exec_events, server, "verify", str(path))
    assert verified.returncode == 0, verified.stdout + verified.stderr


async def test_sinks_that_cannot_work_leave_the_record_whole(tmp_path: Path) -> None:
    """Whatever a sink's URL: all is recorded, status and log say what is wrong, no password shows anywhere."""
    urls = [f"nowhere://user:{SECRET}@host:1/x?key={SECRET}", f"file://user:{SECRET}@host/a.jsonl", "kafka://[bad"]
    config = PLAIN + f"c.ExecEvents.deliver_to = {urls!r}\nc.ExecEvents.stop_seconds = 1\n"
    async with RunningServer(tmp_path, config=config) as server:
        async with NotebookClient(server) as client:
            await client.execute("1")
            await recorded(server, 1, kernel_id=client.kernel_id)
        status = await asyncio.to_thread(server.rest, "GET", "/exec-events/status")
        metrics = await asyncio.to_thread(server.rest, "GET", "/metrics")
        told = await asyncio.to_thread(exec_events, server, "status")
        started = time.monotonic()
        await asyncio.to_thread(server.stop)
        assert time.monotonic() - started < 8
    assert status["recording"] is True
    assert any("no installed package registers 'nowhere'" in problem for problem in status["problems"])
    assert "no installed package registers 'nowhere'" in server.log
    assert "is no file" in json.dumps(status["sinks"])
    assert "nowhere://host:1/x" in status["sinks"]
    spool = b"".join(path.read_bytes() for path in (tmp_path / "data").rglob("*") if path.is_file())
    for text in (json.dumps(status), metrics, server.log, told.stdout + told.stderr):
        assert SECRET not in text
    assert SECRET.encode() not in spool


HANGING = """
import time

class Hangs:
    def __init__(self, url, log):
        pass

    def deliver(self, batch):
        time.sleep(1e6)

    def close(self, timeout):
        time.sleep(1e6)
"""


async def test_a_sink_that_hangs_does_not_keep_the_server(tmp_path: Path) -> None:
    """A server whose sink never returns stops in about stop_seconds, with its chain closed."""
    install(tmp_path, "hanging", HANGING, '[project.entry-points."exec_events.sinks"]\nhangs = "hanging:Hangs"\n')
    config = PLAIN + "c.ExecEvents.deliver_to = ['hangs://x']\nc.ExecEvents.stop_seconds = 1\n"
    async with RunningServer(tmp_path / "server", config=config, env={"PYTHONPATH": str(tmp_path)}) as server:
        async with NotebookClient(server) as client:
            assert (await client.execute("1")).seconds < 2
        started = time.monotonic()
        await asyncio.to_thread(server.stop)
        assert time.monotonic() - started < 8
    last = records(server.data_dir)[-1]["event"]
    assert (kind(last), last["action"]) == ("recorder", "stopped")


async def test_the_sink_of_the_documentation_works(tmp_path: Path) -> None:
    """The sink that docs/sinks.md shows, installed as it says, gets the sealed bytes of every record."""
    (code,) = (block for block in blocks("sinks.md", "python") if "class PostSink" in block)
    (entry_points,) = blocks("sinks.md", "toml")
    install(tmp_path, "post_sink", code, entry_points)
    received: list[bytes] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.extend(self.rfile.read(int(self.headers["Content-Length"])).split(b"\n"))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            return

    collector = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    config = PLAIN + f"c.ExecEvents.deliver_to = ['post+http://127.0.0.1:{collector.server_port}/records']\n"
    env = {"PYTHONPATH": str(tmp_path), "no_proxy": "*", "NO_PROXY": "*"}
    try:
        async with RunningServer(tmp_path / "server", config=config, env=env) as server:
            async with NotebookClient(server) as client:
                await client.execute("1")
                await recorded(server, 1, kernel_id=client.kernel_id)
            status = await asyncio.to_thread(server.rest, "GET", "/exec-events/status")
            assert status["problems"] == []
            await asyncio.to_thread(server.stop)
    finally:
        collector.shutdown()
        collector.server_close()
    assert [f"sha256:{leaf_hash(record).hex()}" for record in received] == [r["hash"] for r in records(server.data_dir)]


def test_what_a_sink_says_of_its_url_holds_no_password(tmp_path: Path) -> None:
    """An error text that repeats the URL or its password is reported without them."""
    url = "http://u:hunter%402@h/y?z=1"
    for text in (f"cannot connect to {url}", "bad login u:hunter%402", "password hunter@2 refused"):
        assert "hunter" not in without_secrets(text, url)
    assert "http://h/y" in without_secrets(f"cannot connect to {url}", url)


def test_two_sinks_of_one_name_are_refused(tmp_path: Path) -> None:
    """Two sinks that would share a position are not both delivered to; the problem is reported."""
    one = tmp_path / "out.jsonl"
    config = f"c.ExecEvents.deliver_to = ['file://{one}', 'file://{one}?max_bytes=1000']\n"
    with RunningServer(tmp_path / "server", config=config) as server:
        problems = server.rest("GET", "/exec-events/status")["problems"]
    assert any("two sinks have the name" in problem for problem in problems)
