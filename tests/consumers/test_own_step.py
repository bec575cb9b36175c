"""A step of somebody's own: the one in docs/own-consumer.md counts every error once, wherever it is killed."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from logs import opened, sqlite_url
from published import make_topics, publish, recorded, send
from sqlalchemy import Column, Integer, MetaData, Table, Text, insert

from exec_events_consumers import consume
from exec_events_consumers.dead_letter_topic import topic_messages
from exec_events_consumers.decode import Decoded
from exec_events_consumers.errors import ConsumerError
from exec_events_consumers.loop import Progress
from exec_events_consumers.store import Transaction
from exec_events_schemas.topics import topics_of
from spool_files import FIRST, SECOND, Recording, time_of

PAGE = Path(__file__).parents[2] / "docs" / "own-consumer.md"
NAME = "errors-by-hour"
# More than one batch of the spool's.
RECORDS = 12_000

# Runs the page's step and kills the process in its second batch: after the step has written, or after it has counted.
KILLED = """
import os, signal, sys
from errors_by_hour import count_errors, mine
from exec_events_consumers import consume

where, source, store = sys.argv[1:]
batches = 0

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def step(events, transaction):
    global batches
    batches += 1
    count_errors(events, transaction)
    if where == "before" and batches == 2:
        die()

def told(progress):
    if where == "after" and batches == 2:
        die()

consume(source, step, store=store, name="errors-by-hour", tables=mine, once=True, on_progress=told)
"""


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    """The rows of a query."""
    with opened(url) as store, store.engine.connect() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(query)]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """The page's consumer, as a file."""
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    path = tmp_path / "errors_by_hour.py"
    path.write_text(snippet)
    return path


@pytest.fixture(scope="module")
def recording() -> Recording:
    """More than two batches of executions, a third of them errors."""
    made = Recording(FIRST)
    for number in range(RECORDS):
        at = time_of(number)
        made.execute(number % 3, status="error" if number % 3 == 1 else "ok", requested_at=at)
    return made


def expected(recording: Recording) -> list[tuple[str, int]]:
    """The page's table, counted plainly."""
    hours = Counter(time_of(number)[:13] for number in range(len(recording.rows)) if number % 3 == 1)
    return sorted(hours.items())


