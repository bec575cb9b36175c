"""Dead letters: kept with their bytes untouched before a batch counts, listed, shown, and taken once they can be used."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from dashboards import running
from logs import ListFeed, Log, aggregate, opened, sqlite_url, tables_of
from published import make_topics, publish, send

import exec_events_schemas
from exec_events.cli import main
from exec_events_consumers import aggregate as aggregating
from exec_events_consumers.chaining import chained
from exec_events_consumers.dashboard.topic_letters import TopicLetters
from exec_events_consumers.dead_letter_topic import TopicOffice, message_of_letter, topic_messages
from exec_events_consumers.dead_letters import kept_of_message, replay
from exec_events_consumers.decode import DeadLetter, Decoded, decode
from exec_events_consumers.feed import Fetched
from exec_events_consumers.loop import run
from exec_events_consumers.tables import AGGREGATES
from exec_events_schemas.errors import SourceError
from exec_events_schemas.sources import StoredRecord
from exec_events_schemas.topics import topics_of
from spool_files import FIRST, SCHEMA, Recording, chain_of, execution

ALL = sorted(table.name for table in AGGREGATES)
POISON = b"\x00\xffnot a record\x1b[31m"


def command(*arguments: str) -> Result:
    """Run exec-events, which must end well."""
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == 0, result.output
    return result


def listed(*arguments: str) -> list[dict[str, Any]]:
    """What ``dead-letters list`` says."""
    return [json.loads(line) for line in command("dead-letters", "list", "--json", *arguments).stdout.splitlines()]


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    """The rows of a query."""
    with opened(url) as store, store.engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query)]


def with_a_late_output() -> Recording:
    """What a recorder sealed: executions of one person, and between them an output that came late."""
    recording = Recording(FIRST)
    for number in range(5):
        recording.execute(1, status="error" if number == 1 else "ok")
        if number == 2:
            event = execution(FIRST, 1, 3)
            same = (
                "time",
                "recorder_id",
                "trust",
                "execution_id",
                "subject",
                "subject_from",
                "kernel_id",
                "kernel_name",
            )
            late = {name: event[name] for name in same} | {"__schema__": SCHEMA.format("late_output")}
            some_hash = f"sha256:{0:064x}"
            late |= {"cause": "output", "outputs": [], "outputs_hash": some_hash, "overflow": False}
            recording.seal(late | {"late_hash": some_hash, "__schema_version__": "1"}, chain_of(FIRST, 1))
    return recording


@pytest.fixture
def old_version(tmp_path: Path) -> dict[str, str]:
    """The environment of a version from before late outputs were known."""
    folder = tmp_path / "old-version"
    (package,) = exec_events_schemas.__path__
    shutil.copytree(
        package, folder / "exec_events_schemas", ignore=shutil.ignore_patterns("late_output", "__pycache__")
    )
    return {**os.environ, "PYTHONPATH": str(folder)}


def run_old(environment: dict[str, str], *arguments: str) -> None:
    """Run the old version's exec-events."""
    command = [sys.executable, "-m", "exec_events", *arguments]
    subprocess.run(command, env=environment, check=True, timeout=60, capture_output=True)


def anew(tmp_path: Path, recording: Recording) -> dict[str, list[tuple[Any, ...]]]:
    """The tables that the record gives when nothing went wrong."""
    url = sqlite_url(tmp_path, "anew.db")
    aggregate(url, [(row.record, row.hash) for row in recording.rows])
    return tables_of(url, *ALL)


def test_what_a_newer_version_knows_is_replayed(tmp_path: Path, old_version: dict[str, str]) -> None:
    """A record of a schema that an old version did not know is taken by a new one, and no letter is left."""
    recording = with_a_late_output()
    recording.write(tmp_path / "spool")
    url = sqlite_url(tmp_path)
    run_old(old_version, "aggregate", "--once", "--from", f"spool://{tmp_path / 'spool'}", "--store", url)
    (letter,) = listed("--store", url)
    assert "late_output" in letter["reason"]
    assert (letter["partition"], letter["position"], letter["consumer"]) == (f"{FIRST}.db", 4, "aggregate")
    assert rows(url, "SELECT gaps FROM chains") == [("[[3,3]]",)]
    assert "1 taken, 0 were known already, 0 still" in command("dead-letters", "replay", "--store", url).output
    assert listed("--store", url) == []
    assert rows(url, "SELECT gaps, missing, forks, duplicates FROM chains") == [("[]", 0, 0, 0)]
    assert tables_of(url, *ALL) == anew(tmp_path, recording)
    assert "0 taken, 0 were known already, 0 still" in command("dead-letters", "replay", "--store", url).output


