"""
A source in, a database out of what a ProgSnap2 dataset is made of: each record once, codes by hash, what is missing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import orjson

from exec_events_schemas.contents import Contents
from exec_events_schemas.errors import SourceError
from exec_events_schemas.record import time_of
from exec_events_schemas.sources import Damage, Source

from . import progsnap_tables as tables
from .decode import DeadLetter, Decoded, decode
from .feed import Fetched

Event = dict[str, Any]

_AT_ONCE = 500
DDL = """
CREATE TABLE records (chain TEXT, seq INTEGER, hash BLOB, PRIMARY KEY (chain, seq)) WITHOUT ROWID;
CREATE TABLE events (at TEXT, kind TEXT, chain TEXT, seq INTEGER, event BLOB);
CREATE TABLE codes (id TEXT PRIMARY KEY, body TEXT, ast TEXT, bytes INTEGER, lines INTEGER, code TEXT) WITHOUT ROWID;
CREATE TABLE errors (id TEXT PRIMARY KEY, type TEXT, explanation TEXT) WITHOUT ROWID;
CREATE TABLE recorders (id TEXT PRIMARY KEY) WITHOUT ROWID;
"""
GAPS = """
SELECT chain, before + 1, seq FROM
    (SELECT chain, seq, lag(seq, 1, -1) OVER (PARTITION BY chain ORDER BY seq) AS before FROM records)
WHERE seq > before + 1
"""


@dataclass(frozen=True, slots=True)
class Choices:
    """What a person may choose: a name of the course, nbgrader's names of cells by cell id, whether code goes along."""

    course: str = ""
    problems: Mapping[str, str] = field(default_factory=dict)
    with_code: bool = True


@dataclass(slots=True)
class Summary:
    """What an export has; ``no_code`` says why it has no code, where it should have had."""

    records: int = 0
    runs: int = 0
    sessions: int = 0
    code_states: int = 0
    bodies: int = 0
    left_out: int = 0
    errors: int = 0
    no_code: str = ""


def read(
    source: Source, database: sqlite3.Connection, choices: Choices, summary: Summary, on_progress: Callable[[int], None]
) -> None:
    """
    Put all of ``source`` into ``database``.

    What cannot be read, or is missing, is a row of errors. Raises SourceError where nothing can be read.
    """
    database.executescript(DDL)
    database.execute("BEGIN")

    def damaged(damage: Damage) -> None:
        _error(database, f"{damage.file}:{damage.position}", "damage", damage.what)

    with ExitStack() as stack:
        contents = None
        if choices.with_code:
            try:
                contents = stack.enter_context(closing(Contents(source, damaged)))
            except SourceError as error:
                summary.no_code = str(error)
        chunk: list[Fetched] = []
        for stored in source.read(damaged):
            chunk.append(Fetched(stored.file, stored.position, stored.record, stored.hash))
            if len(chunk) >= _AT_ONCE:
                _take(chunk, database, contents, summary)
                on_progress(summary.records)
                chunk = []
        _take(chunk, database, contents, summary)
    for chain, first, seq in database.execute(GAPS).fetchall():
        _error(database, gap_id(chain, seq), "gap", f"{seq - first} records of {chain} are missing before seq {seq}")


def _take(chunk: list[Fetched], database: sqlite3.Connection, contents: Contents | None, summary: Summary) -> None:
    summary.records += len(chunk)
    events = []
    for decoded in map(decode, chunk):
        if isinstance(decoded, DeadLetter):
            _error(database, f"{decoded.partition}:{decoded.position}", "unreadable", decoded.reason)
        elif _is_new(database, decoded):
            events.append(decoded)
    bodies = contents.of([event.record for event in events]) if contents else [None] * len(events)
    for decoded, body in zip(events, bodies, strict=True):
        event = decoded.event
        if decoded.kind == "cell_execution":
            if event["silent"] or event["status"] == "aborted":
                summary.left_out += 1
                continue
            if event["status"] not in tables.RESULTS:
                summary.left_out += 1
                text = f"execution {event['execution_id']} ended as {event['status']}: what became of it is not known"
                _error(database, event_id(decoded.chain, decoded.seq), "unknown result", text)
                continue
            _keep_code(database, event, (body or {}).get("code"))
        elif decoded.kind != "kernel_lifecycle":
            continue
        at = event.get("requested_at") or time_of(event)
        row = (at, decoded.kind, decoded.chain, decoded.seq, orjson.dumps(event))
        database.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?)", row)
        database.execute("INSERT OR IGNORE INTO recorders VALUES (?)", (event["recorder_id"],))


def _is_new(database: sqlite3.Connection, decoded: Decoded) -> bool:
    place = (decoded.chain, decoded.seq)
    if database.execute("INSERT OR IGNORE INTO records VALUES (?, ?, ?)", (*place, decoded.hash)).rowcount == 1:
        return True
    (known,) = database.execute("SELECT hash FROM records WHERE chain = ? AND seq = ?", place).fetchone()
    if known != decoded.hash:
        text = f"there is another record of {decoded.chain} seq {decoded.seq}: one of the two is forged"
        _error(database, f"{decoded.partition}:{decoded.position}", "fork", text)
    return False


def _keep_code(database: sqlite3.Connection, event: Event, found: Mapping[str, Any] | None) -> None:
    """Note an execution's code; a body that was found once stays."""
    if "code_hash" not in event:
        return
    code, body = None, "not kept"
    if found is not None:
        code = found.get("body")
        body = "kept" if code is not None else "erased" if found.get("erased") else "refused"
    if code is not None and not _is_code_of(code, event["code_hash"]):
        code, body = None, "not text"
    statement = "INSERT INTO codes VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO "
    statement += "NOTHING" if code is None else "UPDATE SET body = excluded.body, code = excluded.code"
    row = (event["code_hash"], body, event.get("code_ast_hash"), event.get("code_bytes"), event.get("code_lines"), code)
    database.execute(statement, row)


def _is_code_of(code: str, code_hash: str) -> bool:
    """Whether it is; of a keyed hash nobody without the key can say."""
    return not code_hash.startswith("sha256:") or code_hash == f"sha256:{sha256(code.encode()).hexdigest()}"


def _error(database: sqlite3.Connection, error_id: str, kind: str, explanation: str) -> None:
    database.execute("INSERT OR IGNORE INTO errors VALUES (?, ?, ?)", (error_id, kind, explanation))


def event_id(chain: str, seq: int) -> str:
    """The EventID of a record."""
    return f"{chain}:{seq}"


def gap_id(chain: str, seq: int) -> str:
    """The LoggingErrorID of what is missing before a record."""
    return f"gap:{chain}:{seq}"
