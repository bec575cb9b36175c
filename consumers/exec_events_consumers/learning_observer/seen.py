"""
Places in chains in, whether they are new, and how many are missing, out (pure): with a bounded memory, as JSON.

Of each chain its head and the gaps below it are kept. A student gets one more chain with each start of a server, so
those heard of longest ago are forgotten; what they missed stays counted.
"""

from __future__ import annotations

from typing import Any, NamedTuple

CHAINS = 64
# More than so many records as recent.py can put in order leave, in whatever order they come. What was in a gap that is
# forgotten stays missing: when it comes, it is taken for a copy rather than, perhaps, counted twice.
GAPS = 64

Chains = dict[str, Any]


class Seen(NamedTuple):
    """What was seen after one more place; ``missing`` is by how many fewer or more are missing now."""

    chains: Chains
    is_new: bool
    missing: int = 0
    forgotten: int = 0


def see(chains: Chains, chain: str, seq: int, heard: int, *, is_complete: bool) -> Seen:
    """
    Take one more place; ``heard`` grows with each call.

    ``is_complete`` says that no chain was forgotten so far, so that what is before the first place heard of an
    unknown chain is missing.
    """
    known = chains.get(chain)
    head, gaps = (known["head"], known["gaps"]) if known else (-1 if is_complete else seq - 1, [])
    missing = 0
    if seq > head:
        if seq > head + 1:
            gaps = [*gaps, [head + 1, seq - 1]][-GAPS:]
            missing = seq - head - 1
        head, is_new = seq, True
    else:
        at = next((n for n, (first, last) in enumerate(gaps) if first <= seq <= last), None)
        is_new = at is not None
        if at is not None:
            first, last = gaps[at]
            parts = [part for part in ([first, seq - 1], [seq + 1, last]) if part[0] <= part[1]]
            gaps = [*gaps[:at], *parts, *gaps[at + 1 :]][-GAPS:]
            missing = -1
    chains = {**chains, chain: {"head": head, "gaps": gaps, "heard": heard}}
    if len(chains) <= CHAINS:
        return Seen(chains, is_new, missing)
    oldest = min(chains, key=lambda name: chains[name]["heard"])
    return Seen({name: kept for name, kept in chains.items() if name != oldest}, is_new, missing, forgotten=1)
