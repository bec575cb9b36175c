"""Claims: what recorders say of records in other chains, kept until the records themselves are here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from .errors import MalformedRecord
from .record import Head, hash_bytes
from .runs import Place

# Where a recorder's records are read long before those they name, so many claims wait before the first look.
SWEEP_AT = 100_000


class Claim(NamedTuple):
    """What the record (recorder, seq) says: ``chain`` reached ``head``. ``word`` is the member that says it."""

    chain: str
    head: Head
    word: str
    recorder: str
    seq: int
    place: Place

    def __str__(self) -> str:
        return f"the {self.word} in chain {self.recorder} seq {self.seq}"


class Claims:
    """
    Claims that wait for their record: each thing that is claimed once, however often it was.

    ``settle`` says whether a claim needs to wait no longer; it is asked again when many have come together.
    """

    def __init__(self, settle: Callable[[Claim], bool]) -> None:
        self._settle = settle
        self._waiting: dict[tuple[str, Head, bool], Claim] = {}
        self._sweep_at = SWEEP_AT

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Claim]:
        """Those that wait, the ones that reach furthest first."""
        return iter(sorted(self._waiting.values(), key=lambda claim: -claim.head.seq))

    def add(self, claim: Claim) -> None:
        """Settle a claim, or keep it."""
        if self._settle(claim):
            return
        # A link between recorders is another finding than a head, also where both name one record.
        self._waiting.setdefault((claim.chain, claim.head, claim.word == "previous"), claim)
        if len(self._waiting) >= self._sweep_at:
            self.sweep()
            self._sweep_at = max(SWEEP_AT, 2 * len(self._waiting))

    def sweep(self) -> None:
        """Let go of those whose records have come meanwhile."""
        self._waiting = {key: claim for key, claim in self._waiting.items() if not self._settle(claim)}


def heads_in(value: Any) -> list[tuple[str, Head]]:
    """The (chain, head) pairs of a list in a recorder's event; raises MalformedRecord."""
    try:
        heads = [(item["chain"], Head(item["seq"], hash_bytes(item["hash"]))) for item in value]
    except (TypeError, KeyError) as error:
        raise MalformedRecord(f"not a list of chain, seq and hash: {error}") from error
    if not all(isinstance(name, str) and type(head.seq) is int and head.seq >= 0 for name, head in heads):
        raise MalformedRecord("not a list of chain, seq and hash")
    return heads
