"""
The loop that every consumer is: poll, decode, chain, a step, commit last.

The step writes in the transaction that also moves the positions, so that a batch counts once or not at all,
whenever the process is killed. A step sees each record of the log once, however often it was delivered.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from .chaining import chained
from .decode import DeadLetter, Decoded, decode
from .errors import LostPartition, NotNow
from .feed import Batch, Feed
from .store import Store, Transaction

POLL_SECONDS = 0.5


class Step(Protocol):
    """
    What a consumer does with events: a function of a batch of new events and the transaction they count in.

    Whatever it writes through ``transaction.connection`` is kept or lost together with the positions. It must
    not commit, and must not keep anything between calls that a lost batch would make wrong. It may raise NotNow to
    be given the batch, or more, once more after a while.
    """

    def __call__(self, events: Sequence[Decoded], transaction: Transaction, /) -> None:
        """Take one batch."""


class DeadLetterOffice(Protocol):
    """Where dead letters go besides the store, before the batch they are of is committed."""

    def send(self, letters: Sequence[DeadLetter]) -> None:
        """Keep them; return once they are safe."""


KnownHashes = Callable[[Transaction, Collection[tuple[str, int]]], dict[tuple[str, int], bytes]]


@dataclass(slots=True)
class Progress:
    """How far a run of the loop has come; ``waiting`` is None where it is not known how many records are left."""

    records: int = 0
    events: int = 0
    dead: int = 0
    lost_batches: int = 0
    waiting: int | None = None


def run(
    feed: Feed,
    store: Store,
    step: Step,
    *,
    once: bool = False,
    stop: threading.Event | None = None,
    office: DeadLetterOffice | None = None,
    known_hashes: KnownHashes | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    poll_seconds: float = POLL_SECONDS,
) -> Progress:
    """
    Read ``feed`` until ``stop`` is set, or with ``once`` until all that was there has been taken.

    ``office`` gets dead letters instead of the store's table. ``known_hashes`` looks up records that were
    taken before, so that a fork is told from a copy wherever it stands. Raises SourceError and StoreError,
    and whatever the step raises: positions are then where they were before the batch.
    """
    stop = stop or threading.Event()
    progress = Progress()
    while not stop.is_set():
        if gained := feed.gained():
            feed.seek(store.claim(gained))
        batch = feed.poll(poll_seconds)
        if batch.next_positions:
            try:
                with _no_collecting():
                    _take(batch, store, step, office, known_hashes, progress)
            except LostPartition as lost:
                # Somebody else goes on with that one from where this process stood; the others it reads again.
                progress.lost_batches += 1
                feed.drop(lost.partition)
                feed.seek(store.positions(batch.next_positions.keys() - {lost.partition}))
                continue
            except NotNow as later:
                # Polled again meanwhile, so that a group does not take who waits for dead.
                feed.seek(store.positions(batch.next_positions))
                stop.wait(later.seconds)
                continue
            feed.committed(batch.next_positions)
        progress.waiting = batch.waiting
        on_progress(progress)
        if once and feed.caught_up():
            break
    return progress


@contextmanager
def _no_collecting() -> Iterator[None]:
    """Events are trees, of which nothing is left behind: the collector would walk over thousands for nothing."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _take(
    batch: Batch,
    store: Store,
    step: Step,
    office: DeadLetterOffice | None,
    known_hashes: KnownHashes | None,
    progress: Progress,
) -> None:
    decoded = [decode(fetched) for fetched in batch.records]
    events = [one for one in decoded if isinstance(one, Decoded)]
    letters = [one for one in decoded if isinstance(one, DeadLetter)]
    with store.transaction(batch.next_positions) as transaction:
        chains = transaction.chains({event.chain for event in events})
        old = [(e.chain, e.seq) for e in events if e.chain in chains and e.seq < chains[e.chain].head_seq]
        known = known_hashes(transaction, old) if known_hashes and old else {}
        new, odd = chained(events, chains, lambda chain, seq: known.get((chain, seq)))
        letters += odd
        if new:
            step(new, transaction)
        transaction.keep_chains(chains.values())
        if office is not None:
            if letters:
                office.send(letters)
        else:
            transaction.bury(letters)
    progress.records += len(batch.records)
    progress.events += len(new)
    progress.dead += len(letters)