def test_a_replay_waits_for_who_keeps_the_tables(tmp_path: Path, postgres_url: str) -> None:
    """On PostgreSQL a batch that has begun ends before a replay looks at its chains, so that neither undoes the other."""
    log = Log()
    for number in range(4):
        log.run(1, number * 1000)
    aggregate(postgres_url, log.records[:2])
    record, raw = log.records[2]
    with opened(postgres_url) as keeping, opened(postgres_url) as replaying:
        with keeping.transaction({}) as transaction:
            transaction.bury([DeadLetter("p", 2, record, "an older version's reason", raw)])
        assert keeping.claim(["p"]) == {"p": 2}
        done = threading.Event()

        def take() -> None:
            replay(replaying, aggregating.aggregate, aggregating.known_hashes)
            done.set()

        thread = threading.Thread(target=take)
        with keeping.transaction({"p": 4}) as transaction:
            thread.start()
            assert not done.wait(1)
            later = decode(Fetched("p", 3, *log.records[3]))
            assert isinstance(later, Decoded)
            chains = transaction.chains([later.chain])
            new, _ = chained([later], chains, lambda chain, seq: None)
            aggregating.aggregate(new, transaction)
            transaction.keep_chains(chains.values())
        thread.join(30)
        assert done.is_set()
    assert rows(postgres_url, "SELECT head_seq, records, missing FROM chains") == [(3, 4, 0)]
    assert rows(postgres_url, "SELECT runs FROM subjects") == [(4,)]
    assert rows(postgres_url, "SELECT * FROM dead_letters") == []


def test_what_is_still_of_no_use_stays(tmp_path: Path) -> None:
    """Junk, a fork and a record that does not have the hash it was stored with stay, however often they are replayed."""
    log, other = Log(), Log()
    for number in range(4):
        log.run(1, number * 1000)
        other.run(1, number * 1000, status="error")
    url = sqlite_url(tmp_path)
    changed = (log.records[3][0], b"\1" * 32)
    aggregate(url, [*log.records[:3], (POISON, None), other.records[1], changed])
    before = tables_of(url, *ALL, "dead_letters", "chains")
    assert len(before["dead_letters"]) == 3
    for _ in range(2):
        with opened(url) as store:
            replayed = replay(store, aggregating.aggregate, aggregating.known_hashes)
        assert (replayed.taken, replayed.known, replayed.left) == (0, 0, 3)
    assert tables_of(url, *ALL, "dead_letters", "chains") == before


def test_a_fork_that_only_a_newer_version_sees_is_counted_once(tmp_path: Path) -> None:
    """A letter that can be read now, and is a fork, gets that for its reason; its chain counts it at the first replay."""
    log, other = Log(), Log()
    for number in range(3):
        log.run(1, number * 1000)
        other.run(1, number * 1000, status="error")
    url = sqlite_url(tmp_path)
    aggregate(url, log.records)
    with opened(url) as store:
        with store.transaction({}) as transaction:
            transaction.bury([DeadLetter("elsewhere", 7, other.records[1][0], "an older version's reason")])
        for _ in range(2):
            replayed = replay(store, aggregating.aggregate, aggregating.known_hashes)
            assert (replayed.taken, replayed.known, replayed.left) == (0, 0, 1)
    assert rows(url, "SELECT forks FROM chains") == [(1,)]
    ((reason,),) = rows(url, "SELECT reason FROM dead_letters")
    assert "a fork" in reason


