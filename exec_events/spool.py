"""
The spool: events go in from the event loop, sealed records come to rest in a SQLite file.

One writer thread owns the file. It waits `WINDOW_SECONDS` after the first thing to write, then seals
and writes all that has come in one durable transaction (group commit). What cannot be written (full
disk, locked or damaged file) is held in memory up to a bound and tried again; the server never waits.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from logging import Logger
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from exec_events_schemas.record import Head, canonical

from .errors import SpoolError
from .seal import Acknowledge, Append, Begin, Call, Content, Forget, Item, Sealed, seal_items
from .spool_file import SpoolFile

# An execution is on disk as begun within 20 ms of its request: the window plus one commit.
WINDOW_SECONDS = 0.010
# In required mode every request is committed at once; what ended rides along, and costs no commit of its own.
REQUIRED_WINDOW_SECONDS = 0.080
MAX_BATCH = 2000
RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0)
BEGUN_FILE_BYTES = 1024 * 1024
HELD_BYTES_LIMIT = 64 * 1024 * 1024
_ITEM_OVERHEAD = 200


@dataclass(frozen=True, slots=True)
class SpoolState:
    """What a person wants to know of a spool; ``problem`` is None when all is well."""

    recorder_id: str
    path: str
    records: int
    held: int
    lost: int
    open_executions: int
    size_bytes: int
    problem: str | None
    damaged: str | None
    journal_mode: str


class CommitObserver(Protocol):
    """Called on the writer thread with what was just committed; must return at once."""

    def __call__(self, sealed: list[Sealed], /) -> None:
        """Take note."""


class Spool:
    """One recorder's spool file and its writer thread; every method but `close` returns at once."""

    def __init__(
        self,
        folder: Path,
        recorder_id: str,
        log: Logger,
        *,
        started_at: str | None = None,
        max_bytes: int = 0,
        window_seconds: float = WINDOW_SECONDS,
        held_bytes_limit: int = HELD_BYTES_LIMIT,
    ) -> None:
        self.recorder_id = recorder_id
        self.folder = folder
        self.observers: list[CommitObserver] = []
        self._file = SpoolFile(folder, recorder_id)
        self._log = log
        self._started_at = started_at
        self._max_bytes = max_bytes
        self._window_seconds = window_seconds
        self._held_bytes_limit = held_bytes_limit
        self._queue: SimpleQueue[Item | None] = SimpleQueue()
        self._urgent = threading.Event()
        self._held: list[Item] = []
        self._bytes_in = 0
        self._bytes_out = 0
        self._lost = 0
        self._heads: dict[str, Head] = {}
        self._last_id = 0
        self._open_executions: set[str] = set()
        self._positions: dict[str, int] = {}
        self._problem: str | None = None
        self._damaged: str | None = None
        self._warned_size = 0.0
        self._failures = 0
        self._is_open = False
        self._begun_file: int | None = None
        self._forgot = False
        self._thread = threading.Thread(target=self._run, name="exec-events-spool", daemon=True)

    def start(self) -> None:
        """Start the writer; the file is opened on its thread."""
        self._thread.start()

    # Everything below, down to `close`, is called from other threads.

    def append(
        self, event: dict[str, Any], chain: str, *, closes: str | None = None, contents: tuple[Content, ...] = ()
    ) -> None:
        """
        Seal ``event`` as the next record of ``chain`` and store it.

        ``closes`` names the execution that is over with it. Raises MalformedRecord when the event has
        no canonical form; counts it as lost when memory for what cannot be written is full.
        """
        data = canonical(event)
        if self._bytes_in - self._bytes_out > self._held_bytes_limit:
            self._lost += 1
            return
        size = _ITEM_OVERHEAD + len(data)
        if contents:
            size += sum(len(content.body) for content in contents)
        self._bytes_in += size
        self._queue.put(Append(chain, data, closes, contents, size))

    def begin(self, execution_id: str, note: bytes) -> None:
        """
        Note that an execution has begun; ``note`` is the JSON its closing event would be made of.

        It is handed to the operating system at once, which takes microseconds, so that a kill of this
        process loses nothing; the writer makes it durable.
        """
        if self._begun_file is not None:
            with suppress(OSError):  # a full disk: the writer says so
                os.write(self._begun_file, b"%b %b\n" % (execution_id.encode(), note))
        if self._bytes_in - self._bytes_out > self._held_bytes_limit:
            return
        size = _ITEM_OVERHEAD + len(note)
        self._bytes_in += size
        self._queue.put(Begin(execution_id, note, None, size))

    def begin_durably(self, execution_id: str, note: bytes) -> Future[None]:
        """As `begin`, and the future resolves once it is on disk; it fails with SpoolError when it cannot be."""
        done: Future[None] = Future()
        size = _ITEM_OVERHEAD + len(note)
        self._bytes_in += size
        self._queue.put(Begin(execution_id, note, done, size))
        self._urgent.set()
        return done

    def forget(self, execution_id: str) -> None:
        """Take back a `begin`: the execution never reached the kernel."""
        self._queue.put(Forget(execution_id))

    def acknowledge(self, sink: str, position: int) -> None:
        """Note that ``sink`` has taken every record up to row id ``position``."""
        self._positions[sink] = position
        self._queue.put(Acknowledge(sink, position))

    def call(self, function: Callable[[SpoolFile], Any], *, barrier: bool = False) -> Future[Any]:
        """
        Run ``function`` on the file, on the writer thread, after what was put in before.

        At the spool's cap it runs although events wait, which may make room for them; with ``barrier``
        it fails then, as it does when the file cannot be written.
        """
        done: Future[Any] = Future()
        self._queue.put(Call(function, done, barrier))
        self._urgent.set()
        return done

    def flush(self) -> Future[None]:
        """A future that resolves once all that was put in before is on disk; fails while it cannot be."""
        return self.call(lambda _: None, barrier=True)

    def heads(self) -> dict[str, Head]:
        """The last committed record of every chain."""
        return self._heads

    def position(self, sink: str) -> int:
        """How far ``sink`` has acknowledged, as a row id."""
        return self._positions.get(sink, 0)

    @property
    def last_id(self) -> int:
        """The row id of the last committed record."""
        return self._last_id

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self._file.path

    def state(self) -> SpoolState:
        """What it is doing now."""
        return SpoolState(
            recorder_id=self.recorder_id,
            path=str(self._file.path),
            records=self._last_id,
            held=len(self._held) + self._queue.qsize(),
            lost=self._lost,
            open_executions=len(self._open_executions),
            size_bytes=_file_size(self._file.path),
            problem=self._problem,
            damaged=self._damaged,
            journal_mode=self._file.journal_mode,
        )

    def close(self, timeout: float) -> bool:
        """Write what is left, close and give up the file; False when ``timeout`` seconds did not suffice."""
        self._queue.put(None)
        self._urgent.set()
        self._thread.join(timeout)
        return not self._thread.is_alive() and not self._held

    # The writer thread.

    def _run(self) -> None:
        stopping = False
        while not stopping:
            stopping = self._gather()
            self._open_if_needed()
            self._write_held()
        self._forget_begun_file()
        if self._is_open:
            self._file.close()

    def _gather(self) -> bool:
        """Wait for something to do and collect it in `_held`; True when it is time to stop."""
        try:
            first = self._queue.get(timeout=self._retry_delay() if self._held or not self._is_open else None)
        except Empty:
            return False
        if first is None:
            return True
        self._urgent.wait(self._window_seconds)
        self._urgent.clear()
        self._held.append(first)
        while True:
            try:
                item = self._queue.get_nowait()
            except Empty:
                return False
            if item is None:
                return True
            self._held.append(item)

    def _retry_delay(self) -> float:
        return RETRY_SECONDS[min(self._failures, len(RETRY_SECONDS) - 1)] if self._failures else 0.0

    def _open_if_needed(self) -> None:
        if self._is_open:
            return
        try:
            self._file.open(self._started_at)
            self._heads = self._file.heads() or self._heads
            self._last_id = max(self._last_id, self._file.last_id())
            self._open_executions |= set(self._file.begun())
            stored = self._file.connection.execute("SELECT sink, position FROM deliveries")
            self._positions = {**dict(stored), **self._positions}
            if self._started_at is not None:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
                self._begun_file = os.open(self._file.begun_path, flags, 0o600)
        except (sqlite3.Error, OSError, SpoolError) as error:
            self._failed(error)
        else:
            self._is_open = True
            self._recovered()
            if self._file.journal_mode != "wal":
                self._log.warning(
                    "exec-events: the spool %s is on a network file system, where SQLite's WAL is unsafe: "
                    "using a rollback journal, which is slower. Set c.ExecEvents.spool to a local folder.",
                    self._file.path,
                )

    def _write_held(self) -> None:
        while self._held:
            if not self._is_open:
                self._refuse_durable()
                return
            waiting: list[Item] = []
            try:
                if (cap := self._reached_cap()) is not None:
                    waiting = [item for item in self._held if not self._passes_cap(item)]
                    self._held = [item for item in self._held if self._passes_cap(item)]
                taken = self._take()
                if taken:
                    self._commit(taken)
                    del self._held[: len(taken)]
                if waiting and not self._held:
                    raise SpoolError(cap)
            except (sqlite3.Error, OSError, SpoolError) as error:
                self._held += waiting
                self._failed(error)
                self._refuse_durable()
                if not (_is_damage(error) and self._replace_damaged(error)):
                    return
            else:
                self._held += waiting
                if not waiting:
                    self._recovered()
        if self._forgot:  # what was taken back is not to stay there
            self._trim_begun_file(0)
            self._forgot = False

    def _trim_begun_file(self, most_bytes: int) -> None:
        """Once nothing waits, all that was begun is in the database, and the lines beside it are of no more use."""
        file = self._begun_file
        if file is not None and self._queue.empty() and os.fstat(file).st_size > most_bytes:
            os.ftruncate(file, 0)

    def _forget_begun_file(self) -> None:
        """At an orderly end every execution is over; what is not, because nothing could be written, stays noted."""
        if self._begun_file is not None:
            os.close(self._begun_file)
            self._begun_file = None
            if not self._held:
                self._file.begun_path.unlink(missing_ok=True)

    def _take(self) -> list[Item]:
        """The next items for one transaction: up to `MAX_BATCH`, or one call alone."""
        for index, item in enumerate(self._held[:MAX_BATCH]):
            if isinstance(item, Call):
                return self._held[: max(index, 1)]
        return self._held[:MAX_BATCH]

    def _commit(self, items: list[Item]) -> None:
        if isinstance(items[0], Call):
            self._answer(items[0])
            return
        batch, sealed = seal_items(items, self._heads, self._last_id, self._open_executions)
        self._file.write(batch)
        self._heads = {**self._heads, **batch.heads}
        if sealed:
            self._last_id = sealed[-1].id
        self._open_executions = (self._open_executions | batch.begun.keys()).difference(batch.closed)
        self._trim_begun_file(BEGUN_FILE_BYTES)
        self._forgot |= any(type(item) is Forget for item in items)
        for item in items:
            if type(item) is Append:
                self._bytes_out += item.size
            elif type(item) is Begin:
                self._bytes_out += item.size
                if item.done is not None:
                    _resolve(item.done, None)
        if sealed:
            for observer in self.observers:
                observer(sealed)

    def _answer(self, call: Call) -> None:
        try:
            result = call.function(self._file)
        except (sqlite3.Error, OSError):
            raise
        except Exception as error:
            _fail(call.done, error)
        else:
            _resolve(call.done, result)

    def _reached_cap(self) -> str | None:
        """What to tell a person when the spool is at its cap; None when it is not. Warns from 80 % on."""
        if not self._max_bytes:
            return None
        used = self._file.used_bytes()
        if used >= self._max_bytes:
            return (
                f"the spool has reached its cap of {self._max_bytes:,} bytes; raise c.ExecEvents.spool_max_bytes, "
                "or deliver to a sink and set c.ExecEvents.retention_bytes below it"
            )
        if used >= 0.8 * self._max_bytes and time.monotonic() - self._warned_size > 60:
            self._warned_size = time.monotonic()
            self._log.warning(
                "exec-events: the spool %s is at %d %% of its cap of %s bytes; at the cap nothing more is recorded.",
                self._file.path,
                100 * used // self._max_bytes,
                f"{self._max_bytes:,}",
            )
        return None

    def _passes_cap(self, item: Item) -> bool:
        """What still goes at the cap: the recorder's own few records, and what may make room."""
        if isinstance(item, Append):
            return item.chain == self.recorder_id
        if isinstance(item, Call):
            return not item.barrier
        return isinstance(item, Acknowledge | Forget)

    def _failed(self, error: BaseException) -> None:
        self._failures += 1
        problem = f"cannot write the spool {self._file.path}: {error}"
        if problem != self._problem:
            self._log.error("exec-events: %s. Events are held in memory and tried again.", problem)
        self._problem = problem

    def _recovered(self) -> None:
        if self._problem is not None:
            self._log.warning("exec-events: the spool %s can be written again.", self._file.path)
        self._problem = None
        self._failures = 0

    def _refuse_durable(self) -> None:
        """Fail what somebody waits for: in required mode what cannot be recorded does not run."""
        reason = SpoolError(self._problem or "the spool cannot be written")
        kept: list[Item] = []
        for item in self._held:
            if isinstance(item, Begin) and item.done is not None:
                self._bytes_out += item.size
                _fail(item.done, reason)
            elif isinstance(item, Call):
                _fail(item.done, reason)
            else:
                kept.append(item)
        self._held = kept

    def _replace_damaged(self, error: BaseException) -> bool:
        """Set a damaged file aside and go on in a new one; its chains continue where they were."""
        try:
            aside = self._file.set_aside()
            self._file.open(self._started_at)
        except (sqlite3.Error, OSError, SpoolError) as another:
            self._is_open = False
            self._failed(another)
            return False
        self._damaged = f"{aside} was damaged ({error}) and set aside; verify shows what is missing"
        self._log.error("exec-events: %s", self._damaged)
        return True


def _resolve(done: Future[Any], result: Any) -> None:
    """Answer who waits; one who gave up has cancelled the future, which then takes no answer."""
    if done.set_running_or_notify_cancel():
        done.set_result(result)


def _fail(done: Future[Any], error: Exception) -> None:
    if done.set_running_or_notify_cancel():
        done.set_exception(error)


def _is_damage(error: BaseException) -> bool:
    # SQLITE_CORRUPT and SQLITE_NOTADB are the plain DatabaseError; its subclasses are other troubles.
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and (code & 0xFF) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _file_size(path: Path) -> int:
    total = 0
    for suffix in ("", "-wal"):
        try:
            total += path.with_name(path.name + suffix).stat().st_size
        except OSError:
            continue
    return total
