"""Sources give what was stored, in order, also while it is written, and name what cannot be read."""

from __future__ import annotations

import io
import os
import sqlite3
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event
from typing import Literal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exec_events_schemas.chain import Verifier
from exec_events_schemas.errors import MalformedRecord, SourceError
from exec_events_schemas.record import event_of, leaf_hash
from exec_events_schemas.sources import Damage, Source, StoredRecord, open_source
from exec_events_schemas.sources.jsonl import line_of, record_of
from exec_events_schemas.sources.spool import is_running, running_recorders
from spool_files import FIRST, SECOND, Recording, running, two_recorders, write_json_lines


def spool(folder: Path) -> list[StoredRecord]:
    """A spool of two recorders, and its records in order."""
    first, second = two_recorders()
    second.write(folder)
    first.write(folder)
    return first.rows + second.rows


def read(source: Source) -> tuple[list[StoredRecord], list[Damage]]:
    """All of a source, read on over damage."""
    damages: list[Damage] = []
    return list(source.read(damages.append)), damages


def following(source: Source, stop: Event) -> Iterator[list[bytes]]:
    """What a source gives between its pauses."""
    batch: list[bytes] = []
    for stored in source.follow(stop, poll_seconds=0):
        if stored is None:
            yield batch
            batch = []
        else:
            batch.append(stored.record)


def test_a_spool_is_its_files_by_start(tmp_path: Path) -> None:
    """All files of a folder are one stream: files by start of their recorder, rows as sealed."""
    rows = spool(tmp_path)
    assert list(open_source(tmp_path)) == rows
    assert list(open_source(f"spool://{tmp_path}")) == rows


def test_reading_changes_nothing(tmp_path: Path) -> None:
    """A spool file has the same bytes after reading as before."""
    spool(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.glob("*.db")}
    read(open_source(tmp_path))
    assert {path: path.read_bytes() for path in tmp_path.glob("*.db")} == before


def test_a_spool_is_read_while_its_owner_writes(tmp_path: Path) -> None:
    """Rows that another connection has committed to its WAL are read; those of an open transaction are not."""
    recording = Recording(FIRST)
    recording.say("started")
    path = recording.write(tmp_path)
    with closing(sqlite3.connect(path, isolation_level=None)) as owner:
        owner.execute("PRAGMA wal_autocheckpoint=0")
        for _ in range(3):
            recording.execute(0)
            row = recording.rows[-1]
            owner.execute("INSERT INTO records (record, hash) VALUES (?, ?)", (row.record, row.hash))
        owner.execute("BEGIN IMMEDIATE")
        owner.execute("INSERT INTO records (record, hash) VALUES (?, ?)", (b"not yet", b""))
        assert list(open_source(tmp_path)) == recording.rows
        owner.execute("ROLLBACK")


def test_what_a_file_gets_after_its_turn_is_read_in_the_end(tmp_path: Path) -> None:
    """A record added to the first file while the second is read is read too: the second may name it."""
    first, second = two_recorders()
    last = first.rows.pop()
    path = first.write(tmp_path)
    second.write(tmp_path)
    got: list[StoredRecord] = []
    for stored in open_source(tmp_path):
        if stored.file == f"{SECOND}.db" and not any(row.record == last.record for row in got):
            with closing(sqlite3.connect(path)) as owner, owner:
                owner.execute("INSERT OR REPLACE INTO records VALUES (?, ?, ?)", (99, last.record, last.hash))
        got.append(stored)
    assert sorted(row.record for row in got) == sorted(row.record for row in [*first.rows, last, *second.rows])


def test_a_reader_that_waits_does_not_hold_the_owner_back(tmp_path: Path) -> None:
    """Between two records no read transaction is open: the owner can checkpoint and truncate its WAL."""
    recording = Recording(FIRST)
    recording.say("started")
    for _ in range(10):
        recording.execute(0)
    path = recording.write(tmp_path)
    records = iter(open_source(tmp_path))
    next(records)
    with closing(sqlite3.connect(path, isolation_level=None)) as owner:
        owner.execute("INSERT INTO meta VALUES ('a', 'b')")
        busy, _, _ = owner.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert busy == 0
    assert len(list(records)) == 10