def test_what_came_another_way_meanwhile_is_a_letter_no_more(tmp_path: Path) -> None:
    """A record that was damaged on its way and came whole later: the letter stays damaged; a whole copy is dropped."""
    log = Log()
    for number in range(3):
        log.run(1, number * 1000)
    url = sqlite_url(tmp_path)
    aggregate(url, log.records)
    record, raw = log.records[1]
    with opened(url) as store, store.transaction({}) as transaction:
        transaction.bury([DeadLetter("elsewhere", 7, record, "an older version's reason", raw)])
    before = tables_of(url, *ALL)
    with opened(url) as store:
        replayed = replay(store, aggregating.aggregate, aggregating.known_hashes)
    assert (replayed.taken, replayed.known, replayed.left) == (0, 1, 0)
    assert tables_of(url, *ALL) == before


def test_a_replay_that_fails_takes_nothing(tmp_path: Path, old_version: dict[str, str]) -> None:
    """When the step raises, the letters are where they were, and no row is written."""
    with_a_late_output().write(tmp_path / "spool")
    url = sqlite_url(tmp_path)
    run_old(old_version, "aggregate", "--once", "--from", f"spool://{tmp_path / 'spool'}", "--store", url)
    before = tables_of(url, *ALL, "dead_letters", "chains")

    def fails(events: Any, transaction: Any) -> None:
        aggregating.aggregate(events, transaction)
        raise RuntimeError("after writing")

    with opened(url) as store, pytest.raises(RuntimeError):
        replay(store, fails, aggregating.known_hashes)
    assert tables_of(url, *ALL, "dead_letters", "chains") == before


def test_show_moves_no_cursor(tmp_path: Path) -> None:
    """Bytes that are no text are shown as numbers, text as it is; --raw writes the very bytes."""
    url = sqlite_url(tmp_path)
    aggregate(url, [(POISON, None), (b'{"text":"\xc3\xa4"}', None), (None, None)])
    shown = command("dead-letters", "show", "1", "--store", url).output
    assert "00 ff 6e 6f 74" in shown
    assert "..not a record.[" in shown
    assert "\x1b" not in shown
    assert '{"text":"ä"}' in command("dead-letters", "show", "2", "--store", url).output
    assert "bytes  none" in command("dead-letters", "show", "3", "--store", url).output
    assert command("dead-letters", "show", "1", "--raw", "--store", url).stdout_bytes == POISON
    assert CliRunner().invoke(main, ["dead-letters", "show", "9", "--store", url]).exit_code == 1
    table = command("dead-letters", "list", "--store", url).output
    assert "p:0" in table
    assert "it has no value" in table


def test_a_store_without_tables_is_told(tmp_path: Path) -> None:
    """A store that nobody has written to is one line, not a traceback."""
    with closing(sqlite3.connect(tmp_path / "empty.db")):
        pass
    result = CliRunner().invoke(main, ["dead-letters", "list", "--store", sqlite_url(tmp_path, "empty.db")])
    assert result.exit_code == 2
    assert "no tables yet" in result.output


# On a topic.


@pytest.fixture
def url(kafka: Any, kafka_prefix: str) -> str:
    """Topics that hold nothing yet."""
    make_topics(kafka, kafka_prefix, partitions=1)
    return f"kafka://{kafka.servers}/{kafka_prefix}"


