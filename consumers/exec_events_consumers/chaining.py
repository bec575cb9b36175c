"""
Decoded events in, those that are new in their chains out; copies are counted, forks and broken links set aside (pure).

A chain's state is what was seen of it: its head, and which seqs below that are still missing. Records may come in
any order and any number of times.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from exec_events_schemas.record import time_of

from .decode import DeadLetter, Decoded

# The hash of a record that was taken before, None where it is not known.
KnownHash = Callable[[str, int], bytes | None]


@dataclass(slots=True)
class Chain:
    """What was seen of one chain; ``gaps`` are the missing [first, last] below the head, in order."""

    chain: str
    head_seq: int = -1
    head_hash: bytes = b""
    records: int = 0
    gaps: list[list[int]] = field(default_factory=list)
    duplicates: int = 0
    forks: int = 0
    first_at: str = ""
    last_at: str = ""
    closed: bool = False

    @property
    def missing(self) -> int:
        """How many seqs below the head were not seen."""
        return sum(last - first + 1 for first, last in self.gaps)

    def is_missing(self, seq: int) -> bool:
        """Whether this seq is in a gap."""
        at = bisect_right(self.gaps, seq, key=lambda gap: gap[0]) - 1
        return at >= 0 and self.gaps[at][0] <= seq <= self.gaps[at][1]

    def take(self, event: Decoded) -> None:
        """Note a record that was not seen before."""
        if event.seq > self.head_seq:
            if event.seq > self.head_seq + 1:
                self.gaps.append([self.head_seq + 1, event.seq - 1])
            self.head_seq, self.head_hash = event.seq, event.hash
        else:
            self._fill(event.seq)
        self.records += 1
        at = time_of(event.event)
        self.first_at = min(self.first_at or at, at)
        self.last_at = max(self.last_at, at)
        if event.kind == "recorder" and event.event.get("action") == "stopped":
            self.closed = True

    def _fill(self, seq: int) -> None:
        at = bisect_right(self.gaps, seq, key=lambda gap: gap[0]) - 1
        first, last = self.gaps[at]
        self.gaps[at : at + 1] = [part for part in ([first, seq - 1], [seq + 1, last]) if part[0] <= part[1]]


def chained(
    events: Iterable[Decoded], chains: dict[str, Chain], known_hash: KnownHash
) -> tuple[list[Decoded], list[DeadLetter]]:
    """
    The events that are new, in the order they came, and those that do not fit their chain.

    ``chains`` holds the state of every chain that ``events`` are of, or gets a new one; it is changed.
    ``known_hash`` is asked for records that were taken in earlier batches.
    """
    new: list[Decoded] = []
    odd: list[DeadLetter] = []
    taken: dict[tuple[str, int], bytes] = {}
    for event in events:
        chain = chains.get(event.chain)
        if chain is None:
            chain = chains[event.chain] = Chain(event.chain)
        if event.seq <= chain.head_seq and not chain.is_missing(event.seq):
            known = taken.get((event.chain, event.seq))
            if known is None:
                known = chain.head_hash if event.seq == chain.head_seq else known_hash(event.chain, event.seq)
            if known is None or known == event.hash:
                chain.duplicates += 1
            else:
                chain.forks += 1
                odd.append(_odd(event, "there is another record of this chain and seq: a fork"))
            continue
        if event.seq == chain.head_seq + 1 and chain.records and event.prev != chain.head_hash:
            # The record before it is not the one that it was sealed after: one of the two was changed.
            chain.forks += 1
            odd.append(_odd(event, "it was not sealed after the record that stands before it: a fork, or a change"))
            continue
        chain.take(event)
        taken[event.chain, event.seq] = event.hash
        new.append(event)
    return new, odd


def place(event: Decoded) -> str:
    """What the reason of a dead letter begins with that its chain, and nothing else, set aside."""
    return f"{event.chain} seq {event.seq}: "


def _odd(event: Decoded, reason: str) -> DeadLetter:
    return DeadLetter(event.partition, event.position, event.record, f"{place(event)}{reason}", event.hash)
