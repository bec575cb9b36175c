"""The Kafka sink: what arrives on which topic, how topics are made, and what happens to what they do not take."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from kafka.admin import ConfigResource, ConfigResourceType

from exec_events import deliver, undelivered
from exec_events.errors import ConfigurationError
from exec_events.hashing import commit
from exec_events.seal import Content
from exec_events.sinks import open_sink
from exec_events_schemas.record import event_of, leaf_hash, place_of
from exec_events_schemas.topics import content_of
from kafka_fixtures import RunningKafka
from kafka_sites import LOG, Site, site, wait_until
from kafka_topic import headers_of, messages_of, verified, wrong_with

SECRET = "hunter2secret"
ANY_TIME = str(2**63 - 1)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is tried again at once."""
    monkeypatch.setattr(deliver, "RETRY_SECONDS", (0.1,))


def configuration_of(kafka: RunningKafka, topic: str) -> dict[str, str]:
    """A topic's whole configuration, as the broker says it."""
    with closing(kafka.admin()) as admin:
        found = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all")
    return {name: entry["value"] for name, entry in found["topic"][topic].items()}


def configure(kafka: RunningKafka, topic: str, **configuration: str) -> None:
    """Change a topic's configuration; dots are underscores here."""
    changed = {name.replace("_", "."): value for name, value in configuration.items()}
    with closing(kafka.admin()) as admin:
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, configs=changed)])


def partitions_of(kafka: RunningKafka, *topics: str) -> list[int]:
    """How many partitions these topics have."""
    with closing(kafka.admin()) as admin:
        found = {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics(list(topics))}
    return [found[topic] for topic in topics]


