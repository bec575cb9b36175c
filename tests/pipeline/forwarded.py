"""A record to forward, the people it is of, the command, and what a server must have of it in the end."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from exec_events.cli import main
from exec_events_schemas.record import event_of
from exec_events_schemas.sources import StoredRecord
from spool_files import FIRST, SCHEMA, Recording, chain_of, time_of

SUMMARY = re.compile(
    r"forward: ([\d,]+) records read: ([\d,]+) sent, ([\d,]+) held, ([\d,]+) to the dead letters, "
    r"([\d,]+) known already, ([\d,]+) of no person"
)


def recording(
    executions: int, subjects: int = 4, recorder_id: str = FIRST, number: int = 0, **members: Any
) -> Recording:
    """One recorder's record of people in turn: executions, an error now and then, and records of other kinds."""
    made = Recording(recorder_id)
    made.say("started")
    more(made, executions, subjects, number, **members)
    return made


def more(made: Recording, executions: int, subjects: int = 4, number: int = 0, **members: Any) -> None:
    """More of the same."""
    for at in range(number, number + executions):
        subject = at % subjects
        error = {"status": "error", "error_name": "NameError"} if at % 7 == 0 else {}
        made.execute(subject, **{**error, **members})
        if at % 11 == 0:
            made.seal(late_output(made.recorder_id, subject, at), chain_of(made.recorder_id, subject))


def late_output(recorder_id: str, subject: int, number: int) -> dict[str, Any]:
    """An event of a subject's chain that is no execution."""
    return {
        "__schema__": SCHEMA.format("late_output"),
        "__schema_version__": "1",
        "time": time_of(number % 80_000),
        "recorder_id": recorder_id,
        "trust": "server",
        "execution_id": f"{number:08x}-0000-4000-8000-{subject:012x}",
        "subject": f"subject-{subject}",
        "subject_from": "request",
        "kernel_id": "kernel",
        "kernel_name": "python3",
        "cause": "output",
        "outputs": [],
        "overflow": False,
    }


def recount(rows: Iterable[StoredRecord]) -> dict[str, Counter[str]]:
    """What a student's state must say, by subject, of records as often as they are there."""
    counts: dict[str, Counter[str]] = {}
    for record in {row.record for row in rows}:
        event = event_of(record)
        subject = event.get("subject")
        if subject is None:
            continue
        own = counts.setdefault(subject, Counter(executions=0, errors=0, others=0))
        is_execution = event["__schema__"] == SCHEMA.format("cell_execution")
        own["executions" if is_execution else "others"] += 1
        own["errors"] += event.get("status") == "error"
    return counts


def differences(states: dict[str, Any], rows: Iterable[StoredRecord], before: str = "tc-testcase-") -> list[str]:
    """Where the states of a server's students differ from the recount; nothing was lost, reordered or is false."""
    wrong = []
    expected = recount(rows)
    for subject, counts in expected.items():
        state = states.get(before + student_of(subject))
        if state is None:
            wrong.append(f"{subject} has no state")
            continue
        found = {name: state[name] for name in (*counts, "gaps", "false")}
        if found != {**counts, "gaps": 0, "false": 0}:
            wrong.append(f"{subject}: {found} instead of {dict(counts)}")
    return wrong + [f"{name} is nobody" for name in states if subject_of(name.removeprefix(before)) not in expected]


def student_of(subject: str) -> str:
    """The id in the people's list."""
    return subject.replace("subject-", "student")


def subject_of(student: str) -> str:
    """Whose id that is."""
    return student.replace("student", "subject-")


@dataclass
class Site:
    """A folder with a spool, a list of people, and the store of a forwarder."""

    folder: Path
    url: str = ""
    login: Sequence[str] = ("--login", "testcase_auth", "--insecure")
    options: list[str] = field(default_factory=list)
    source: str = ""
    database: str = ""

    @property
    def spool(self) -> Path:
        """Where recordings are written to."""
        return self.folder / "spool"

    @property
    def store(self) -> str:
        """The forwarder's."""
        return self.database or f"sqlite:///{self.folder / 'forward.db'}"

    def people(self, subjects: Iterable[int]) -> Path:
        """Say who is who."""
        path = self.folder / "people.csv"
        draft = path.with_suffix(".new")
        lines = [f"subject-{number},student{number}\n" for number in subjects]
        draft.write_text("subject,learning_observer_id\n" + "".join(lines))
        draft.replace(path)
        return path

    def arguments(self, *more_options: str) -> list[str]:
        """The command."""
        people = self.folder / "people.csv"
        listed = ["--people", str(people)] if people.exists() else []
        source = self.source or f"spool://{self.spool}"
        return [
            *("forward", "--from", source, "--to", self.url, "--store", self.store),
            *(*self.login, *listed, *self.options, *more_options),
        ]

    def forward(self, *more_options: str, code: int = 0) -> str:
        """Run it until all that is there has been taken; what it said, its summary checked."""
        done = CliRunner().invoke(main, self.arguments("--once", *more_options), catch_exceptions=False)
        assert done.exit_code == code, done.output
        if code == 0:
            read, *parts = summary(done.output)
            assert read == sum(parts), done.output
        return done.output

    def command(self, *words: str) -> str:
        """Another verb, on the same store."""
        done = CliRunner().invoke(main, [*words, "--store", self.store], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    def start(self, *more_options: str) -> subprocess.Popen[str]:
        """The command as a process of its own, which goes on until it is ended."""
        return subprocess.Popen(
            [sys.executable, "-m", "exec_events", *self.arguments(*more_options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Of the store."""
        with closing(sqlite3.connect(self.folder / "forward.db", timeout=30)) as database:
            return database.execute(query).fetchall()

    def change(self, *statements: str) -> None:
        """The store, behind the forwarder's back."""
        with closing(sqlite3.connect(self.folder / "forward.db", timeout=30, isolation_level=None)) as database:
            for statement in statements:
                database.execute(statement)

    def letters(self) -> list[tuple[str, bytes]]:
        """Why which records are dead letters."""
        return self.rows("SELECT reason, value FROM dead_letters ORDER BY position")


def summary(said: str) -> tuple[int, ...]:
    """Read, sent, held, dead letters, known, of no person."""
    found = SUMMARY.search(said)
    assert found, said
    return tuple(int(number.replace(",", "")) for number in found.groups())
