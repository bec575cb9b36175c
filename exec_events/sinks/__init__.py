"""
Where the spool is delivered to: the interface of a sink, and how a URL finds one.

A sink is a class registered under the entry point group ``exec_events.sinks`` by the scheme of its URL.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from logging import Logger
from typing import Any, Protocol

from exec_events.errors import ConfigurationError
from exec_events_schemas.topics import StoredContent

GROUP = "exec_events.sinks"

# What stands behind a colon is no port, but the first part of a password with a ? or # in it.
_NO_PORT = re.compile(r"[^/\[]*:(?!\d+(?:[,/]|\Z))")


@dataclass(frozen=True, slots=True)
class Delivery:
    """
    One sealed record on its way: its bytes, its raw 32-byte leaf hash, and its place in its spool file.

    ``contents`` are the bodies that the site keeps for it, for a sink that takes them; else empty.
    """

    id: int
    record: bytes
    hash: bytes
    contents: tuple[StoredContent, ...] = ()


class Sink(Protocol):
    """
    Takes batches of records, in order, on a thread of its own; it may block there.

    A batch is delivered when `deliver` returns: everything in it must be as safe as the sink promises.
    When it raises (SinkError, OSError, anything), the same batch comes again after a pause, so a sink
    may see a record twice: (chain, seq, hash) says which it is.

    A sink may have more: ``takes_contents = True`` asks for the bodies beside each record, ``refused`` counts
    what it cannot take whatever comes, and ``interrupt()``, called from another thread when a stop's time is
    up, makes a `deliver` that waits raise.
    """

    def deliver(self, batch: Sequence[Delivery]) -> None:
        """Take one batch."""

    def close(self, timeout: float) -> None:
        """Let go of what it holds, within ``timeout`` seconds."""


def open_sink(url: str, log: Logger, **settings: Any) -> Sink:
    """
    The sink for ``url``, made by calling the class its scheme names as ``Class(url, log, **settings)``.

    Raises ConfigurationError for a scheme nobody registered, or whose packages are missing; whatever the class
    raises, too.
    """
    scheme = url.partition(":")[0].lower()
    found = {point.name: point for point in entry_points(group=GROUP)}
    if scheme not in found:
        known = ", ".join(sorted(found)) or "none"
        raise ConfigurationError(
            f"no sink for {name_of(url)!r}: no installed package registers {scheme!r} under {GROUP} (known: {known})"
        )
    try:
        made = found[scheme].load()
    except ImportError as error:
        needed = f"pip install 'exec-events[{scheme}]'"
        raise ConfigurationError(f"the sink {name_of(url)!r} cannot be loaded ({error}): {needed}") from error
    sink: Sink = made(url, log, **settings)
    return sink


def name_of(url: str) -> str:
    """The URL without user, password and query: what may stand in logs, metrics and the spool."""
    before, separator, after = url.partition("://")
    scheme, rest = (before, after) if separator else ("", url)
    if not rest.startswith("/"):
        # All behind the last @ is kept: a Kafka URL lists brokers, and a password may hold an @ or a /.
        head = _before_query(rest)
        if "@" not in head and _NO_PORT.match(head):
            head = rest
        rest = rest[head.rfind("@") + 1 :]
    return f"{scheme}{separator}{_before_query(rest)}"


def _before_query(url: str) -> str:
    return re.split(r"[?#]", url, maxsplit=1)[0]
