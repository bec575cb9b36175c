"""Reading from Kafka while it refuses, goes away, comes back, or is written to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from published import make_topics, publish, recorded

from exec_events.cli import main
from exec_events.cli.verify import verify_source
from exec_events_consumers import topic_reader
from exec_events_schemas.errors import SourceError
from exec_events_schemas.sources import open_source
from kafka_sites import site
from spool_files import Recording
from tools.kafka_broker import Broker

PASSWORD = "right-and-secret"


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """A broker of this module's own, with passwords."""
    with Broker(listeners="SASL_PLAINTEXT", users={"jo": PASSWORD}) as started:
        yield started


def settings(broker: Broker, **changed: Any) -> dict[str, Any]:
    """How to connect to it."""
    return {name: value for name, value in broker.settings.items() if name != "bootstrap_servers"} | changed


@pytest.fixture
def url(broker: Broker, kafka_prefix: str) -> str:
    """A topic with what two recorders sealed."""
    make_topics(broker, kafka_prefix)
    publish(broker, kafka_prefix, recorded())
    return f"kafka://{broker.servers}/{kafka_prefix}"


def test_settings_come_from_a_file(broker: Broker, url: str, tmp_path: Path) -> None:
    """With --kafka-settings, or its variable, every reading verb gets in; the password stands in a file of its own."""
    file, password = tmp_path / "kafka.toml", tmp_path / "password"
    password.touch(mode=0o600)
    password.write_text(f"{PASSWORD}\n")
    said = settings(broker) | {"sasl_plain_password_file": str(password), "partitions": 12, "acks": "all"}
    del said["sasl_plain_password"]
    file.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in said.items()))
    for verb in ("cat", "tail", "report", "verify"):
        for arguments, environment in (
            (["--kafka-settings", str(file)], {}),
            ([], {"EXEC_EVENTS_KAFKA_SETTINGS": str(file)}),
        ):
            result = CliRunner().invoke(main, [verb, url, *arguments], env=environment)
            assert result.exit_code == 0, result.output


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_wrong_credentials(broker: Broker, url: str, mechanism: str) -> None:
    """A wrong password is told as such, at once, without the password, time and again."""
    for _ in range(5):
        wrong = settings(broker, sasl_mechanism=mechanism, sasl_plain_password="wrong-and-secret")
        began = time.monotonic()
        with pytest.raises(SourceError, match=r"refuses this user .* check the user") as refused:
            list(open_source(url, settings=wrong))
        assert time.monotonic() - began < 15
        assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"sasl_mechanism": "SCRAM-SHA-256"}, "check sasl_mechanism"),
        ({"sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_file": "no/such/token"}, "'no/such/token' cannot be read"),
        ({"security_protocol": "SASL_SSL", "ssl_cafile": "no/such/ca.pem"}, "check --kafka-settings"),
        ({"request_timeout_ms": "soon"}, "check --kafka-settings"),
    ],
    ids=["mechanism", "token", "certificate", "no number"],
)
def test_settings_that_cannot_work(broker: Broker, url: str, changed: dict[str, Any], words: str) -> None:
    """What no other try would change is told at once, with what to look at."""
    began = time.monotonic()
    with pytest.raises(SourceError, match=words):
        list(open_source(url, settings=settings(broker, **changed)))
    assert time.monotonic() - began < 15


def test_a_broker_that_speaks_otherwise(broker: Broker, url: str) -> None:
    """Without TLS where it is expected, or the other way round, the protocol is what to check."""
    with pytest.raises(SourceError, match="security_protocol"):
        list(open_source(url, settings={"security_protocol": "SSL"}))


def test_a_broker_that_hangs_while_it_is_read(
    broker: Broker, kafka_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading that does not get on any more ends with an error."""
    make_topics(broker, kafka_prefix)
    publish(broker, kafka_prefix, recorded(3000, 40))
    monkeypatch.setattr(topic_reader, "STALL_SECONDS", 2.0)
    source = open_source(f"kafka://{broker.servers}/{kafka_prefix}", settings=settings(broker, max_poll_records=10))
    records = source.read()
    next(records)
    broker.pause()
    try:
        began = time.monotonic()
        with pytest.raises(SourceError, match="does not answer"):
            list(records)
        assert time.monotonic() - began < 30
    finally:
        broker.resume()


def test_following_over_a_restart(broker: Broker, kafka_prefix: str, url: str) -> None:
    """What is published after the broker was killed and came back is given to who was following before."""
    stop = threading.Event()
    following = open_source(url, settings=settings(broker)).follow(stop, 0.1)
    before = list(iter(lambda: next(following), None))
    assert len(before) == len(recorded())
    broker.kill()
    for _ in range(5):
        assert next(following) is None
    broker.restart()
    third = Recording("33333333-3333-4333-8333-333333333333")
    for subject in range(5):
        third.execute(subject)
    publish(broker, kafka_prefix, third.rows)
    came: list[bytes] = []
    deadline = time.monotonic() + 60
    while len(came) < 5:
        assert time.monotonic() < deadline, f"{len(came)} came"
        found = next(following)
        came += [] if found is None else [found.record]
    assert sorted(came) == sorted(row.record for row in third.rows)
    stop.set()
    following.close()


def test_a_topic_is_verified_while_it_is_written(broker: Broker, kafka_prefix: str, tmp_path: Path) -> None:
    """No record that is only on its way is taken for one that is missing, however often one looks."""
    make_topics(broker, kafka_prefix, partitions=12)
    done = threading.Event()
    with site(tmp_path / "spool", broker.servers, kafka_prefix, **settings(broker)) as recorder:

        def record() -> None:
            while not done.wait(0.01):
                recorder.execute(10, subjects=17)
                recorder.say("heartbeat")

        writer = threading.Thread(target=record)
        writer.start()
        try:
            for _ in range(8):
                report = verify_source(open_source(recorder.url, settings=settings(broker)))
                assert report.ok, report.findings[:5]
        finally:
            done.set()
            writer.join(30)
        assert report.records > 100
