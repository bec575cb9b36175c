"""
The file sink, ``file:///var/log/exec-events.jsonl``: one JSON line a record, rotated, on disk before it counts.

``?max_bytes=N`` (default 1 GiB) rotates to ``.1``, ``.2``, … (higher is older); nothing is ever removed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from logging import Logger
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from exec_events.errors import ConfigurationError
from exec_events_schemas.record import hash_text

from . import Delivery, name_of

try:
    import fcntl
except ImportError:  # Windows: one server a file
    fcntl = None  # type: ignore[assignment]

DEFAULT_MAX_BYTES = 1024**3


def line_of(delivery: Delivery) -> bytes:
    """``{"event":…,"seal":…,"hash":…}`` and a newline: the record's own bytes, and its hash put in."""
    return delivery.record[:-1] + b',"hash":"' + hash_text(delivery.hash).encode() + b'"}\n'


class FileSink:
    """Appends records to a file; raises ConfigurationError for a URL that is no absolute path."""

    def __init__(self, url: str, log: Logger) -> None:
        parts = urlsplit(url)
        options = parse_qs(parts.query)
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise ConfigurationError(f"{name_of(url)!r} is no file: write file:///absolute/path.jsonl")
        self._path = Path(unquote(parts.path))
        max_bytes = options.get("max_bytes", [str(DEFAULT_MAX_BYTES)])[0]
        if not (max_bytes.isdecimal() and int(max_bytes)):
            raise ConfigurationError(f"{name_of(url)!r}: max_bytes is no number of bytes")
        self._max_bytes = int(max_bytes)
        self._descriptor: int | None = None
        self._cannot_rotate = False
        self._log = log

    def deliver(self, batch: Sequence[Delivery]) -> None:
        """Append and fsync; a batch that fails is cut off again, so that no torn line stays."""
        descriptor = self._open()
        try:
            before = os.lseek(descriptor, 0, os.SEEK_END)
            try:
                data = memoryview(b"".join(line_of(delivery) for delivery in batch))
                while data:
                    data = data[os.write(descriptor, data) :]
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, before)
                raise
            if os.lseek(descriptor, 0, os.SEEK_END) >= self._max_bytes:
                self._rotate()
        except OSError:
            self.close(0)  # opened again, it is looked at for half a line
            raise
        else:
            _unlock(descriptor)

    def close(self, timeout: float) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        """The file the path names now, locked: another server may write to it, rotate it or move it away."""
        while True:
            if self._descriptor is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                is_new = not self._path.exists()
                self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
                if is_new:
                    _sync_folder(self._path.parent)
                _lock(self._descriptor)
                self._cut_torn_line(self._descriptor)
            else:
                _lock(self._descriptor)
            if self._is_current(self._descriptor):
                return self._descriptor
            self.close(0)

    def _is_current(self, descriptor: int) -> bool:
        """Whether the path still names the open file: another program may have moved it away."""
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        except OSError:
            return False

    def _cut_torn_line(self, descriptor: int) -> None:
        """A power cut may leave half a line; its record is delivered again."""
        size = os.lseek(descriptor, 0, os.SEEK_END)
        if not size:
            return
        end = size
        while end:
            start = max(0, end - 65536)
            at = os.pread(descriptor, end - start, start).rfind(b"\n")
            if at >= 0:
                end = start + at + 1
                break
            end = start
        if end != size:
            self._log.warning("exec-events: %s ended in half a line; cut off %d bytes", self._path, size - end)
            os.ftruncate(descriptor, end)

    def _rotate(self) -> None:
        """Move the file away; where that cannot be it grows on, for what is in it is delivered."""
        if fcntl is None:
            self.close(0)  # Windows renames no open file
        try:
            older = 1
            while self._numbered(older).exists():
                older += 1
            for number in range(older, 1, -1):
                self._numbered(number - 1).rename(self._numbered(number))
            self._path.rename(self._numbered(1))
            _sync_folder(self._path.parent)
        except OSError as error:
            if not self._cannot_rotate:
                self._log.error("exec-events: cannot rotate %s, it grows on: %s", self._path, error)
            self._cannot_rotate = True
        else:
            self._cannot_rotate = False

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def _lock(descriptor: int) -> None:
    """Wait until no other server of the user writes to the file."""
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _unlock(descriptor: int) -> None:
    if fcntl is not None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _sync_folder(folder: Path) -> None:
    """Make a new name in a folder as durable as what it names, where the system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:
        return
    finally:
        os.close(descriptor)