def run(script: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run a script beside the page's consumer."""
    command = [sys.executable, str(script), *arguments]
    return subprocess.run(command, timeout=120, check=False, capture_output=True)


def test_the_pages_consumer_is_twenty_lines_long(script: Path) -> None:
    """What a third party writes, apart from imports, is some twenty lines."""
    lines = [line for line in script.read_text().splitlines() if line.strip() and "import" not in line]
    assert len(lines) <= 20


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_kill_anywhere_counts_nothing_twice(tmp_path: Path, script: Path, recording: Recording, where: str) -> None:
    """Killed before or after its batch counts, and started again, the page's consumer has counted each error once."""
    recording.write(tmp_path / "spool")
    source, url = f"spool://{tmp_path / 'spool'}", sqlite_url(tmp_path)
    killer = tmp_path / "killer.py"
    killer.write_text(KILLED)
    killed = run(killer, where, source, url)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    ((position,),) = rows(url, "SELECT position FROM offsets")
    assert position == (5000 if where == "before" else 10_000)
    done = run(script, source, url)
    assert done.returncode == 0, done.stderr.decode()
    assert rows(url, "SELECT hour, errors FROM errors_by_hour ORDER BY hour") == expected(recording)
    assert run(script, source, url).returncode == 0
    assert rows(url, "SELECT hour, errors FROM errors_by_hour ORDER BY hour") == expected(recording)


def test_a_kill_at_any_moment_counts_nothing_twice(tmp_path: Path, script: Path, recording: Recording) -> None:
    """Killed from outside again and again, a little later each time, it ends with each error counted once."""
    recording.write(tmp_path / "spool")
    arguments = [sys.executable, str(script), f"spool://{tmp_path / 'spool'}", sqlite_url(tmp_path)]
    for tenths in range(4, 40, 3):
        process = subprocess.Popen(arguments)
        try:
            assert process.wait(timeout=tenths / 10) == 0
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(timeout=10)
    assert run(script, *arguments[2:]).returncode == 0
    found = rows(sqlite_url(tmp_path), "SELECT hour, errors FROM errors_by_hour ORDER BY hour")
    assert found == expected(recording)


mine = MetaData()
seen = Table("seen", mine, Column("chain", Text, primary_key=True), Column("seq", Integer, primary_key=True))


def note(events: Sequence[Decoded], transaction: Transaction) -> None:
    """Write down what was given; a second time is an error."""
    transaction.connection.execute(insert(seen), [{"chain": event.chain, "seq": event.seq} for event in events])


def test_copies_are_not_given_and_dead_letters_are_kept(tmp_path: Path) -> None:
    """The step sees each record once; copies are counted, and what cannot be used is in dead_letters under its name."""
    made = Recording(FIRST)
    for number in range(6):
        made.execute(number % 2)
    made.rows += [made.rows[2], made.rows[3]._replace(record=b"junk")]
    made.write(tmp_path)
    url = sqlite_url(tmp_path, "own.sqlite")
    progress = consume(str(tmp_path), note, store=url, name="mine", tables=mine, once=True)
    assert (progress.records, progress.events, progress.dead) == (8, 6, 1)
    assert len(rows(url, "SELECT * FROM seen")) == 6
    assert rows(url, "SELECT consumer, value FROM dead_letters") == [("mine", b"junk")]
    assert rows(url, "SELECT sum(duplicates) FROM chains") == [(1,)]


def test_it_goes_on_until_it_is_stopped(tmp_path: Path) -> None:
    """Without ``once`` it takes what comes, and ends when its event is set, also on a thread."""
    first, second = Recording(FIRST), Recording(SECOND)
    first.execute(1)
    second.execute(1)
    first.write(tmp_path)
    url = sqlite_url(tmp_path, "own.sqlite")
    stop, one, two = threading.Event(), threading.Event(), threading.Event()

    def told(progress: Progress) -> None:
        (one if progress.events == 1 else two if progress.events == 2 else threading.Event()).set()

    def follow() -> None:
        consume(str(tmp_path), note, store=url, name="mine", tables=mine, stop=stop, on_progress=told)

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        assert one.wait(20)
        second.write(tmp_path)
        assert two.wait(20)
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()


def test_control_c_ends_it_in_order(tmp_path: Path, script: Path, recording: Recording) -> None:
    """Ctrl-C ends a consumer that follows without a traceback, after what it has taken."""
    recording.write(tmp_path / "spool")
    script.write_text(script.read_text().replace(", once=True", ", on_progress=lambda p: print(p.events, flush=True)"))
    source, url = f"spool://{tmp_path / 'spool'}", sqlite_url(tmp_path)
    process = subprocess.Popen(
        [sys.executable, str(script), source, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        while int(process.stdout.readline()) < RECORDS:
            pass
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait(timeout=10)
    assert (process.returncode, errors) == (0, "")
    assert rows(url, "SELECT hour, errors FROM errors_by_hour ORDER BY hour") == expected(recording)


@pytest.mark.parametrize("name", ["", "aggregate", "archive"])
def test_a_name_that_is_not_its_own_is_refused(tmp_path: Path, name: str) -> None:
    """Nobody's step may move the aggregate's positions."""
    with pytest.raises(ConsumerError, match="a name of its own"):
        consume(str(tmp_path), note, store=sqlite_url(tmp_path), name=name, once=True)


def test_on_a_topic_its_dead_letters_go_to_theirs(tmp_path: Path, kafka: Any, kafka_prefix: str) -> None:
    """From Kafka a step gets all partitions' events, each once, and its dead letters name it on their topic."""
    make_topics(kafka, kafka_prefix)
    publish(kafka, kafka_prefix, [*recorded(), *recorded()])
    send(kafka, topics_of(kafka_prefix).events, [{"value": b"junk", "key": b"k"}])
    source, url = f"kafka://{kafka.servers}/{kafka_prefix}", sqlite_url(tmp_path)
    progress = consume(source, note, store=url, name="mine", tables=mine, once=True)
    assert (progress.events, progress.dead) == (len(recorded()), 1)
    assert len(rows(url, "SELECT * FROM seen")) == len(recorded())
    (letter,) = topic_messages(source)
    assert letter.value == b"junk"
    assert dict(letter.headers)["consumer"] == b"mine"
    assert rows(url, "SELECT * FROM dead_letters") == []
