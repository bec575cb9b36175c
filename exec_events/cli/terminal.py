"""What a person sees: tables as wide as they need to be, and progress where it takes long."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

T = TypeVar("T")

# Wide enough for any identifier: text in a pipe or a file is never cut.
PIPE_WIDTH = 10_000
_LOOK_EVERY = 4096
_PSEUDONYM = re.compile(r"p:[0-9a-f]{8}:([0-9a-f]{8})[0-9a-f]{24}")


def console() -> Console:
    """A console on standard output: the terminal's width, or unbounded and plain where it is none."""
    plain = not sys.stdout.isatty()
    return Console(width=PIPE_WIDTH if plain else None, no_color=plain, highlight=False, soft_wrap=False)


def with_progress(
    items: Iterable[T], what: str, total: Callable[[], int | None] = lambda: None, after_seconds: float = 2.0
) -> Iterator[T]:
    """
    The items; once it has taken ``after_seconds``, their count is shown on standard error if that is a terminal.

    ``total`` says how many there will be, once that is known.
    """
    if not sys.stderr.isatty():
        yield from items
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True)
    task = progress.add_task(what)
    began = time.monotonic()
    try:
        for count, item in enumerate(items):
            if count % _LOOK_EVERY == 0:
                seconds = time.monotonic() - began
                if seconds >= after_seconds:
                    progress.start()  # again and again, which does nothing
                    progress.update(task, description=f"{what}: {_progress(count, total(), seconds)}")
            yield item
    finally:
        progress.stop()


def _progress(count: int, total: int | None, seconds: float) -> str:
    done = f"{count:,}" if total is None else f"{count:,} of {max(count, total):,}"
    return f"{done} records, {count / max(seconds, 1e-9):,.0f}/s"


def abbreviated(name: str) -> str:
    """A pseudonym (p:<key id>:<32 hex>) cut to what tells it from others on a screen; anything else as it is."""
    match = _PSEUDONYM.fullmatch(name)
    return f"p:{match[1]}…" if match else name


def duration(microseconds: float) -> str:
    """A duration for a person: 840 µs, 12 ms, 3.4 s, 5 min 06 s, 2 h 05 min."""
    seconds = microseconds / 1e6
    if microseconds < 1000:
        return f"{microseconds:.0f} µs"
    if seconds < 1:
        return f"{microseconds / 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def size(count: int) -> str:
    """A size for a person: 512 B, 1.5 kB, 20.3 MB."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"
