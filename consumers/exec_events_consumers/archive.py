"""
The archive's step: new events in, Parquet files out, one folder a day, each event in exactly one of them.

A file is written under another name, forced to disk and renamed before the transaction that lists it, with the
positions it reaches to, ends. A file that is in the folder and in no transaction is what a killed process left, and
is removed by whoever claims a partition next: nobody writes files but within the database's one write transaction.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet
from sqlalchemy import Column, MetaData, Table, Text, insert, select

from exec_events_schemas.record import hash_text, time_of

from .decode import Decoded
from .errors import StoreError
from .store import Store, Transaction

NAME = "archive"
DATABASE = ".archive.db"
# As Hive writes what has no value, and as DuckDB and Polars read it: events whose time is none.
NO_DAY = "__HIVE_DEFAULT_PARTITION__"

files = Table("archive_files", MetaData(), Column("path", Text, primary_key=True))

_TEXT, _COUNT, _FLAG = pa.string(), pa.int64(), pa.bool_()
_TIME = pa.timestamp("us", tz="UTC")
# Columns that are a member of the event, as it is there.
MEMBERS: dict[str, pa.DataType] = {
    "execution_id": _TEXT,
    "subject": _TEXT,
    "subject_from": _TEXT,
    "notebook": _TEXT,
    "cell_id": _TEXT,
    "kernel_id": _TEXT,
    "kernel_name": _TEXT,
    "recorder_id": _TEXT,
    "client": _TEXT,
    "channel": _TEXT,
    "trust": _TEXT,
    "status": _TEXT,
    "error_name": _TEXT,
    "action": _TEXT,
    "cause": _TEXT,
    "execution_count": _COUNT,
    "requested_at": _TIME,
    "started_at": _TIME,
    "finished_at": _TIME,
    "queued_us": _COUNT,
    "duration_us": _COUNT,
    "code_hash": _TEXT,
    "code_ast_hash": _TEXT,
    "code_bytes": _COUNT,
    "code_lines": _COUNT,
    "lines_added": _COUNT,
    "lines_removed": _COUNT,
    "same_code_as_last_run": _FLAG,
    "outputs_hash": _TEXT,
    "silent": _FLAG,
    "store_history": _FLAG,
    "iopub_seen": _FLAG,
    "reply_seen": _FLAG,
    "msg_id_reused": _FLAG,
    "overflow": _FLAG,
}
SCHEMA = pa.schema(
    [
        pa.field("kind", _TEXT, nullable=False),
        pa.field("time", _TIME),
        *(pa.field(name, kind) for name, kind in MEMBERS.items()),
        pa.field("outputs", _COUNT),
        pa.field("outputs_bytes", _COUNT),
        pa.field("chain", _TEXT, nullable=False),
        pa.field("seq", _COUNT, nullable=False),
        pa.field("hash", _TEXT, nullable=False),
        pa.field("record", _TEXT, nullable=False),
    ]
)
# All others repeat so often that a file holds each value once.
_UNLIKE = {"hash", "record", "seq", "execution_id", "code_hash", "code_ast_hash", "outputs_hash"}
_DICTIONARIES = [field.name for field in SCHEMA if field.type == _TEXT and field.name not in _UNLIKE]


class ArchiveStore(Store):
    """
    The database of the archive in ``folder``: which files it has, and how far they reach.

    Raises StoreError where the folder holds files of an archive whose database is gone.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (folder / DATABASE).exists() and any(_files(folder)):
            raise StoreError(
                f"{folder} holds Parquet files, but not the {DATABASE} that says how far they reach; "
                "put it back, or give a folder that is empty"
            )
        super().__init__(f"sqlite:///{folder / DATABASE}", NAME)
        self._folder = folder
        files.metadata.create_all(self.engine)

    def claim(self, partitions: Collection[str]) -> dict[str, int]:
        """As `Store.claim`, after what a killed process left is gone."""
        # No other process is writing files, for that is done within a transaction like this one.
        with self.engine.begin() as connection:
            listed = set(connection.execute(select(files.c.path)).scalars())
            for path in _files(self._folder):
                if path.relative_to(self._folder).as_posix() not in listed:
                    path.unlink()
            for path in self._folder.glob("date=*/.*.tmp"):
                path.unlink()
        return super().claim(partitions)


