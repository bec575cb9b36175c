"""The archive: Parquet files by day that hold each event of the log once, whatever happens to who writes them."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import duckdb
import polars
import pytest
from logs import ListFeed, Log, random_log, time_at
from published import make_topics, publish

from exec_events_consumers import archive as archiving
from exec_events_consumers.archive import DATABASE, NO_DAY, SCHEMA, Archive, ArchiveStore
from exec_events_consumers.errors import LostPartition, StoreError
from exec_events_consumers.feed import Batch, Fetched
from exec_events_consumers.gathered import Gathered
from exec_events_consumers.loop import Progress, run
from exec_events_schemas.record import hash_bytes, leaf_hash
from exec_events_schemas.sources import StoredRecord
from spool_files import FIRST, write_spool_file

DAY_US = 86_400_000_000


def archived(folder: Path, records: Sequence[tuple[bytes | None, bytes | None]], batch: int = 50) -> Progress:
    """Take all these records into an archive."""
    with closing(ArchiveStore(folder)) as store:
        return run(ListFeed(records, batch), store, Archive(folder), once=True)


def rows(folder: Path, query: str = "SELECT * FROM '{}'") -> list[dict[str, Any]]:
    """The rows of a query of the archive's files."""
    with duckdb.connect() as connection:
        connection.execute("SET timezone = 'UTC'")
        found: list[dict[str, Any]] = (
            connection.sql(query.format(f"{folder}/**/*.parquet")).to_arrow_table().to_pylist()
        )
        return found


def check(folder: Path, records: Sequence[tuple[bytes, bytes]]) -> None:
    """The archive holds these records, byte by byte, each once, and nothing that is half."""
    found = Counter(row["record"].encode() for row in rows(folder, "SELECT record FROM '{}'"))
    assert found == Counter(record for record, _ in records)
    assert not list(folder.rglob("*.tmp"))


def days_log(days: int = 3, runs: int = 60) -> Log:
    """Executions of several days, those of all days mixed."""
    log = Log()
    for number in range(runs):
        log.run(number % 4, (number % days) * DAY_US + number * 1000, status="error" if number % 7 == 0 else "ok")
    return log


def spool(folder: Path, log: Log) -> Path:
    """A log as the spool of one recorder."""
    stored = [StoredRecord(record, raw, "", 0) for record, raw in log.records]
    write_spool_file(folder, FIRST, stored, "2026-01-01T00:00:00.000000Z")
    return folder


def test_each_event_once_in_the_folder_of_its_day(tmp_path: Path) -> None:
    """DuckDB and Polars read the archive in one line, and find each event once, in the folder of its own day."""
    log = days_log()
    progress = archived(tmp_path / "archive", log.records, batch=7)
    assert (progress.events, progress.dead) == (60, 0)
    check(tmp_path / "archive", log.records)
    files = f"{tmp_path}/archive/**/*.parquet"
    assert duckdb.sql(f"SELECT count(*) FROM '{files}'").fetchall() == [(60,)]
    assert polars.scan_parquet(files).select(polars.len()).collect().item() == 60
    by_day = rows(tmp_path / "archive", "SELECT date, count(*) AS n FROM '{}' GROUP BY date ORDER BY date")
    assert [(str(row["date"]), row["n"]) for row in by_day] == [(f"2026-01-0{day}", 20) for day in (1, 2, 3)]
    assert all(str(row["date"]) == str(row["time"])[:10] for row in rows(tmp_path / "archive"))
    lazy = polars.scan_parquet(files, hive_partitioning=True).filter(polars.col("date") == polars.date(2026, 1, 2))
    assert lazy.select(polars.len()).collect().item() == 20


