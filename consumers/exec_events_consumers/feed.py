"""
What a consumer reads: records as they lie in the partitions of a source, each with the position behind it.

A partition is one of a topic's, one spool file, or one file of JSON lines. Positions are the reader's own: they
are kept in its store, with what was made of the records before them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol


class Fetched(NamedTuple):
    """
    One record as it was found.

    ``value`` is its bytes (None for a Kafka message without any), ``hash`` the raw 32 bytes stored with it or
    None, ``position`` its offset or row in ``partition``. Reading goes on at a position after it.
    """

    partition: str
    position: int
    value: bytes | None
    hash: bytes | None


class Batch(NamedTuple):
    """
    What one poll gave.

    ``next_positions`` says for each partition that was read where to go on. ``waiting`` is how many records
    are known to be left, None where that is not known.
    """

    records: Sequence[Fetched]
    next_positions: Mapping[str, int]
    waiting: int | None


class Feed(Protocol):
    """
    Gives batches, of the partitions that are this consumer's at the moment.

    The loop asks `gained` before every poll, looks up where to go on, and calls `seek`; nothing of a partition
    is given before that. Everything raises SourceError when the source cannot be read.
    """

    name: str

    def gained(self) -> Sequence[str]:
        """Partitions that are this consumer's since the last call; one that was lost and came back is among them."""

    def seek(self, positions: Mapping[str, int]) -> None:
        """Go on at these positions; 0 is the beginning."""

    def drop(self, partition: str) -> None:
        """
        Another process of the same name has taken a partition over: give nothing of it until it is gained again.

        Raises ConsumerError where no group would ever give it back.
        """

    def poll(self, seconds: float) -> Batch:
        """At most a batch, waiting at most ``seconds`` for the first record."""

    def caught_up(self) -> bool:
        """Whether everything that was there when it was opened has been given."""

    def committed(self, positions: Mapping[str, int]) -> None:
        """The consumer has stored what it made of everything before these positions; must not block for long."""

    def close(self) -> None:
        """Let go of the source, and of its partitions."""
