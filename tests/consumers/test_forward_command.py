"""What `exec-events forward` refuses before it connects to anybody, and its list of people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from logs import Log

from exec_events.cli import main
from exec_events_consumers.decode import Decoded, decode
from exec_events_consumers.feed import Fetched
from exec_events_consumers.learning_observer.frames import (
    MAX_FRAME_BYTES,
    NO_NOTEBOOK,
    OTHER,
    frame_of,
    is_proved,
    notebook_id,
    subject_of,
    text_of,
)
from exec_events_schemas.errors import MalformedRecord
from spool_files import FIRST, two_recorders

HERE = "ws://127.0.0.1:9/wsapi/in/"


def run(*arguments: Any) -> Result:
    """Run exec-events forward."""
    return CliRunner().invoke(main, ["forward", *map(str, arguments)])


def decoded(record: bytes, raw: bytes) -> Decoded:
    """A record, decoded."""
    one = decode(Fetched("", 0, record, raw))
    assert isinstance(one, Decoded)
    return one


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://lo.example.org/wsapi/in/", "a websocket's URL"),
        ("lo.example.org", "a websocket's URL"),
        ("wss://ada:secret@lo.example.org/wsapi/in/", "others can read it"),
        ("wss://lo.example.org/wsapi/in/?token=1", "others can read it"),
        ("ws://lo.example.org/wsapi/in/", "use wss://"),
    ],
)
def test_urls_that_are_refused(url: str, said: str, tmp_path: Path) -> None:
    """A URL that is no websocket's, holds a secret, or sends it in the clear to another machine is refused."""
    result = run("--to", url, "--store", f"sqlite:///{tmp_path / 'f.db'}")
    assert result.exit_code == 2
    assert said in result.output


def test_no_server(tmp_path: Path) -> None:
    """Without --to nothing is guessed."""
    result = run("--store", f"sqlite:///{tmp_path / 'f.db'}")
    assert result.exit_code == 2
    assert "--to is missing" in result.output


@pytest.mark.parametrize("login", ["chromebook", "guest", "hash_identify", "testcase_auth"])
def test_logins_that_anybody_could_do(login: str, tmp_path: Path) -> None:
    """A login that the server believes without proof is refused without --insecure, and nothing is sent."""
    result = run("--to", HERE, "--login", login, "--store", f"sqlite:///{tmp_path / 'f.db'}", "--once")
    assert result.exit_code == 2
    assert "--insecure" in result.output


def test_a_login_that_does_not_exist(tmp_path: Path) -> None:
    """A method that nobody registered is refused, and those that exist are named."""
    result = run("--to", HERE, "--login", "pigeon", "--store", f"sqlite:///{tmp_path / 'f.db'}", "--once")
    assert result.exit_code == 2
    assert "local_storage" in result.output


def test_secrets_that_others_may_read(tmp_path: Path) -> None:
    """A file of secrets that others may read is refused, and no secret is in what is said."""
    secrets = tmp_path / "tokens.csv"
    secrets.write_text("learning_observer_id,secret\nada,8f0c6a5e\n")
    secrets.chmod(0o644)
    result = run("--to", HERE, "--secrets", secrets, "--store", f"sqlite:///{tmp_path / 'f.db'}", "--once")
    assert result.exit_code == 2
    assert "chmod 600" in result.output
    assert "8f0c6a5e" not in result.output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("subject,id\np:1,ada\n", "the first line of"),
        ("subject,learning_observer_id\np:1,ada\np:1,ben\n", "line 3 of"),
        ("subject,learning_observer_id\np:1,ada\np:2,ada\n", "each is of one subject only"),
        ("subject,learning_observer_id\np:1,\n", "has no learning_observer_id"),
    ],
)
def test_lists_that_are_refused(text: str, said: str, tmp_path: Path) -> None:
    """A list of people that says two things, or nothing, of somebody is refused whole, with the line."""
    people, store = tmp_path / "people.csv", f"sqlite:///{tmp_path / 'f.db'}"
    people.write_text("subject,learning_observer_id\np:9,eve\n")
    assert run("people", "import", people, "--store", store).exit_code == 0
    people.write_text(text)
    result = run("people", "import", people, "--store", store)
    assert result.exit_code == 2
    assert said in result.output
    assert run("people", "list", "--store", store).output == "subject,learning_observer_id\np:9,eve\n"


def test_frames_of_what_is_no_execution() -> None:
    """A recorder's own records are nobody's; every execution's frame can be proved, and one that is changed cannot."""
    first, _ = two_recorders()
    kinds = set()
    for row in first.rows:
        event = decoded(row.record, row.hash or b"")
        kinds.add(event.kind)
        if event.kind == "recorder":
            assert subject_of(event) is None
            assert set(frame_of(event)) == {"event", "chain_id", "seq", "hash", "kind", "time"}
            assert frame_of(event)["event"] == OTHER
            continue
        frame = frame_of(event)
        assert is_proved(frame)
        frame["execution"]["status"] = "error" if frame["execution"]["status"] == "ok" else "ok"
        assert not is_proved(frame)
    assert kinds == {"recorder", "cell_execution"}


def test_notebooks_as_keys() -> None:
    """Whatever a notebook is called, its key in the server's store is 32 hexadecimal digits, or 'none'."""
    assert notebook_id(None) == notebook_id("") == NO_NOTEBOOK
    for name in ("a,b", "STUDENT:ada", "ü" * 999):
        assert len(notebook_id(name)) == 32
        assert int(notebook_id(name), 16) >= 0


def test_a_frame_that_is_too_large() -> None:
    """A frame that the server would drop the connection at is not sent, and the reason says its size."""
    log = Log()
    log.run(1, 0)
    frame = frame_of(decoded(*log.records[0]))
    assert f'"chain_id":"{FIRST}/' in text_of(frame)
    with pytest.raises(MalformedRecord, match=r"bytes, and the server takes 4,000,000"):
        text_of({**frame, "padding": "x" * MAX_FRAME_BYTES})