def test_columns_are_what_the_event_says(tmp_path: Path) -> None:
    """Each column is the member of the event, typed, and the record beside it hashes to the hash beside it."""
    log = random_log(random.Random(5), 40)
    archived(tmp_path, log.records)
    for row in rows(tmp_path):
        record = row["record"].encode()
        assert leaf_hash(record) == hash_bytes(row["hash"])
        parsed = json.loads(record)
        assert (row["chain"], row["seq"]) == (parsed["seal"]["chain"], parsed["seal"]["seq"])
        event = parsed["event"]
        for name, kind in archiving.MEMBERS.items():
            value = row[name]
            if value is not None and kind == SCHEMA.field("time").type:
                value = f"{value:%Y-%m-%dT%H:%M:%S.%f}Z"
            assert value == event.get(name), name
        assert (row["outputs"], row["outputs_bytes"]) == (2, event["outputs"][0]["bytes"])
    types = {name: str(dtype) for name, dtype in polars.read_parquet_schema(next(tmp_path.rglob("*.parquet"))).items()}
    assert types["requested_at"] == "Datetime(time_unit='us', time_zone='UTC')"
    assert (types["duration_us"], types["silent"], types["status"]) == ("Int64", "Boolean", "String")


def test_other_kinds_are_there_too(tmp_path: Path) -> None:
    """A recorder's event, somebody else's, and one whose time is none are archived, with the columns they have."""
    log = Log()
    log.run(1, 0)
    ours = {"__schema_version__": "1", "recorder_id": FIRST, "trust": "server"}
    recorder = {"__schema__": "https://exec-events.org/schemas/recorder/v1", "action": "heartbeat", "heads": []}
    log.add({**ours, **recorder, "time": time_at(DAY_US)}, FIRST)
    foreign = {"__schema__": "https://example.org/hub", "subject": 7, "status": ["x"], "outputs": "none"}
    log.add({**foreign, "__timestamp__": "2026-01-03T01:30:00+02:00"}, FIRST)
    log.add({**foreign, "__timestamp__": "yesterday"}, FIRST)
    log.run(1, 0, time="2026-13-41T99:00:00.000000Z")
    progress = archived(tmp_path, log.records)
    assert (progress.events, progress.dead) == (5, 0)
    check(tmp_path, log.records)
    found = rows(tmp_path, "SELECT kind, subject, action, date, time, seq FROM '{}' ORDER BY chain, seq")
    assert [(row["kind"], row["subject"], row["action"], str(row["date"])) for row in found] == [
        ("recorder", None, "heartbeat", "2026-01-02"),
        ("https://example.org/hub", None, None, "2026-01-02"),
        ("https://example.org/hub", None, None, "None"),
        ("cell_execution", "subject-1", None, "2026-01-01"),
        ("cell_execution", "subject-1", None, "None"),
    ]
    assert [row["time"] is None for row in found] == [False, False, True, False, True]
    assert (tmp_path / f"date={NO_DAY}").is_dir()


def test_a_copy_and_a_late_event(tmp_path: Path) -> None:
    """A record that comes again is not written again; one that comes days late goes to its own day."""
    log = days_log(runs=30)
    late = log.records[3]
    others = [record for record in log.records if record != late]
    progress = archived(tmp_path, [*others, *others, late, late], batch=13)
    assert progress.events == 30
    check(tmp_path, log.records)
    day = json.loads(late[0])["event"]["time"][:10]
    found = {str(row["date"]) for row in rows(tmp_path) if row["record"].encode() == late[0]}
    assert found == {day}


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    """Files that no transaction lists, and half-written ones, are gone once partitions are claimed."""
    log = days_log()
    archived(tmp_path, log.records[:40])
    whole = next(tmp_path.rglob("*.parquet"))
    whole.with_name("p-999-1000.parquet").write_bytes(whole.read_bytes())
    whole.with_name(".p-999-1001.parquet.tmp").write_bytes(b"half")
    archived(tmp_path, log.records)
    check(tmp_path, log.records)


def test_an_archive_whose_database_is_gone_is_left_alone(tmp_path: Path) -> None:
    """Without its database nobody knows which files are whole: nothing is removed, and the text says what to do."""
    log = days_log()
    archived(tmp_path, log.records)
    for path in tmp_path.glob(f"{DATABASE}*"):
        path.unlink()
    with pytest.raises(StoreError, match="put it back"):
        ArchiveStore(tmp_path)
    check(tmp_path, log.records)