def test_following_a_spool_gives_new_rows_and_new_files(tmp_path: Path) -> None:
    """What is appended, and files that come, are given; setting ``stop`` ends it."""
    first, second = two_recorders()
    held = first.rows.pop()
    path = first.write(tmp_path)
    stop = Event()
    batches = following(open_source(tmp_path), stop)
    assert next(batches) == [row.record for row in first.rows]
    assert next(batches) == []
    with closing(sqlite3.connect(path)) as owner, owner:
        owner.execute("INSERT INTO records (record, hash) VALUES (?, ?)", (held.record, held.hash))
    second.write(tmp_path)
    assert next(batches) == [row.record for row in [held, *second.rows]]
    stop.set()
    assert list(batches) == []


@pytest.mark.parametrize("garbage", [b"text that is long enough for a database" * 200, b"SQLite format 3\x00" * 300])
def test_a_file_that_is_no_database_is_damage(tmp_path: Path, garbage: bytes) -> None:
    """A spool file overwritten with something else is named; the other files are read."""
    rows = spool(tmp_path)
    (tmp_path / f"{FIRST}.db").write_bytes(garbage)
    got, (damage,) = read(open_source(tmp_path))
    assert damage.file == f"{FIRST}.db"
    assert "damaged" in damage.what
    assert got == [row for row in rows if row.file == f"{SECOND}.db"]


def test_a_corrupt_page_is_damage_where_it_is_met(tmp_path: Path) -> None:
    """Records before a corrupt page are read, the file is named with the row, and verification says so."""
    recording = Recording(FIRST)
    recording.say("started")
    for _ in range(3000):
        recording.execute(0)
    path = recording.write(tmp_path)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size * 2 // 3)
        file.write(b"\xff" * 8192)
    verifier = Verifier()
    for stored in open_source(tmp_path).read(verifier.damaged):
        verifier.add(stored)
    findings = [finding for finding in verifier.finish().findings if finding.chain is None]
    assert findings[0].file == f"{FIRST}.db"
    assert findings[0].position > 1000
    with pytest.raises(SourceError, match=f"{FIRST}.db"):
        list(open_source(tmp_path))


def test_a_database_of_something_else_is_damage(tmp_path: Path) -> None:
    """A database without records is not taken for an empty spool file."""
    with closing(sqlite3.connect(tmp_path / "x.db")) as connection:
        connection.execute("CREATE TABLE t (a)")
    _, (damage,) = read(open_source(tmp_path))
    assert "no table of records" in damage.what


def test_a_file_that_is_being_laid_out_is_empty(tmp_path: Path) -> None:
    """A file that its owner has only just made holds no records, and no damage."""
    (tmp_path / "x.db").touch()
    assert read(open_source(tmp_path)) == ([], [])


def test_rows_of_foreign_types_come_out_as_bytes(tmp_path: Path) -> None:
    """Whatever a tampered row holds, verification calls it malformed."""
    recording = Recording(FIRST)
    path = recording.write(tmp_path)
    with closing(sqlite3.connect(path)) as owner, owner:
        owner.execute("INSERT INTO records (record, hash) VALUES ('text', 7)")
        owner.execute("INSERT INTO records (record, hash) VALUES (1.5, CAST(x'ff' AS TEXT))")
    verifier = Verifier()
    for stored in open_source(tmp_path):
        assert type(stored.record) is bytes
        verifier.add(stored)
    assert len(verifier.finish().findings) == 2


def test_a_folder_that_may_not_be_written_is_read() -> None:
    """An auditor without write access reads a spool at rest."""
    with without_root(), tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = spool(folder)
        for left in [*folder.glob("*-wal"), *folder.glob("*-shm")]:
            left.unlink()
        folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
        try:
            assert list(open_source(folder)) == rows
        finally:
            folder.chmod(stat.S_IRWXU)


