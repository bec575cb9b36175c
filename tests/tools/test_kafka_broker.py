"""The broker that tests, benchmarks and `make broker` start: what it survives, whom it refuses, what it says."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError
from kafka.net.sasl.oauth import AbstractTokenProvider

from kafka_fixtures import EXISTING, RunningKafka
from tools.kafka_broker import Broker, BrokerError, unsecured_token

REPOSITORY = Path(__file__).parents[2]
USERS = {"recorder": "recorder-secret", "reader": "reader-secret"}


def create(broker: RunningKafka, topic: str, partitions: int = 1) -> None:
    """A topic that is there, with leaders, when this returns."""
    with closing(broker.admin()) as admin:
        admin.create_topics({topic: {"num_partitions": partitions}}, wait_for_metadata=True)


def produce(settings: dict[str, Any], topic: str, values: list[bytes], timeout: float = 30) -> None:
    """Send all, and wait until each is acknowledged."""
    # A version is given, or making the producer would wait for a broker.
    with closing(KafkaProducer(**settings, api_version=(4, 0), max_block_ms=timeout * 1000)) as producer:
        for future in [producer.send(topic, value) for value in values]:
            future.get(timeout)


def consume(settings: dict[str, Any], topic: str, count: int, timeout: float = 30) -> list[bytes]:
    """The first values of a topic, fewer if they do not come in time."""
    with closing(
        KafkaConsumer(topic, **settings, auto_offset_reset="earliest", consumer_timeout_ms=timeout * 1000)
    ) as consumer:
        return [message.value for _, message in zip(range(count), consumer, strict=False)]


def partition(broker: Broker, topic: str) -> dict[str, Any]:
    """The one partition of a topic as Kafka tells it; empty while a request meets a node that was just killed."""
    with closing(broker.admin()) as admin:
        try:
            return dict(admin.describe_topics([topic])[0]["partitions"][0])
        except KafkaError:
            return {}


def eventually(what: Callable[[], bool], timeout: float = 20) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@contextmanager
def module(*arguments: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    """``python -m tools.kafka_broker``, ended at the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tools.kafka_broker", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.fixture(scope="module")
def guarded() -> Iterator[Broker]:
    """A broker whose clients must name themselves, with an authority of its own, and again every three seconds."""
    properties = {"connections.max.reauth.ms": "3000"}
    with Broker(listeners="SASL_SSL", users=USERS, properties=properties) as broker:
        create(broker, "guarded")
        yield broker


def test_shared_broker_takes_and_gives(kafka: RunningKafka, kafka_prefix: str) -> None:
    """The broker that all tests share keeps what is sent to a topic of one test."""
    topic = f"{kafka_prefix}.events"
    create(kafka, topic)
    produce(kafka.settings, topic, [b"first", b"second"])
    assert consume(kafka.settings, topic, 2) == [b"first", b"second"]


