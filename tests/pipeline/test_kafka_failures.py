"""Brokers that are killed, frozen, silent or not there yet: nothing is lost, nothing is out of order, nobody hangs."""

from __future__ import annotations

import gc
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from exec_events import deliver
from exec_events.sinks import kafka as kafka_sink
from kafka_sites import Site, site, streaming, wait_until
from kafka_topic import messages_of, verified
from tools.kafka_broker import Broker

SEED = int(os.environ.get("EXEC_EVENTS_SEED", "3"))


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is tried again at once."""
    monkeypatch.setattr(deliver, "RETRY_SECONDS", (0.1, 0.2))


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """A broker that tests may kill and freeze, and leave running."""
    with Broker() as running:
        yield running


@pytest.fixture(scope="module")
def cluster() -> Iterator[Broker]:
    """Three brokers, every partition on each of them, two needed for a write."""
    with Broker(nodes=3) as running:
        yield running


@pytest.fixture
def threads() -> Callable[[], list[str]]:
    """The names of the threads that there are since the test began."""
    before = set(threading.enumerate())
    return lambda: [thread.name for thread in threading.enumerate() if thread not in before]


@pytest.fixture
def prefix() -> str:
    """A prefix of topics that no other test has."""
    return f"test-{uuid.uuid4().hex[:12]}"


def delivered_some(made: Site, more: int = 300) -> None:
    """Wait until records flow."""
    before = made.position
    wait_until(lambda: made.position > before + more, what="delivery")


def test_rows_count_once_they_are_acknowledged(broker: Broker, prefix: str, tmp_path: Path) -> None:
    """While a broker does not answer nothing counts as delivered; it is all there, once, when it does."""
    with site(tmp_path, broker.servers, prefix) as made:
        made.execute(20)
        made.drain()
        before = made.position
        broker.pause()
        try:
            made.execute(50)
            made.flush()
            time.sleep(1.5)
            assert (made.position, made.deliverer.state().lag) == (before, 50)
        finally:
            broker.resume()
        made.drain()
        assert len(made.check(broker.settings)) == 71


@pytest.mark.parametrize("stall_seconds", [300.0, 0.7], ids=["same-producer", "new-producer"])
def test_a_broker_killed_and_started_again(
    broker: Broker, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stall_seconds: float
) -> None:
    """kill -9 of the broker in mid-stream loses nothing and breaks no order, whether or not the producer is replaced."""
    monkeypatch.setattr(kafka_sink, "STALL_SECONDS", stall_seconds)
    rng = random.Random(SEED)
    with site(tmp_path, broker.servers, prefix, bootstrap_timeout_ms=1000) as made:
        with streaming(made):
            delivered_some(made)
            time.sleep(rng.random())
            broker.kill()
            time.sleep(1 + rng.random())
            broker.restart()
            delivered_some(made)
        made.drain()
        messages = made.check(broker.settings)
        if stall_seconds > 1:
            assert len(messages) == made.spool.last_id, "one idempotent producer repeats nothing"
        else:
            assert made.deliverer.state().retries > 0


def test_a_leader_killed_in_a_cluster(cluster: Broker, prefix: str, tmp_path: Path) -> None:
    """kill -9 of the broker that leads a partition in use: another takes over, all goes on, and nothing is lost."""
    with site(tmp_path, cluster.servers, prefix) as made:
        with streaming(made):
            delivered_some(made)
            with closing(cluster.admin()) as admin:
                (topic,) = admin.describe_topics([made.topics.events])
            used = {message.partition for message in messages_of(cluster.settings, made.topics.events)}
            leaders = {p["partition_index"]: p["leader_id"] for p in topic["partitions"]}
            assert all(len(p["replica_nodes"]) == 3 for p in topic["partitions"])
            node = leaders[random.Random(SEED).choice(sorted(used))] - 1
            cluster.kill(node)
            # All partitions, those it led too, go on with two brokers.
            made.drain()
            delivered_some(made, 2000)
            cluster.restart(node)
            delivered_some(made)
        made.drain()
        made.check(cluster.settings)


class Seen(NamedTuple):
    """This process at a pause between two tries; ``memory`` in bytes."""

    failures: int
    threads: list[str]
    files: int
    memory: int


def test_a_broker_that_is_not_there_yet(
    broker: Broker, prefix: str, tmp_path: Path, threads: Callable[[], list[str]]
) -> None:
    """Tries to reach a broker that is not there add up to nothing: no thread, file or memory; once it is there all goes."""
    process = psutil.Process()
    broker.kill()
    try:
        with site(tmp_path, broker.servers, prefix, bootstrap_timeout_ms=100) as made:
            made.execute(500)
            made.wait_for_problem(f"no broker of {broker.servers} answers", "ECONNREFUSED")
            seen: list[Seen] = []

            def look() -> bool:
                failures = made.deliverer.state().errors
                names = threads()
                between_tries = not any("kafka-io" in name for name in names)
                if between_tries and (not seen or failures > seen[-1].failures):
                    gc.collect()  # kafka-python leaves sockets that never connected to the collector
                    seen.append(Seen(failures, names, process.num_fds(), process.memory_info().rss))
                return failures > 20

            wait_until(look)
            assert len(seen) > 10
            assert all(one.threads == seen[0].threads for one in seen)
            assert max(one.files for one in seen) - min(one.files for one in seen) <= 4
            assert seen[-1].memory - seen[0].memory < 8 * 1024 * 1024
            assert made.position == 0
            broker.restart()
            made.drain()
            assert len(made.check(broker.settings)) == 501
            assert made.problem == ""
    finally:
        if not broker.pids:
            broker.restart()


def test_a_broker_that_never_answers_does_not_hold_up_a_stop(prefix: str, tmp_path: Path) -> None:
    """Of a broker that takes connections and says nothing a stop waits no longer than it may; all stays in the spool."""
    silent = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{silent.getsockname()[1]}"
    with closing(silent), site(tmp_path, address, prefix, stop_seconds=0) as made:
        made.execute(10)
        made.flush()
        time.sleep(0.5)
        began = time.monotonic()
        assert not made.deliverer.stop(1)
        assert time.monotonic() - began < 15
        assert made.deliverer.state().lag == 11
    assert len(made.spooled()) == 11


def test_a_broker_that_freezes_does_not_hold_up_a_stop(
    broker: Broker, prefix: str, tmp_path: Path, threads: Callable[[], list[str]]
) -> None:
    """A stop in mid-stream waits for acknowledgements no longer than it may, and leaves no thread; nothing is lost."""
    with site(tmp_path, broker.servers, prefix) as made:
        with streaming(made):
            delivered_some(made)
            broker.pause()
            time.sleep(0.5)
        try:
            made.flush()
            began = time.monotonic()
            assert not made.deliverer.stop(1)
            assert time.monotonic() - began < 15
        finally:
            broker.resume()
        assert made.position < made.spool.last_id
    wait_until(lambda: not any("kafka" in name for name in threads()), what="the end of threads")


def test_topics_deleted_under_it_are_made_again(
    broker: Broker, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where somebody deletes the topics delivery goes on, on new ones, with what had not been acknowledged."""
    monkeypatch.setattr(kafka_sink, "STALL_SECONDS", 1.0)
    with site(tmp_path, broker.servers, prefix) as made:
        made.execute(20)
        made.drain()
        with closing(broker.admin()) as admin:
            admin.delete_topics(list(made.topics))
        made.execute(100)
        made.drain()
        messages = messages_of(broker.settings, made.topics.events)
        # What went before is gone with the topic, and says so.
        assert len(messages) == 100
        assert not verified(messages).ok
