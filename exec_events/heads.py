"""A spool in, the heads of its chains out, as a recorder's events carry them."""

from __future__ import annotations

from typing import Any

from exec_events_schemas.record import hash_text

from .spool import Spool

HEADS_LIMIT = 10_000


def heads_of(spool: Spool) -> list[dict[str, Any]]:
    """The committed heads of all chains but the recorder's own, as event data; the latest if too many."""
    heads = [
        {"chain": chain, "seq": head.seq, "hash": hash_text(head.hash)}
        for chain, head in spool.heads().items()
        if chain != spool.recorder_id
    ]
    return heads[-HEADS_LIMIT:]
