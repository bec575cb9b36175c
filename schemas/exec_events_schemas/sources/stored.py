"""What every source gives: stored records in the order they were stored, the damage between them, and bodies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from threading import Event
from typing import Literal, NamedTuple, Protocol

from exec_events_schemas.errors import SourceError
from exec_events_schemas.topics import StoredContent

POLL_SECONDS = 0.2


class StoredRecord(NamedTuple):
    """
    One record as it was found.

    ``record`` is its bytes, ``hash`` the raw 32 bytes stored with it (None where none is),
    ``position`` its row or line in ``file``, counted from 1, or its offset where ``file`` is a topic's partition.
    """

    record: bytes
    hash: bytes | None
    file: str
    position: int


class Damage(NamedTuple):
    """A place in ``file``, at or after row, line or offset ``position``, that cannot be read; ``what`` says why."""

    file: str
    position: int
    what: str


OnDamage = Callable[[Damage], None]


def refuse_damage(damage: Damage) -> None:
    """The default answer to damage: raise SourceError."""
    raise SourceError(
        f"{damage.file}, at {damage.position}: {damage.what}. `exec-events verify` shows what else is wrong."
    )


class Last(NamedTuple):
    """The end of a source: at least its last so many ``records`` are asked for."""

    records: int


# Where reading begins: at the first record of a time, with what comes from now on, or somewhere before the end.
Start = datetime | Literal["now"] | Last


def never() -> bool:
    """The default answer to whether more is waited for."""
    return False


class Source(Protocol):
    """
    Where sealed records are read from; reading again starts at the beginning, or where the source was told to.

    ``is_ordered`` says whether records come in the order in which they were stored; where they do not, they do
    within each ``file``. ``total`` is how many records a reading will give, as far as that is known by then.
    """

    name: str
    is_ordered: bool
    total: int | None

    def __iter__(self) -> Iterator[StoredRecord]:
        """Every record; raises SourceError at the first damage."""
        ...

    def read(self, on_damage: OnDamage = refuse_damage, more: Callable[[], bool] = never) -> Iterator[StoredRecord]:
        """
        Every record, reading on after ``on_damage`` returns.

        Where records may arrive after others that name them, it waits a few seconds for as long as ``more``
        says so. Raises SourceError where nothing can be read at all.
        """
        ...

    def follow(self, stop: Event, poll_seconds: float = POLL_SECONDS) -> Iterator[StoredRecord | None]:
        """
        Every record, then those that come, until ``stop`` is set.

        Each time there is nothing new it gives None, then sleeps ``poll_seconds``: the first None ends
        what was there at the start. Raises SourceError at damage.
        """
        ...

    def contents(self, on_damage: OnDamage = refuse_damage) -> Iterator[StoredContent | None]:
        """
        Every body that was kept, then None; asked to go on, those that came since, then None, and so on.

        The last one given of a commitment counts. Raises SourceError where the source holds no bodies.
        """
        ...

    def running(self) -> set[str]:
        """The recorder_id of every recorder that is known to run."""
        ...
