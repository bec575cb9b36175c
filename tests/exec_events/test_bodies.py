"""cat --contents puts the bodies a site keeps beside their events, and says of each that is gone what became of it."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from exec_events.cli import main
from exec_events.cli.erase import erase_subject
from exec_events_schemas.contents import Contents
from exec_events_schemas.errors import SourceError
from exec_events_schemas.sources import open_source
from spool_files import FIRST, Recording, write_json_lines

OUTPUTS = [{"output_type": "stream", "name": "stdout", "text": "é\n"}]


def body(text: bytes) -> tuple[str, bytes, bytes]:
    """A body as the recorder keeps it: its commitment, its nonce and itself."""
    nonce = os.urandom(32)
    return f"sha256:{sha256(nonce + text).hexdigest()}", nonce, text


def keep(path: Path, kind: str, kept: tuple[str, bytes, bytes]) -> None:
    """Put a body into a spool file."""
    commitment, nonce, text = kept
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO contents VALUES (?, 'subject-0', ?, ?, ?)", (commitment, kind, nonce, text))


def cat(source: Path) -> Result:
    """Run cat --contents."""
    return CliRunner().invoke(main, ["cat", str(source), "--contents"])


def contents(result: Result) -> list[Any]:
    """What stands beside the events that were printed."""
    return [json.loads(line).get("contents") for line in result.stdout.splitlines()]


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """A spool with an execution that committed to code and outputs, another to code, and one to nothing."""
    code, outputs, other = body(b"print('\xc3\xa9')"), body(json.dumps(OUTPUTS).encode()), body(b"2 + 2")
    recording = Recording(FIRST)
    recording.say("started")
    recording.execute(0, code_commitment=code[0], outputs_commitment=outputs[0])
    recording.execute(0, code_commitment=other[0])
    recording.execute(0)
    path = recording.write(tmp_path / "spool")
    keep(path, "code", code)
    keep(path, "outputs", outputs)
    keep(path, "code", other)
    return tmp_path / "spool"


def test_bodies_stand_beside_their_events(spool: Path) -> None:
    """Code is text, outputs are JSON, and an event that names no body has nothing beside it."""
    result = cat(spool)
    assert result.exit_code == 0, result.output
    both = {"code": {"body": "print('é')"}, "outputs": {"body": OUTPUTS}}
    assert contents(result) == [None, both, {"code": {"body": "2 + 2"}}, None]


def test_erased_bodies_are_told_as_such(spool: Path) -> None:
    """After erase, the same lines say that there was a body and that it is gone."""
    assert erase_subject(spool / f"{FIRST}.db", ["subject-0"]) == 3
    gone = {"erased": True}
    assert contents(cat(spool)) == [None, {"code": gone, "outputs": gone}, {"code": gone}, None]


def test_a_changed_body_is_damage(spool: Path) -> None:
    """A body that is not the one committed to is told on standard error, and not given."""
    with closing(sqlite3.connect(spool / f"{FIRST}.db")) as connection, connection:
        connection.execute("UPDATE contents SET body = x'00' WHERE kind = 'outputs'")
    result = cat(spool)
    assert result.exit_code == 1
    assert "not the one that was committed to" in result.stderr
    assert contents(result)[1] == {"code": {"body": "print('é')"}, "outputs": {"erased": True}}


def test_a_body_that_comes_later_is_found(spool: Path) -> None:
    """What was kept after the bodies were first read is looked for again when a record names it."""
    source = open_source(spool)
    with closing(Contents(source)) as bodies:
        kept = body(b"3 + 3")
        recording = Recording("33333333-3333-4333-8333-333333333333")
        recording.execute(0, code_commitment=kept[0])
        keep(recording.write(spool), "code", kept)
        assert bodies.of([recording.rows[0].record]) == [{"code": {"body": "3 + 3"}}]


def test_printed_bodies_do_not_hide_the_record(spool: Path) -> None:
    """What cat --contents prints is a source itself: the same records verify."""
    verified = CliRunner().invoke(main, ["verify", "-"], input=cat(spool).stdout_bytes)
    assert verified.exit_code == 0, verified.output


def test_json_lines_hold_no_bodies(tmp_path: Path) -> None:
    """Asked for the bodies of JSON lines, cat says where to ask, and does not call them erased."""
    path = write_json_lines(tmp_path / "x.jsonl", [])
    result = cat(path)
    assert result.exit_code == 2
    assert "hold no bodies" in result.output
    with pytest.raises(SourceError):
        Contents(open_source(path))
