"""From a cell's execute_reply to its event at a subscriber of the topic, one execution after another."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import random
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from multiprocessing.connection import Connection
from statistics import median, quantiles
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from exec_events.testing import NotebookClient, RunningServer
from exec_events_schemas.topics import HEADER_SCHEMA_ID, topics_of
from tools.kafka_broker import Broker

from .figures import Figure
from .fleet import TRIVIAL, progress
from .sample import SCHEMA_ID

WARM_UP = 50
TIMEOUT_SECONDS = 60
# Between two executions: longer than an event is under way, and of no fixed length, so that the cells
# do not fall into step with a timer of anybody's.
PAUSE_SECONDS = (0.1, 0.2)


@dataclass(frozen=True, slots=True)
class Arrival:
    """When the subscriber saw an event, and when the event says that it was made, in seconds since 1970."""

    seen_at: float
    made_at: float


async def measure(quick: bool) -> list[Figure]:
    """Median and 99th percentile, and how much of it had passed when the event was made."""
    count = 100 if quick else 1_000
    prefix = f"bench-{uuid.uuid4().hex[:12]}"
    with Broker() as broker:
        config = f"c.ExecEvents.deliver_to = ['kafka://{broker.servers}/{prefix}']\nc.ExecEvents.identity = 'plain'"
        async with RunningServer(config=config) as server, NotebookClient(server) as client:
            cells = [f"cell-{number}" for number in range(count)]
            # The sink has made the topics with the recorder's first event.
            with _subscriber(broker.servers, topics_of(prefix).events, set(cells)) as subscriber:
                for number in range(WARM_UP):
                    await _execute(client, f"warm-{number}")
                replied = await _executions(client, cells)
                arrivals: dict[str, Arrival] = await asyncio.to_thread(_receive, subscriber)
    visible = [(arrivals[cell].seen_at - at) * 1000 for cell, at in replied.items()]
    made = [(arrivals[cell].made_at - at) * 1000 for cell, at in replied.items()]
    name = f"execute_reply to visible for a subscriber, {count:,} executions"
    note = f"of which {median(made):.0f} ms until the event is made"
    return [
        Figure(f"{name}: p50", median(visible), "ms", 60, "at most", note, tuple(visible)),
        Figure(f"{name}: p99", quantiles(visible, n=100)[98], "ms", 250, "at most", f"longest {max(visible):.0f} ms"),
    ]


async def _executions(client: NotebookClient, cells: list[str]) -> dict[str, float]:
    """When the reply of each came, in seconds since 1970, by cell."""
    chosen = random.Random(0)
    replied = {}
    for number, cell in enumerate(cells, start=1):
        replied[cell] = await _execute(client, cell)
        await asyncio.sleep(chosen.uniform(*PAUSE_SECONDS))
        if number % 100 == 0:
            progress(f"kafka-visible {number}/{len(cells)}")
    return replied


async def _execute(client: NotebookClient, cell: str) -> float:
    client.messages.clear()
    msg_id = await client.submit(TRIVIAL, cell_id=cell)
    await client.wait_for(
        lambda message: (
            message["header"]["msg_type"] == "execute_reply" and message["parent_header"].get("msg_id") == msg_id
        )
    )
    at = time.time()
    await client.wait(msg_id)
    return at


@contextmanager
def _subscriber(servers: str, topic: str, cells: set[str]) -> Iterator[Connection]:
    """A process of its own that subscribes, so that the client's work does not delay what it sees."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_subscribe, args=(servers, topic, cells, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        _receive(ours)
        yield ours
    finally:
        process.terminate()
        process.join(10)
        ours.close()


def _subscribe(servers: str, topic: str, cells: set[str], to: Connection) -> None:
    """Send None when subscribed, and the arrivals by cell once all of ``cells`` have come."""
    # An answer comes as soon as there is anything: how long a fetch may wait is no delay of what it waits for.
    consumer = KafkaConsumer(bootstrap_servers=servers.split(","), auto_offset_reset="earliest", fetch_max_wait_ms=100)
    give_up_at = time.monotonic() + TIMEOUT_SECONDS
    while not (partitions := consumer.partitions_for_topic(topic)):
        if time.monotonic() > give_up_at:
            raise TimeoutError(f"no topic {topic} in {TIMEOUT_SECONDS} s")
        time.sleep(0.05)
    consumer.assign([TopicPartition(topic, number) for number in partitions])
    to.send(None)
    arrivals: dict[str, Arrival] = {}
    # Until it is done, or terminated.
    while cells - arrivals.keys():
        batches = consumer.poll(timeout_ms=1000)
        at = time.time()
        for message in (message for batch in batches.values() for message in batch):
            if dict(message.headers)[HEADER_SCHEMA_ID] == SCHEMA_ID.encode():
                event = json.loads(message.value)["event"]
                arrivals[event["cell_id"]] = Arrival(at, datetime.fromisoformat(event["time"]).timestamp())
    to.send(arrivals)


def _receive(subscriber: Connection) -> Any:
    if not subscriber.poll(TIMEOUT_SECONDS):
        raise TimeoutError(f"nothing of the subscriber in {TIMEOUT_SECONDS} s: it has not seen all it waits for")
    return subscriber.recv()
