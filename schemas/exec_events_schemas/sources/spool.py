"""A spool as a source: all its files as one stream, read-only, also while their owners write."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Event
from urllib.parse import quote

from filelock import FileLock, Timeout

from exec_events_schemas.errors import MalformedRecord, SourceError
from exec_events_schemas.spool_layout import FILE_SUFFIX, LOCK_SUFFIX
from exec_events_schemas.topics import StoredContent, content_of, content_value

from .stored import POLL_SECONDS, Damage, OnDamage, StoredRecord, never, refuse_damage

try:
    import fcntl
except ImportError:  # not POSIX
    fcntl = None  # type: ignore[assignment]

# Rows are fetched in pieces, each its own read transaction: a reader that waits, for a pager say,
# must not hold back the owner's checkpoints.
CHUNK = 1000
# A tampered row may hold anything: whatever it is, it comes out as bytes.
_NEXT_ROWS = """
SELECT coalesce(CAST(record AS BLOB), x''), CAST(hash AS BLOB), id FROM records WHERE id > ? ORDER BY id LIMIT ?
"""
# Bodies are found by their commitment; a table may hold gigabytes of them, and so little of it at a time.
BODIES = 50
_NEXT_BODIES = """
SELECT commitment, CAST(subject AS TEXT), CAST(kind AS TEXT), CAST(nonce AS BLOB), CAST(body AS BLOB) FROM contents
WHERE commitment > ? ORDER BY commitment LIMIT ?
"""
BUSY_TIMEOUT_SECONDS = 5.0


def connect_read_only(path: Path) -> sqlite3.Connection:
    """
    Open a spool file for reading, beside its owner.

    Where this user may not write the folder, SQLite cannot share a WAL; a file that nobody has open is
    then read as immutable. Raises sqlite3.Error.
    """
    address = f"file:{quote(str(path.absolute()))}?mode=ro"
    connection = sqlite3.connect(address, uri=True, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        connection.close()
        journal = path.with_name(f"{path.name}-wal")
        if not path.is_file() or (journal.exists() and journal.stat().st_size):
            raise
        connection = sqlite3.connect(f"{address}&immutable=1", uri=True, isolation_level=None)
    except BaseException:
        connection.close()
        raise
    return connection


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite says that the file itself is wrong (its bytes or its tables), not that it cannot be had now."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    return code in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT)


def spool_files(folder: Path) -> list[Path]:
    """The spool files of a folder, in the order their recorders started; unreadable ones come last."""
    return sorted(folder.glob(f"*{FILE_SUFFIX}"), key=lambda path: (_started_at(path), path.name))


def is_running(path: Path) -> bool:
    """Whether a recorder holds the lock of this spool file; the test leaves the owner alone."""
    lock = path.with_suffix(LOCK_SUFFIX)
    if not lock.exists():
        return False
    try:
        if fcntl is not None:
            # A shared lock, for an instant: two of us do not meet in it.
            with lock.open("rb") as opened:
                fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
        else:
            with FileLock(str(lock), timeout=0):
                pass
    except (Timeout, OSError):
        return True
    return False


def running_recorders(folder: Path) -> set[str]:
    """The recorder_id of every recorder that has its spool file locked."""
    return {path.stem for path in folder.glob(f"*{FILE_SUFFIX}") if is_running(path)}


class SpoolSource:
    """Every record of every file of a spool's folder: files by start of their recorder, records as sealed."""

    is_ordered = True
    total: int | None = None

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise SourceError(
                f"there is no spool in {str(folder)!r}: nothing was recorded there yet, or the folder is another one."
            )
        self.name = str(folder)
        self.folder = folder

    def __iter__(self) -> Iterator[StoredRecord]:
        """Every record; raises SourceError at the first damage."""
        return self.read()

    def read(self, on_damage: OnDamage = refuse_damage, more: Callable[[], bool] = never) -> Iterator[StoredRecord]:
        """
        Every record that was there when reading began, and some that came since; as `Source.read`.

        A damaged file is left at the damage; the next is read.
        """
        reached: dict[Path, int] = {}
        broken: set[Path] = set()
        # The second round reads what was added to a file after its turn: a later file may name it.
        for files in (spool_files(self.folder), None):
            for path in list(reached) if files is None else files:
                reached.setdefault(path, 0)
                if path in broken:
                    continue
                try:
                    for chunk in chunks(path, reached[path]):
                        reached[path] = chunk[-1].position
                        yield from chunk
                except sqlite3.Error as error:
                    broken.add(path)
                    on_damage(_damage(path, reached[path], error))

    def follow(self, stop: Event, poll_seconds: float = POLL_SECONDS) -> Iterator[StoredRecord | None]:
        """As `Source.follow`; new files are followed too."""
        reached: dict[Path, int] = {}
        while not stop.is_set():
            for path in spool_files(self.folder):
                try:
                    for chunk in chunks(path, reached.get(path, 0)):
                        reached[path] = chunk[-1].position
                        yield from chunk
                except sqlite3.Error as error:
                    refuse_damage(_damage(path, reached.get(path, 0), error))
            yield None
            stop.wait(poll_seconds)

    def contents(self, on_damage: OnDamage = refuse_damage) -> Iterator[StoredContent | None]:
        """
        As `Source.contents`; a file in which anything was written since is given whole again.

        What was erased is not there; a body that is not the one committed to is damage.
        """
        seen: dict[Path, tuple[int, ...]] = {}
        while True:
            for path in spool_files(self.folder):
                if seen.get(path) == (state := file_state(path)):
                    continue
                seen[path] = state
                try:
                    yield from _contents(path, on_damage)
                except sqlite3.Error as error:
                    on_damage(_damage(path, 0, error))
            yield None

    def running(self) -> set[str]:
        """Those that hold the lock of their file."""
        return running_recorders(self.folder)


