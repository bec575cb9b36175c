"""Runs: the records of one chain by their hashes, as unbroken runs of seq."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from .record import Head, Seal

HASH_BYTES = 32


class Place(NamedTuple):
    """Where something shows: the record's number in the whole stream, and its row or line in its file."""

    number: int
    file: str
    position: int


@dataclass(slots=True)
class Run:
    """Records without a gap: the first is ``start``, was sealed after ``prev``, and was found at ``place``."""

    start: int
    prev: bytes | None
    hashes: bytearray = field(repr=False)
    place: Place

    @property
    def end(self) -> int:
        """The seq after its last."""
        return self.start + len(self.hashes) // HASH_BYTES

    @property
    def last(self) -> Head:
        """Its last record."""
        return Head(self.end - 1, bytes(self.hashes[-HASH_BYTES:]))


class Runs:
    """One chain: its runs in order of seq, and what its next record has to end in."""

    __slots__ = ("_last", "_late", "_runs", "chain", "is_recorder", "next_ending", "next_seq", "recorder")

    def __init__(self, seal: Seal, digest: bytes, place: Place) -> None:
        self.chain = seal.chain
        self.recorder = seal.chain.partition("/")[0]
        self.is_recorder = self.recorder == self.chain
        self._last = Run(seal.seq, seal.prev, bytearray(), place)
        self._runs = [self._last]
        self._late: int | None = None
        self.next_seq = seal.seq
        self.next_ending = b""
        self.append(digest)

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    @property
    def first_place(self) -> Place:
        """Where its first record was found."""
        return self._runs[0].place

    @property
    def first_seq(self) -> int:
        """The seq of its first record that is here."""
        return self._runs[0].start

    def append(self, digest: bytes) -> None:
        """Add the record after the last one."""
        self._last.hashes += digest
        self.next_seq += 1
        self.next_ending = f'","prev":"sha256:{digest.hex()}","seq":{self.next_seq}}}}}'.encode()

    def is_late(self, seq: int, file: str) -> bool:
        """
        Whether a record comes after later ones, other than as the next of those that do already.

        Between files there is no order: a topic that was given more partitions has chains in two of them.
        """
        return seq < self.next_seq and self._late != seq - 1 and self._last.place.file == file

    def insert(self, seal: Seal, digest: bytes, place: Place) -> None:
        """Add a record whose seq is not there yet, wherever it belongs."""
        if seal.seq < self.next_seq:
            self._late = seal.seq
            before = self._before(seal.seq)
            if before is not None and before.end == seal.seq and before.last.hash == seal.prev:
                before.hashes += digest
            else:
                insort(self._runs, Run(seal.seq, seal.prev, bytearray(digest), place), key=_start)
            return
        # Also where it does follow, by seq, but names another record before it: the joint is checked later.
        self._last = Run(seal.seq, seal.prev, bytearray(), place)
        self._runs.append(self._last)
        self.next_seq = seal.seq
        self.append(digest)

    def hash_at(self, seq: int) -> bytes | None:
        """The hash of the record with this seq, None where there is none."""
        run = self._last if seq >= self._last.start else self._before(seq)
        if run is None or not run.start <= seq < run.end:
            return None
        offset = (seq - run.start) * HASH_BYTES
        return bytes(run.hashes[offset : offset + HASH_BYTES])

    def _before(self, seq: int) -> Run | None:
        """The last run that starts at or before this seq."""
        at = bisect_right(self._runs, seq, key=_start)
        return self._runs[at - 1] if at else None


def _start(run: Run) -> int:
    return run.start