def noise(size: int, rng: random.Random) -> str:
    """Text of ``size`` letters that no compression makes much smaller."""
    return rng.randbytes(size // 2).hex()


def kept(kind: str, body: bytes, rng: random.Random, subject: str = "subject-0") -> tuple[Content, dict[str, str]]:
    """A body as a recorder keeps it, and what its event says of it."""
    nonce = rng.randbytes(32)
    commitment = commit(nonce, body)
    return Content(commitment, subject, kind, nonce, body), {f"{kind}_commitment": commitment}


# What arrives.


def test_a_message_is_the_sealed_record(kafka: RunningKafka, kafka_prefix: str, tmp_path: Path) -> None:
    """A message's value is the sealed bytes, its key the subject, its time the event's, its headers CloudEvents' and ours."""
    with site(tmp_path, kafka.servers, kafka_prefix) as made:
        made.execute(7, subjects=3)
        made.drain()
        messages = made.check(kafka.settings)
        spooled = {place_of(stored.record): stored for stored in made.spooled()}
    assert len(messages) == 8
    for message in messages:
        event, (chain, seq) = event_of(message.value), (place.decode() for place in place_of(message.value))
        name = "cell_execution" if "/" in chain else "recorder"
        assert message.value == spooled[place_of(message.value)].record
        assert message.key.decode() == event.get("subject", event["recorder_id"])
        assert message.timestamp == int(datetime.fromisoformat(event["time"]).timestamp() * 1000)
        assert headers_of(message) == {
            "ce_specversion": "1.0",
            "ce_id": f"{chain}:{seq}",
            "ce_type": f"org.exec-events.{name}",
            "ce_source": f"/recorders/{made.recorder_id}",
            "ce_time": event["time"],
            "ce_dataschema": f"https://exec-events.org/schemas/{name}/v1",
            "content-type": "application/json",
            "schema_id": f"https://exec-events.org/schemas/{name}/v1",
            "chain": chain,
            "seq": seq,
            "hash": f"sha256:{leaf_hash(message.value).hex()}",
        }


def test_chains_stay_in_one_partition_and_in_order(
    kafka: RunningKafka, kafka_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over many batches, people and partitions each chain arrives once, in one partition, in order."""
    monkeypatch.setattr(undelivered, "BATCH_RECORDS", 70)
    with site(tmp_path, kafka.servers, kafka_prefix) as made:
        made.execute(3000, subjects=40)
        made.say("stopped")
        made.drain()
        messages = made.check(kafka.settings)
    assert len(messages) == 3002
    assert len({message.partition for message in messages}) > 6


def test_what_comes_again_is_told_by_its_place(kafka: RunningKafka, kafka_prefix: str, tmp_path: Path) -> None:
    """After a crash between ack and note the records come again: the same bytes, and no fault to a verifier."""
    with site(tmp_path, kafka.servers, kafka_prefix) as made:
        made.execute(50)
        made.drain()
        made.spool.acknowledge(made.deliverer.name, 20)
        made.execute(10)
        made.drain()
        messages = made.check(kafka.settings)
    assert len(messages) == 61 + 31
    assert verified(messages).duplicates == 31


@pytest.mark.parametrize("time", ["2999-01-01T00:00:00.000000Z", "1971-01-01T00:00:00.000000Z", "1960-01-01T00:00:00Z"])
def test_a_wrong_clock_stops_nothing(kafka: RunningKafka, kafka_prefix: str, tmp_path: Path, time: str) -> None:
    """Events of a server whose clock is wrong are delivered."""
    with site(tmp_path, kafka.servers, kafka_prefix) as made:
        made.spool.append({"__schema__": "https://exec-events.org/schemas/recorder/v1", "time": time}, "clock")
        made.execute(3)
        made.drain()
        assert {event_of(message.value)["time"] for message in messages_of(kafka.settings, made.topics.events)} > {time}


# Topics.


def test_topics_are_made_as_documented(kafka: RunningKafka, kafka_prefix: str, tmp_path: Path) -> None:
    """Missing topics are made: events kept for ever in 12 partitions, bodies compacted, one partition for the others."""
    with site(tmp_path, kafka.servers, kafka_prefix) as made:
        made.drain()
        topics = made.topics
    assert partitions_of(kafka, *topics) == [12, 12, 1, 1]
    for topic in topics:
        found = configuration_of(kafka, topic)
        assert found["cleanup.policy"] == ("compact" if topic == topics.contents else "delete")
        assert found["max.message.bytes"] == str(8 * 1024 * 1024)
        assert found["message.timestamp.after.max.ms"] == ANY_TIME
        if topic != topics.contents:
            assert (found["retention.ms"], found["retention.bytes"]) == ("-1", "-1")


def test_topics_are_made_as_the_site_says(kafka: RunningKafka, kafka_prefix: str, tmp_path: Path) -> None:
    """Partitions, retention, replication and the largest message of new topics are the site's to choose."""
    stated = {"partitions": 3, "retention_days": 1.5, "max_message_bytes": 12345, "replication_factor": 1}
    with site(tmp_path, kafka.servers, kafka_prefix, **stated) as made:
        made.drain()
        topics = made.topics
    assert partitions_of(kafka, *topics) == [3, 3, 1, 1]
    found = configuration_of(kafka, topics.events)
    assert (found["retention.ms"], found["max.message.bytes"]) == ("129600000", "12345")
    assert configuration_of(kafka, topics.contents)["max.message.bytes"] == "12345"


def test_topics_that_exist_are_left_as_they_are(kafka: RunningKafka, kafka_prefix: str, tmp_path: Path) -> None:
    """A topic that the site made keeps its partitions and configuration; only those missing are made."""
    with closing(kafka.admin()) as admin:
        admin.create_topics({f"{kafka_prefix}.events": {"num_partitions": 2, "configs": {"retention.ms": "86400000"}}})
    with site(tmp_path, kafka.servers, kafka_prefix) as made:
        made.execute(20)
        made.drain()
        made.check(kafka.settings)
        topics = made.topics
    assert partitions_of(kafka, *topics) == [2, 12, 1, 1]
    assert configuration_of(kafka, topics.events)["retention.ms"] == "86400000"


def test_topics_that_may_not_be_made_are_asked_for(kafka: RunningKafka, kafka_prefix: str, tmp_path: Path) -> None:
    """With create_topics off the problem says what to make; once that is made delivery goes on, with nothing lost."""
    with site(tmp_path, kafka.servers, kafka_prefix, create_topics=False) as made:
        made.execute(30)
        problem = made.wait_for_problem("create_topics is off")
        for words in (*made.topics, "12 partitions", "cleanup.policy=compact", "retention.ms=-1"):
            assert words in problem
        assert made.position == 0
        with closing(kafka.admin()) as admin:
            assert not set(made.topics) & set(admin.list_topics())
            admin.create_topics({topic: {"num_partitions": 4} for topic in made.topics})
        made.drain()
        made.check(kafka.settings)
        assert made.problem == ""


def test_too_few_brokers_are_a_clear_problem(kafka: RunningKafka, kafka_prefix: str, tmp_path: Path) -> None:
    """A replication factor that the cluster cannot have is named as the problem, and nothing counts as delivered."""
    with site(tmp_path, kafka.servers, kafka_prefix, replication_factor=9, stop_seconds=0.5) as made:
        made.execute(3)
        made.wait_for_problem("too few brokers for replication_factor 9")
        assert made.position == 0


@pytest.mark.parametrize(
    ("url", "settings", "words"),
    [
        (f"kafka://user:{SECRET}@127.0.0.1:9092", {}, "sink_settings"),
        (f"kafka://127.0.0.1:9092/prefix?sasl_plain_password={SECRET}", {}, "sink_settings"),
        ("kafka://127.0.0.1:9092/a b", {}, "no prefix of Kafka topics"),
        ("kafka://127.0.0.1:9092", {"acks": 0}, "no setting acks"),
        ("kafka://127.0.0.1:9092", {"enable_idempotence": False}, "no setting enable_idempotence"),
        ("kafka://127.0.0.1:9092", {"sasl_pain_password": SECRET}, "no setting sasl_pain_password"),
        ("kafka://127.0.0.1:9092", {"sasl_plain_password_file": "/does/not/exist"}, "cannot be read"),
    ],
)
def test_settings_that_cannot_work_are_a_clear_error(url: str, settings: dict[str, Any], words: str) -> None:
    """A URL with more than an address in it, and settings that Kafka does not know or must not change, are refused."""
    with pytest.raises(ConfigurationError, match=words) as caught:
        open_sink(url, LOG, **settings)
    assert SECRET not in str(caught.value)


# What a topic does not take.


@contextmanager
def narrow(kafka: RunningKafka, prefix: str, folder: Path, limit: int) -> Iterator[Site]:
    """A site whose topics take messages of ``limit`` bytes, and have two partitions."""
    with site(folder, kafka.servers, prefix, max_message_bytes=limit, partitions=2) as made:
        made.drain()
        yield made


@pytest.mark.parametrize(("limit", "size"), [(20_000, 80_000), (400_000, 1_500_000)])
def test_an_event_too_large_holds_up_what_is_behind_it(
    kafka: RunningKafka, kafka_prefix: str, tmp_path: Path, limit: int, size: int
) -> None:
    """An event over the topic's limit is the problem until the limit is raised; nothing of its chain overtakes it."""
    rng = random.Random(limit)
    with narrow(kafka, kafka_prefix, tmp_path, limit) as made:
        made.execute(20)
        made.execute(1, notebook=noise(size, rng))
        made.execute(200)
        made.wait_for_problem("larger than the topic takes", "max.message.bytes")
        wait_until(lambda: made.deliverer.state().retries > 3)
        blocked = messages_of(kafka.settings, made.topics.events)
        wrong = wrong_with(blocked, made.spooled())
        assert wrong
        assert all("is missing" in text for text in wrong), wrong[:5]
        configure(kafka, made.topics.events, max_message_bytes="2000000")
        made.drain()
        made.check(kafka.settings)


def test_small_events_go_in_batches_that_fit(kafka: RunningKafka, kafka_prefix: str, tmp_path: Path) -> None:
    """Events that are small enough each go, though many of them together would be more than the topic takes."""
    rng = random.Random(4)
    with narrow(kafka, kafka_prefix, tmp_path, 20_000) as made:
        for _ in range(300):
            made.execute(1, notebook=noise(4000, rng))
        made.drain()
        made.check(kafka.settings)


def test_bodies_are_on_their_own_topic(kafka: RunningKafka, kafka_prefix: str, tmp_path: Path) -> None:
    """A body that is kept is on the contents topic under its commitment, the SHA-256 of what is there."""
    rng = random.Random(5)
    bodies = {}
    with site(tmp_path, kafka.servers, kafka_prefix) as made:
        for number in range(20):
            code, of_code = kept("code", f"print({number})".encode(), rng)
            outputs, of_outputs = kept("outputs", noise(50_000 * (number % 8), rng).encode(), rng)
            bodies |= {content.commitment: content for content in (code, outputs)}
            made.execute(1, contents=(code, outputs), **of_code, **of_outputs)
        made.drain()
        made.check(kafka.settings)
        messages = messages_of(kafka.settings, made.topics.contents)
    assert len(messages) == len(bodies) == 40
    for message in messages:
        content = bodies[message.key.decode()]
        assert f"sha256:{sha256(message.value).hexdigest()}" == message.key.decode()
        assert message.value == content.nonce + content.body
        assert headers_of(message) == {"subject": content.subject, "kind": content.kind}


def test_a_body_too_large_is_refused_with_its_reason(
    kafka: RunningKafka, kafka_prefix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a body over the topic's limit the reason is there in its place; its event, and all other bodies, go."""
    rng = random.Random(6)
    sizes = [10, 30_000, 200, 700_000, 10, 1_500_000, 300]
    contents = []
    with narrow(kafka, kafka_prefix, tmp_path, 15_000) as made:
        for size in sizes:
            content, of_body = kept("outputs", noise(size, rng).encode(), rng)
            contents.append(content)
            made.execute(1, contents=(content,), **of_body)
        made.drain()
        made.check(kafka.settings)
        found = {message.key.decode(): message for message in messages_of(kafka.settings, made.topics.contents)}
        assert made.problem == ""
        assert made.deliverer.state().errors == 3
    for content in contents:
        message = found.pop(content.commitment)
        read = content_of(message.key, message.value, message.headers)
        if len(content.body) < 15_000:
            assert read.body == content.body
        else:
            assert (message.value, read.body) == (b"", None)
            assert read.refused == headers_of(message)["refused"]
            assert f"{len(content.body)} bytes of outputs" in read.refused
            assert read.subject == "subject-0"
    assert not found
    assert caplog.text.count("a body is not published") == 3


def test_no_contents_no_bodies(kafka: RunningKafka, kafka_prefix: str, tmp_path: Path) -> None:
    """Where the site keeps no bodies, nothing is on the topic of bodies."""
    with site(tmp_path, kafka.servers, kafka_prefix) as made:
        made.execute(30)
        made.drain()
        assert messages_of(kafka.settings, made.topics.contents) == []


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("record", b"\xffno record"),
        ("record", b""),
        ("record", b'{"event":[],"seal":{"chain":"a","prev":null,"seq":0}}'),
        ("record", "text, not bytes"),
        ("record", 5),
        ("hash", "text, not bytes"),
    ],
)
def test_a_damaged_row_goes_to_dead_letters(
    kafka: RunningKafka, kafka_prefix: str, tmp_path: Path, column: str, value: Any
) -> None:
    """A row that is no record any more goes to the dead letters as it is, with the reason; the rest is delivered."""
    with site(tmp_path, kafka.servers, kafka_prefix, start=False) as made:
        made.spool.start()
        made.execute(9)
        made.flush()
        with closing(sqlite3.connect(made.spool.path)) as connection, connection:
            connection.execute(f"UPDATE records SET {column} = ? WHERE id = 4", (value,))
        made.deliverer.start()
        made.drain()
        events = messages_of(kafka.settings, made.topics.events)
        dead = messages_of(kafka.settings, made.topics.dead_letters)
        assert made.deliverer.state().errors == len(dead)
    if column == "hash":
        assert (len(events), dead) == (9, [])
        return
    assert len(events) == 8
    (letter,) = dead
    assert letter.value == (value if isinstance(value, bytes) else str(value).encode())
    assert "not a record" in headers_of(letter)["reason"] or "does not end in a seal" in headers_of(letter)["reason"]
