"""
The forwarder's step: new events in, processed by a Learning Observer server before the transaction ends.

Nothing is lost without a word: an event of a person is sent, held or a dead letter, and the store says how many were
what. Held ones are sent, in their order, in a transaction of their own as soon as they can be.
"""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from exec_events_schemas.errors import MalformedRecord

from ..decode import DeadLetter, Decoded, decode
from ..errors import ConsumerError, LostPartition, NotNow
from ..feed import Fetched
from ..loop import DeadLetterOffice, Progress
from ..store import Store, Transaction
from . import holding
from .frames import frame_of, subject_of, text_of
from .holding import UNKNOWN, Waiting
from .identities import People
from .sending import Delivered, Sender
from .student_socket import Away, Blocked, Outgoing, Unusable

NAME = "forward"
BACK_OFF_SECONDS = (0.5, 30.0)
RELEASE_SECONDS = 1.0
RELEASE_RECORDS = 2000
# Whom the server does not let in may have a new secret by then; whom it wants dropped may be welcome.
REFUSED_SECONDS = 60.0
DROP_SECONDS = 3600.0
# Of time limits that are words; one without an end is asked about again, too.
LIMITS = {"MINUTES": 300.0, "DAYS": 86_400.0, "PERMANENT": 86_400.0}
# A server that lets nobody in, asked so often, has never let anybody in: that is for a person to mend.
UNUSABLE_TIMES = 3


class Counts(NamedTuple):
    """
    What became of events, each of which is sent, held, dead or of nobody; and of those that had been held before.

    Of these, ``released`` were sent, and ``released_dead`` are dead letters.
    """

    events: int = 0
    sent: int = 0
    held: int = 0
    dead: int = 0
    of_nobody: int = 0
    released: int = 0
    released_dead: int = 0


class _Sent(NamedTuple):
    """What became of events that should be sent: how many were, how many are dead letters, and which are left."""

    sent: int
    dead: int
    left: Mapping[str, Sequence[Decoded]]