class Archive:
    """The step: writes a batch into ``folder``, a file for each day it has events of."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __call__(self, events: Sequence[Decoded], transaction: Transaction, /) -> None:
        """Take one batch."""
        days: dict[str, list[Decoded]] = defaultdict(list)
        for event in events:
            days[day_of(time_of(event.event))].append(event)
        for day, of_day in sorted(days.items()):
            path = self._folder / f"date={day}" / f"{_name(of_day)}.parquet"
            _write(table_of(of_day), path)
            pa.default_memory_pool().release_unused()
            transaction.connection.execute(insert(files).values(path=path.relative_to(self._folder).as_posix()))


def table_of(events: Sequence[Decoded]) -> pa.Table:
    """Events as columns."""
    # Events of schemas that are not known here have whatever they have in members of these names.
    members: list[Mapping[str, Any]] = [_NOTHING if "/" in event.kind else event.event for event in events]
    columns: dict[str, Any] = {
        "kind": [event.kind for event in events],
        "time": _times([time_of(event.event) for event in events]),
        "outputs": [_sum(member, "count") for member in members],
        "outputs_bytes": [_sum(member, "bytes") for member in members],
        "chain": [event.chain for event in events],
        "seq": [event.seq for event in events],
        "hash": [hash_text(event.hash) for event in events],
        "record": [event.record for event in events],
    }
    for name, kind in MEMBERS.items():
        values = [member.get(name) for member in members]
        columns[name] = _times(values) if kind is _TIME else values
    arrays = [
        columns[field.name] if field.type == _TIME else pa.array(columns[field.name], field.type) for field in SCHEMA
    ]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def day_of(time: str) -> str:
    """The day of an event's time, in UTC."""
    if time.endswith("Z"):
        return _day(time[:10])
    moment = _moment(time)
    return NO_DAY if moment is None else moment.date().isoformat()


_NOTHING: Mapping[str, Any] = {}


@lru_cache(maxsize=4096)
def _day(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        return NO_DAY


def _moment(time: str | None) -> datetime | None:
    """A time, None where it is none: the 13th month has the form of one."""
    try:
        moment = datetime.fromisoformat(time or "")
    except ValueError:
        return None
    try:
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        return None


def _times(values: list[str | None]) -> pa.Array:
    try:
        return pa.array(values, _TEXT).cast(_TIME)
    except pa.ArrowInvalid:
        return pa.array([_moment(value) for value in values], _TIME)


def _sum(member: Mapping[str, Any], what: str) -> int | None:
    outputs = member.get("outputs")
    return None if outputs is None else sum(output[what] for output in outputs)


def _name(events: Sequence[Decoded]) -> str:
    """
    A name for a file of these events: where the first of them, and the last of its partition, were found.

    No two files of a day have one, for a position of a partition is in one batch alone.
    """
    partition = events[0].partition
    positions = [event.position for event in events if event.partition == partition]
    more = len({event.partition for event in events}) - 1
    name = re.sub(r"[^A-Za-z0-9._-]", "-", partition.removesuffix(".db"))[-80:].lstrip(".-")
    return f"{name}-{min(positions)}-{max(positions)}" + (f"-and-{more}-more" if more else "")


def _write(table: pa.Table, path: Path) -> None:
    """A file that is there whole, and on disk, or not at all."""
    try:
        _write_safely(table, path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}") from error


def _write_safely(table: pa.Table, path: Path) -> None:
    if not path.parent.is_dir():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        _sync(path.parent.parent)
    draft = path.with_name(f".{path.name}.tmp")
    with draft.open("wb") as file:
        parquet.write_table(
            table, file, compression="zstd", use_dictionary=_DICTIONARIES, write_statistics=True, store_schema=True
        )
        file.flush()
        os.fsync(file.fileno())
    if path.exists():
        draft.unlink()
        raise StoreError(f"{path} is there already; is the {DATABASE} in that folder an older copy?")
    draft.rename(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """Make the names in a folder last."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _files(folder: Path) -> list[Path]:
    return list(folder.glob("date=*/*.parquet"))
