"""
One spool file: the SQLite transactions on it, and the lock that makes it one recorder's own.

Everything here blocks; it is called from the spool's writer thread and from adoption, never from the
server's event loop.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from exec_events_schemas.record import Head
from exec_events_schemas.spool_layout import BEGUN_SUFFIX, DDL, FILE_SUFFIX, LAYOUT_VERSION, LOCK_SUFFIX

from .errors import SpoolError

# SQLite's WAL needs shared memory, which these do not share between machines
# (https://sqlite.org/wal.html, section 1): on them the rollback journal is used.
NETWORK_FILE_SYSTEMS = frozenset(
    (
        *(
            "9p",
            "afs",
            "beegfs",
            "ceph",
            "cifs",
            "davfs",
            "gfs2",
            "glusterfs",
            "gpfs",
            "lustre",
            "nfs",
            "nfs4",
            "ocfs2",
        ),
        *("pvfs2", "smb3", "smbfs", "virtiofs", "fuse.ceph", "fuse.gcsfuse", "fuse.glusterfs", "fuse.juicefs"),
        *("fuse.rclone", "fuse.s3fs", "fuse.sshfs"),
    )
)
BUSY_TIMEOUT_SECONDS = 2.0
# Records of about 1 kB leave a sixth of SQLite's default page of 4 kB unused; large pages write faster.
PAGE_BYTES = 8192
# 32 MiB of journal before it is brought into the file: half as many waits for the disk under load.
CHECKPOINT_PAGES = 4000
_EXECUTION_ID = re.compile(rb'"execution_id":"([0-9a-f-]{36})"')


@dataclass(slots=True)
class Batch:
    """What one transaction writes: rows in order, and what becomes of notes and deliveries."""

    records: list[tuple[int, bytes, bytes]] = field(default_factory=list)
    heads: dict[str, Head] = field(default_factory=dict)
    begun: dict[str, bytes] = field(default_factory=dict)
    closed: list[str] = field(default_factory=list)
    contents: list[tuple[str, str, str, bytes, bytes]] = field(default_factory=list)
    deliveries: dict[str, int] = field(default_factory=dict)


def file_system_of(path: Path, mounts: Iterable[tuple[str, str]]) -> str:
    """The type of the file system ``path`` lies on, from (mount point, type) pairs; "" when unknown."""
    best, kind = "", ""
    text = os.path.realpath(path)
    for mount_point, file_system in mounts:
        prefix = mount_point.rstrip("/") + "/"
        if (text + "/").startswith(prefix) and len(prefix) > len(best):
            best, kind = prefix, file_system
    return kind


def journal_mode_for(folder: Path) -> str:
    """``wal`` on a local disk, ``truncate`` on a network file system."""
    mounts = [(part.mountpoint, part.fstype) for part in psutil.disk_partitions(all=True)]
    return "truncate" if file_system_of(folder, mounts) in NETWORK_FILE_SYSTEMS else "wal"


class SpoolFile:
    """
    A spool file owned by this process: open, write one batch a transaction, close.

    Raises SpoolError from `open` when another process owns it, and sqlite3.Error or OSError from
    everything else.
    """

    def __init__(self, folder: Path, recorder_id: str) -> None:
        self.folder = folder
        self.recorder_id = recorder_id
        self.path = folder / f"{recorder_id}{FILE_SUFFIX}"
        self.begun_path = folder / f"{recorder_id}{BEGUN_SUFFIX}"
        self.journal_mode = "wal"
        self._lock = FileLock(str(folder / f"{recorder_id}{LOCK_SUFFIX}"), thread_local=False)
        self._connection: sqlite3.Connection | None = None

    @property
    def connection(self) -> sqlite3.Connection:
        """The open connection; raises SpoolError when there is none."""
        if self._connection is None:
            raise SpoolError(f"{self.path} is not open")
        return self._connection

    def acquire(self) -> None:
        """Become its owner; raises SpoolError when another process is."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            raise SpoolError(f"{self.path} belongs to a running recorder") from None

    def open(self, started_at: str | None = None) -> None:
        """Acquire, open and, where new, lay it out; ``started_at`` (RFC 3339) is kept for a new file."""
        self.acquire()
        try:
            self._open(started_at)
        except BaseException:
            self.close()
            raise

    def _open(self, started_at: str | None) -> None:
        self.journal_mode = journal_mode_for(self.folder)
        if not self.path.exists():
            self.path.touch(mode=0o600)
        connection = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_SECONDS
        )
        self._connection = connection
        connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
        connection.execute(f"PRAGMA journal_mode={self.journal_mode}")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA secure_delete=ON")
        connection.execute("PRAGMA cache_size=-4000")
        connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
        # At once: a reader finds all tables or none.
        connection.executescript(f"BEGIN; {DDL} COMMIT;")
        if started_at is not None:
            rows = {"layout": LAYOUT_VERSION, "recorder_id": self.recorder_id, "started_at": started_at}
            connection.executemany("INSERT OR IGNORE INTO meta VALUES (?, ?)", rows.items())

    def close(self) -> None:
        """Close it and give it up."""
        if self._connection is not None:
            try:
                self._connection.close()
            finally:
                self._connection = None
        self._lock.release(force=True)

    def remove(self) -> None:
        """Remove the file from the disk, still owned; its lock file stays, for others may wait on it."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        for suffix in ("", "-wal", "-shm", "-journal"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        self.begun_path.unlink(missing_ok=True)

    def set_aside(self) -> Path:
        """Rename a damaged file (and its journal) so that a new one can take its place; returns its new path."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.damaged-{number}")).exists():
            number += 1
        for suffix in ("", "-wal", "-shm", "-journal"):
            part = self.path.with_name(self.path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
        return aside

    def write(self, batch: Batch) -> None:
        """Write one batch, all of it or nothing, durable on return."""
        connection = self.connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            if batch.begun:
                connection.executemany("INSERT OR REPLACE INTO begun VALUES (?, ?)", batch.begun.items())
            if batch.records:
                connection.executemany("INSERT INTO records VALUES (?, ?, ?)", batch.records)
                heads = [(chain, head.seq, head.hash) for chain, head in batch.heads.items()]
                connection.executemany("INSERT OR REPLACE INTO heads VALUES (?, ?, ?)", heads)
            if batch.closed:
                connection.executemany("DELETE FROM begun WHERE execution_id = ?", [(i,) for i in batch.closed])
            if batch.contents:
                connection.executemany("INSERT OR REPLACE INTO contents VALUES (?, ?, ?, ?, ?)", batch.contents)
            if batch.deliveries:
                connection.executemany("INSERT OR REPLACE INTO deliveries VALUES (?, ?)", batch.deliveries.items())
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def used_bytes(self) -> int:
        """How much of the file is in use: what was cut leaves room that is used again before the file grows."""
        query = (
            "SELECT (page_count - freelist_count) * page_size "
            "FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
        )
        return int(self.connection.execute(query).fetchone()[0])

    def heads(self) -> dict[str, Head]:
        """The last record of each chain of the file."""
        return {chain: Head(seq, bytes(raw)) for chain, seq, raw in self.connection.execute("SELECT * FROM heads")}

    def last_id(self) -> int:
        """The id of the last record, 0 when there is none."""
        return int(self.connection.execute("SELECT coalesce(max(id), 0) FROM records").fetchone()[0])

    def begun(self) -> dict[str, bytes]:
        """The notes of the executions that are not over, by execution_id."""
        return {key: bytes(note) for key, note in self.connection.execute("SELECT execution_id, note FROM begun")}

    def begun_last(self) -> dict[str, bytes]:
        """The notes of executions that had been requested, but not yet written here, when the recorder was killed."""
        try:
            lines = self.begun_path.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return {}
        noted = {key.decode(): note for key, _, note in (line.partition(b" ") for line in lines)}
        for (record,) in self.connection.execute("SELECT record FROM records"):
            if (over := _EXECUTION_ID.search(record)) is not None:
                noted.pop(over[1].decode(), None)
        return noted

    def meta(self) -> Mapping[str, str]:
        """What the file says of itself."""
        return dict(self.connection.execute("SELECT key, value FROM meta"))

    def set_meta(self, key: str, value: str) -> None:
        """Note one thing in the file."""
        self.connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def position(self, sink: str) -> int:
        """How far ``sink`` has acknowledged, as a record id; 0 when it never has."""
        row = self.connection.execute("SELECT position FROM deliveries WHERE sink = ?", (sink,)).fetchone()
        return int(row[0]) if row else 0
