"""
Retention: delivered records older than the site wants are cut from the front of a spool file, the cut sealed first.

Everything here is called on the spool's writer thread.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import orjson

from exec_events_schemas.record import event_of, hash_text, leaf_hash, seal_of, time_of

from .spool_file import SpoolFile

# One cut looks at so many records at most; the next heartbeat goes on.
PRUNE_RECORDS = 20_000
CUTS = "cuts"


@dataclass(frozen=True, slots=True)
class Cut:
    """
    Records up to row ``id`` may go.

    ``cuts`` are the last of each chain that is gone then, earlier cuts of the file included: the event
    that named those may go itself. ``commitments`` name the bodies that go too.
    """

    id: int
    cuts: dict[str, dict[str, Any]]
    commitments: list[str]


def plan_cut(
    file: SpoolFile, delivered: int, before: str, keep_bytes: int | None, *, whole: bool = False
) -> Cut | None:
    """
    What may be cut from the front: records up to row ``delivered`` made before ``before`` (RFC 3339),
    or, where the file is larger than ``keep_bytes``, as many as it is too large by. The last record
    stays, but with ``whole``. None when nothing may be cut.
    """
    limit = min(delivered, file.last_id() - (0 if whole else 1))
    excess = file.used_bytes() - keep_bytes if keep_bytes is not None else 0
    last, commitments = 0, list[str]()
    cuts = cuts_of(file)
    rows = file.connection.execute(
        "SELECT id, record FROM records WHERE id <= ? ORDER BY id LIMIT ?", (limit, PRUNE_RECORDS)
    )
    for row_id, record in rows:
        event, seal = event_of(record), seal_of(record)
        if time_of(event) >= before and excess <= 0:
            break
        excess -= len(record)
        last = row_id
        cuts[seal.chain] = {"chain": seal.chain, "seq": seal.seq, "hash": hash_text(leaf_hash(record))}
        commitments += [event[key] for key in ("code_commitment", "outputs_commitment") if key in event]
    return Cut(last, cuts, commitments) if last else None


def cuts_of(file: SpoolFile) -> dict[str, dict[str, Any]]:
    """What was cut from a file so far: by chain, the last record that is gone."""
    cuts: dict[str, dict[str, Any]] = orjson.loads(file.meta().get(CUTS, "{}"))
    return cuts


def make_cut(file: SpoolFile, cut: Cut) -> None:
    """Remove what `plan_cut` found, once the cut itself is sealed and on disk."""
    connection = file.connection
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute("DELETE FROM records WHERE id <= ?", (cut.id,))
        connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (CUTS, orjson.dumps(cut.cuts).decode()))
        connection.executemany("DELETE FROM contents WHERE commitment = ?", [(c,) for c in cut.commitments])
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    if file.begun_path.exists():
        os.truncate(file.begun_path, 0)  # it may name executions whose records are gone now
