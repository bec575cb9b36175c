"""What is asked of others, off every request's path: again and again on a thread, more seldom while it fails."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MOST_SECONDS = 60.0


def pause_after(is_well: bool, pause: float, usual: float) -> float:
    """How long to wait before the next time."""
    return usual if is_well else min(2 * pause, MOST_SECONDS)


@contextmanager
def repeated(look: Callable[[], bool], seconds: float) -> Iterator[None]:
    """Call ``look``, which says whether it went well and raises nothing, until the end of the block."""
    end = threading.Event()

    def run() -> None:
        pause = seconds
        while not end.is_set():
            pause = pause_after(look(), pause, seconds)
            end.wait(pause)

    threading.Thread(target=run, name=f"repeated-{look.__qualname__}", daemon=True).start()
    try:
        yield
    finally:
        # It is not waited for: it may wait for an answer itself, and has nothing to put away.
        end.set()