def test_a_topics_letters_go_to_their_own_topic_and_back(
    tmp_path: Path, kafka: Any, kafka_prefix: str, url: str, old_version: dict[str, str]
) -> None:
    """Bytes untouched, with reason and place; after an upgrade each goes to the tables once, and the topic stays."""
    recording = with_a_late_output()
    events = topics_of(kafka_prefix).events
    publish(kafka, kafka_prefix, recording.rows[:2])
    send(kafka, events, [{"value": POISON, "key": b"k"}, {"value": None, "key": b"k"}])
    publish(kafka, kafka_prefix, recording.rows[2:])
    store = sqlite_url(tmp_path)
    run_old(old_version, "aggregate", "--once", "--from", url, "--store", store)
    assert rows(store, "SELECT * FROM dead_letters") == []
    found = list(topic_messages(url))
    assert [message.value for message in found] == [POISON, None, recording.rows[3].record]
    assert [message.key.decode() for message in found] == [f"{events}/0:{offset}" for offset in (2, 3, 5)]
    headers = {name: value.decode() for name, value in found[2].headers}
    assert headers.pop("found_at").endswith("Z")
    assert "late_output" in headers.pop("reason")
    assert headers.pop("hash").startswith("sha256:")
    assert headers == {
        "consumer": "aggregate",
        "source_topic": events,
        "source_partition": "0",
        "source_offset": "5",
    }
    assert [letter["number"] for letter in listed("--from", url)] == ["0:0", "0:1", "0:2"]
    assert command("dead-letters", "show", "0:0", "--raw", "--from", url).stdout_bytes == POISON
    replayed = command("dead-letters", "replay", "--from", url, "--store", store).output
    assert "3 new messages on the topic" in replayed
    assert "1 taken, 0 were known already, 2 still" in replayed
    assert tables_of(store, *ALL) == anew(tmp_path, recording)
    again = command("dead-letters", "replay", "--from", url, "--store", store).output
    assert "0 new messages on the topic" in again
    assert "0 taken, 0 were known already, 2 still" in again
    assert len(listed("--from", url)) == 3
    assert [letter["position"] for letter in listed("--store", store)] == [2, 3]
    assert rows(store, "SELECT missing, duplicates, forks FROM chains") == [(0, 0, 0)]


def test_a_sinks_letters_are_listed_and_replayed_too(tmp_path: Path, kafka: Any, kafka_prefix: str, url: str) -> None:
    """What a sink set aside names no consumer, and its place is where it is now."""
    topic = topics_of(kafka_prefix).dead_letters
    send(kafka, topic, [{"value": POISON, "key": b"spool", "headers": [("reason", b"no record")]}])
    (letter,) = listed("--from", url)
    assert (letter["consumer"], letter["partition"], letter["position"]) == ("a sink", f"{topic}/0", 0)
    output = command("dead-letters", "replay", "--from", url, "--store", sqlite_url(tmp_path)).output
    assert "1 new messages on the topic" in output
    assert "1 still" in output


def test_the_dashboard_counts_letters_on_their_topic_until_they_are_replayed(
    tmp_path: Path, kafka: Any, kafka_prefix: str, url: str
) -> None:
    """With --from kafka://… the page and the metrics count what is on the topic and was not replayed, without a replay."""
    send(kafka, topics_of(kafka_prefix).events, [{"value": POISON, "key": b"k"}, {"value": None, "key": b"k"}])
    store = sqlite_url(tmp_path)
    command("aggregate", "--once", "--from", url, "--store", store)
    with running(tmp_path, ["dashboard", "--store", store, "--port", "0", "--from", url]) as dashboard:
        deadline = time.monotonic() + 60
        while (facts := dashboard.figures("integrity")["facts"])["topic-letters"] is None:
            assert time.monotonic() < deadline, dashboard.errors
            time.sleep(0.2)
        assert (facts["topic-letters"], facts["dead-letters"]) == (2, 0)
        assert '<div class="alarm"><dt>Dead letters on their topic' in dashboard.get("integrity").text
        assert "\nexec_events_topic_dead_letters 2.0\n" in dashboard.get("metrics").text
        command("dead-letters", "replay", "--from", url, "--store", store)
        facts = dashboard.figures("integrity")["facts"]
        assert (facts["topic-letters"], facts["dead-letters"]) == (0, 2)


def test_letters_on_a_topic_that_is_not_there_are_not_known(kafka: Any) -> None:
    """Before the first delivery, and while Kafka does not answer, nobody says that there are none."""
    letters = TopicLetters(f"kafka://{kafka.servers}/nobody-delivers-here", {})
    assert not letters.look()
    assert letters.waiting({}) is None


KILLED = """
import os, signal, sys
from exec_events_consumers import aggregate as aggregating
from exec_events_consumers.dead_letter_topic import TopicOffice
from exec_events_consumers.loop import run
from exec_events_consumers.open_feed import open_feed
from exec_events_consumers.store import Store

class Killed(TopicOffice):
    def send(self, letters):
        super().send(letters)
        os.kill(os.getpid(), signal.SIGKILL)

url, store = sys.argv[1:]
run(open_feed(url, "aggregate"), Store(store, "aggregate"), aggregating.aggregate, once=True, office=Killed(url, "aggregate"))
"""


