"""The reading verbs print what is asked for, end quietly, and say by their exit code what they found."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from exec_events.cli import main
from exec_events.cli.report import GROUPINGS
from exec_events.hashing import Hasher
from exec_events_schemas.findings import Kind
from exec_events_schemas.record import event_of
from exec_events_schemas.sources.jsonl import line_of
from spool_files import FIRST, SECOND, Recording, chain_of, running, two_recorders, write_json_lines

DOCUMENT = Path(__file__).parents[2] / "docs" / "reading.md"
COMMAND = [sys.executable, "-m", "exec_events"]


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """A spool of two recorders that stopped in order."""
    for recording in two_recorders():
        recording.write(tmp_path / "spool")
    return tmp_path / "spool"


def run(*arguments: object) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="exec-events")


def lines() -> list[str]:
    """What `cat` should print for the spool."""
    first, second = two_recorders()
    return [line_of(row).decode() for row in first.rows + second.rows]


def change_a_row(folder: Path) -> None:
    """Change one byte of the first recorder's third row, which is seq 0 of its second chain."""
    with closing(sqlite3.connect(folder / f"{FIRST}.db")) as connection, connection:
        connection.execute(
            "UPDATE records SET record = CAST(replace(CAST(record AS TEXT), 'ok', 'no') AS BLOB) WHERE id = 3"
        )


def test_everything_is_documented() -> None:
    """docs/reading.md names every verb's options, every kind of finding, and every grouping of a report."""
    text = DOCUMENT.read_text(encoding="utf-8")
    verbs = [main.get_command(click.Context(main), name) for name in ("cat", "tail", "report", "verify", "status")]
    options = {parameter.opts[-1] for verb in verbs if verb for parameter in verb.params if parameter.opts[0][0] == "-"}
    told = {"--lines": "-n 20", "--follow": "tail -f", "--servers": "--no-servers", "--spool": "--spool"}
    assert [option for option in sorted(options) if told.get(option, option) not in text] == []
    assert [kind for kind in Kind if f"| {kind} |" not in text] == []
    assert [name for name in GROUPINGS if f"`{name}`" not in text] == []


def test_cat_prints_every_record_as_one_line(spool: Path) -> None:
    """`cat` prints exactly event, seal and hash of each record, and its output is a source itself."""
    result = run("cat", spool)
    assert result.stdout.splitlines() == lines()
    assert list(json.loads(result.stdout.splitlines()[0])) == ["event", "seal", "hash"]
    piped = CliRunner().invoke(main, ["verify", "-"], input=result.stdout_bytes)
    assert piped.exit_code == 0, piped.output


def test_the_default_source_is_this_users_spool(spool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a SOURCE the folder in Jupyter's data directory is read."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(spool.parent))
    spool.rename(spool.with_name("exec-events"))
    assert run("cat").stdout.splitlines() == lines()


@pytest.mark.parametrize("verb", ["cat", "tail", "verify", "report"])
def test_an_unreadable_source_exits_with_2(verb: str, tmp_path: Path) -> None:
    """A source that is not there is an error of one line, and exit 2."""
    result = run(verb, tmp_path / "missing")
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ")
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--subject", "subject-1"], 6),
        (["--kind", "cell_execution"], 12),
        (["--kind", "recorder"], 6),
        (["--kind", "cell_execution", "--since", "2026-01-01T00:00:05"], 5),
        (["--since", "2026-01-01T01:00:05+01:00", "--kind", "cell_execution"], 5),
        (["--since", "1h"], 0),
    ],
)
def test_cat_chooses_by_subject_kind_and_time(spool: Path, options: list[str], expected: int) -> None:
    """Only events of the subject, of the kind, and from the time on are printed."""
    assert len(run("cat", spool, *options).stdout.splitlines()) == expected


def test_a_time_that_is_none_is_a_usage_error(spool: Path) -> None:
    """--since says what it takes."""
    result = run("cat", spool, "--since", "yesterday")
    assert result.exit_code == 2
    assert "is no time" in result.stderr


def test_tail_prints_the_last(spool: Path) -> None:
    """`tail -n 3` prints the last three records."""
    assert run("tail", "-n", 3, spool).stdout.splitlines() == lines()[-3:]


