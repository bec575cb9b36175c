"""From the spool to Kafka: the sink's rate, of what kafka-python's bare `send` makes of the same messages."""

from __future__ import annotations

import gc
import logging
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from statistics import median

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from exec_events.deliver import Deliverer
from exec_events.sinks.kafka import FIXED, PRODUCER
from exec_events.spool import Spool
from exec_events_schemas.sources.spool import connect_read_only
from exec_events_schemas.topics import Message, message_of, topics_of
from tools.kafka_broker import Broker

from .figures import Figure
from .fleet import median_ratio, progress
from .kafka_spool import fill, spool_of
from .producer import TIMEOUT_SECONDS

# As `TopicSettings` makes topics unless the site says otherwise.
PARTITIONS = 12
WARM_UP = 500
LOOK_SECONDS = 0.002
SINK, SEND, VALUES = "sink", "bare send", "bare send without headers"


async def measure(quick: bool) -> list[Figure]:
    """Rounds of the three, interleaved, each round on topics of its own; the sink's share of each bare send."""
    count, rounds = (10_000, 3) if quick else (50_000, 9)
    with Broker() as broker, spool_of(WARM_UP) as warm, spool_of(0) as spool:
        fill(spool, range(count))
        messages = _messages(spool)
        gc.collect()
        # They are the bare sends' alone: the sink, which makes its own, need not have them looked through.
        gc.freeze()
        rates: dict[tuple[int, str], list[float]] = {}
        for turn in range(rounds):
            for partitions in (PARTITIONS, 1):
                one = _round(broker.servers, partitions, warm, spool, messages, turn)
                for name, rate in one.items():
                    rates.setdefault((partitions, name), []).append(rate)
                line = ", ".join(f"{name} {rate:,.0f}/s" for name, rate in one.items())
                progress(f"kafka-rate {turn + 1}/{rounds}, of {partitions} partitions: {line}")
        gc.unfreeze()
    return [
        _figure(rates, PARTITIONS, SEND, 0.7),
        _figure(rates, PARTITIONS, VALUES, None),
        _figure(rates, 1, SEND, None),
    ]


def _figure(rates: dict[tuple[int, str], list[float]], partitions: int, base: str, target: float | None) -> Figure:
    sink, bare = rates[partitions, SINK], rates[partitions, base]
    middle, ratios = median_ratio(sink, bare)
    where = "" if partitions == PARTITIONS else f", {partitions} partition"
    note = f"{median(sink):,.0f} of {median(bare):,.0f} events/s"
    return Figure(f"spool to Kafka, of kafka-python's {base}{where}", middle, "x", target, note=note, rounds=ratios)


def _messages(spool: Spool) -> list[tuple[bytes, Message]]:
    """The spool's records and what the sink makes of them, beforehand."""
    with closing(connect_read_only(spool.path)) as connection:
        rows = connection.execute("SELECT record, hash FROM records ORDER BY id").fetchall()
    return [(record, message_of(record, raw_hash)) for record, raw_hash in rows]


def _round(
    servers: str, partitions: int, warm: Spool, spool: Spool, messages: list[tuple[bytes, Message]], turn: int
) -> dict[str, float]:
    """Events per second of each, all three connected and warm before the first."""
    prefix = f"bench-{uuid.uuid4().hex[:12]}"
    topic = topics_of(prefix).events
    log = logging.getLogger("benchmarks")
    deliverer = Deliverer(f"kafka://{servers}/{prefix}", log, settings={"partitions": partitions})
    deliverer.start()
    try:
        _deliver(deliverer, warm)
        producer = KafkaProducer(bootstrap_servers=servers.split(","), **PRODUCER, **FIXED)
        try:
            _send(producer, topic, messages[:WARM_UP])
            timed: dict[str, Callable[[], None]] = {
                SINK: lambda: _deliver(deliverer, spool),
                SEND: lambda: _send(producer, topic, messages),
                VALUES: lambda: _send_values(producer, topic, messages),
            }
            shift = turn % len(timed)
            names = list(timed)
            seconds = {name: _seconds(timed[name]) for name in names[shift:] + names[:shift]}
            _check(servers, topic, 2 * WARM_UP + len(timed) * len(messages))
        finally:
            producer.close(5)
    finally:
        deliverer.stop(5)
        # Its observers go with it: the spools outlive it.
        spool.observers.clear()
        warm.observers.clear()
    return {name: len(messages) / seconds[name] for name in timed}


def _seconds(work: Callable[[], None]) -> float:
    gc.collect()
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _deliver(deliverer: Deliverer, spool: Spool) -> None:
    deliverer.add(spool)
    give_up_at = time.monotonic() + TIMEOUT_SECONDS
    while not deliverer.is_drained(spool):
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"not delivered in {TIMEOUT_SECONDS} s: {deliverer.state()}")
        time.sleep(LOOK_SECONDS)


def _send(producer: KafkaProducer, topic: str, messages: list[tuple[bytes, Message]]) -> None:
    for record, message in messages:
        producer.send(topic, record, message.key, message.headers, timestamp_ms=message.timestamp_ms)
    producer.flush(TIMEOUT_SECONDS)


def _send_values(producer: KafkaProducer, topic: str, messages: list[tuple[bytes, Message]]) -> None:
    for record, message in messages:
        producer.send(topic, record, message.key)
    producer.flush(TIMEOUT_SECONDS)


def _check(servers: str, topic: str, count: int) -> None:
    """The topic holds what was sent, once."""
    with closing(KafkaConsumer(bootstrap_servers=servers.split(","))) as consumer:
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
        stored = sum(consumer.end_offsets(partitions).values())
    if stored != count:
        raise RuntimeError(f"{topic} holds {stored:,} messages of {count:,}")