def _contents(path: Path, on_damage: OnDamage) -> Iterator[StoredContent]:
    """The bodies in one file; raises sqlite3.Error."""
    after, count = "", 0
    with closing(connect_read_only(path)) as connection:
        if not has_records(connection):
            return
        while rows := connection.execute(_NEXT_BODIES, (after, BODIES)).fetchall():
            after = rows[-1][0]
            for commitment, subject, kind, nonce, body in rows:
                count += 1
                try:
                    found = content_of(str(commitment).encode(), content_value(nonce, body), ())
                except MalformedRecord as error:
                    on_damage(Damage(path.name, count, str(error)))
                else:
                    yield found._replace(subject=subject, kind=kind)


def file_state(path: Path) -> tuple[int, ...]:
    """What changes when anything is written to a file, or to its journal."""
    found = []
    for part in (path, path.with_name(f"{path.name}-wal")):
        try:
            status = part.stat()
        except OSError:
            continue
        found += [status.st_mtime_ns, status.st_size, status.st_ino]
    return tuple(found)


def chunks(path: Path, after: int) -> Iterator[list[StoredRecord]]:
    """The records of a file after a row; no list is empty. Raises sqlite3.Error."""
    if not path.exists():
        return  # pruned since the folder was listed
    file = path.name
    with closing(connect_read_only(path)) as connection:
        if not has_records(connection):
            return
        while True:
            rows: list[tuple[bytes, bytes | None, int]] = []
            failed: sqlite3.Error | None = None
            try:
                rows.extend(connection.execute(_NEXT_ROWS, (after, CHUNK)))
            except sqlite3.Error as error:
                failed = error  # the rows before it are whole
            if rows:
                yield [StoredRecord(record, raw, file, row) for record, raw, row in rows]
                after = rows[-1][2]
            if failed is not None:
                raise failed
            if not rows:
                return


def has_records(connection: sqlite3.Connection) -> bool:
    """False for a file that its owner is still laying out."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if tables and "records" not in tables:
        raise sqlite3.DatabaseError("it is no spool file: it has no table of records")
    return bool(tables)


def _started_at(path: Path) -> str:
    try:
        with closing(connect_read_only(path)) as connection:
            row = connection.execute("SELECT value FROM meta WHERE key = 'started_at'").fetchone()
            return str(row[0]) if row else ""
    except sqlite3.Error:
        return "~"  # after every time


def _damage(path: Path, reached: int, error: sqlite3.Error) -> Damage:
    """What to say of a file; raises SourceError where it is whole but cannot be had just now."""
    if is_damage(error):
        return Damage(path.name, reached + 1, f"the spool file is damaged ({error})")
    raise SourceError(f"{str(path)!r} cannot be read: {error}. Try again, as a user who may read it.") from error
