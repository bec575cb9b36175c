"""Study logs: what is written is what `forward` sends, once, in order, and can be read and proved again."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from logs import Log, random_log, time_at
from published import make_topics, publish

from exec_events.cli import main
from exec_events_consumers.decode import Decoded, decode
from exec_events_consumers.errors import ConsumerError
from exec_events_consumers.feed import Fetched
from exec_events_consumers.learning_observer.frames import SOURCE, frame_of, is_proved
from exec_events_consumers.learning_observer.reductions import reduce_student
from exec_events_consumers.learning_observer.study_log import NAME_LIMIT, SUFFIX, export, frames_in, name_of
from exec_events_schemas.record import seal
from exec_events_schemas.sources import StoredRecord, open_source
from spool_files import FIRST, SECOND, write_json_lines

DAY_US = 24 * 3600 * 1_000_000


def run(*arguments: Any) -> Result:
    """Run exec-events export study-log."""
    return CliRunner().invoke(main, ["export", "study-log", *map(str, arguments)])


def stored(log: Log) -> list[StoredRecord]:
    """A log as sources have it."""
    return [StoredRecord(record, raw, "", 0) for record, raw in log.records]


def expected(log: Log, subject: str) -> list[dict[str, Any]]:
    """The frames that `forward` sends of a subject's records, in the order of their times."""
    decoded = [decode(Fetched("", 0, record, raw)) for record, raw in log.records]
    events = [one for one in decoded if isinstance(one, Decoded) and one.event.get("subject") == subject]
    return [frame_of(one) for one in sorted(events, key=lambda one: (one.event["time"], one.chain, one.seq))]


@pytest.mark.parametrize("zipped", [False, True])
def test_what_is_written_is_read_again(tmp_path: Path, zipped: bool) -> None:
    """Each subject's frames of all days, read back from its files, are those that forward sends, and can be proved."""
    log = random_log(random.Random(5), 400, recorders=(FIRST, SECOND))
    source = write_json_lines(tmp_path / "log.jsonl", stored(log))
    result = run(tmp_path / "out", "--from", source, *(["--gzip"] if zipped else []))
    assert result.exit_code == 0, result.output
    subjects = {event["subject"] for event in log.events}
    for subject in subjects:
        files = sorted((tmp_path / "out").glob(f"*-{subject}{SUFFIX}{'.gz' if zipped else ''}"))
        frames = [frame for path in files for frame in frames_in(path)]
        assert all(is_proved(frame) for frame in frames)
        assert {frame.pop("source") for frame in frames} == {SOURCE}
        assert frames == expected(log, subject)
    assert f"400 events in {len(list((tmp_path / 'out').iterdir()))} files" in result.output


def test_a_line_is_what_the_server_writes(tmp_path: Path) -> None:
    """A line is a JSON object of client, metadata and server, a tab, and the event's time."""
    log = Log()
    log.run(1, 5_000_000, duration_us=250)
    export(open_source(write_json_lines(tmp_path / "log.jsonl", stored(log))), tmp_path / "out")
    (path,) = (tmp_path / "out").iterdir()
    assert path.name == "2026-01-01-subject-1.study.log"
    text, _, at = path.read_text().rstrip("\n").partition("\t")
    assert at == "2026-01-01T00:00:05.000250"
    assert text.startswith('{"client":{"chain_id":')
    assert text.endswith('"metadata":{"source":"org.exec_events.jupyter"},"server":{"time":1767225605.00025}}')


def test_a_day_is_the_events_own(tmp_path: Path) -> None:
    """A run just after midnight (UTC) is in the file of the new day."""
    log = Log()
    log.run(1, DAY_US - 10, duration_us=5)
    log.run(1, DAY_US + 10, duration_us=5)
    export(open_source(write_json_lines(tmp_path / "log.jsonl", stored(log))), tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["2026-01-01-subject-1.study.log", "2026-01-02-subject-1.study.log"]


def test_figures_of_a_replay(tmp_path: Path) -> None:
    """The reductions that run in the server count in a file's frames what they count in the frames as sent."""
    log = random_log(random.Random(6), 60, subjects=1)
    export(open_source(write_json_lines(tmp_path / "log.jsonl", stored(log))), tmp_path / "out")
    files = sorted((tmp_path / "out").iterdir())
    replayed = sent = None
    for path in files:
        for frame in frames_in(path):
            replayed = reduce_student(replayed, frame)
    for frame in expected(log, "subject-0"):
        sent = reduce_student(sent, frame)
    assert replayed == sent
    assert replayed is not None
    assert replayed["record"]["frames"] == 60


def test_a_topic_with_copies(kafka: Any, tmp_path: Path) -> None:
    """Of a topic, in which records may stand twice, each event is written once."""
    log = random_log(random.Random(7), 40)
    make_topics(kafka, "study-logs")
    publish(kafka, "study-logs", [*stored(log), *stored(log)[:15]])
    result = run(tmp_path / "out", "--from", f"kafka://{kafka.servers}/study-logs")
    assert result.exit_code == 0, result.output
    counts = Counter(frame["hash"] for path in (tmp_path / "out").iterdir() for frame in frames_in(path))
    assert len(counts) == 40
    assert set(counts.values()) == {1}


def test_what_cannot_be_used_is_told(tmp_path: Path) -> None:
    """A record that was changed, and a fork, are left out, counted and named; all others are written."""
    log = Log()
    for second in range(3):
        log.run(1, second * 1_000_000)
    fork, head = seal({**log.events[1], "execution_count": 99}, f"{FIRST}/{1:016x}", None)
    rows = stored(log)
    changed = StoredRecord(rows[2].record.replace(b'"status":"ok"', b'"status":"no"'), rows[2].hash, "", 0)
    source = write_json_lines(tmp_path / "log.jsonl", [rows[0], rows[1], changed, StoredRecord(fork, head.hash, "", 0)])
    result = run(tmp_path / "out", "--from", source)
    assert result.exit_code == 0, result.output
    assert "2 events in 1 files, 2 not used" in result.output
    assert "a fork" in result.output
    assert "its hash is not the one stored with it" in result.output


def test_a_folder_that_holds_something(tmp_path: Path) -> None:
    """A folder that is not empty is refused, and is as it was."""
    log = Log()
    log.run(1, 0)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    result = run(tmp_path / "out", "--from", write_json_lines(tmp_path / "log.jsonl", stored(log)))
    assert result.exit_code == 2
    assert "name a folder that is empty" in result.output
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


@pytest.mark.parametrize("subject", ["../../etc/passwd", "a/b", "x" * 300, "p:3f9a01bc:0d6a", "ü" * 100, "."])
def test_names_are_no_paths(subject: str) -> None:
    """Whatever a subject is called, its file has a name that is one, short enough, and another subject's is another."""
    name = name_of(subject, "2026-01-01")
    assert "/" not in name
    assert len(name.encode()) <= NAME_LIMIT + len(f"2026-01-01-{SUFFIX}")
    assert name != name_of(f"{subject}.", "2026-01-01")


def test_a_line_that_is_none(tmp_path: Path) -> None:
    """Reading a file that is no study log names the line."""
    path = tmp_path / f"x{SUFFIX}"
    path.write_text(f'{{"client": {{}}}}\t{time_at(0)}\nnonsense\n')
    with pytest.raises(ConsumerError, match=r"line 2 of .* is none of a study log"):
        list(frames_in(path))
