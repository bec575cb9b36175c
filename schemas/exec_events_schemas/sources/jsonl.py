"""JSON lines as a source: ``{"event":…,"seal":…,"hash":…}`` a line, back to the bytes that were sealed."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from glob import escape
from pathlib import Path
from threading import Event
from typing import BinaryIO

import orjson

from exec_events_schemas.errors import MalformedRecord, SourceError
from exec_events_schemas.record import canonical, hash_bytes, hash_text, leaf_hash
from exec_events_schemas.topics import StoredContent

from .stored import POLL_SECONDS, Damage, OnDamage, StoredRecord, never, refuse_damage

MAX_LINE_BYTES = 64 * 1024 * 1024

_HASH_AT_END = re.compile(rb',"hash":"sha256:([0-9a-f]{64})"\}\r?\n?\Z')
_HASH_ROOM = 90
_MEMBERS = {"event", "seal", "hash", "contents"}


def line_of(stored: StoredRecord) -> bytes:
    """A record as one JSON line, without its end: exactly ``{"event":…,"seal":…,"hash":"sha256:<hex>"}``."""
    raw = leaf_hash(stored.record) if stored.hash is None else stored.hash
    return b'%b,"hash":"%b"}' % (stored.record[:-1], hash_text(raw).encode())


def record_of(line: bytes) -> tuple[bytes, bytes | None]:
    """
    The record in a JSON line, and the hash it was stored with (None where the line has none).

    The record is the canonical form of the line's event and seal, however the line is spaced or
    ordered. Raises MalformedRecord.
    """
    # A line as `line_of` writes it holds the record's very bytes; their hash says so without parsing.
    match = _HASH_AT_END.search(line, max(0, len(line) - _HASH_ROOM))
    if match is not None:
        record, stored = line[: match.start()] + b"}", bytes.fromhex(match[1].decode())
        if leaf_hash(record) == stored:
            return record, stored
    try:
        parsed = orjson.loads(line)
    except ValueError as error:
        raise MalformedRecord(f"not JSON: {error}") from error
    if not isinstance(parsed, dict) or not {"event", "seal"} <= parsed.keys() <= _MEMBERS:
        raise MalformedRecord('not an object of "event", "seal" and "hash"')
    parsed.pop("contents", None)  # what `cat --contents` found beside the record
    text = parsed.pop("hash", None)
    if not (text is None or isinstance(text, str)):
        raise MalformedRecord('its "hash" is not text')
    return canonical(parsed), None if text is None else hash_bytes(text)


class _JsonLines:
    """What a file of JSON lines and a stream of them have in common."""

    name: str
    is_ordered = True
    total: int | None = None

    def contents(self, on_damage: OnDamage = refuse_damage) -> Iterator[StoredContent | None]:
        """There are none: raises SourceError."""
        raise SourceError(f"{self.name}: JSON lines hold no bodies. Ask the spool or the topic they came from.")

    def running(self) -> set[str]:
        """Nobody is known to."""
        return set()


class JsonLinesSource(_JsonLines):
    """A ``.jsonl`` file, after its rotated siblings ``.jsonl.1``, ``.jsonl.2``… (a higher number is older)."""

    def __init__(self, path: Path) -> None:
        if not path.is_file() and not _rotated(path):
            raise SourceError(f"{str(path)!r} is not a file. Give spool://FOLDER, a folder or a .jsonl file.")
        self.name = str(path)
        self._path = path

    def __iter__(self) -> Iterator[StoredRecord]:
        """Every record; raises SourceError at the first damage."""
        return self.read()

    def read(self, on_damage: OnDamage = refuse_damage, more: Callable[[], bool] = never) -> Iterator[StoredRecord]:
        """Every record of the rotated files, oldest first, then of the file itself; as `Source.read`."""
        for path in [*_rotated(self._path), self._path]:
            if path.is_file():
                with _open(path) as lines:
                    yield from _read_lines(lines, str(path), on_damage)

    def follow(self, stop: Event, poll_seconds: float = POLL_SECONDS) -> Iterator[StoredRecord | None]:
        """As `Source.follow`; a rotation is followed into the new file."""
        for path in _rotated(self._path):
            with _open(path) as lines:
                yield from _read_lines(lines, str(path), refuse_damage)
        while not stop.is_set():
            if not self._path.is_file():
                yield None
                stop.wait(poll_seconds)
                continue
            with _open(self._path) as lines:
                yield from self._follow_one(lines, stop, poll_seconds)

    def _follow_one(self, lines: BinaryIO, stop: Event, poll_seconds: float) -> Iterator[StoredRecord | None]:
        """Follow one open file until another has its name and nothing more comes."""
        position = 0
        partial = b""
        while not stop.is_set():
            # Asked before reading: what came before the rotation is read before the file is left.
            rotated = not _is_same_file(lines, self._path)
            for piece in lines:
                partial += piece
                if partial.endswith(b"\n"):
                    position += 1
                    yield from _read_lines([partial], str(self._path), refuse_damage, position)
                    partial = b""
            if rotated:
                return
            yield None
            stop.wait(poll_seconds)


class StandardInputSource(_JsonLines):
    """JSON lines on standard input; they can be read once."""

    name = "standard input"

    def __iter__(self) -> Iterator[StoredRecord]:
        """Every record; raises SourceError at the first damage."""
        return self.read()

    def read(self, on_damage: OnDamage = refuse_damage, more: Callable[[], bool] = never) -> Iterator[StoredRecord]:
        """As `Source.read`, once."""
        return _read_lines(sys.stdin.buffer, self.name, on_damage)

    def follow(self, stop: Event, poll_seconds: float = POLL_SECONDS) -> Iterator[StoredRecord | None]:
        """As `Source.follow`, to the end of standard input."""
        for stored in self.read():
            if stop.is_set():
                return
            yield stored
        yield None


def _read_lines(lines: Iterable[bytes], file: str, on_damage: OnDamage, first: int = 1) -> Iterator[StoredRecord]:
    for position, line in enumerate(lines, first):
        if line.isspace():
            continue
        try:
            if len(line) > MAX_LINE_BYTES:
                raise MalformedRecord(f"a line of {len(line):,} bytes")
            record, stored = record_of(line)
        except MalformedRecord as error:
            ended = line.endswith(b"\n")
            what = f"the line is {error}" if ended else f"the last line is incomplete, being written or cut ({error})"
            on_damage(Damage(file, position, what))
        else:
            yield StoredRecord(record, stored, file, position)


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise SourceError(f"{str(path)!r} cannot be read: {error.strerror}") from error


def _rotated(path: Path) -> list[Path]:
    """The rotated siblings of a file, oldest first."""
    numbered = [
        (int(sibling.name[len(path.name) + 1 :]), sibling)
        for sibling in path.parent.glob(f"{escape(path.name)}.*")
        if re.fullmatch(r"[1-9][0-9]{0,8}", sibling.name[len(path.name) + 1 :])
    ]
    return [sibling for _, sibling in sorted(numbered, reverse=True)]


def _is_same_file(opened: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(opened.fileno()), path.stat())
    except OSError:
        return False
