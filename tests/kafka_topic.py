"""A topic in, its messages out, and what is wrong with them beside the records that should be there."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from exec_events_schemas.chain import Verifier
from exec_events_schemas.findings import Report
from exec_events_schemas.record import hash_bytes, hash_text, place_of
from exec_events_schemas.sources import StoredRecord
from exec_events_schemas.topics import HEADER_CHAIN, HEADER_HASH, HEADER_SEQ

READ_SECONDS = 60.0


def messages_of(settings: Mapping[str, Any], topic: str, timeout: float = READ_SECONDS) -> list[Any]:
    """Every message of a topic, as kafka-python's records, one partition after the other; no group, no trace."""
    deadline = time.monotonic() + timeout
    consumer = KafkaConsumer(
        **settings, enable_auto_commit=False, auto_offset_reset="earliest", max_poll_records=5000, client_id="test"
    )
    with closing(consumer):
        numbers = consumer.partitions_for_topic(topic) or set()
        partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
        assert partitions, f"there is no topic {topic}"
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)
        found: list[Any] = []
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            assert time.monotonic() < deadline, f"{topic} could not be read to its end: {len(found)} messages"
            for messages in consumer.poll(timeout_ms=500).values():
                found += messages
    return sorted(found, key=lambda message: (message.partition, message.offset))


def headers_of(message: Any) -> dict[str, str]:
    """The headers of a message as text."""
    return {name: value.decode() for name, value in message.headers}


def stored(message: Any) -> StoredRecord:
    """A message of the events topic as any source gives it."""
    return StoredRecord(
        message.value, hash_bytes(headers_of(message)[HEADER_HASH]), f"events/{message.partition}", message.offset
    )


def verified(messages: Iterable[Any]) -> Report:
    """What verification says of a topic of events."""
    verifier = Verifier()
    for message in messages:
        verifier.add(stored(message))
    return verifier.finish(set())


def wrong_with(messages: Sequence[Any], spooled: Iterable[StoredRecord]) -> list[str]:
    """
    What is wrong with a topic beside the spool it was delivered from; nothing, if the promises were kept.

    Each record is there at least once and byte by byte the same, none is there that was not spooled, the first
    copies of a chain's records stand in order in one partition, and so do all chains of one key.
    """
    expected = {place_of(record.record): record for record in spooled}
    wrong: list[str] = []
    firsts: dict[tuple[bytes, bytes], Any] = {}
    partition_of: dict[bytes, int] = {}
    last_seq: dict[bytes, int] = {}
    for message in messages:
        headers = headers_of(message)
        place = place_of(message.value)
        chain, seq = place[0].decode(), place[1].decode()
        where = f"{chain} seq {seq} (partition {message.partition}, offset {message.offset})"
        record = expected.get(place)
        if record is None or record.record != message.value:
            wrong.append(f"{where} is not in the spool")
            continue
        if (headers[HEADER_CHAIN], headers[HEADER_SEQ]) != (chain, seq):
            wrong.append(f"{where} has the headers of {headers[HEADER_CHAIN]} seq {headers[HEADER_SEQ]}")
        if record.hash is None or headers[HEADER_HASH] != hash_text(record.hash):
            wrong.append(f"{where} has another hash than in the spool")
        if partition_of.setdefault(message.key, message.partition) != message.partition:
            wrong.append(f"{where}: its key is in partition {partition_of[message.key]}, too")
        if place in firsts:
            continue
        firsts[place] = message
        if last_seq.get(place[0], -1) != int(seq) - 1:
            wrong.append(f"{where} stands behind seq {last_seq.get(place[0])}")
        last_seq[place[0]] = int(seq)
    wrong += [f"{chain.decode()} seq {seq.decode()} is missing" for chain, seq in expected.keys() - firsts.keys()]
    return wrong
