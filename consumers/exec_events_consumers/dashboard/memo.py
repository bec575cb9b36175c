"""
What costs much to make in, the same for all who ask for it within seconds out.

What was made of tables that have not changed since is given as it is, for a minute. Of tables that have, what takes
less than a tenth of a second is made anew for who asks; what takes longer is given for ten seconds, and up to
a minute while it is made anew behind: nobody waits for it but who asks first. However many ask at once, one of them
makes it.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

CHEAP_SECONDS = 0.1
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
    cost: float = 0.0

    def is_good(self, change: object, now: float) -> bool:
        """Whether it can be given as it is."""
        return now - self.made_at <= (
            _AT_MOST_SECONDS if self.change == change else KEPT_SECONDS if self.cost >= CHEAP_SECONDS else -1
        )

    def is_good_meanwhile(self, now: float) -> bool:
        """Whether it can be given while it is made anew."""
        return self.cost >= CHEAP_SECONDS and now - self.made_at <= _AT_MOST_SECONDS


class Memo(Generic[T]):
    """``clock`` counts seconds; ``behind`` starts what nobody waits for."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        behind: Callable[[Callable[[], None]], None] = lambda work: threading.Thread(target=work, daemon=True).start(),
    ) -> None:
        self._clock = clock
        self._behind = behind
        self._kept: OrderedDict[Hashable, _Kept[T]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, change: object, make: Callable[[], T], make_behind: Callable[[], T]) -> T:
        """
        What ``make`` makes, or made before for this key; ``change`` is another value when tables have changed.

        ``make_behind`` makes the same, and may be called on another thread, after this has returned.
        """
        with self._lock:
            kept = self._kept.setdefault(key, _Kept())
            self._kept.move_to_end(key)
            while len(self._kept) > _MOST:
                self._kept.popitem(last=False)
        value, now = kept.value, self._clock()
        if value is not None:
            if kept.is_good(change, now):
                return value
            if kept.is_good_meanwhile(now):
                if kept.lock.acquire(blocking=False):
                    try:
                        self._behind(lambda: self._made_behind(kept, change, make_behind))
                    except RuntimeError:  # no thread can be started just now
                        kept.lock.release()
                return value
        with kept.lock:
            if kept.value is None or not kept.is_good(change, self._clock()):
                self._make(kept, change, make)
            made: T = kept.value  # type: ignore[assignment]
            return made

    def _made_behind(self, kept: _Kept[T], change: object, make: Callable[[], T]) -> None:
        try:
            # What is wrong with the tables, the next who has to wait for the page is told.
            with suppress(Exception):
                self._make(kept, change, make)
        finally:
            kept.lock.release()

    def _make(self, kept: _Kept[T], change: object, make: Callable[[], T]) -> None:
        began = self._clock()
        kept.value = make()
        kept.made_at = self._clock()
        kept.change, kept.cost = change, kept.made_at - began
