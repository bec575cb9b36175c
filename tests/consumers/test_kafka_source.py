"""Kafka as a SOURCE: every command reads a topic as it reads a spool, and says what is wrong with it."""

from __future__ import annotations

import json
import os
import socket
import threading
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from published import make_topics, publish, recorded, send

from exec_events.cli import main
from exec_events.sinks.kafka_erase import erase_bodies
from exec_events_consumers.kafka_source import KafkaSource
from exec_events_schemas.errors import SourceError
from exec_events_schemas.record import seal
from exec_events_schemas.sources import Damage, StoredRecord, open_source
from exec_events_schemas.topics import topics_of
from spool_files import FIRST, chain_of, execution, two_recorders


def run(*arguments: str) -> Result:
    """Run exec-events."""
    return CliRunner().invoke(main, list(arguments))


def lines(result: Result) -> list[dict[str, Any]]:
    """What it printed, as JSON."""
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def place(line: dict[str, Any]) -> tuple[str, int]:
    """The chain and seq of a printed record."""
    return line["seal"]["chain"], line["seal"]["seq"]


@pytest.fixture
def url(kafka: Any, kafka_prefix: str) -> str:
    """A topic that holds nothing yet."""
    make_topics(kafka, kafka_prefix)
    return f"kafka://{kafka.servers}/{kafka_prefix}"


@pytest.fixture
def full(kafka: Any, kafka_prefix: str, url: str) -> str:
    """A topic with all that two recorders sealed."""
    publish(kafka, kafka_prefix, recorded())
    return url


def test_cat_prints_every_record(full: str) -> None:
    """cat gives each record with its seal and hash, those of one chain in order."""
    printed = lines(run("cat", full))
    assert sorted(map(place, printed)) == sorted(
        (json.loads(row.record)["seal"]["chain"], json.loads(row.record)["seal"]["seq"]) for row in recorded()
    )
    for chain in {place(line)[0] for line in printed}:
        seqs = [place(line)[1] for line in printed if place(line)[0] == chain]
        assert seqs == sorted(seqs)
    assert all(line["hash"].startswith("sha256:") for line in printed)


def test_one_partition(full: str) -> None:
    """Partitions read one by one hold together what all hold, and each chain is in one of them."""
    each = [lines(run("cat", full, "--partition", str(number))) for number in range(3)]
    assert sum(map(len, each)) == len(recorded())
    chains = [{place(line)[0] for line in printed} for printed in each]
    assert sum(map(len, chains)) == len(set.union(*chains))


