"""
Who is silent (pure): recorders' words, the servers that run, and the time in, alarms out.

A recorder speaks at least once in each of its intervals. A server that runs, and of whose recorder nothing was heard
for more than three of them, is not known to be recorded, however that came to be: killed, switched off, cut off.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

INTERVALS = 3
DEFAULT_INTERVAL = timedelta(seconds=60)

State = Literal["speaks", "silent", "ended"]
Reason = Literal["never spoke", "fell silent", "stopped"]
REASONS: tuple[Reason, ...] = ("never spoke", "fell silent", "stopped")


@dataclass(frozen=True, slots=True)
class Word:
    """The latest that a recorder said; ``server`` is its server's label, ``interval`` as it says itself."""

    server: str | None
    at: datetime
    ended: bool
    interval: timedelta | None = None


@dataclass(frozen=True, slots=True)
class RunningServer:
    """
    A server that the Hub says runs: whose, its name ("" is the default one), and its label.

    ``started`` is when it began to start, ``ready`` since when it is known to be there.
    """

    user: str
    name: str
    label: str
    started: datetime
    ready: datetime


@dataclass(frozen=True, slots=True)
class Silence:
    """An alarm: a server that runs, and of whose recorder nothing was heard since ``since``."""

    user: str
    name: str
    reason: Reason
    since: datetime


@dataclass(frozen=True, slots=True)
class Watched:
    """What is known of servers: those that run (None: not known), and why it is not known, if somebody should know."""

    servers: Sequence[RunningServer] | None = None
    problem: str = ""


def state_of(word: Word, now: datetime) -> State:
    """What a recorder does, by its own interval."""
    if word.ended:
        return "ended"
    return "silent" if now - word.at > INTERVALS * (word.interval or DEFAULT_INTERVAL) else "speaks"


def silences(
    words: Iterable[Word], servers: Iterable[RunningServer], longest: timedelta, now: datetime
) -> list[Silence]:
    """
    Servers that run without a word of their recorder, those that are silent for longest first.

    ``longest`` is the interval the site has set: a recorder that says it speaks less often is not believed, and one
    that says nothing of it is held to that. A word of the future is no word.
    """
    latest: dict[str, Word] = {}
    for word in words:
        if word.server is None or word.at - now > INTERVALS * longest:
            continue
        before = latest.get(word.server)
        if before is None or before.at < word.at:
            latest[word.server] = word
    found = [_silence(latest.get(server.label), server, longest, now) for server in servers]
    return sorted((one for one in found if one is not None), key=lambda one: (one.since, one.user, one.name))


def _silence(word: Word | None, server: RunningServer, longest: timedelta, now: datetime) -> Silence | None:
    """
    A server that has just come up has as long to speak as a recorder that has spoken, and the end of a recorder is a
    word like any other: so that a server that stops is not taken for one that falls silent.
    """
    heard = server.ready if word is None else max(server.ready, word.at)
    interval = longest if word is None or word.interval is None else min(word.interval, longest)
    if now - heard <= INTERVALS * interval:
        return None
    if word is None or word.at < server.started:
        return Silence(server.user, server.name, "never spoke", server.started)
    return Silence(server.user, server.name, "stopped" if word.ended else "fell silent", word.at)