def test_tail_follows_until_interrupted(tmp_path: Path) -> None:
    """`tail -f` prints the last records, then those that come, and Ctrl-C ends it with 0 and no word."""
    first, second = two_recorders()
    first.write(tmp_path)
    with subprocess.Popen(
        [*COMMAND, "tail", "-f", "-n", "1", str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().rstrip("\n") == line_of(first.rows[-1]).decode()
        second.write(tmp_path)
        for row in second.rows:
            assert process.stdout.readline().rstrip("\n") == line_of(row).decode()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""


def test_a_broken_pipe_ends_quietly(tmp_path: Path) -> None:
    """`cat | head -1` prints one record and no error."""
    recording = Recording(FIRST)
    recording.say("started")
    for _ in range(2000):
        recording.execute(0)
    path = write_json_lines(tmp_path / "x.jsonl", recording.rows)
    with subprocess.Popen([*COMMAND, "cat", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(10) == 0


def test_damage_is_a_warning_and_exit_1(spool: Path) -> None:
    """`cat` prints what can be read, warns of what cannot, and exits with 1."""
    (spool / f"{FIRST}.db").write_bytes(b"no database" * 900)
    result = run("cat", spool)
    assert result.exit_code == 1
    assert f"Warning: {FIRST}.db, at 1" in result.stderr
    assert len(result.stdout.splitlines()) == 8


def test_verify_of_a_whole_spool(spool: Path) -> None:
    """All in order: counts, OK, exit 0."""
    result = run("verify", spool)
    assert result.exit_code == 0
    assert "18 records, 6 chains, 2 recorders" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("OK")


def test_verify_names_the_first_broken_record(spool: Path) -> None:
    """A changed row: the first line names it by chain and seq, exit 1."""
    change_a_row(spool)
    result = run("verify", spool)
    assert result.exit_code == 1
    assert result.stdout.startswith(f"chain {chain_of(FIRST, 1)} seq 0: changed: ")
    assert result.stdout.splitlines()[-1] == "BROKEN: 1 finding"


def test_verify_shows_twenty_findings_or_all(tmp_path: Path) -> None:
    """More than twenty findings are counted; --all shows them."""
    rows = [row._replace(hash=bytes(32)) for row in two_recorders(40)[0].rows]
    path = write_json_lines(tmp_path / "x.jsonl", rows)
    brief, everything = run("verify", path).stdout.splitlines(), run("verify", "--all", path).stdout.splitlines()
    assert sum(line.startswith("chain ") for line in brief) == 20
    assert any("more; --all shows them" in line for line in brief)
    assert sum(line.startswith("chain ") for line in everything) == len(rows)


def test_verify_as_json(spool: Path) -> None:
    """--json holds the findings by kind, chain and seq."""
    change_a_row(spool)
    result = run("verify", "--json", spool)
    document = json.loads(result.stdout)
    assert result.exit_code == 1
    assert document["ok"] is False
    assert [(f["kind"], f["chain"], f["seq"]) for f in document["findings"]] == [("changed", chain_of(FIRST, 1), 0)]


def test_verify_names_a_damaged_file(spool: Path) -> None:
    """A corrupt SQLite file is a finding that names it, no traceback."""
    (spool / f"{SECOND}.db").write_bytes(b"no database" * 900)
    result = run("verify", spool)
    assert result.exit_code == 1
    assert result.stdout.startswith(f"{SECOND}.db, at 1: damaged: ")


def test_verify_tells_a_running_server_from_a_missing_tail(tmp_path: Path) -> None:
    """A recorder without an end is running while its lock is held, and may miss its tail when not."""
    recording = Recording(FIRST)
    recording.say("started")
    path = recording.write(tmp_path)
    with running(path):
        assert "the server is running" in run("verify", tmp_path).stdout
    assert "the tail may be missing" in run("verify", tmp_path).stdout


@pytest.fixture
def notebook(tmp_path: Path) -> tuple[Path, Path]:
    """A notebook of three cells and the spool in which two of them ran: (spool, notebook)."""
    hasher, none = Hasher(), Hasher().outputs([])
    recording = Recording(FIRST)
    recording.say("started")
    recording.execute(0, cell_id="one", code_hash=hasher.code("x = 1"), outputs_hash=none)
    recording.execute(0, cell_id="two", code_hash=hasher.code("x = 2"), outputs_hash=none)
    recording.say("stopped", cause="stop")
    recording.write(tmp_path / "spool")
    cells: list[dict[str, Any]] = [
        {"id": name, "cell_type": "code", "source": code, "outputs": [], "metadata": {}, "execution_count": 1}
        for name, code in (("one", "x = 1"), ("two", "x = 2"), ("three", "[red]x[/] = 3"))
    ]
    path = tmp_path / "n.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return tmp_path / "spool", path


def test_a_notebook_as_recorded(notebook: tuple[Path, Path]) -> None:
    """Cells as run are recorded; a cell without outputs that never ran is no failure."""
    spool, path = notebook
    result = run("verify", spool, "--notebook", path)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("recorded") >= 2
    assert "never run here" in result.stdout
    assert "[red]x[/] = 3" in result.stdout


@pytest.mark.parametrize(
    ("cell", "change", "verdict"),
    [
        (1, {"source": "x = 7"}, "edited since"),
        (1, {"outputs": [{"output_type": "stream", "name": "stdout", "text": "7"}]}, "output differs"),
        (2, {"outputs": [{"output_type": "stream", "name": "stdout", "text": "7"}]}, "never run here"),
    ],
)
def test_a_notebook_that_is_not_as_recorded(
    notebook: tuple[Path, Path], cell: int, change: dict[str, Any], verdict: str
) -> None:
    """Edited code, other outputs, and outputs that nothing made exit with 1, each with its verdict."""
    spool, path = notebook
    document = json.loads(path.read_text())
    document["cells"][cell] |= change
    path.write_text(json.dumps(document))
    result = run("verify", spool, "--notebook", path, "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)["cells"][cell]
    assert (found["verdict"], found["fails"]) == (verdict, True)


def test_a_file_that_is_no_notebook_is_a_usage_error(spool: Path, tmp_path: Path) -> None:
    """--notebook says that a file is none."""
    (tmp_path / "n.ipynb").write_text("[]")
    result = run("verify", spool, "--notebook", tmp_path / "n.ipynb")
    assert result.exit_code == 2
    assert "is not a notebook" in result.stderr


@pytest.fixture
def worked(tmp_path: Path) -> Path:
    """A spool of one subject's work in two notebooks, with errors and reruns."""
    recording = Recording(FIRST)
    recording.say("started")
    recording.execute(0, notebook="a.ipynb", duration_us=1_000)
    recording.execute(0, notebook="a.ipynb", duration_us=3_000, same_code_as_last_run=True)
    recording.execute(0, notebook="a.ipynb", duration_us=2_000, same_code_as_last_run=False)
    recording.execute(0, notebook="b.ipynb", status="error", error_name="ValueError", duration_us=5_000_000)
    recording.execute(0, notebook="b.ipynb", status="aborted")
    recording.execute(0, notebook="b.ipynb", status="interrupted")
    recording.execute(1, notebook="a.ipynb", status="kernel_died")
    recording.say("stopped", cause="stop")
    return recording.write(tmp_path).parent


def test_report_counts_by_subject_and_notebook(worked: Path) -> None:
    """Runs, errors by name, reruns and durations are those of the events."""
    groups = json.loads(run("report", worked, "--json").stdout)["groups"]
    assert [(g["subject"], g["notebook"], g["executions"]) for g in groups] == [
        ("subject-0", "a.ipynb", 3),
        ("subject-0", "b.ipynb", 3),
        ("subject-1", "a.ipynb", 1),
    ]
    assert (groups[0]["reruns"], groups[0]["reruns_of_the_same_code"]) == (2, 1)
    assert (groups[0]["duration_us_total"], groups[0]["duration_us_median"]) == (6_000, 2_000)
    assert groups[1]["errors"] == {"ValueError": 1}
    assert groups[1]["statuses"] == {"error": 1, "aborted": 1, "interrupted": 1}


@pytest.mark.parametrize(("by", "count"), [("subject", 2), ("notebook", 2), ("cell", 6), ("subject-notebook", 3)])
def test_report_groups_as_asked(worked: Path, by: str, count: int) -> None:
    """--by makes one line for each subject, notebook, cell, or subject and notebook."""
    assert len(json.loads(run("report", worked, "--json", "--by", by).stdout)["groups"]) == count


def test_a_report_in_a_pipe_is_plain_and_uncut(worked: Path) -> None:
    """Without a terminal the table is text without escapes, as wide as it needs to be."""
    recording = Recording(SECOND)
    recording.execute(0, notebook="n" * 300)
    recording.write(worked)
    text = run("report", worked).stdout
    assert "n" * 300 in text
    assert "\x1b" not in text
    assert "ValueError 1" in text


def test_a_report_of_nothing(tmp_path: Path) -> None:
    """A spool without executions says so."""
    Recording(FIRST).write(tmp_path)
    assert run("report", tmp_path).stdout == "No executions.\n"


def test_a_report_on_100_000_records_takes_seconds(tmp_path: Path) -> None:
    """100,000 records are reported in less than 10 s, on a machine that does other things too."""
    row = two_recorders()[0].rows[1]
    path = tmp_path / "x.jsonl"
    path.write_bytes((line_of(row) + b"\n") * 100_000)
    began = time.monotonic()
    assert "100,000" in run("report", path).stdout
    assert time.monotonic() - began < 10


def test_status_of_closed_running_and_crashed_files(tmp_path: Path) -> None:
    """A file is running while its lock is held, closed after a stop, crashed otherwise, which is a problem."""
    first, second = two_recorders()
    second.rows.pop()
    first.write(tmp_path)
    path = second.write(tmp_path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO deliveries VALUES ('file:///x', 3)")
        connection.execute("INSERT INTO begun VALUES ('e', '{}')")
    arguments = ("status", "--spool", tmp_path, "--no-servers", "--json")
    with running(path):
        result = run(*arguments)
    files = json.loads(result.stdout)["files"]
    assert result.exit_code == 0, result.output
    assert [(f["recorder_id"], f["state"]) for f in files] == [(FIRST, "closed"), (SECOND, "running")]
    assert (files[1]["records"], files[1]["open_executions"]) == (7, 1)
    left = second.rows[3:]
    assert files[1]["sinks"] == {
        "file:///x": {
            "position": 3,
            "behind": 4,
            "behind_bytes": sum(len(row.record) for row in left),
            "oldest_at": event_of(left[0].record)["time"],
        }
    }
    assert files[1]["last_word"] == "started"
    crashed = run("status", "--spool", tmp_path, "--no-servers")
    assert crashed.exit_code == 1
    assert "crashed" in crashed.stdout
    assert f"Problem: {SECOND}.db" in crashed.stdout


def test_status_of_a_damaged_file(spool: Path) -> None:
    """A spool file that cannot be read is damaged, and so is one that was set aside."""
    (spool / f"{FIRST}.db").write_bytes(b"no database" * 900)
    (spool / f"{SECOND}.db.damaged-1").touch()
    result = run("status", "--spool", spool, "--no-servers", "--json")
    problems = json.loads(result.stdout)["problems"]
    assert result.exit_code == 1
    assert [FIRST in problems[0], SECOND in problems[1]] == [True, True]


def test_status_without_a_spool(tmp_path: Path) -> None:
    """Where nothing was recorded yet there is no problem."""
    result = run("status", "--spool", tmp_path / "none", "--no-servers")
    assert result.exit_code == 0
    assert "nothing was recorded yet" in result.stdout


SECRET = "s3cret-token"


class Answer(BaseHTTPRequestHandler):
    """A server's status page: 403 without the token, a redirect, no such page, or the health given."""

    health: Any
    code = 200
    asked: list[str]

    def do_GET(self) -> None:
        """Answer as told."""
        type(self).asked.append(self.path)
        allowed = self.headers.get("Authorization") == f"token {SECRET}"
        self.send_response(type(self).code if allowed else 403)
        if type(self).code == 302:
            self.send_header("Location", "/elsewhere")
        self.end_headers()
        self.wfile.write(json.dumps(type(self).health).encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Answer]]:
    """A server that answers on this machine and is listed as running."""
    answer = type("OneAnswer", (Answer,), {"asked": [], "health": {}})
    with HTTPServer(("127.0.0.1", 0), answer) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        listed = {"url": f"http://127.0.0.1:{http.server_port}/base/", "pid": 7, "token": SECRET}
        monkeypatch.setattr("exec_events.cli.status._running_servers", lambda: [listed])
        yield answer
        http.shutdown()


def test_status_asks_running_servers(server: type[Answer], tmp_path: Path) -> None:
    """A healthy server's counts are shown, and its token nowhere."""
    server.health = {"healthy": True, "problems": [], "spooled": 1234, "pending": 0, "lost": 0}
    for form in ([], ["--json"]):
        result = run("status", "--spool", tmp_path, *form)
        assert result.exit_code == 0, result.output
        assert SECRET not in result.output
    assert server.asked == ["/base/exec-events/status"] * 2
    assert "1,234 spooled" in run("status", "--spool", tmp_path).stdout


@pytest.mark.parametrize(
    ("code", "health", "words"),
    [
        (200, {"healthy": False, "problems": ["disk full"]}, "disk full"),
        (200, {"healthy": False}, "not healthy"),
        (200, [1], "cannot be asked"),
        (404, {}, "not enabled"),
        (302, {}, "answers 302"),
        (500, {}, "answers 500"),
    ],
)
def test_status_reports_what_is_wrong_with_a_server(
    server: type[Answer], tmp_path: Path, code: int, health: Any, words: str
) -> None:
    """What a server says, or that it does not answer as it should, is a problem; a redirect is not followed."""
    server.code, server.health = code, health
    result = run("status", "--spool", tmp_path)
    assert result.exit_code == 1
    assert words in result.stdout
    assert server.asked == ["/base/exec-events/status"]


def test_status_of_a_server_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer is a problem within the time limit."""
    listed = [{"url": "http://127.0.0.1:9/", "pid": 7, "token": SECRET}, {"url": "http+unix://x", "pid": 8}]
    monkeypatch.setattr("exec_events.cli.status._running_servers", lambda: listed)
    result = run("status", "--spool", tmp_path)
    assert result.exit_code == 1
    assert "cannot be asked" in result.stdout
    assert SECRET not in result.output
