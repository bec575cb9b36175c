"""
A decoded event in, the frame that a Learning Observer server gets of it out (pure).

An execution goes whole, below one key, with its seal beside it: the server renames and replaces keys at the top,
and nothing of a frame could be proved if it did so to the event. Of every other record of the same chain only its
place goes, so that a gap in (chain, seq) is a loss.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any

import orjson

from exec_events_schemas.errors import MalformedRecord
from exec_events_schemas.record import canonical, event_of, hash_bytes, hash_text, leaf_hash, seal_of, time_of

if TYPE_CHECKING:
    from ..decode import Decoded

SOURCE = "org.exec_events.jupyter"
EXECUTION = "exec_events_execution"
OTHER = "exec_events_other"
# Where an execution names no notebook.
NO_NOTEBOOK = "none"
# The server drops a connection at a frame of more than 4 MiB.
MAX_FRAME_BYTES = 4_000_000

Frame = dict[str, Any]


def subject_of(event: Decoded) -> str | None:
    """Whose chain a record is in; None where it is a recorder's own, or that of somebody else's events."""
    subject = event.event.get("subject")
    is_of_subject = bool(event.chain.partition("/")[2])
    return subject if is_of_subject and isinstance(subject, str) and subject else None


def frame_of(event: Decoded) -> Frame:
    """The frame of one record of a subject's chain; raises MalformedRecord where it could not be proved."""
    place = {"chain_id": event.chain, "seq": event.seq, "hash": hash_text(event.hash)}
    if event.kind != "cell_execution":
        return {"event": OTHER, **place, "kind": event.kind, "time": time_of(event.event)}
    # As it was recorded: what was decoded may be of a newer version.
    execution = event_of(event.record)
    seal = seal_of(event.record)
    prev = None if seal.prev is None else hash_text(seal.prev)
    frame = {
        "event": EXECUTION,
        **place,
        "notebook_id": notebook_id(execution.get("notebook")),
        "execution": execution,
        "seal": {"chain": seal.chain, "seq": seal.seq, "prev": prev},
    }
    if _record_in(frame) != event.record:
        raise MalformedRecord("its bytes are not canonical, so that nobody could prove the frame made of it")
    return frame


def notebook_id(notebook: str | None) -> str:
    """A notebook's name as a key that is safe in the server's store: what stands in such keys is not escaped there."""
    return sha256(notebook.encode()).hexdigest()[:32] if notebook else NO_NOTEBOOK


def text_of(frame: Frame) -> str:
    """The frame as it is sent; raises MalformedRecord for what the server would drop the connection at."""
    try:
        data = orjson.dumps(frame)
    except TypeError as error:
        raise MalformedRecord(f"it cannot be sent as JSON: {error}") from error
    if len(data) > MAX_FRAME_BYTES:
        raise MalformedRecord(f"its frame has {len(data):,} bytes, and the server takes {MAX_FRAME_BYTES:,}")
    return data.decode()


def is_proved(frame: Frame) -> bool:
    """Whether the execution and the seal in a frame hash to what the frame says."""
    try:
        return leaf_hash(_record_in(frame)) == hash_bytes(frame["hash"])
    except (MalformedRecord, KeyError, TypeError):
        return False


def _record_in(frame: Frame) -> bytes:
    return canonical({"event": frame["execution"], "seal": frame["seal"]})
