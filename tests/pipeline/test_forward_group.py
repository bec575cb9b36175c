"""Two forwarders in one consumer group, on real Kafka and PostgreSQL: they share the people, one connection for each."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from forward_reducers import REDUCERS
from forwarded import Site, differences, more, student_of
from kafka import KafkaProducer
from kafka.admin import NewTopic
from learning_observer_stand_in import LearningObserver, frames_resent

from exec_events_consumers.store import open_engine
from exec_events_schemas.sources import StoredRecord
from exec_events_schemas.topics import message_of, topics_of
from kafka_fixtures import RunningKafka
from kafka_sites import wait_until
from spool_files import FIRST, Recording
from tools.postgres import Postgres

SUBJECTS = 24
PARTITIONS = 6
BATCH = 50
PROGRAM = """
import sys
from exec_events_consumers import kafka_feed
kafka_feed.GROUP["session_timeout_ms"] = 4000
kafka_feed.GROUP["heartbeat_interval_ms"] = 500
from exec_events.cli import main
main(sys.argv[1:])
"""


class Group:
    """A topic, a database and a server; forwarders that are started on them."""

    def __init__(self, folder: Path, kafka: RunningKafka, prefix: str, database: str, url: str) -> None:
        self.site = Site(folder, url, source=f"kafka://{kafka.servers}/{prefix}", database=database)
        self.site.people(range(SUBJECTS))
        self.recording = Recording(FIRST)
        self.running: list[subprocess.Popen[str]] = []
        self._settings = kafka.settings
        self._topics = topics_of(prefix)
        with closing(kafka.admin()) as admin:
            # Its events are of a day long past: retention would have them at once.
            forever = {"retention.ms": "-1"}
            events = NewTopic(self._topics.events, PARTITIONS, 1, topic_configs=forever)
            admin.create_topics([events, NewTopic(self._topics.dead_letters, 1, 1)])

    @property
    def rows(self) -> list[StoredRecord]:
        """All that was published."""
        return self.recording.rows

    def publish(self, executions: int) -> None:
        """Some more."""
        before = len(self.rows)
        more(self.recording, executions, SUBJECTS, before)
        with closing(KafkaProducer(**self._settings)) as producer:
            for row in self.rows[before:]:
                message = message_of(row.record, row.hash or b"")
                producer.send(self._topics.events, row.record, message.key, message.headers)
            producer.flush(60)

    def start(self) -> subprocess.Popen[str]:
        """One more forwarder."""
        command = [sys.executable, "-c", PROGRAM, *self.site.arguments("--batch", str(BATCH))]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.running.append(process)
        return process

    def owners(self) -> list[str]:
        """Which process has how many partitions: a name for each."""
        engine = open_engine(self.site.database, read_only=True)
        try:
            with engine.connect() as connection:
                return [owner for (owner,) in connection.exec_driver_sql("SELECT owner FROM offsets")]
        finally:
            engine.dispose()

    def connections(self) -> dict[str, list[bool]]:
        """Of each student's connections, in the order they came, whether they have ended with terminate."""
        found: dict[str, list[bool]] = defaultdict(list)
        logs = [log for log in self.site.folder.glob("*.log") if not log.name.endswith(".study.log")]
        for log in sorted(logs, key=lambda log: int(log.name.split("-")[1])):
            lines = log.read_text().splitlines()
            for line in lines[1:2]:
                found[json.loads(line)["user_id"]].append('"terminate"' in lines[-1])
        return found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LearningObserver]:
    """A server that keeps logs."""
    with LearningObserver(REDUCERS, folder=tmp_path) as running:
        yield running


@pytest.fixture
def group(
    tmp_path: Path, kafka: RunningKafka, kafka_prefix: str, postgres: Postgres, server: LearningObserver
) -> Iterator[Group]:
    """A group whose processes are ended."""
    made = Group(tmp_path, kafka, kafka_prefix, postgres.database(), server.url)
    try:
        yield made
    finally:
        for process in made.running:
            process.kill()
            process.communicate(timeout=30)


@pytest.mark.timeout(300)
def test_two_share_the_work(group: Group, server: LearningObserver) -> None:
    """Who joins takes some people over, whose old connections are closed; who is killed has its people taken over."""

    def all_there() -> bool:
        return not differences(server.students_of("tally"), group.rows)

    first = group.start()
    group.publish(200)
    wait_until(all_there, 120, what="everybody's state")
    assert len(set(group.owners())) == 1
    second = group.start()
    wait_until(lambda: sorted(map(group.owners().count, set(group.owners()))) == [3, 3], 120, what="a share for each")
    group.publish(200)
    wait_until(all_there, 120, what="everybody's state")
    students = {student_of(f"subject-{number}") for number in range(SUBJECTS)}

    def only_the_last_is_open() -> bool:
        connections = group.connections()
        return all(connections[student][:-1] == [True] * (len(connections[student]) - 1) for student in students)

    wait_until(only_the_last_is_open, what="the end of old connections")
    assert any(len(of) > 1 for of in group.connections().values())
    assert frames_resent(group.site.folder) == 0
    group.publish(200)
    first.kill()
    group.publish(200)
    wait_until(all_there, 120, what="everybody's state")
    assert frames_resent(group.site.folder) <= BATCH
    second.send_signal(signal.SIGTERM)
    said, _ = second.communicate(timeout=30)
    assert second.returncode == 0, said


@pytest.mark.timeout(300)
def test_what_is_held_is_the_owners_to_send(group: Group, server: LearningObserver) -> None:
    """Of people who become known while two run, each sends those of its partitions, once and in order."""
    listed = group.site.people(range(SUBJECTS)).rename(group.site.folder / "list.csv")
    group.start()
    group.start()
    group.publish(150)
    held = lambda: group.site.command("forward", "held").count(" events since ")  # noqa: E731
    wait_until(lambda: held() == SUBJECTS, 120, what="all held")
    wait_until(lambda: len(set(group.owners())) == 2, 120, what="a share for each")
    group.site.command("forward", "people", "import", str(listed))
    group.publish(150)
    wait_until(lambda: not differences(server.students_of("tally"), group.rows), 120, what="everybody's state")
    assert frames_resent(group.site.folder) == 0
    wait_until(lambda: "Nobody's events wait" in group.site.command("forward", "held"), what="an empty list")
