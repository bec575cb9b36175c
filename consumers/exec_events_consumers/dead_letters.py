"""
Dead letters in, kept on a topic or in a store, out again: to be looked at, and to be taken once they can be used.

A consumer of Kafka sends them to ``<prefix>.dead-letters``, and has them acknowledged before its batch counts: one
that is killed in between sends them again, under the same key. All others keep them in the store's own table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Engine, delete, inspect, select, update

from exec_events_schemas.errors import MalformedRecord
from exec_events_schemas.record import hash_bytes
from exec_events_schemas.topics import (
    HEADER_CONSUMER,
    HEADER_FOUND_AT,
    HEADER_HASH,
    HEADER_REASON,
    HEADER_REFUSED,
    HEADER_SOURCE_OFFSET,
    HEADER_SOURCE_PARTITION,
    HEADER_SOURCE_TOPIC,
)

from . import tables
from .chaining import chained, place
from .decode import DeadLetter, Decoded, decode
from .errors import ConsumerError
from .feed import Fetched
from .loop import KnownHashes, Step
from .store import Store, Transaction

AT_ONCE = 1000


class Kept(NamedTuple):
    """A dead letter where it is kept: under which number, and which consumer found it when ("" is a sink)."""

    number: str
    consumer: str
    found_at: str
    letter: DeadLetter


@dataclass(slots=True)
class Replayed:
    """What became of dead letters: taken into the tables, found there already, or still of no use."""

    taken: int = 0
    known: int = 0
    left: int = 0


def kept_in_store(engine: Engine, consumer: str | None = None) -> Iterator[Kept]:
    """The dead letters in a store's table, of one consumer or of all; raises ConsumerError where there is no table."""
    if not inspect(engine).has_table(tables.dead_letters.name):
        raise ConsumerError("the store has no tables yet: `exec-events aggregate` makes them")
    row = tables.dead_letters.c
    query = select(tables.dead_letters).order_by(row.id)
    if consumer is not None:
        query = query.where(row.consumer == consumer)
    with engine.connect() as connection:
        for found in connection.execution_options(yield_per=AT_ONCE).execute(query).mappings():
            yield Kept(str(found["id"]), found["consumer"], found["found_at"], _letter(dict(found)))


def kept_of_message(message: Any) -> Kept:
    """The dead letter in a message of the topic; one that a sink sent comes from where it is now."""
    headers = {name: (raw or b"").decode("utf-8", "replace") for name, raw in message.headers}
    reason = headers.get(HEADER_REASON, "no reason is given")
    if HEADER_REFUSED in headers:
        reason = f"{reason} ({headers[HEADER_REFUSED]})"
    partition, position = f"{message.topic}/{message.partition}", message.offset
    if headers.get(HEADER_SOURCE_OFFSET, "").isdecimal():
        partition = f"{headers.get(HEADER_SOURCE_TOPIC, '')}/{headers.get(HEADER_SOURCE_PARTITION, '')}"
        position = int(headers[HEADER_SOURCE_OFFSET])
    letter = DeadLetter(partition, position, message.value, reason, _stored_hash(headers.get(HEADER_HASH)))
    number = f"{message.partition}:{message.offset}"
    return Kept(number, headers.get(HEADER_CONSUMER, ""), headers.get(HEADER_FOUND_AT, ""), letter)


def _stored_hash(text: str | None) -> bytes | None:
    try:
        return None if text is None else hash_bytes(text)
    except MalformedRecord:
        return b""  # equal to no hash


def _letter(row: Mapping[str, Any]) -> DeadLetter:
    value, stored = row["value"], row["stored_hash"]
    return DeadLetter(
        row["partition"],
        row["position"],
        None if value is None else bytes(value),
        row["reason"],
        None if stored is None else bytes(stored),
    )