def test_broker_named_in_the_environment_is_used(kafka: RunningKafka) -> None:
    """With EXEC_EVENTS_TEST_KAFKA the tests use that broker, and need no Java."""
    test = f"{Path(__file__).relative_to(REPOSITORY)}::{test_shared_broker_takes_and_gives.__name__}"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test],
        cwd=REPOSITORY,
        env={**os.environ, EXISTING: kafka.servers, "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_killed_broker_keeps_what_it_acknowledged() -> None:
    """After kill -9 and a restart the same address has the same records, and takes more."""
    with Broker() as broker:
        create(broker, "kept")
        servers = broker.servers
        produce(broker.settings, "kept", [b"before"] * 100)
        (pid,) = broker.pids
        broker.kill()
        assert broker.pids == []
        assert not psutil.pid_exists(pid)
        broker.restart()
        assert broker.servers == servers
        produce(broker.settings, "kept", [b"after"])
        assert consume(broker.settings, "kept", 101) == [b"before"] * 100 + [b"after"]


def test_folder_outlives_the_broker(tmp_path: Path) -> None:
    """A later broker on the folder of one that was stopped has its records."""
    with Broker(directory=tmp_path) as broker:
        create(broker, "kept")
        produce(broker.settings, "kept", [b"value"])
    with Broker(directory=tmp_path) as broker:
        assert consume(broker.settings, "kept", 1) == [b"value"]


def test_three_nodes_survive_the_loss_of_a_leader() -> None:
    """When the leader of a partition is killed, another takes over, nothing acknowledged is lost, and the dead one comes back."""
    with Broker(3) as broker:
        create(broker, "replicated")
        produce(broker.settings, "replicated", [b"before"] * 100)
        before = partition(broker, "replicated")
        assert sorted(before["isr_nodes"]) == [1, 2, 3]
        leader = before["leader_id"]
        broker.kill(leader - 1)
        assert len(broker.pids) == 2
        eventually(lambda: partition(broker, "replicated").get("leader_id", -1) not in {leader, -1})
        produce(broker.settings, "replicated", [b"after"] * 100)
        assert consume(broker.settings, "replicated", 200) == [b"before"] * 100 + [b"after"] * 100
        broker.restart(leader - 1)
        eventually(lambda: sorted(partition(broker, "replicated").get("isr_nodes", [])) == [1, 2, 3])


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_right_password_is_accepted_and_a_wrong_one_refused(guarded: Broker, mechanism: Any) -> None:
    """Each user gets in with the own password alone, over TLS."""
    for user in USERS:
        produce(guarded.settings_of(user, mechanism), "guarded", [b"value"])
    wrong = {**guarded.settings_of("reader", mechanism), "sasl_plain_password": USERS["recorder"]}
    before = guarded.log.count("Failed authentication")
    with pytest.raises(KafkaTimeoutError):
        produce(wrong, "guarded", [b"value"], timeout=2)
    assert guarded.log.count("Failed authentication") > before


def test_token_is_asked_for_again(guarded: Broker) -> None:
    """A client with a token has to show a new one in time, and an old one is refused."""

    class Tokens(AbstractTokenProvider):  # type: ignore[misc]
        seconds = 3600.0
        given = 0

        def token(self) -> str:
            self.given += 1
            return unsecured_token("recorder", now=time.time() - 10, seconds=10 + self.seconds)

    tokens = Tokens()
    settings = {**guarded.settings_of(mechanism="OAUTHBEARER"), "sasl_oauth_token_provider": tokens}
    with closing(KafkaProducer(**settings, api_version=(4, 0))) as producer:
        deadline = time.monotonic() + 20
        producer.send("guarded", b"value").get(10)
        first = tokens.given
        while tokens.given == first:
            assert time.monotonic() < deadline
            producer.send("guarded", b"value").get(10)
            time.sleep(0.2)
    tokens.seconds = -5
    with pytest.raises(KafkaTimeoutError):
        produce(settings, "guarded", [b"value"], timeout=2)


def test_unknown_authority_is_refused(guarded: Broker) -> None:
    """A client that does not know the broker's authority does not talk to it."""
    settings = {**guarded.settings, "ssl_cafile": None}
    with pytest.raises(KafkaTimeoutError):
        produce(settings, "guarded", [b"value"], timeout=2)


def test_frozen_broker_accepts_connections_and_answers_nothing() -> None:
    """A paused node lets clients connect and keeps them waiting; resumed, it answers."""
    with Broker() as broker:
        create(broker, "slow")
        broker.pause()
        host, port = broker.servers.split(":")
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.settimeout(1)
            connection.sendall(b"\x00\x00\x00\x0a\x00\x12\x00\x00\x00\x00\x00\x01\xff\xff")
            with pytest.raises(TimeoutError):
                connection.recv(1)
            broker.resume()
            connection.settimeout(20)
            assert connection.recv(4)


def test_error_ends_with_the_log() -> None:
    """A broker that does not start says so with what Kafka said, and leaves nothing behind."""
    broker = Broker(properties={"num.io.threads": "none"})
    with pytest.raises(BrokerError, match=r"(?s)node 1 could not prepare.*Invalid value none for configuration num.io"):
        broker.start()
    assert broker.pids == []


def test_command_prints_an_address_and_cleans_up() -> None:
    """The command prints where Kafka is, and after Ctrl-C neither processes nor files are left."""
    with module("--nodes", "1", "--set", "num.partitions=7") as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        settings = {"bootstrap_servers": address.removeprefix("kafka://")}
        children = psutil.Process(process.pid).children(recursive=True)
        (folder,) = {child.cwd() for child in children if child.name() == "java"}
        with closing(KafkaConsumer(**settings)) as consumer:
            assert consumer.topics() == set()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        psutil.wait_procs(children, timeout=10)
        assert not any(child.is_running() for child in children)
        assert not Path(folder).exists()


def test_killed_starter_leaves_nothing() -> None:
    """When the process that started it is killed -9, the broker ends and its files go."""
    with module() as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("kafka://127.0.0.1:")
        children = psutil.Process(process.pid).children(recursive=True)
        (java,) = [child for child in children if child.name() == "java"]
        folder = Path(java.cwd())
        process.kill()
        eventually(lambda: not java.is_running() or java.status() == psutil.STATUS_ZOMBIE)
        eventually(lambda: not folder.exists())


def test_missing_java_is_named() -> None:
    """Without Java the command says what to install and ends with 1."""
    with module(PATH="") as process:
        out, error = process.communicate(timeout=60)
    assert process.returncode == 1
    assert out == ""
    assert error.startswith("java not found: Apache Kafka needs Java 17 or later")
    assert "apt-get install default-jre-headless maven" in error
    assert "Traceback" not in error


def test_missing_maven_is_named(tmp_path: Path) -> None:
    """Without Maven, where the jars are not there yet, the command says what to install and ends with 1."""
    java = shutil.which("java")
    assert java is not None
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "java").symlink_to(java)
    node_modules = shutil.ignore_patterns("node_modules")
    shutil.copytree(REPOSITORY / "tools", tmp_path / "tools", ignore=node_modules)
    done = subprocess.run(
        [sys.executable, "-m", "tools.kafka_broker", "--fetch"],
        cwd=tmp_path,
        env={**os.environ, "PATH": str(programs)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("mvn not found: Maven fetches Apache Kafka's jars")


def test_missing_programs_are_named(tmp_path: Path) -> None:
    """Where nothing can be installed, install_system.sh names each missing program and its package, and ends with 1."""
    done = subprocess.run(
        ["/bin/sh", str(REPOSITORY / "tools" / "install_system.sh")],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    for program in ("Java 17", "Maven", "OpenSSL", "kcat", "Node.js 18", "npm"):
        assert program in done.stderr
    assert "apt-get install default-jre-headless maven openssl kcat nodejs npm postgresql" in done.stderr