def test_a_kill_between_sending_and_committing_loses_no_letter(
    tmp_path: Path, kafka: Any, kafka_prefix: str, url: str
) -> None:
    """Letters are acknowledged before the batch counts: after a kill they are sent again, recognisable by their key."""
    log = Log()
    log.run(1, 0)
    log.run(1, 1000)
    found = [StoredRecord(record, raw, "", 0) for record, raw in log.records]
    # First, so that it is in the first batch, however many it takes.
    send(kafka, topics_of(kafka_prefix).events, [{"value": POISON, "key": b"k"}])
    publish(kafka, kafka_prefix, found)
    store = sqlite_url(tmp_path)
    killed = subprocess.run([sys.executable, "-c", KILLED, url, store], timeout=90, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert rows(store, "SELECT position FROM offsets") == [(0,)]
    assert rows(store, "SELECT * FROM executions") == []
    output = command("aggregate", "--once", "--from", url, "--store", store).output
    assert "3 records read, 2 of them new, 1 to the dead letters" in output
    keys = [message.key for message in topic_messages(url)]
    assert len(keys) == 2
    assert len(set(keys)) == 1
    (letter,) = listed("--from", url)
    assert letter["times"] == 2
    assert "2 new messages on the topic" in command("dead-letters", "replay", "--from", url, "--store", store).output
    assert len(listed("--store", store)) == 1


def test_a_topic_that_takes_none_stops_the_batch(tmp_path: Path, kafka: Any, kafka_prefix: str) -> None:
    """Where dead letters cannot be sent the batch does not count, and the error says what is wrong."""
    store = sqlite_url(tmp_path)
    with closing(TopicOffice(f"kafka://{kafka.servers}/{kafka_prefix}", "aggregate")) as office, opened(store) as it:
        with pytest.raises(SourceError, match="does not take dead letters"):
            run(ListFeed([(POISON, None)]), it, aggregating.aggregate, once=True, office=office)
        assert it.claim(["p"]) == {"p": 0}


def test_a_letter_too_large_for_its_topic_leaves_its_reason(kafka: Any, kafka_prefix: str) -> None:
    """In place of bytes that the topic does not take stands why; the letters beside it are there."""
    topic = topics_of(kafka_prefix).dead_letters
    admin = kafka.admin()
    try:
        small = {"num_partitions": 1, "replication_factor": 1, "configs": {"max.message.bytes": "2000"}}
        admin.create_topics({topic: small})
        admin.wait_for_topics([topic])
    finally:
        admin.close()
    letters = [DeadLetter("t/0", 1, b"a", "first"), DeadLetter("t/0", 2, os.urandom(9000), "second")]
    url = f"kafka://{kafka.servers}/{kafka_prefix}"
    with closing(TopicOffice(url, "aggregate")) as office:
        office.send(letters)
    kept = {one.letter.position: one.letter for one in map(kept_of_message, topic_messages(url))}
    assert kept[1].value == b"a"
    assert kept[2].value == b""
    assert "second (its 9000 bytes are more than this topic takes" in kept[2].reason


class _Message:
    """A message as a consumer gets it."""

    topic, partition, offset = "x.dead-letters", 0, 5

    def __init__(self, value: bytes | None, headers: Sequence[tuple[str, bytes]], **_: Any) -> None:
        self.value, self.headers = value, headers


@pytest.mark.parametrize("stored", [None, b"", b"\2" * 32])
@pytest.mark.parametrize("value", [None, b"", POISON])
def test_a_letter_comes_back_from_its_message(value: bytes | None, stored: bytes | None) -> None:
    """What is made of a letter gives the same letter again, with its hash, also one that no record can have."""
    from datetime import UTC, datetime

    letter = DeadLetter("a.topic/3", 17, value, "warum ✗", stored)
    kept = kept_of_message(_Message(**message_of_letter(letter, "mine", datetime(2026, 1, 1, tzinfo=UTC))))
    assert (kept.letter, kept.consumer, kept.found_at) == (letter, "mine", "2026-01-01T00:00:00.000000Z")