def test_a_file_that_is_there_is_never_overwritten(tmp_path: Path) -> None:
    """Where an older copy of the database would write a file that is there, it stops."""
    log = days_log(days=1, runs=10)
    with closing(ArchiveStore(tmp_path)) as store:
        store.claim(["p"])
        path = tmp_path / "date=2026-01-01" / "p-0-9.parquet"
        path.parent.mkdir()
        path.write_bytes(b"something")
        feed = ListFeed(log.records)
        feed.gained()
        feed.seek({"p": 0})
        with pytest.raises(StoreError, match="is there already"):
            run(feed, store, Archive(tmp_path), once=True)
    assert path.read_bytes() == b"something"


def test_who_lost_a_partition_writes_no_file(tmp_path: Path) -> None:
    """A process whose partition another has claimed writes nothing into the archive."""
    log = days_log(runs=20)
    with closing(ArchiveStore(tmp_path)) as first, closing(ArchiveStore(tmp_path)) as second:
        first.claim(["p"])
        second.claim(["p"])
        with pytest.raises(LostPartition), first.transaction({"p": 20}):
            pass
        feed = ListFeed(log.records)
        assert run(feed, second, Archive(tmp_path), once=True).events == 20
    check(tmp_path, log.records)


def test_a_disk_that_is_full_moves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a file cannot be written, a StoreError names it, and the next try writes each event once."""
    log = days_log()
    calls = iter(range(1000))
    real = os.fsync

    def full(descriptor: int) -> None:
        if next(calls) == 6:
            raise OSError(28, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"parquet cannot be written: No space left"):
        archived(tmp_path, log.records, batch=9)
    archived(tmp_path, log.records, batch=11)
    check(tmp_path, log.records)


class Trickle:
    """A feed that gives a record at a time, and a partition when told."""

    name = "trickle"

    def __init__(self) -> None:
        self.position = 0
        self.new: list[str] = []
        self.is_caught_up = False
        self.is_silent = False

    def gained(self) -> Sequence[str]:
        """What it was told."""
        new, self.new = self.new, []
        return new

    def seek(self, positions: Mapping[str, int]) -> None:
        """Nothing."""

    def drop(self, partition: str) -> None:
        """Nothing."""

    def poll(self, seconds: float) -> Batch:
        """One more, unless it is silent."""
        if self.is_silent:
            return Batch([], {}, 0)
        self.position += 1
        return Batch([Fetched("p", self.position - 1, b"", None)], {"p": self.position}, 5)

    def caught_up(self) -> bool:
        """As it was told."""
        return self.is_caught_up

    def committed(self, positions: Mapping[str, int]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def test_batches_are_gathered(tmp_path: Path) -> None:
    """A batch ends at its size, after its time, at the end, on a stop, and where partitions come, none of it lost."""
    feed, stop, now = Trickle(), threading.Event(), iter(range(1000))
    gathered = Gathered(feed, stop, once=True, records=10, seconds=5, clock=lambda: 0)
    batch = gathered.poll(0)
    assert (len(batch.records), batch.next_positions, batch.waiting) == (10, {"p": 10}, 5)
    feed.is_caught_up = True
    assert gathered.poll(0).next_positions == {"p": 11}
    feed.is_caught_up = False
    feed.new = ["q"]
    assert gathered.poll(0).next_positions == {"p": 12}
    feed.new = ["r"]
    assert gathered.gained() == ["q", "r"]
    assert gathered.gained() == []
    stop.set()
    assert gathered.poll(0).next_positions == {"p": 13}
    slow = Gathered(feed, threading.Event(), once=False, records=1000, seconds=5, clock=lambda: next(now))
    assert len(slow.poll(0).records) == 6
    feed.is_silent = True
    assert slow.poll(0) == Batch([], {}, 0)


@contextmanager
def process(folder: Path, source: str, *options: str, batch: int = 5000) -> Iterator[subprocess.Popen[str]]:
    """`exec-events archive` in a process of its own, its batches so small; killed at the end."""
    code = (
        "import sys; from exec_events_consumers import spool_feed, kafka_feed; from exec_events.cli import main; "
        f"spool_feed.BATCH_RECORDS = {batch}; kafka_feed.GROUP['max_poll_records'] = {batch}; main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", code, "archive", str(folder), "--from", source, "--records", str(batch), *options]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield started
    finally:
        started.kill()
        started.wait(30)
        assert started.stdout is not None
        started.stdout.close()


def wait_for_files(folder: Path, more_than: int, worker: subprocess.Popen[str]) -> None:
    """Wait until an archive has more files than that, or its process has ended."""
    deadline = time.monotonic() + 60
    while len(list(folder.glob("date=*/*.parquet"))) <= more_than and worker.poll() is None:
        assert time.monotonic() < deadline, "no file came"
        time.sleep(0.002)


def killed_often(folder: Path, source: str, log: Log, times: int, seed: int) -> None:
    """Kill the archiving process at random points, then let it end; each event is there once."""
    rng = random.Random(seed)
    ended = 0
    for _ in range(times):
        before = len(list(folder.glob("date=*/*.parquet")))
        with process(folder, source, "--once", batch=10) as worker:
            wait_for_files(folder, before, worker)
            time.sleep(rng.uniform(0, 0.1))
            ended += worker.poll() is not None
            worker.send_signal(signal.SIGKILL)
            worker.wait(30)
    assert ended <= times // 2, "the process had ended before it was killed"
    with process(folder, source, "--once") as worker:
        assert worker.wait(60) == 0
    check(folder, log.records)


def test_killed_at_any_point_each_event_is_there_once(tmp_path: Path) -> None:
    """After kill -9 at random points the archive of a spool holds each event once."""
    log = days_log(runs=3000)
    killed_often(tmp_path / "archive", f"spool://{spool(tmp_path / 'spool', log)}", log, 5, 1)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_killed_at_forty_points(tmp_path: Path) -> None:
    """After kill -9 at forty random points the archive of a spool holds each event once."""
    log = days_log(runs=20_000)
    killed_often(tmp_path / "archive", f"spool://{spool(tmp_path / 'spool', log)}", log, 40, 2)


def test_from_kafka(tmp_path: Path, kafka: Any, kafka_prefix: str) -> None:
    """From a topic, through a kill -9 and twice to its end, each event is there once."""
    log = random_log(random.Random(2), 600)
    make_topics(kafka, kafka_prefix)
    publish(kafka, kafka_prefix, [StoredRecord(record, raw, "", 0) for record, raw in log.records])
    source = f"kafka://{kafka.servers}/{kafka_prefix}"
    with process(tmp_path / "archive", source, "--once", batch=20) as worker:
        wait_for_files(tmp_path / "archive", 0, worker)
        worker.kill()
    for _ in range(2):
        with process(tmp_path / "archive", source, "--once") as worker:
            assert worker.wait(90) == 0, worker.stdout and worker.stdout.read()
    check(tmp_path / "archive", log.records)


def test_the_command_writes_what_it_has_when_it_is_ended(tmp_path: Path) -> None:
    """SIGTERM writes what was gathered, and the command says what it did."""
    log = days_log()
    source = f"spool://{spool(tmp_path / 'spool', log)}"
    with process(tmp_path / "archive", source) as worker:
        deadline = time.monotonic() + 60
        while not (tmp_path / "archive" / DATABASE).exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(1.5)
        worker.terminate()
        out, _ = worker.communicate(timeout=60)
    assert worker.returncode == 0, out
    with process(tmp_path / "archive", source, "--once") as worker:
        again, _ = worker.communicate(timeout=60)
    assert worker.returncode == 0, again
    check(tmp_path / "archive", log.records)
    assert "archive: 60 records read, 60 of them new" in out + again
