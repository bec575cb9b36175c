"""
A page that costs much in, the same page for all who ask for it within seconds out.

What was made of tables that have not changed since is given as it is; of tables that have, for ten seconds.
However many ask at once, one of them makes it.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

KEPT_SECONDS = 10.0
# A span such as the last two hours is another one later, though no table has changed.
_AT_MOST_SECONDS = 60.0
_MOST = 64


@dataclass
class _Kept(Generic[T]):
    lock: threading.Lock = field(default_factory=threading.Lock)
    value: T | None = None
    change: object = None
    made_at: float = float("-inf")


class Memo(Generic[T]):
    """``clock`` counts seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: OrderedDict[Hashable, _Kept[T]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, change: object, make: Callable[[], T]) -> T:
        """What ``make`` makes, or made before for this key; ``change`` is another value when tables have changed."""
        with self._lock:
            kept = self._kept.setdefault(key, _Kept())
            self._kept.move_to_end(key)
            while len(self._kept) > _MOST:
                self._kept.popitem(last=False)
        with kept.lock:
            age = self._clock() - kept.made_at
            limit = _AT_MOST_SECONDS if kept.change == change else KEPT_SECONDS
            if kept.value is None or age > limit:
                kept.value, kept.change, kept.made_at = make(), change, self._clock()
            return kept.value
