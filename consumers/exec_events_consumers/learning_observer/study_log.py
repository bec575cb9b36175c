"""
A source in, study logs out: what a Learning Observer server would have logged of each student, for its offline replay.

One file for each subject and day (UTC). A line is JSON as that server writes it, whose member ``client`` is the frame
that `forward` sends, then a tab and a time. The format is known from logs that a server wrote, and from its replay of
ours. What is read goes into a temporary database first, which sorts it and keeps each record once.
"""

from __future__ import annotations

import gzip
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import IO, Any, Literal, cast
from urllib.parse import quote

import orjson

from exec_events_schemas.errors import MalformedRecord
from exec_events_schemas.record import time_of
from exec_events_schemas.sources import Damage, Source

from ..decode import DeadLetter, decode
from ..errors import ConsumerError
from ..feed import Fetched
from ..measures import microseconds
from ..whole_folder import whole_folder
from .frames import SOURCE, Frame, frame_of, subject_of

SUFFIX = ".study.log"
# A file's name has at most 255 bytes.
NAME_LIMIT = 200
_SAID_EVERY = 1000
_DDL = """
CREATE TABLE lines (subject TEXT, at TEXT, chain TEXT, seq INTEGER, line BLOB, PRIMARY KEY (subject, at, chain, seq))
WITHOUT ROWID;
CREATE UNIQUE INDEX places ON lines (chain, seq);
"""


@dataclass(slots=True)
class Made:
    """What an export wrote: records read, events, files, and what could not be used, of which some are told."""

    records: int = 0
    events: int = 0
    files: int = 0
    unusable: int = 0
    reasons: list[str] = field(default_factory=list)


def export(
    source: Source, folder: Path, *, compress: bool = False, on_progress: Callable[[int], None] = lambda records: None
) -> Made:
    """
    Write all of ``source`` into ``folder``, which is there whole at the end or not at all.

    Raises ConsumerError where the folder holds something or cannot be written, and SourceError.
    """
    made = Made()
    with whole_folder(folder) as draft, closing(sqlite3.connect("", isolation_level=None)) as database:
        database.executescript(_DDL)
        database.execute("BEGIN")
        _read(source, database, made, on_progress)
        draft.mkdir(mode=0o700, parents=True)
        rows = database.execute("SELECT subject, at, line FROM lines ORDER BY subject, at, chain, seq")
        for (subject, day), lines in groupby(rows, key=lambda row: (row[0], row[1][:10])):
            _write(draft / (name_of(subject, day) + (".gz" if compress else "")), (line for _, _, line in lines))
            made.files += 1
    return made


def name_of(subject: str, day: str) -> str:
    """The name of a subject's file of a day, 2026-11-24; whatever the subject is called, it is one name and no path."""
    name = quote(subject, safe="")
    if len(name) > NAME_LIMIT:
        name = sha256(subject.encode()).hexdigest()
    return f"{day}-{name}{SUFFIX}"


def line_of(frame: Frame, at: str) -> bytes:
    """A line of a study log: what a server would have written of this frame at that time of ours."""
    client = {**frame, "source": SOURCE}
    server = {"time": microseconds(at) / 1_000_000}
    line = {"client": client, "metadata": {"source": SOURCE}, "server": server}
    return orjson.dumps(line, option=orjson.OPT_SORT_KEYS) + f"\t{at.removesuffix('Z')}\n".encode()


def frames_in(path: Path) -> Iterator[dict[str, Any]]:
    """The frames in a study log, also in a server's own; raises ConsumerError at a line that is none."""
    with _open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield orjson.loads(line.partition(b"\t")[0])["client"]
            except (orjson.JSONDecodeError, KeyError, TypeError) as error:
                raise ConsumerError(f"line {number} of {path} is none of a study log") from error


def _read(source: Source, database: sqlite3.Connection, made: Made, on_progress: Callable[[int], None]) -> None:
    def damaged(damage: Damage) -> None:
        _unusable(made, f"{damage.file}:{damage.position}: {damage.what}")

    for stored in source.read(damaged):
        made.records += 1
        if made.records % _SAID_EVERY == 0:
            on_progress(made.records)
        decoded = decode(Fetched(stored.file, stored.position, stored.record, stored.hash))
        if isinstance(decoded, DeadLetter):
            _unusable(made, f"{decoded.partition}:{decoded.position}: {decoded.reason}")
            continue
        subject = subject_of(decoded)
        if subject is None:
            continue
        try:
            frame = frame_of(decoded)
        except MalformedRecord as error:
            _unusable(made, f"{decoded.partition}:{decoded.position}: {error}")
            continue
        at = time_of(decoded.event)
        place, line = (decoded.chain, decoded.seq), line_of(frame, at)
        if database.execute("INSERT OR IGNORE INTO lines VALUES (?, ?, ?, ?, ?)", (subject, at, *place, line)).rowcount:
            made.events += 1
        elif database.execute("SELECT line FROM lines WHERE chain = ? AND seq = ?", place).fetchone()[0] != line:
            _unusable(made, f"{decoded.chain} seq {decoded.seq}: there is another record of this chain and seq: a fork")


_REASONS_KEPT = 20


def _unusable(made: Made, reason: str) -> None:
    made.unusable += 1
    if len(made.reasons) < _REASONS_KEPT:
        made.reasons.append(reason)


def _write(path: Path, lines: Iterable[bytes]) -> None:
    with _open(path, "wb") as file:
        file.writelines(lines)


def _open(path: Path, mode: Literal["rb", "wb"]) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path, mode)) if path.suffix == ".gz" else path.open(mode)
