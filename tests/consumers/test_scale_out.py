"""Several aggregates in one consumer group, on real Kafka and PostgreSQL: what comes of them is what one would make."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import pytest
from kafka import KafkaProducer
from kafka.admin import NewTopic
from logs import Log, opened, random_log
from test_aggregate import check, rows

from exec_events_consumers.store import open_engine
from exec_events_schemas.topics import message_of, topics_of
from kafka_fixtures import RunningKafka
from kafka_topic import messages_of
from spool_files import FIRST, SECOND
from tools.postgres import Postgres

PARTITIONS = 12
WAIT_SECONDS = 75.0
LATER = b"https://exec-events.org/schemas/cell_execution/v9"
POISON = [b"junk", b'{"event":{"__schema__":"%b"},"seal":{"chain":"c","prev":null,"seq":0}}' % LATER, b""]
# The process the tests kill: the command, with a session that runs out sooner than its own.
PROGRAM = """
import sys
from exec_events_consumers import kafka_feed
kafka_feed.GROUP["session_timeout_ms"] = 8000
kafka_feed.GROUP["heartbeat_interval_ms"] = 500
kafka_feed.GROUP["max_poll_records"] = 100
from exec_events.cli import main
main(sys.argv[1:])
"""


class Site:
    """A topic, a database, and aggregates that are started on them."""

    def __init__(self, kafka: RunningKafka, prefix: str, url: str) -> None:
        self.url = url
        self.source = f"kafka://{kafka.servers}/{prefix}"
        self._topic = topics_of(prefix).events
        self._dead_letters = topics_of(prefix).dead_letters
        self._settings = kafka.settings
        self.running: list[subprocess.Popen[str]] = []
        with closing(kafka.admin()) as admin:
            # Its events are of a day long past: retention would have them at once.
            forever = {"retention.ms": "-1"}
            events = NewTopic(self._topic, PARTITIONS, 1, topic_configs=forever)
            admin.create_topics([events, NewTopic(topics_of(prefix).dead_letters, 1, 1)])
        with opened(url):
            pass
        self._engine = open_engine(url, read_only=True)

    def send(self, records: list[tuple[bytes, bytes]], poison: int = 0) -> None:
        """Put records on the topic, some junk among them."""
        with closing(KafkaProducer(**self._settings)) as producer:
            for number, (record, raw_hash) in enumerate(records):
                message = message_of(record, raw_hash)
                producer.send(self._topic, record, message.key, message.headers)
                if number < poison:
                    producer.send(self._topic, POISON[number % len(POISON)], b"%d" % number)
            producer.flush(60)

    def start(self) -> subprocess.Popen[str]:
        """One more aggregate."""
        arguments = ["aggregate", "--from", self.source, "--store", self.url]
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.running.append(process)
        return process

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def owners(self) -> dict[str, str]:
        """Which process has which partition."""
        return dict(self._ask("SELECT partition, owner FROM offsets"))

    def taken(self) -> int:
        """How many executions are in the tables."""
        return int(self._ask("SELECT count(*) FROM executions")[0][0])

    def letters(self) -> set[bytes]:
        """The keys of the dead letters, of which a killed process may have sent some twice."""
        return {message.key for message in messages_of(self._settings, self._dead_letters)}

    def _ask(self, query: str) -> list[Any]:
        with self._engine.connect() as connection:
            return list(connection.exec_driver_sql(query).all())

    def wait_until_taken(self, count: int) -> None:
        """Until so many are."""
        wait(lambda: self.taken() >= count, self.taken)


def wait(condition: Callable[[], bool], found: Callable[[], object] = lambda: "") -> None:
    """Until it holds; bounded."""
    until = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < until, f"it did not come to pass in time: {found()}"
        time.sleep(0.1)


def end(process: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM) -> str:
    """End a process; what it said on standard error."""
    process.send_signal(number)
    return process.communicate(timeout=30)[1]


@contextmanager
def site_of(kafka: RunningKafka, prefix: str, url: str) -> Iterator[Site]:
    """A site whose processes are ended."""
    site = Site(kafka, prefix, url)
    try:
        yield site
    finally:
        site.close()
        for process in site.running:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    process.send_signal(signal.SIGCONT)
                    process.kill()
                process.communicate(timeout=30)


@pytest.fixture
def site(kafka: RunningKafka, kafka_prefix: str, postgres: Postgres) -> Iterator[Site]:
    """A site of a test's own."""
    with site_of(kafka, kafka_prefix, postgres.database()) as made:
        yield made


