"""The spool: what goes in is on disk, sealed, in order, whatever the disk does."""

from __future__ import annotations

import logging
import resource
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from exec_events.errors import SpoolError
from exec_events.seal import Content, Sealed
from exec_events.spool import Spool
from exec_events.spool_file import SpoolFile, file_system_of
from exec_events_schemas.record import leaf_hash, seal_of

LOG = logging.getLogger("test")
STARTED = "2026-01-01T00:00:00.000000Z"


@contextmanager
def running(folder: Path, recorder_id: str = "", **options: int) -> Iterator[Spool]:
    """A spool that runs, and is closed in the end."""
    spool = Spool(folder, recorder_id or str(uuid.uuid4()), LOG, started_at=STARTED, **options)
    spool.start()
    try:
        yield spool
    finally:
        spool.close(10)


def rows(path: Path) -> list[tuple[int, bytes, bytes]]:
    """The records of a file, as another process sees them."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT id, record, hash FROM records ORDER BY id").fetchall()


def count(path: Path, table: str) -> int:
    """How many rows a table has, as another process sees it."""
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def test_events_of_two_chains_are_sealed_in_order(tmp_path: Path) -> None:
    """Each chain counts from 0 and links by leaf hash, whatever comes between."""
    with running(tmp_path) as spool:
        for number in range(300):
            spool.append({"number": number}, "a" if number % 3 else "b")
        spool.flush().result(10)
        stored = rows(spool.path)
    heads: dict[str, tuple[int, bytes]] = {}
    for _, record, digest in stored:
        seal = seal_of(record)
        seq, prev = heads.get(seal.chain, (-1, None))
        assert (seal.seq, seal.prev) == (seq + 1, prev)
        assert digest == leaf_hash(record)
        heads[seal.chain] = (seal.seq, digest)
    assert {chain: seq for chain, (seq, _) in heads.items()} == {"a": 199, "b": 99}


def test_a_chain_goes_on_where_it_was(tmp_path: Path) -> None:
    """A spool opened again seals the next record after the last one of its file."""
    recorder_id = str(uuid.uuid4())
    with running(tmp_path, recorder_id) as spool:
        spool.append({"number": 1}, "a")
    with running(tmp_path, recorder_id) as spool:
        spool.append({"number": 2}, "a")
    first, second = (record for _, record, _ in rows(spool.path))
    assert seal_of(second).seq == 1
    assert seal_of(second).prev == leaf_hash(first)


def test_begun_executions_stay_noted_until_they_are_over(tmp_path: Path) -> None:
    """A note of a begun execution is on disk, and gone in the transaction of its event."""
    with running(tmp_path) as spool:
        spool.begin("one", b"{}")
        spool.begin("two", b"{}")
        spool.flush().result(10)
        assert count(spool.path, "begun") == 2
        spool.append({"number": 1}, "a", closes="one")
        spool.forget("two")
        spool.flush().result(10)
        assert count(spool.path, "begun") == 0
        assert spool.state().open_executions == 0


def test_what_begins_and_ends_between_two_commits_leaves_no_note(tmp_path: Path) -> None:
    """An execution shorter than the commit window is only its event."""
    with running(tmp_path) as spool:
        for number in range(50):
            spool.begin(str(number), b"{}")
            spool.append({"number": number}, "a", closes=str(number))
        spool.flush().result(10)
        assert count(spool.path, "begun") == 0
        assert len(rows(spool.path)) == 50


def test_begin_durably_resolves_when_another_process_could_read_it(tmp_path: Path) -> None:
    """In required mode the future means: on disk, for any other connection to see."""
    with running(tmp_path) as spool:
        spool.begin_durably("one", b'{"a":1}').result(5)
        assert count(spool.path, "begun") == 1


def test_bodies_are_stored_with_their_event(tmp_path: Path) -> None:
    """Contents come to rest in the transaction of the event that holds their commitment."""
    with running(tmp_path) as spool:
        spool.append({"n": 1}, "a", contents=(Content("sha256:x", "p", "code", b"nonce", b"print()"),))
        spool.flush().result(10)
        with closing(sqlite3.connect(spool.path)) as connection:
            assert connection.execute("SELECT subject, body FROM contents").fetchall() == [("p", b"print()")]


def test_observers_hear_of_committed_records_only(tmp_path: Path) -> None:
    """What an observer is told can be read from the file by then."""
    seen: list[tuple[int, int]] = []

    def note(sealed: list[Sealed]) -> None:
        seen.append((len(sealed), len(rows(spool.path))))

    with running(tmp_path) as spool:
        spool.observers.append(note)
        for number in range(10):
            spool.append({"number": number}, "a")
        spool.flush().result(10)
    assert sum(told for told, _ in seen) == 10
    assert all(readable >= told for told, readable in seen)


def test_the_file_and_its_folder_are_the_owners_alone(tmp_path: Path) -> None:
    """Nobody else can read the spool."""
    with running(tmp_path / "spool") as spool:
        spool.flush().result(10)
        assert spool.path.stat().st_mode & 0o077 == 0
        assert spool.folder.stat().st_mode & 0o077 == 0


def test_two_recorders_never_share_a_file(tmp_path: Path) -> None:
    """A file whose owner runs cannot be opened by another."""
    with running(tmp_path) as spool:
        spool.flush().result(10)
        with pytest.raises(SpoolError, match="running recorder"):
            SpoolFile(tmp_path, spool.recorder_id).open()


def test_a_locked_database_delays_and_loses_nothing(tmp_path: Path) -> None:
    """While another process holds SQLite's lock, events wait in memory and the trouble is reported."""
    with running(tmp_path) as spool:
        spool.flush().result(10)
        with closing(sqlite3.connect(spool.path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            started = time.perf_counter()
            for number in range(100):
                spool.append({"number": number}, "a")
            assert time.perf_counter() - started < 1.0
            until(lambda: spool.state().problem is not None)
            assert "locked" in str(spool.state().problem)
            other.execute("ROLLBACK")
        until(lambda: spool.last_id == 100)
        assert spool.state().problem is None
        assert spool.state().lost == 0


def test_a_full_disk_holds_then_recovers(tmp_path: Path) -> None:
    """When the file cannot grow, events are held and required requests refused; with room all of them are written."""
    with running(tmp_path) as spool:
        spool.flush().result(10)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
        try:
            for number in range(500):
                spool.append({"number": number, "text": "x" * 500}, "a")
            until(lambda: spool.state().problem is not None)
            with pytest.raises(SpoolError):
                spool.begin_durably("one", b"x" * 200_000).result(15)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        until(lambda: spool.last_id == 500, 30)
        assert spool.state().lost == 0
        assert [seal_of(record).seq for _, record, _ in rows(spool.path)] == list(range(500))


def test_beyond_the_memory_bound_loss_is_counted(tmp_path: Path) -> None:
    """What can neither be written nor held is counted, never silent."""
    with running(tmp_path, held_bytes_limit=10_000) as spool:
        spool.flush().result(10)
        with closing(sqlite3.connect(spool.path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            for number in range(200):
                spool.append({"number": number, "text": "x" * 100}, "a")
            lost = spool.state().lost
            other.execute("ROLLBACK")
        assert 0 < lost < 200
        until(lambda: spool.last_id == 200 - lost, 30)


def test_a_damaged_file_is_set_aside_and_its_chains_go_on(tmp_path: Path) -> None:
    """A corrupt database is kept for inspection; the next record links to the last one that was written."""
    with running(tmp_path) as spool:
        for number in range(20):
            spool.append({"number": number, "text": "x" * 3000}, "a")
        spool.flush().result(10)
        last = rows(spool.path)[-1][1]
        spool.call(lambda file: file.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")).result(10)
        data = bytearray(spool.path.read_bytes())
        data[100:] = bytes(b ^ 0x5A for b in data[100:])
        spool.path.write_bytes(data)
        spool.call(lambda file: file.connection.execute("PRAGMA shrink_memory")).result(10)
        spool.append({"number": 20}, "a")
        until(lambda: spool.state().damaged is not None)
        until(lambda: spool.last_id == 21)
        (only,) = rows(spool.path)
        assert seal_of(only[1]).seq == 20
        assert seal_of(only[1]).prev == leaf_hash(last)
        assert list(tmp_path.glob("*.damaged-1"))


def test_the_cap_stops_the_spool_loudly_and_a_cut_opens_it(tmp_path: Path) -> None:
    """At its cap executions wait and required ones are refused, the recorder's own records pass; room lets all go on."""
    with running(tmp_path, max_bytes=300_000) as spool:
        for number in range(300):
            spool.append({"number": number, "text": "x" * 2000}, "a")
            if number % 10 == 0:
                spool.call(lambda _: None)
                time.sleep(0.002)
        until(lambda: spool.state().problem is not None)
        assert "spool_max_bytes" in str(spool.state().problem)
        with pytest.raises(SpoolError, match="cap"):
            spool.begin_durably("one", b"{}").result(10)
        with pytest.raises(SpoolError, match="cap"):
            spool.flush().result(10)
        spool.append({"action": "pruned"}, spool.recorder_id)
        spool.call(lambda _: None).result(10)
        assert spool.heads()[spool.recorder_id].seq == 0
        for _ in range(20):
            spool.call(lambda file: file.connection.execute("DELETE FROM records")).result(10)
            if spool.state().held == 0 and spool.state().problem is None:
                break
            time.sleep(0.5)
        until(lambda: spool.heads()["a"].seq == 299)
        assert spool.state().lost == 0


@pytest.mark.parametrize("wait", ["flush", "call", "begin_durably"])
def test_who_gives_up_waiting_does_no_harm(tmp_path: Path, wait: str) -> None:
    """A future that was cancelled, as asyncio does at a timeout, is passed over, and the writer goes on."""
    with running(tmp_path) as spool:
        spool.flush().result(10)
        waits = {
            "flush": spool.flush,
            "call": lambda: spool.call(lambda _: None),
            "begin_durably": lambda: spool.begin_durably("one", b"{}"),
        }
        with closing(sqlite3.connect(spool.path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            spool.append({"number": 1}, "a")
            assert waits[wait]().cancel(), "nothing is answered while the file is locked"
            until(lambda: spool.state().problem is not None)
            assert waits[wait]().cancel(), "nor after the writer has refused all who waited"
            other.execute("ROLLBACK")
        spool.append({"number": 2}, "a")
        spool.flush().result(10)
        assert spool.last_id == 2


def test_closing_writes_what_is_left(tmp_path: Path) -> None:
    """Nothing that was put in before the close is missing after it."""
    spool = Spool(tmp_path, str(uuid.uuid4()), LOG, started_at=STARTED)
    spool.start()
    for number in range(5000):
        spool.append({"number": number}, "a")
    assert spool.close(30)
    assert len(rows(spool.path)) == 5000


def test_many_threads_append_without_a_gap(tmp_path: Path) -> None:
    """Threads that append at once share one gap-free chain."""
    with running(tmp_path) as spool:
        threads = [threading.Thread(target=lambda: [spool.append({"x": 1}, "a") for _ in range(500)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        spool.flush().result(30)
        assert [seal_of(record).seq for _, record, _ in rows(spool.path)] == list(range(2000))


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/home/ada/spool", "nfs4"), ("/homestead", "ext4"), ("/data/x", "fuse.sshfs"), ("/", "ext4")],
)
def test_the_file_system_of_a_path_is_that_of_its_longest_mount(path: str, expected: str) -> None:
    """A network file system is found by mount point, not by how a name begins."""
    mounts = [("/", "ext4"), ("/home", "nfs4"), ("/data", "fuse.sshfs")]
    assert file_system_of(Path(path), mounts) == expected


def test_on_a_network_file_system_the_rollback_journal_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where WAL is unsafe another journal mode is taken, and the log says so."""
    monkeypatch.setattr("exec_events.spool_file.journal_mode_for", lambda _: "truncate")
    with running(tmp_path) as spool:
        spool.append({"number": 1}, "a")
        spool.flush().result(10)
        assert spool.state().journal_mode == "truncate"
        assert not spool.path.with_name(spool.path.name + "-wal").exists()
        assert len(rows(spool.path)) == 1
    assert "network file system" in caplog.text


def until(condition: object, timeout: float = 15.0) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + timeout
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def test_a_begun_execution_survives_before_the_first_commit(tmp_path: Path) -> None:
    """What a kill finds requested but not yet committed is taken from the lines beside the file, once."""
    recorder_id = str(uuid.uuid4())
    execution_ids = [str(uuid.uuid4()) for _ in range(3)]
    with running(tmp_path, recorder_id) as spool:
        spool.flush().result(10)
        for execution_id in execution_ids:
            spool.begin(execution_id, b'{"a":1}')
        lines = (tmp_path / f"{recorder_id}.begun").read_bytes()
        assert lines.count(b"\n") == 3, "the lines are there before any commit"
        spool.append({"execution_id": execution_ids[0]}, "a", closes=execution_ids[0])
        spool.flush().result(10)
    assert not (tmp_path / f"{recorder_id}.begun").exists(), "an orderly end leaves none"
    (tmp_path / f"{recorder_id}.begun").write_bytes(lines + b"torn")
    file = SpoolFile(tmp_path, recorder_id)
    file.open()
    try:
        assert set(file.begun_last()) == set(execution_ids[1:]), "what is over in the record is not open"
    finally:
        file.close()