class Forward:
    """
    The step, and `between`, which the loop calls between batches.

    ``office`` gets dead letters instead of the store's table; ``mine`` says which partitions are this process's
    where a group shares them out, and is None where one process reads all. ``say`` is told what a person should know.
    """

    def __init__(
        self,
        store: Store,
        sender: Sender,
        people: People,
        stop: threading.Event,
        *,
        office: DeadLetterOffice | None = None,
        mine: Callable[[], set[str]] | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._store = store
        self._sender = sender
        self._people = people
        self._stop = stop
        self._office = office
        self._mine = mine
        self._say = say
        self._dropped: dict[str, float] = {}
        self._tries = 0
        self._release_at = 0.0
        self._unusable = 0

    def __call__(self, events: Sequence[Decoded], transaction: Transaction, /) -> None:
        """Send a batch; raises NotNow while the server is away."""
        of_subject: dict[str, list[Decoded]] = defaultdict(list)
        of_nobody = 0
        for event in events:
            subject = subject_of(event)
            if subject is None:
                of_nobody += 1
            else:
                of_subject[subject].append(event)
        known = self._people.known(of_subject.keys(), transaction)
        waits = holding.waiting_of(transaction, of_subject)
        new = []
        held = 0
        for subject in of_subject.keys() - (known.keys() - waits.keys()):
            own = of_subject.pop(subject)
            holding.hold(transaction, own, subject)
            held += len(own)
            if subject not in waits:
                new.append(Waiting(subject, UNKNOWN, "", _text(_now())))
                self._say(f"{subject}: {UNKNOWN}; their events are held")
        holding.wait(transaction, new)
        done = self._send(of_subject, known, transaction)
        for subject, rest in done.left.items():
            holding.hold(transaction, rest, subject)
            held += len(rest)
        self._count(transaction, events=len(events), of_nobody=of_nobody, sent=done.sent, dead=done.dead, held=held)

    def between(self, progress: Progress | None = None) -> None:
        """Send what was held and can be sent now; let go of connections that are another process's business."""
        self._sender.keep(None if self._mine is None else self._mine())
        if time.monotonic() >= self._release_at:
            self._release_at = time.monotonic() + RELEASE_SECONDS
            try:
                self._release()
            except NotNow as later:
                self._release_at = time.monotonic() + later.seconds

    def finish(self) -> None:
        """Send all that was held and can be sent, however long the server is away; until it is told to stop."""
        while not self._stop.is_set():
            try:
                if not self._release():
                    return
            except NotNow as later:
                self._stop.wait(later.seconds)

    def counts(self) -> Counts:
        """What this run did."""
        with self._store.transaction({}) as transaction:
            row = transaction.rows(holding.runs, [(self._store.owner,)]).get((self._store.owner,))
        return Counts() if row is None else Counts(**{name: row[name] for name in Counts._fields})

    def _release(self) -> int:
        """One round over all who wait; how many of their records wait no more."""
        with self._store.transaction({}) as transaction:
            waits = holding.all_waiting(transaction.connection)
            known = self._people.known([one.subject for one in waits], transaction)
            now = _text(_now())
            ready = [one.subject for one in waits if one.subject in known and one.until <= now]
            where = {subject: holding.partitions_of(transaction.connection, subject) for subject in ready}
        released = 0
        for subject in ready:
            if self._stop.is_set():
                break
            missing = where[subject] - self._store.claimed()
            if missing and self._mine is not None:
                continue  # another process's
            if missing:
                self._store.claim(missing)
            try:
                with self._store.transaction(self._store.positions(where[subject])) as transaction:
                    released += self._release_one(subject, transaction)
            except LostPartition:
                continue
        return released

    def _release_one(self, subject: str, transaction: Transaction) -> int:
        known = self._people.known([subject], transaction)
        rows = holding.held_of(transaction, subject, RELEASE_RECORDS) if known else []
        if not rows:
            return 0
        decoded = [decode(Fetched(row.partition, row.position, row.record, None)) for row in rows]
        events = [one for one in decoded if isinstance(one, Decoded)]
        letters = [one for one in decoded if isinstance(one, DeadLetter)]
        self._bury(letters, transaction)
        done = self._send({subject: events}, known, transaction)
        stay = {(event.partition, event.position) for event in done.left.get(subject, ())}
        gone = [row.id for row in rows if (row.partition, row.position) not in stay]
        holding.let_go(transaction, subject, gone)
        self._count(transaction, released=done.sent, released_dead=done.dead + len(letters))
        return len(gone)

    def _send(self, work: Mapping[str, Sequence[Decoded]], known: Mapping[str, str], transaction: Transaction) -> _Sent:
        """Send events of known people; some are dead letters, and some are left, whose people wait from now on."""
        outgoing, letters = {}, []
        for subject, events in work.items():
            if self._dropped.get(subject, 0.0) > time.monotonic():
                letters += [_letter(event, "the server wants nothing of this person (DROP)") for event in events]
                continue
            frames, bad = _frames(events)
            letters += bad
            if frames:
                outgoing[subject] = frames
        delivered = self._deliver({known[subject]: frames for subject, frames in outgoing.items()})
        sent = 0
        left: dict[str, list[Decoded]] = {}
        for subject in outgoing:
            done = delivered[known[subject]]
            sent += done.sent
            if done.dead is not None:
                frame, reason = done.dead
                letters += [_letter(event, reason) for event in _events_of([frame], work[subject])]
            rest = _events_of(done.rest, work[subject])
            if isinstance(done.refused, Blocked) and done.refused.action == "DROP":
                self._dropped[subject] = time.monotonic() + DROP_SECONDS
                self._say(f"{subject}: {done.refused}; their events go to the dead letters")
                letters += [_letter(event, str(done.refused)) for event in rest]
            elif rest:
                left[subject] = rest
        waits = holding.waiting_of(transaction, left)
        holding.wait(transaction, [self._waiting(subject, delivered[known[subject]], waits) for subject in left])
        self._bury(letters, transaction)
        return _Sent(sent, len(letters), left)

    def _waiting(self, subject: str, done: Delivered, waits: Mapping[str, Waiting]) -> Waiting:
        now = _now()
        since = waits[subject].since if subject in waits else _text(now)
        if done.refused is None:
            return Waiting(subject, "they come after one that the server does not survive", "", since)
        seconds = REFUSED_SECONDS
        if isinstance(done.refused, Blocked):
            seconds = limit_seconds(done.refused.time_limit)
        self._say(f"{subject}: {done.refused}; their events are held")
        return Waiting(subject, str(done.refused), _text(now + timedelta(seconds=seconds)), since)

    def _deliver(self, work: Mapping[str, Sequence[Outgoing]]) -> dict[str, Delivered]:
        if not work:
            return {}
        try:
            delivered = self._sender.deliver(work, self._stop)
        except Unusable as error:
            self._unusable += 1
            if not self._sender.has_let_in and self._unusable >= UNUSABLE_TIMES:
                raise ConsumerError(f"the server cannot be used: {error}") from error
            raise self._later(error) from error
        except Away as error:
            raise self._later(error) from error
        self._tries = 0
        return delivered

    def _later(self, error: Exception) -> NotNow:
        """Twice as long each time, up to a bound; not quite, so that many do not come back at once."""
        least, most = BACK_OFF_SECONDS
        seconds = min(most, least * 2 ** min(self._tries, 16)) * random.uniform(0.5, 1.5)
        self._tries += 1
        if not self._stop.is_set():
            self._say(f"the server is away ({error}); again in {seconds:.1f} s")
        return NotNow(str(error), seconds)

    def _bury(self, letters: Sequence[DeadLetter], transaction: Transaction) -> None:
        if not letters:
            return
        if self._office is not None:
            self._office.send(letters)
        else:
            transaction.bury(letters)

    def _count(self, transaction: Transaction, **counts: int) -> None:
        row = {"run": self._store.owner, "began_at": _text(_now()), **dict.fromkeys(Counts._fields, 0), **counts}
        transaction.upsert(holding.runs, [row], dict.fromkeys(Counts._fields, "add"))


def open_store(url: str) -> Store:
    """The store at ``url``, with the tables a forwarder needs; raises StoreError."""
    store = Store(url, NAME)
    holding.metadata.create_all(store.engine)
    return store


def _frames(events: Iterable[Decoded]) -> tuple[list[Outgoing], list[DeadLetter]]:
    frames, letters = [], []
    for event in events:
        try:
            text = text_of(frame_of(event))
        except MalformedRecord as error:
            letters.append(_letter(event, str(error)))
        else:
            frames.append(Outgoing(event.partition, event.position, text, event.chain, event.seq))
    return frames, letters


def _events_of(frames: Sequence[Outgoing], events: Sequence[Decoded]) -> list[Decoded]:
    places = {(frame.partition, frame.position) for frame in frames}
    return [event for event in events if (event.partition, event.position) in places]


def _letter(event: Decoded, reason: str) -> DeadLetter:
    return DeadLetter(event.partition, event.position, event.record, reason, event.hash)


def limit_seconds(limit: Any) -> float:
    """A blocklist's time limit, a word or milliseconds, in seconds; a day at most, after which it is asked again."""
    if isinstance(limit, int | float) and not isinstance(limit, bool):
        return min(max(limit / 1000, 1.0), LIMITS["DAYS"])
    return LIMITS.get(str(limit), LIMITS["MINUTES"])


def _now() -> datetime:
    return datetime.now(UTC)


def _text(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%S.%f}Z"