def badly_delivered(rng: random.Random, log: Log) -> list[tuple[bytes, bytes]]:
    """A log's records as Kafka may have them: chains keep their order, but not one against the other; some twice."""
    by_chain: dict[bytes, list[tuple[bytes, bytes]]] = {}
    for record in log.records:
        by_chain.setdefault(record[0].rpartition(b'"chain":"')[2].partition(b'"')[0], []).append(record)
    queues = [list(reversed(of)) for of in by_chain.values()]
    delivered: list[tuple[bytes, bytes]] = []
    while queues:
        queue = rng.choice(queues)
        delivered.append(queue.pop())
        if rng.random() < 0.1:
            delivered.append(rng.choice(delivered))
        queues = [one for one in queues if one]
    return delivered


@pytest.mark.timeout(300)
def test_nothing_is_lost_or_doubled_whatever_becomes_of_them(site: Site) -> None:
    """One joins, one leaves, one sleeps past its session and wakes, one is killed: the tables equal a recount."""
    rng = random.Random(5)
    log = random_log(rng, 4000, subjects=24, recorders=(FIRST, SECOND))
    records = badly_delivered(rng, log)
    fifth = len(records) // 5
    parts = [records[at : at + fifth] for at in range(0, 4 * fifth, fifth)] + [records[4 * fifth :]]
    owners: set[str] = set()
    sent: set[tuple[bytes, bytes]] = set()

    def send(part: list[tuple[bytes, bytes]], poison: int = 0) -> None:
        site.send(part, poison)
        sent.update(part)
        site.wait_until_taken(len(sent))
        owners.update(site.owners().values())

    first, second = site.start(), site.start()
    send(parts[0], poison=9)
    third = site.start()
    wait(lambda: len(owners | set(site.owners().values())) == 3, site.owners)
    send(parts[1])
    end(second)
    assert second.returncode == 0
    send(parts[2])
    third.send_signal(signal.SIGSTOP)
    # None of what it holds comes on before its session has run out.
    send(parts[3])
    third.send_signal(signal.SIGCONT)
    first.kill()
    send(parts[4])
    assert len(owners) == 3
    assert third.poll() is None, third.communicate(timeout=10)
    end(third)
    check(site.url, log)
    assert len(site.letters()) == 9
    (chains,) = rows(
        site.url, "SELECT sum(missing) AS missing, sum(records) AS records, sum(forks) AS forks FROM chains"
    )
    assert (int(chains["missing"]), int(chains["records"]), int(chains["forks"])) == (0, 4000, 0)


@pytest.mark.timeout(300)
def test_what_a_latecomer_took_is_claimed_again(site: Site) -> None:
    """Partitions that a process without them in the group claims in the store are taken back by whose they are, and go on."""
    log = random_log(random.Random(7), 600, subjects=24, recorders=(FIRST, SECOND))
    process = site.start()
    site.send(log.records[:300])
    site.wait_until_taken(300)
    (owner,) = set(site.owners().values())
    with opened(site.url) as latecomer:
        # As one that was slow to hear that the group has given its partitions to another.
        latecomer.claim(list(site.owners()))
        assert set(site.owners().values()) == {latecomer.owner} != {owner}
        site.send(log.records[300:])
        site.wait_until_taken(600)
    # Those of which nothing came were not missed.
    assert owner in site.owners().values()
    end(process)
    assert process.returncode == 0
    check(site.url, log)


def kill_again_and_again(site: Site, kills: int, seed: int) -> None:
    """Two aggregates, of which one is killed at a random moment and another started, so many times; then a recount."""
    rng = random.Random(seed)
    log = random_log(rng, 40 * max(kills, 25), subjects=24, recorders=(FIRST, SECOND))
    records = badly_delivered(rng, log)
    site.send(records, poison=6)
    for _ in range(kills):
        process = site.start()
        time.sleep(rng.random() * 3)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)
    site.start()
    site.wait_until_taken(len(log.records))
    wait(lambda: len(site.letters()) == 6)
    check(site.url, log)


@pytest.mark.timeout(300)
def test_a_few_kills(site: Site) -> None:
    """kill -9 at random moments, the session of the killed running on: the tables equal a recount."""
    kill_again_and_again(site, 4, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_hundred_kills(site: Site) -> None:
    """The same over a hundred kills."""
    kill_again_and_again(site, 100, seed=int(os.environ.get("EXEC_EVENTS_SEED", "100")))
