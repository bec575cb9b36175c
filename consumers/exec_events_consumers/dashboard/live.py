"""
Changes of the tables in, the new figures out to all who look: one poller, however many they are.

It asks for the aggregate's positions, which every batch moves, and only then for figures, once for each span
that somebody looks at.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

from sqlalchemy.exc import SQLAlchemyError

LOOK_SECONDS = 0.25
# Ages, and figures of the last minutes, change while nothing happens.
ANEW_SECONDS = 5.0
MOST_VIEWERS = 200


class Live:
    """``change`` is another value after every batch; ``figures`` makes the message for one span's viewers."""

    def __init__(self, change: Callable[[], object], figures: Callable[[str], str]) -> None:
        self._change = change
        self._figures = figures
        self._viewers: dict[str, set[asyncio.Queue[str]]] = {}
        self._poller: asyncio.Task[None] | None = None

    @property
    def is_full(self) -> bool:
        """Whether nobody more can look on."""
        return sum(map(len, self._viewers.values())) >= MOST_VIEWERS

    async def messages(self, since: str) -> AsyncIterator[str]:
        """The figures of the span that begins at ``since``, and anew whenever they change."""
        # Who is slow misses figures that are no longer true, and no others.
        queue: asyncio.Queue[str] = asyncio.Queue(maxsize=1)
        self._viewers.setdefault(since, set()).add(queue)
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll())
        try:
            yield await asyncio.to_thread(self._figures, since)
            while True:
                yield await queue.get()
        finally:
            self._viewers[since].discard(queue)
            if not self._viewers[since]:
                del self._viewers[since]

    async def _poll(self) -> None:
        last: object = None
        made_at = time.monotonic()
        cost = 0.0
        while self._viewers:
            try:
                change = await asyncio.to_thread(self._change)
                began = time.monotonic()
                if change != last or time.monotonic() - made_at > ANEW_SECONDS:
                    for since in list(self._viewers):
                        self._hand_out(since, await asyncio.to_thread(self._figures, since))
                    last, made_at = change, time.monotonic()
                    cost = made_at - began
            except SQLAlchemyError:
                last = None  # busy, or gone for a while: the next look will tell
            # Figures of a long span cost more: then they come less often.
            await asyncio.sleep(max(LOOK_SECONDS, 2 * cost))
            cost = 0.0

    def _hand_out(self, since: str, figures: str) -> None:
        for queue in self._viewers.get(since, ()):
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(figures)
