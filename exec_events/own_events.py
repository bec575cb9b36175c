"""One person's events in a spool, the newest first, and what the spool says of a notebook; everything here blocks."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from exec_events_schemas.chain import Verifier
from exec_events_schemas.errors import MalformedRecord
from exec_events_schemas.record import canonical, event_of, hash_text, leaf_hash, seal_of, time_of
from exec_events_schemas.sources.recent import newest_first
from exec_events_schemas.sources.spool import SpoolSource
from exec_events_schemas.spool_layout import FILE_SUFFIX

from .hashing import Hasher
from .notebook_check import NotebookCheck

# So far back each file is searched, also where nobody finds what is theirs.
RECORDS_LOOKED_AT = 20_000
PROBLEMS_SHOWN = 20


def own_events(folder: Path, subject: str, limit: int) -> list[dict[str, Any]]:
    """The last ``limit`` records that name ``subject``, the newest first: event, chain, seq and hash."""
    files = [_of_subject(path, subject) for path in folder.glob(f"*{FILE_SUFFIX}")]
    newest = heapq.merge(*files, key=lambda found: time_of(found["event"]), reverse=True)
    return list(islice(newest, limit))


def _of_subject(path: Path, subject: str) -> Iterator[dict[str, Any]]:
    holds = b'"subject":' + canonical(subject)
    for stored in newest_first(path, holds, RECORDS_LOOKED_AT):
        try:
            event, seal = event_of(stored.record), seal_of(stored.record)
        except MalformedRecord:
            continue  # `verify` has it
        if event.get("subject") == subject:
            yield {"event": event, "chain": seal.chain, "seq": seal.seq, "hash": hash_text(leaf_hash(stored.record))}


def verify_shown(folder: Path, notebook: Any, hasher: Hasher) -> dict[str, Any]:
    """
    What `exec-events verify` says of a notebook and of the spool, as the route answers it.

    Raises ConfigurationError where it is no notebook, and SourceError where the spool cannot be read.
    """
    check, source, verifier = NotebookCheck(notebook, hasher), SpoolSource(folder), Verifier()
    running = source.running()
    for stored in source.read(verifier.damaged, verifier.awaits):
        verifier.add(stored)
        check(stored)
    report = verifier.finish(running | source.running())
    verdicts = check.verdicts()
    cells = []
    for found in verdicts:
        cell: dict[str, Any] = {
            "index": found.position,
            "id": found.cell_id,
            "result": str(found.verdict),
            "detail": found.reason,
            "fails": check.fails(found),
        }
        if found.execution is not None:
            cell |= {"chain": found.execution.chain, "seq": found.execution.seq}
        cells.append(cell)
    problems = [str(finding) for finding in report.findings[:PROBLEMS_SHOWN]]
    return {
        "cells": cells,
        "summary": dict(Counter(cell["result"] for cell in cells)),
        "chains": {"ok": report.ok, "problems": problems},
    }