def test_from_a_time(full: str) -> None:
    """--start reads from the first event of that time on, and --since gives those of that time and later."""
    everything = lines(run("cat", full))
    middle = sorted(line["event"]["time"] for line in everything)[len(everything) // 2]
    since = lines(run("cat", full, "--since", middle))
    assert {place(line) for line in since} == {place(line) for line in everything if line["event"]["time"] >= middle}
    started = {place(line) for line in lines(run("cat", full, "--start", middle))}
    assert {place(line) for line in since} <= started < {place(line) for line in everything}


def test_tail_gives_the_last(kafka: Any, kafka_prefix: str, url: str) -> None:
    """tail -n gives the latest records of all partitions, the latest last."""
    publish(kafka, kafka_prefix, two_recorders()[0].rows)
    times = sorted(line["event"]["time"] for line in lines(run("cat", url)))
    assert [line["event"]["time"] for line in lines(run("tail", url, "-n", "3"))] == times[-3:]


def test_following_from_now(kafka: Any, kafka_prefix: str, full: str) -> None:
    """From now on, nothing old is given, and what is published then is."""
    stop = threading.Event()
    source = open_source(full, start="now")
    records = source.follow(stop, 0.1)
    assert next(records) is None
    record, head = seal(execution(FIRST, 9, 1), chain_of(FIRST, 9), None)
    publish(kafka, kafka_prefix, [StoredRecord(record, head.hash, "", 0)])
    found = next(stored for stored in records if stored is not None)
    assert found.record == record
    stop.set()
    assert [stored for stored in records if stored is not None] == []


def test_report_counts(full: str) -> None:
    """report counts the executions of the topic."""
    groups = json.loads(run("report", full, "--by", "subject", "--json").stdout)["groups"]
    assert {group["subject"]: group["executions"] for group in groups} == {"subject-0": 6, "subject-1": 6}


# Verification.


def findings(url: str, *arguments: str) -> list[dict[str, Any]]:
    """What verify finds."""
    found: list[dict[str, Any]] = json.loads(run("verify", url, "--json", *arguments).stdout)["findings"]
    return found


def test_a_whole_topic_verifies(kafka: Any, kafka_prefix: str, full: str) -> None:
    """Every chain of the topic is found in order, also where records came twice."""
    publish(kafka, kafka_prefix, recorded()[2:7])
    report = json.loads(run("verify", full, "--json").stdout)
    assert (report["ok"], report["duplicates"]) == (True, 5)


@pytest.mark.parametrize(
    ("rows", "kind"),
    [
        (lambda rows: [*rows[:3], *rows[4:]], "missing"),
        (lambda rows: [*rows[:2], rows[3], rows[2], *rows[4:]], "reordered"),
        (lambda rows: [*rows[:-3], *rows[-1:]], "tail cut"),
        (
            lambda rows: [
                rows[0],
                StoredRecord(rows[1].record.replace(b'"ok"', b'"error"'), rows[1].hash, "", 0),
                *rows[2:],
            ],
            "changed",
        ),
        (lambda rows: [*rows, _other(rows[1])], "fork"),
    ],
    ids=["missing", "reordered", "the tail", "changed", "fork"],
)
def test_what_is_wrong_is_found(kafka: Any, kafka_prefix: str, url: str, rows: Any, kind: str) -> None:
    """A record that is gone, changed, doubled otherwise or out of order is found on the topic, by its name."""
    publish(kafka, kafka_prefix, rows(recorded(12, 1)))
    found = findings(url)
    assert kind in {one["kind"] for one in found}, found


def _other(row: StoredRecord) -> StoredRecord:
    """Another record of the same chain and seq."""
    event = execution(FIRST, 0, 1, status="error")
    changed, head = seal(event, chain_of(FIRST, 0), None)
    assert changed != row.record
    return StoredRecord(changed, head.hash, "", 0)


def test_a_part_is_verified_as_a_part(full: str) -> None:
    """Of one partition, or from a time on, what lies outside is no finding; the report says that it was a part."""
    for part in (("--partition", "0"), ("--partition", "1"), ("--start", "2026-01-01T00:00:04")):
        result = run("verify", full, *part)
        assert result.exit_code == 0, result.output
        assert "only a part of the record was read" in result.output


def test_a_damaged_message_is_told(kafka: Any, kafka_prefix: str, full: str) -> None:
    """What is no record is told with its partition and offset, and the rest is read."""
    bad = [{"value": b"junk", "partition": 0}, {"value": None, "key": b"k", "partition": 1}]
    send(kafka, topics_of(kafka_prefix).events, bad)
    found: list[Damage] = []
    assert len(list(open_source(full).read(found.append))) == len(recorded())
    assert {damage.file for damage in found} == {f"{kafka_prefix}.events/0", f"{kafka_prefix}.events/1"}
    result = run("verify", full)
    assert result.exit_code == 1
    assert "damaged" in result.output


# What cannot be read.


def test_no_broker() -> None:
    """Where nobody listens, and where somebody does and never answers, it is told in time, and what to look at."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        for port in (1, silent.getsockname()[1]):
            result = run("cat", f"kafka://127.0.0.1:{port}")
            assert result.exit_code == 2
            assert "does not answer" in result.output
            assert "check the address" in result.output


def test_no_topic(kafka: Any, kafka_prefix: str) -> None:
    """A topic that is not there is named, and stays so: asking does not make it."""
    for _ in range(2):
        result = run("cat", f"kafka://{kafka.servers}/{kafka_prefix}")
        assert result.exit_code == 2
        assert f"there is no topic {kafka_prefix}.events" in result.output


def test_no_such_partition(url: str) -> None:
    """A partition that the topic has not is refused, with those it has."""
    result = run("cat", url, "--partition", "7")
    assert result.exit_code == 2
    assert "partitions 0 to 2, not 7" in result.output


def test_partitions_of_a_spool(tmp_path: Path) -> None:
    """Only topics have partitions to choose from."""
    result = run("cat", str(tmp_path), "--partition", "0")
    assert result.exit_code == 2
    assert "has no partitions" in result.output


def test_settings_nobody_knows(url: str, tmp_path: Path) -> None:
    """A setting that kafka-python has not is refused by its name."""
    settings = tmp_path / "kafka.toml"
    settings.write_text('securty_protocol = "SSL"\n')
    result = run("cat", url, "--kafka-settings", str(settings))
    assert result.exit_code == 2
    assert "securty_protocol" in result.output


# Bodies.


def body(kind: str, text: bytes, subject: str = "subject-0") -> tuple[str, dict[str, Any]]:
    """A body as the sink publishes it: its commitment, and the message."""
    value = os.urandom(32) + text
    commitment = f"sha256:{sha256(value).hexdigest()}"
    headers = [("subject", subject.encode()), ("kind", kind.encode())]
    return commitment, {"key": commitment.encode(), "value": value, "headers": headers}


def test_bodies_are_found_by_their_commitments(kafka: Any, kafka_prefix: str, url: str) -> None:
    """cat --contents puts beside each event its body, or that it was erased, or why it was refused."""
    code, code_message = body("code", b"1 + 1")
    outputs, outputs_message = body("outputs", b'[{"output_type":"stream"}]')
    gone, gone_message = body("code", b"secret")
    large, large_message = body("code", b"large")
    large_message |= {"value": b"", "headers": [*large_message["headers"], ("refused", b"too large")]}
    chain = chain_of(FIRST, 0)
    head = None
    rows = []
    for number, members in enumerate(
        [
            {"code_commitment": code, "outputs_commitment": outputs},
            {"code_commitment": gone},
            {"code_commitment": large},
            {},
        ]
    ):
        record, head = seal(execution(FIRST, 0, number, **members), chain, head)
        rows.append(StoredRecord(record, head.hash, "", 0))
    publish(kafka, kafka_prefix, rows)
    tombstone = {"key": gone.encode(), "value": None}
    send(kafka, topics_of(kafka_prefix).contents, [code_message, outputs_message, gone_message, large_message])
    send(kafka, topics_of(kafka_prefix).contents, [tombstone])
    told = [line.get("contents") for line in lines(run("cat", url, "--contents"))]
    assert told == [
        {"code": {"body": "1 + 1"}, "outputs": {"body": [{"output_type": "stream"}]}},
        {"code": {"erased": True}},
        {"code": {"refused": "too large"}},
        None,
    ]


def test_erasing_one_person(kafka: Any, kafka_prefix: str, url: str) -> None:
    """erase_bodies writes tombstones for one person's bodies, and for nobody else's; again, it finds none."""
    own = [body("code", b"%d" % number, "jo")[1] for number in range(5)]
    other, other_message = body("code", b"x", "ana")
    send(kafka, topics_of(kafka_prefix).contents, [*own, other_message])
    assert erase_bodies(url, {}, ["jo"]) == 5
    assert erase_bodies(url, {}, ["jo"]) == 0
    left = {}
    for content in KafkaSource(url).contents():
        if content is None:
            break
        left[content.commitment] = content
    assert [content.commitment for content in left.values() if content.body is not None] == [other]


def test_a_body_that_was_changed_is_damage(kafka: Any, kafka_prefix: str, url: str) -> None:
    """A body that its key does not commit to is told, not given."""
    _, message = body("code", b"1 + 1")
    send(kafka, topics_of(kafka_prefix).contents, [message | {"value": message["value"] + b"0"}])
    with pytest.raises(SourceError, match="not the one that was committed to"):
        next(KafkaSource(url).contents())