def collect(url: str, store: Store, settings: Mapping[str, Any] | None = None) -> int:
    """
    Bring what is new on the topic, of this store's consumer and of sinks, into its table; returns how many came.

    How far it was read is kept in the same transaction, so that what is taken from the table later does not
    come back. Raises SourceError where there is no topic.
    """
    from .dead_letter_topic import topic_messages

    waiting: dict[str, list[Kept]] = {}
    ends: dict[str, int] = {}
    positions: dict[str, int] = {}
    came = 0

    def keep(partition: str) -> int:
        letters = [kept.letter for kept in waiting.pop(partition, []) if kept.consumer in (store.consumer, "")]
        with store.transaction({partition: ends.pop(partition)}) as transaction:
            transaction.bury(letters)
        return len(letters)

    for message in topic_messages(url, settings):
        partition = f"{message.topic}/{message.partition}"
        if partition not in positions:
            positions |= store.claim([partition])
        if message.offset < positions[partition]:
            continue
        waiting.setdefault(partition, []).append(kept_of_message(message))
        ends[partition] = message.offset + 1
        if len(waiting[partition]) >= AT_ONCE:
            came += keep(partition)
    return came + sum(keep(partition) for partition in list(waiting))


def replay(
    store: Store,
    step: Step,
    known_hashes: KnownHashes | None = None,
    on_progress: Callable[[Replayed], None] = lambda replayed: None,
) -> Replayed:
    """
    Take the dead letters in the table once more; those that can be used now are removed in the same transaction.

    A process that keeps the tables meanwhile waits, and goes on. Raises what the step raises.
    """
    replayed = Replayed()
    after = 0
    while True:
        with store.transaction({}) as transaction:
            row = tables.dead_letters.c
            _hold(store, transaction)
            query = select(tables.dead_letters).where(row.consumer == store.consumer, row.id > after)
            rows = transaction.connection.execute(query.order_by(row.id).limit(AT_ONCE)).mappings().all()
            if not rows:
                return replayed
            after = rows[-1]["id"]
            letters = [_letter(dict(found)) for found in rows]
            new, dead = _take(letters, transaction, step, known_hashes)
            used = [found["id"] for found in rows if (found["partition"], found["position"]) not in dead]
            if used:
                transaction.connection.execute(delete(tables.dead_letters).where(row.id.in_(used)))
            for found in rows:
                reason = dead.get((found["partition"], found["position"]), found["reason"])
                if reason != found["reason"]:
                    this = update(tables.dead_letters).where(row.id == found["id"])
                    transaction.connection.execute(this.values(reason=reason))
        replayed.taken += new
        replayed.known += len(used) - new
        replayed.left += len(rows) - len(used)
        on_progress(replayed)


def _hold(store: Store, transaction: Transaction) -> None:
    """Have whoever writes as this consumer wait: a batch begins with its row of offsets (SQLite has one writer)."""
    row = tables.offsets.c
    transaction.connection.execute(select(row.epoch).where(row.consumer == store.consumer).with_for_update()).all()


def _take(
    letters: Sequence[DeadLetter], transaction: Transaction, step: Step, known_hashes: KnownHashes | None
) -> tuple[int, dict[tuple[str, int], str]]:
    """How many were new to their chains, and of those that are dead letters again the places with the reasons."""
    reasons = {(letter.partition, letter.position): letter.reason for letter in letters}
    decoded = [decode(Fetched(one.partition, one.position, one.value, one.stored_hash)) for one in letters]
    # Each chain's in order, so that none is refused for want of the one before it.
    events = sorted((one for one in decoded if isinstance(one, Decoded)), key=lambda event: (event.chain, event.seq))
    dead = [one for one in decoded if isinstance(one, DeadLetter)]
    chains = transaction.chains({event.chain for event in events})
    known = known_hashes(transaction, [(event.chain, event.seq) for event in events]) if known_hashes else {}
    new, odd = chained(events, chains, lambda chain, seq: known.get((chain, seq)))
    refused = {(letter.partition, letter.position): letter.reason for letter in odd}
    for event in events:
        at = event.partition, event.position
        if at in refused and reasons[at].startswith(place(event)):
            chains[event.chain].forks -= 1  # it was counted when it came
    if new:
        step(new, transaction)
    transaction.keep_chains(chains.values())
    return len(new), refused | {(letter.partition, letter.position): letter.reason for letter in dead}
