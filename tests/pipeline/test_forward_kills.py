"""kill -9 of forwarder, stand-in or Kafka at any moment: each student's state equals a recount, and little is sent again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from forwarded import Site, differences, more, recount
from kafka.admin import NewTopic
from learning_observer_stand_in import StandInProcess, frames_resent

from exec_events_schemas.sources import StoredRecord
from exec_events_schemas.topics import message_of, topics_of
from kafka_sites import wait_until
from spool_files import FIRST, SECOND, Recording
from tools.kafka_broker import Broker

SUBJECTS = 12
BATCH = 60
CHUNK = 150
VICTIMS = ("forwarder", "server", "kafka")
# A session that runs out sooner than its own, and pauses that are shorter.
PROGRAM = """
import sys
from exec_events_consumers import kafka_feed
from exec_events_consumers.learning_observer import forward
kafka_feed.GROUP["session_timeout_ms"] = 1500
kafka_feed.GROUP["heartbeat_interval_ms"] = 300
forward.BACK_OFF_SECONDS = (0.1, 1.0)
from exec_events.cli import main
main(sys.argv[1:])
"""


class Scene:
    """A broker, a server and a forwarder, each of which may be killed; records that come all the while."""

    def __init__(self, folder: Path, broker: Broker, server: StandInProcess, prefix: str) -> None:
        self.broker = broker
        self.server = server
        self.site = Site(folder, server.url, source=f"kafka://{broker.servers}/{prefix}")
        self.site.people(range(SUBJECTS))
        self.topic = topics_of(prefix).events
        self.rows: list[StoredRecord] = []
        self.recorders = [Recording(FIRST), Recording(SECOND)]
        self.process: subprocess.Popen[str] | None = None
        self.kills = dict.fromkeys(VICTIMS, 0)
        self.in_the_middle = 0
        with closing(broker.admin()) as admin:
            # Its events are of a day long past: retention would have them at once.
            forever = {"retention.ms": "-1"}
            admin.create_topics(
                [NewTopic(self.topic, 3, 1, topic_configs=forever), NewTopic(topics_of(prefix).dead_letters, 1, 1)]
            )

    def publish(self, rng: random.Random) -> None:
        """Some more records, some of them twice."""
        from kafka import KafkaProducer

        recorder = rng.choice(self.recorders)
        before = len(recorder.rows)
        more(recorder, CHUNK, SUBJECTS, before)
        new = recorder.rows[before:]
        self.rows += new
        producer = KafkaProducer(**self.broker.settings)
        try:
            for row in [*new, *rng.sample(new, 5)]:
                message = message_of(row.record, row.hash or b"")
                producer.send(self.topic, row.record, message.key, message.headers)
            producer.flush(60)
        finally:
            producer.close(10)

    def start(self) -> None:
        """A forwarder, from where its store stands."""
        command = [sys.executable, "-c", PROGRAM, *self.site.arguments("--batch", str(BATCH))]
        with (self.site.folder / "said").open("a") as said:
            self.process = subprocess.Popen(command, stdout=said, stderr=said, text=True)

    def tend(self) -> None:
        """Start it again where it has ended by itself, as a supervisor would."""
        assert self.process is not None
        if self.process.poll() is not None:
            assert self.process.returncode in (2, 3), self.said()
            self.start()

    def said(self) -> str:
        """What forwarders have said."""
        return (self.site.folder / "said").read_text()[-3000:]

    def taken(self) -> int:
        """How many records the server's students have among them."""
        states = self.server.states("tally").values()
        return sum(state["executions"] + state["others"] for state in states)

    def wait_for(self, count: int) -> None:
        """Until the server has so many."""

        def has() -> bool:
            self.tend()
            return self.taken() >= count

        wait_until(has, 120, what=f"{count} at the server")

    def kill(self, victim: str, rng: random.Random) -> None:
        """kill -9, and start it again after a while."""
        self.in_the_middle += self.taken() < len(self.rows)
        self.kills[victim] += 1
        pause = rng.random() * 0.5
        if victim == "kafka":
            self.broker.kill()
            time.sleep(pause)
            self.broker.restart()
        elif victim == "server":
            self.server.kill()
            time.sleep(pause)
            self.server.start()
        elif self.process is not None:
            self.process.kill()
            self.process.communicate(timeout=30)
            time.sleep(pause)
            self.start()

    def check(self) -> None:
        """All is there, once, and the forwarders' own figures say so."""
        self.wait_for(len(self.rows))
        assert self.process is not None
        self.tend()
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=30)
        assert self.process.returncode == 0, self.said()
        states = self.server.states("tally")
        assert differences(states, self.rows) == [], self.said()
        assert sum(sum(counts.values()) - counts["errors"] for counts in recount(self.rows).values()) == len(self.rows)
        sums = "sum(events), sum(sent), sum(held), sum(dead), sum(of_nobody), sum(released), sum(released_dead)"
        assert self.site.rows(f"SELECT {sums} FROM forward_runs") == [(len(self.rows), len(self.rows), 0, 0, 0, 0, 0)]
        again = frames_resent(self.site.folder)
        assert sum(state["duplicates"] for state in states.values()) <= again
        assert again <= BATCH * (self.kills["forwarder"] + self.kills["server"] + self.kills["kafka"])


def kill_again_and_again(folder: Path, kills: int, seed: int) -> Scene:
    """So many kills at random moments; what is left of it is checked."""
    rng = random.Random(seed)
    with Broker() as broker, StandInProcess("forward_reducers:REDUCERS", folder=folder, kvs="file") as server:
        scene = Scene(folder, broker, server, f"test-{seed}")
        scene.publish(rng)
        scene.start()
        try:
            for number in range(kills):
                at_least = scene.taken() + 1
                scene.publish(rng)
                scene.wait_for(at_least)
                time.sleep(rng.random() * 0.3)
                scene.kill(VICTIMS[number % 3], rng)
            scene.check()
        finally:
            if scene.process is not None:
                scene.process.kill()
                scene.process.wait(30)
    return scene


@pytest.mark.timeout(600)
def test_a_dozen_kills(tmp_path: Path) -> None:
    """After kills of each at random moments every state equals a recount, and no kill had more than a batch sent again."""
    scene = kill_again_and_again(tmp_path, 12, seed=6)
    assert scene.in_the_middle > 0


@pytest.mark.soak
@pytest.mark.timeout(5400)
def test_a_hundred_kills_of_a_forwarder(tmp_path: Path) -> None:
    """The same over a hundred kills."""
    scene = kill_again_and_again(tmp_path, 100, seed=int(os.environ.get("EXEC_EVENTS_SEED", "100")))
    assert scene.in_the_middle > 20
