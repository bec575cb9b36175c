"""What the pages say that the tables do not know, each asked while a page is made, and so answered at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .watching import Watching

# How many records the aggregate has not taken yet, where somebody knows.
Waiting = Callable[[], int | None]
# How far each partition was read in, how many dead letters are beyond out, where somebody knows.
Letters = Callable[[Mapping[str, int]], int | None]


@dataclass(frozen=True, slots=True)
class Outside:
    """Who knows it; by default nobody."""

    waiting: Waiting = lambda: None
    letters: Letters = lambda read: None
    watching: Watching = Watching()  # noqa: RUF009 - frozen
