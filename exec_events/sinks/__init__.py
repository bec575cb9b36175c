"""
Where the spool is delivered to: the interface of a sink, and how a URL finds one.

A sink is a class registered under the entry point group ``exec_events.sinks`` by the scheme of its URL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from logging import Logger
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

from exec_events.errors import ConfigurationError

GROUP = "exec_events.sinks"


@dataclass(frozen=True, slots=True)
class Delivery:
    """One sealed record on its way: its bytes, its raw 32-byte leaf hash, and its place in its spool file."""

    id: int
    record: bytes
    hash: bytes


class Sink(Protocol):
    """
    Takes batches of records, in order, on a thread of its own; it may block there.

    A batch is delivered when `deliver` returns: everything in it must be as safe as the sink promises.
    When it raises (SinkError, OSError, anything), the same batch comes again after a pause, so a sink
    may see a record twice: (chain, seq, hash) says which it is.
    """

    def deliver(self, batch: Sequence[Delivery]) -> None:
        """Take one batch."""

    def close(self, timeout: float) -> None:
        """Let go of what it holds, within ``timeout`` seconds."""


def open_sink(url: str, log: Logger) -> Sink:
    """
    The sink for ``url``, made by calling the class its scheme names as ``Class(url, log)``.

    Raises ConfigurationError for a scheme nobody registered; whatever the class raises, too.
    """
    scheme = urlsplit(url).scheme
    found = {point.name: point for point in entry_points(group=GROUP)}
    if scheme not in found:
        known = ", ".join(sorted(found)) or "none"
        raise ConfigurationError(
            f"no sink for {name_of(url)!r}: no installed package registers {scheme!r} under {GROUP} (known: {known})"
        )
    sink: Sink = found[scheme].load()(url, log)
    return sink


def name_of(url: str) -> str:
    """The URL without user, password and query: what may stand in logs, metrics and the spool."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    # A Kafka URL may list brokers: keep everything behind the last @.
    where = parts.netloc.rpartition("@")[2] or host
    return urlunsplit((parts.scheme, where, parts.path, "", ""))
