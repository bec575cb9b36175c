"""What every source gives: stored records in the order they were stored, and the damage between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Event
from typing import NamedTuple, Protocol

from exec_events_schemas.errors import SourceError

POLL_SECONDS = 0.2


class StoredRecord(NamedTuple):
    """
    One record as it was found.

    ``record`` is its bytes, ``hash`` the raw 32 bytes stored with it (None where none is),
    ``position`` its row or line in ``file``, counted from 1.
    """

    record: bytes
    hash: bytes | None
    file: str
    position: int


class Damage(NamedTuple):
    """A place in ``file``, at or after row or line ``position``, that cannot be read; ``what`` says why."""

    file: str
    position: int
    what: str


OnDamage = Callable[[Damage], None]


def refuse_damage(damage: Damage) -> None:
    """The default answer to damage: raise SourceError."""
    raise SourceError(
        f"{damage.file}, at {damage.position}: {damage.what}. `exec-events verify` shows what else is wrong."
    )


class Source(Protocol):
    """Where sealed records are read from; reading again starts at the beginning."""

    name: str

    def __iter__(self) -> Iterator[StoredRecord]:
        """Every record; raises SourceError at the first damage."""
        ...

    def read(self, on_damage: OnDamage = refuse_damage) -> Iterator[StoredRecord]:
        """
        Every record, reading on after ``on_damage`` returns.

        Raises SourceError where nothing can be read at all.
        """
        ...

    def follow(self, stop: Event, poll_seconds: float = POLL_SECONDS) -> Iterator[StoredRecord | None]:
        """
        Every record, then those that come, until ``stop`` is set.

        Each time there is nothing new it gives None, then sleeps ``poll_seconds``: the first None ends
        what was there at the start. Raises SourceError at damage.
        """
        ...
