"""
What dead recorders left: a later one closes their executions, delivers the rest, and links to them.

A spool file whose lock can be had has no owner any more. Everything here blocks; call it off the loop.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from logging import Logger
from pathlib import Path
from typing import Any

import orjson

from exec_events_schemas.record import Head, hash_text
from exec_events_schemas.spool_layout import FILE_SUFFIX

from .clock import rfc3339
from .describe import closed_by_crash
from .errors import SpoolError
from .retain import cuts_of
from .spool_file import SpoolFile


@dataclass(frozen=True, slots=True)
class Left:
    """
    A spool file without an owner: its recorder, where its chains stand, and what was open when it died.

    ``closed`` says that its recorder, or an adopter, sealed its end.
    """

    recorder_id: str
    started_at: str
    closed: bool
    linked: bool
    heads: dict[str, Head]
    begun: dict[str, dict[str, Any]]
    cuts: dict[str, dict[str, Any]]


def find_left(folder: Path, own_recorder_id: str, log: Logger) -> list[Left]:
    """Every file of ``folder`` without an owner, the oldest first; what cannot be read is reported and left."""
    found = []
    for path in folder.glob(f"*{FILE_SUFFIX}"):
        if path.stem == own_recorder_id:
            continue
        file = SpoolFile(folder, path.stem)
        try:
            _open_patiently(file)
        except SpoolError:
            continue  # its recorder runs
        except (sqlite3.Error, OSError) as error:
            log.error("exec-events: cannot adopt %s: %s. `exec-events verify` says what it holds.", path, error)
            continue
        try:
            found.append(_look(file))
        except (sqlite3.Error, OSError, ValueError) as error:
            log.error("exec-events: cannot adopt %s: %s. `exec-events verify` says what it holds.", path, error)
        finally:
            file.close()
    return sorted(found, key=lambda left: left.started_at)


def _open_patiently(file: SpoolFile) -> None:
    """Open a file, trying again for a moment: a reader asking whether its recorder runs holds the lock an instant."""
    for _ in range(5):
        try:
            file.open()
        except SpoolError:
            time.sleep(0.05)
        else:
            return
    file.open()


def _look(file: SpoolFile) -> Left:
    meta = file.meta()
    closed = "closed_at" in meta
    notes = {} if closed else {**file.begun_last(), **file.begun()}
    begun = {execution_id: orjson.loads(note) for execution_id, note in notes.items()}
    return Left(
        recorder_id=file.recorder_id,
        started_at=meta.get("started_at", ""),
        closed=closed,
        linked="linked_by" in meta,
        heads=file.heads(),
        begun=begun,
        cuts=cuts_of(file),
    )


def closing_events(left: Left, adopter: str, trust: str, now_us: int) -> list[tuple[str, dict[str, Any], str | None]]:
    """
    The events that end a dead recorder's chains: (event name, data, the execution it closes or None).

    Its open executions first, then, with the heads they leave filled in by the caller, its own end.
    """
    events: list[tuple[str, dict[str, Any], str | None]] = [
        ("cell_execution", closed_by_crash(note, now_us), execution_id) for execution_id, note in left.begun.items()
    ]
    stopped = {
        "time": rfc3339(now_us),
        "recorder_id": left.recorder_id,
        "trust": trust,
        "action": "stopped",
        "cause": "adopted",
        "adopted_by": adopter,
        "open_executions": 0,
    }
    return [*events, ("recorder", stopped, None)]


def previous_of(left: list[Left], heads: Callable[[str], dict[str, Head]]) -> list[dict[str, Any]]:
    """The ``previous`` links of a new recorder: the last record of every recorder chain nobody linked to."""
    links = []
    for file in left:
        head = heads(file.recorder_id).get(file.recorder_id)
        if head is not None and not file.linked:
            links.append({"chain": file.recorder_id, "seq": head.seq, "hash": hash_text(head.hash)})
    return links[-1000:]