@contextmanager
def without_root() -> Iterator[None]:
    """As an ordinary account for a while: root may write everywhere, whatever a folder's mode."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_recorder_that_runs_is_known_by_its_lock(tmp_path: Path) -> None:
    """The lock is tested without taking it from its owner, and a released lock is no running recorder."""
    first, second = two_recorders()
    path = first.write(tmp_path)
    second.write(tmp_path)
    assert running_recorders(tmp_path) == set()
    with running(path):
        assert running_recorders(tmp_path) == {FIRST}
        assert is_running(path)
    assert not is_running(path)
    path.with_suffix(".lock").unlink()
    assert not is_running(path)


def test_json_lines_are_the_records_that_were_sealed(tmp_path: Path) -> None:
    """A file sink's line gives the stored bytes and hash back."""
    rows = spool(tmp_path)
    path = write_json_lines(tmp_path / "x.jsonl", rows)
    for name in (path, f"file://{path}"):
        assert [(stored.record, stored.hash) for stored in open_source(name)] == [(r.record, r.hash) for r in rows]
    assert [stored.position for stored in open_source(path)] == list(range(1, len(rows) + 1))


def test_spacing_and_order_of_a_line_do_not_matter() -> None:
    """A line that another program wrote again, spaced and ordered its way, is the same record."""
    row = two_recorders()[0].rows[1]
    parsed = orjson.loads(line_of(row))
    again = orjson.dumps(dict(reversed(parsed.items())), option=orjson.OPT_INDENT_2).replace(b"\n", b" ")
    assert record_of(again) == (row.record, row.hash)


def test_a_line_without_a_hash_is_a_record_without_one() -> None:
    """The hash on a line is optional."""
    row = two_recorders()[0].rows[1]
    assert record_of(row.record) == (row.record, None)


