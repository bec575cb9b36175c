"""
What waits to be written in, one transaction of sealed records out (pure).

Each event becomes the next record of its chain: canonical bytes, the hash of the record before, its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple

from exec_events_schemas.record import Head, seal_canonical

from .spool_file import Batch, SpoolFile


@dataclass(frozen=True, slots=True)
class Content:
    """One body the site chose to keep: kind is ``code`` or ``outputs``, body is its UTF-8."""

    commitment: str
    subject: str
    kind: str
    nonce: bytes
    body: bytes


class Sealed(NamedTuple):
    """A committed record: its row id, chain, bytes and raw leaf hash."""

    id: int
    chain: str
    record: bytes
    hash: bytes


@dataclass(slots=True)
class Begin:
    """An execution has begun; ``done`` is set once that is durable."""

    execution_id: str
    note: bytes
    done: Future[None] | None
    size: int


@dataclass(slots=True)
class Append:
    """An event, as canonical bytes, for the end of a chain; it may close an execution and bring bodies."""

    chain: str
    event: bytes
    closes: str | None
    contents: tuple[Content, ...]
    size: int


@dataclass(slots=True)
class Forget:
    """A begun execution never reached its kernel."""

    execution_id: str


@dataclass(slots=True)
class Acknowledge:
    """A sink has taken all records up to a row id."""

    sink: str
    position: int


@dataclass(slots=True)
class Call:
    """Run a function on the file; ``barrier`` says that everything before must be written."""

    function: Callable[[SpoolFile], Any]
    done: Future[Any]
    barrier: bool


Item = Begin | Append | Forget | Acknowledge | Call


def seal_items(
    items: Sequence[Item], heads: Mapping[str, Head], last_id: int, begun: AbstractSet[str]
) -> tuple[Batch, list[Sealed]]:
    """
    One transaction for ``items``.

    ``heads`` are the last records of the chains, ``last_id`` the last row, ``begun`` the executions that
    are noted on disk; none of them is changed.
    """
    batch = Batch()
    sealed: list[Sealed] = []
    next_id = last_id + 1
    for item in items:
        if type(item) is Append:
            record, head = seal_canonical(item.event, item.chain, batch.heads.get(item.chain) or heads.get(item.chain))
            batch.heads[item.chain] = head
            batch.records.append((next_id, record, head.hash))
            sealed.append(Sealed(next_id, item.chain, record, head.hash))
            next_id += 1
            if item.contents:
                batch.contents += [(c.commitment, c.subject, c.kind, c.nonce, c.body) for c in item.contents]
            if item.closes is not None:
                _close(batch, item.closes, begun)
        elif type(item) is Begin:
            batch.begun[item.execution_id] = item.note
        elif type(item) is Forget:
            _close(batch, item.execution_id, begun)
        elif type(item) is Acknowledge:
            batch.deliveries[item.sink] = item.position
    return batch, sealed


def _close(batch: Batch, execution_id: str, begun: AbstractSet[str]) -> None:
    """Take a note back; one that is not on disk yet never gets there."""
    if batch.begun.pop(execution_id, None) is None or execution_id in begun:
        batch.closed.append(execution_id)
