"""From Kafka into tables and files: each consumer's rate, of what bare kafka-python makes of the same topic."""

from __future__ import annotations

import gc
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from statistics import median

from kafka import KafkaConsumer, TopicPartition

from exec_events_consumers import aggregate as aggregating
from exec_events_consumers import archive as archiving
from exec_events_consumers.cli.archive import POLLED
from exec_events_consumers.gathered import Gathered
from exec_events_consumers.kafka_feed import BATCH_RECORDS, GROUP, KafkaFeed
from exec_events_consumers.loop import Progress, run
from exec_events_consumers.store import Store
from exec_events_consumers.topic_reader import consumer_settings
from exec_events_schemas.topics import topics_of
from tools.kafka_broker import Broker
from tools.postgres import Postgres

from .consume_log import PARTITIONS, filled_topic
from .figures import Figure
from .fleet import median_ratio, progress

TIMEOUT_SECONDS = 600
BARE, SQLITE, POSTGRESQL, ARCHIVE = "bare", "aggregate into SQLite", "aggregate into PostgreSQL", "archive to Parquet"
TARGETS = {SQLITE: 0.2, POSTGRESQL: 0.15, ARCHIVE: 0.3}


async def measure(quick: bool) -> list[Figure]:
    """Rounds of all, interleaved, on one topic; each one's share of the bare consumer of its round."""
    count, rounds = (20_000, 2) if quick else (60_000, 5)
    with Broker() as broker, Postgres() as postgres, tempfile.TemporaryDirectory(prefix="exec-events-bench-") as folder:
        prefix = filled_topic(broker, count)

        def into(url: str) -> float:
            return _aggregate(f"kafka://{broker.servers}/{prefix}", url, count)

        timed: dict[str, Callable[[], float]] = {
            BARE: lambda: _bare(broker.servers, topics_of(prefix).events, count),
            SQLITE: lambda: into(f"sqlite:///{Path(folder) / uuid.uuid4().hex}.db"),
            POSTGRESQL: lambda: into(postgres.database()),
            ARCHIVE: lambda: _archive(f"kafka://{broker.servers}/{prefix}", Path(folder) / uuid.uuid4().hex, count),
        }
        rates: dict[str, list[float]] = {name: [] for name in timed}
        for turn in range(rounds):
            names = list(timed)
            shift = turn % len(names)
            for name in names[shift:] + names[:shift]:
                gc.collect()
                rates[name].append(timed[name]())
            line = ", ".join(f"{name} {of[-1]:,.0f}/s" for name, of in rates.items())
            progress(f"consume-rate {turn + 1}/{rounds}: {line}")
    figures = []
    for name, target in TARGETS.items():
        middle, ratios = median_ratio(rates[name], rates[BARE])
        note = f"{median(rates[name]):,.0f} of {median(rates[BARE]):,.0f} events/s, {PARTITIONS} partitions"
        figures.append(Figure(f"{name}, of bare kafka-python", middle, "x", target, note=note, rounds=ratios))
    return figures


def _bare(servers: str, topic: str, count: int) -> float:
    """Messages per second that kafka-python gives, with the settings our feed has; the first poll is the warm-up."""
    group = {"group_id", "session_timeout_ms", "heartbeat_interval_ms", "partition_assignment_strategy"}
    settings = {**consumer_settings({}), **{name: value for name, value in GROUP.items() if name not in group}}
    with closing(KafkaConsumer(bootstrap_servers=servers.split(","), **settings)) as consumer:
        partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        consumer.assign(partitions)
        consumer.seek_to_beginning(*partitions)
        got, first, began = 0, 0, 0.0
        give_up_at = time.monotonic() + TIMEOUT_SECONDS
        while got < count:
            if time.monotonic() > give_up_at:
                raise TimeoutError(f"{got:,} of {count:,} messages in {TIMEOUT_SECONDS} s")
            got += sum(map(len, consumer.poll(timeout_ms=500, max_records=BATCH_RECORDS).values()))
            if not first and got:
                first, began = got, time.perf_counter()
        return (count - first) / (time.perf_counter() - began)


def _aggregate(source: str, url: str, count: int) -> float:
    """Events per second into tables, from the first batch that is in them to the last."""
    clock = Clock()
    with closing(Store(url, aggregating.NAME)) as store, closing(KafkaFeed(source, uuid.uuid4().hex)) as feed:
        done = run(
            feed,
            store,
            aggregating.aggregate,
            once=True,
            known_hashes=aggregating.known_hashes,
            on_progress=clock,
        )
    return clock.rate(done, count)


def _archive(source: str, folder: Path, count: int) -> float:
    """Events per second into files, from the first batch that is in them to the last."""
    clock, stop = Clock(), threading.Event()
    folder.mkdir()
    with (
        closing(archiving.ArchiveStore(folder)) as store,
        closing(KafkaFeed(source, uuid.uuid4().hex, batch_records=POLLED)) as feed,
    ):
        gathered = Gathered(feed, stop, once=True)
        done = run(gathered, store, archiving.Archive(folder), once=True, stop=stop, on_progress=clock)
    return clock.rate(done, count)


class Clock:
    """Notes when batches were stored."""

    def __init__(self) -> None:
        self._stored: list[tuple[float, int]] = []

    def __call__(self, so_far: Progress) -> None:
        if so_far.events:
            self._stored.append((time.perf_counter(), so_far.events))

    def rate(self, done: Progress, count: int) -> float:
        """Events per second, from the end of the first batch to that of the last."""
        if done.events != count or done.dead:
            raise RuntimeError(f"{done.events:,} events of {count:,}, {done.dead} dead letters")
        first_at, first = self._stored[0]
        last_at = next(at for at, events in self._stored if events == count)
        return (count - first) / (last_at - first_at)