BAD_LINES = {
    "no JSON": b"{",
    "no object": b"7",
    "no seal": b'{"event":{}}',
    "something beside": b'{"event":{},"seal":{},"more":1}',
    "hash of another kind": b'{"event":{},"seal":{},"hash":"md5:00"}',
    "hash that is no text": b'{"event":{},"seal":{},"hash":7}',
    "no canonical form": b'{"event":{"n":123456789012345678901234567890e400},"seal":{}}',
    "no UTF-8": b'{"event":{"a":"\xff"},"seal":{}}',
    "a lone surrogate": b'{"event":{"a":"\\ud800"},"seal":{}}',
    "too deep": b'{"event":' + b"[" * 5000 + b"]" * 5000 + b',"seal":{}}',
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_a_line_that_is_no_record_is_damage_with_its_number(tmp_path: Path, name: str) -> None:
    """The line is named by its number, and reading goes on."""
    rows = two_recorders()[0].rows
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\n".join([line_of(rows[0]), BAD_LINES[name], line_of(rows[1])]) + b"\n")
    got, (damage,) = read(open_source(path))
    assert (damage.file, damage.position) == (str(path), 2)
    assert [stored.record for stored in got] == [rows[0].record, rows[1].record]


@given(st.binary(max_size=200))
def test_no_line_raises_anything_else(line: bytes) -> None:
    """Any bytes are a record or MalformedRecord."""
    try:
        record, _ = record_of(line)
    except MalformedRecord:
        return
    assert isinstance(leaf_hash(record), bytes)


def test_a_cut_last_line_says_so(tmp_path: Path) -> None:
    """A last line without its end is damage that may be a writer at work."""
    rows = two_recorders()[0].rows
    path = tmp_path / "x.jsonl"
    path.write_bytes(line_of(rows[0]) + b"\n" + line_of(rows[1])[:-9])
    _, (damage,) = read(open_source(path))
    assert "incomplete" in damage.what


def test_rotated_files_are_read_oldest_first(tmp_path: Path) -> None:
    """x.jsonl.10 is older than x.jsonl.2, and x.jsonl is the newest; other neighbours are none of it."""
    rows = two_recorders()[0].rows
    write_json_lines(tmp_path / "x.jsonl.10", rows[:2])
    write_json_lines(tmp_path / "x.jsonl.2", rows[2:5])
    write_json_lines(tmp_path / "x.jsonl", rows[5:])
    (tmp_path / "x.jsonl.bak").write_bytes(b"no record")
    (tmp_path / "x.jsonl.01").write_bytes(b"no record")
    assert [stored.record for stored in open_source(tmp_path / "x.jsonl")] == [row.record for row in rows]


def test_following_json_lines_over_a_rotation(tmp_path: Path) -> None:
    """Half a line waits for its end, and after a rotation the new file is followed from its start."""
    rows = two_recorders()[0].rows
    path = write_json_lines(tmp_path / "x.jsonl", rows[:2])
    stop = Event()
    batches = following(open_source(path), stop)
    assert next(batches) == [row.record for row in rows[:2]]
    line = line_of(rows[2]) + b"\n"
    with path.open("ab") as file:
        file.write(line[:50])
    assert next(batches) == []
    with path.open("ab") as file:
        file.write(line[50:])
    path.rename(tmp_path / "x.jsonl.1")
    write_json_lines(path, rows[3:])
    got: list[bytes] = []
    while len(got) < len(rows) - 2:
        got += next(batches)
    assert got == [row.record for row in rows[2:]]
    stop.set()
    assert list(batches) == []


def test_standard_input_is_json_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """``-`` reads JSON lines from standard input."""
    rows = two_recorders()[0].rows
    text = io.TextIOWrapper(io.BytesIO(b"".join(line_of(row) + b"\n" for row in rows)))
    monkeypatch.setattr("sys.stdin", text)
    assert [stored.record for stored in open_source("-")] == [row.record for row in rows]


@pytest.mark.parametrize("name", ["missing", "missing.jsonl", "spool:///missing", "file:///missing.jsonl", "ftp://x/y"])
def test_a_source_that_is_none_says_what_to_give(name: str) -> None:
    """A name that leads nowhere is a SourceError that says what may be given."""
    with pytest.raises(SourceError, match=r"Give spool://FOLDER|nothing was recorded"):
        open_source(name)


def started(source: str | Path, start: datetime | Literal["now"]) -> list[bytes]:
    """What is read of a source from there on."""
    return [stored.record for stored in open_source(source, start=start)]


def test_a_spool_from_a_time_on(tmp_path: Path) -> None:
    """Each file is read from its first record of that time on, so that no chain has a gap."""
    first, second = two_recorders()
    first.write(tmp_path)
    second.write(tmp_path)
    start = datetime.fromisoformat(event_of(first.rows[5].record)["time"])
    expected = [row.record for row in first.rows[5:] + second.rows[5:]]
    assert started(tmp_path, start) == expected
    verifier = Verifier(partial=True)
    for stored in open_source(tmp_path, start=start).read():
        verifier.add(stored)
    assert verifier.finish().ok
    assert started(tmp_path, start + timedelta(days=9)) == []


def test_json_lines_from_a_time_on(tmp_path: Path) -> None:
    """Rotated files are one stream: what comes after its first record of that time is read, whatever its own time."""
    rows = two_recorders()[0].rows
    late = [rows[6], *rows[:3]]
    write_json_lines(tmp_path / "x.jsonl.1", rows[:6])
    write_json_lines(tmp_path / "x.jsonl", late)
    start = datetime.fromisoformat(event_of(rows[4].record)["time"])
    assert started(tmp_path / "x.jsonl", start) == [row.record for row in rows[4:6] + late]


def test_what_comes_from_now_on(tmp_path: Path) -> None:
    """From now on nothing is there yet, and following gives what comes."""
    first, second = two_recorders()
    first.write(tmp_path)
    assert started(tmp_path, "now") == []
    stop = Event()
    batches = following(open_source(tmp_path, start="now"), stop)
    assert next(batches) == []
    second.write(tmp_path)
    assert next(batches) == [row.record for row in second.rows]
    stop.set()


def test_only_topics_have_partitions(tmp_path: Path) -> None:
    """A choice of partitions is refused for what has none."""
    with pytest.raises(SourceError, match="no partitions"):
        open_source(tmp_path, partitions=[0])


def test_a_plug_in_that_lacks_a_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where kafka-python is not installed, a kafka:// source names the extra that brings it."""
    monkeypatch.setitem(sys.modules, "exec_events_consumers.kafka_source", None)
    with pytest.raises(SourceError, match=r"pip install 'exec-events\[kafka\]'"):
        open_source("kafka://127.0.0.1:9092")


@pytest.mark.parametrize("url", ["kafka://jo:s3cret@host:9092/", "nosuch://jo:s3cret@host/"])
def test_an_address_with_a_password_is_not_repeated(url: str) -> None:
    """An error about an address does not say what may be a password."""
    with pytest.raises(SourceError) as refused:
        open_source(url)
    assert "s3cret" not in str(refused.value)
