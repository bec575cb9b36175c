"""
The tables people query: every column with its unit in its comment, from which docs/tables.md is made.

Times are RFC 3339 in UTC with microseconds, as events carry them, so that they sort as text; durations are
integer microseconds (``_us``), sizes bytes. Names are the subject, notebook and cell of the events: pseudonyms
unless the site chose otherwise; "" stands where an event has none. All rows of one subject are written by one
consumer at a time. The first three tables are what the consumers themselves need, one row set for each
consumer's name.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, MetaData, Table, Text

metadata = MetaData()
# In SQLite: rows lie in the order of their key, without a second tree that leads to them. For small rows, and tables
# with no other index.
_BY_KEY: dict[str, Any] = {"sqlite_with_rowid": False}


def _text(name: str, comment: str, **more: bool) -> Column[str]:
    return Column(name, Text, nullable=more.pop("nullable", False), comment=comment, **more)  # type: ignore[arg-type]


def _count(name: str, comment: str, **more: bool) -> Column[int]:
    return Column(name, BigInteger, nullable=more.pop("nullable", False), comment=comment, **more)  # type: ignore[arg-type]


def _flag(name: str, comment: str) -> Column[bool]:
    return Column(name, Boolean, nullable=False, comment=comment)


offsets = Table(
    "offsets",
    metadata,
    _text("consumer", "The consumer's name.", primary_key=True),
    _text("partition", "A partition of its source: of a topic, or a file.", primary_key=True),
    _count("position", "Where it goes on reading; what is before it is in the tables."),
    _text("owner", "Which process reads it now; another cannot write rows of it."),
    _count("epoch", "How often it has changed hands."),
    comment="How far each consumer has read, written in the transaction of the rows that were made of it.",
    **_BY_KEY,
)

chains = Table(
    "chains",
    metadata,
    _text("consumer", "The consumer's name.", primary_key=True),
    _text("chain", "The chain: a recorder's own, or that of one subject at a recorder.", primary_key=True),
    _count("head_seq", "The highest seq seen."),
    Column("head_hash", LargeBinary, nullable=False, comment="The leaf hash of the record of that seq, 32 bytes."),
    _count("records", "How many different records were seen."),
    _count("missing", "How many seqs below the highest have not been seen."),
    _text("gaps", "Which: JSON, a list of [first, last]."),
    _count("duplicates", "How many records came again, which is no fault."),
    _count("forks", "How many records had a seq that another record has: an alarm."),
    _text("first_at", "The earliest time of its events."),
    _text("last_at", "The latest time of its events."),
    _flag("closed", "Whether its recorder has said that it ended."),
    comment="The chains of the record as this consumer has seen them: heads, gaps, duplicates.",
    **_BY_KEY,
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True, comment="Its number."),
    _text("consumer", "The consumer that could not use it."),
    _text("partition", "Where it was found."),
    _count("position", "At which offset or row."),
    Column("value", LargeBinary, nullable=True, comment="Its bytes, untouched."),
    _text("reason", "Why it could not be used."),
    Column("stored_hash", LargeBinary, nullable=True, comment="The hash that was stored with it."),
    _text("found_at", "When it was found."),
    Index("dead_letters_of", "consumer", "partition", "position", unique=True),
    comment="What could not be decoded, validated or chained.",
)

other_records = Table(
    "other_records",
    metadata,
    _text("chain", "The chain of a record.", primary_key=True),
    _count("seq", "Its place in the chain, from 0.", primary_key=True),
    Column("record_hash", LargeBinary, nullable=False, comment="Its leaf hash, 32 bytes."),
    _text("kind", "The kind of its event."),
    _text("time", "The time of its event."),
    comment="Every record that is no execution, so that a copy is told from a fork.",
    **_BY_KEY,
)

executions = Table(
    "executions",
    metadata,
    _text("chain", "The chain of its record.", primary_key=True),
    _count("seq", "The place of its record in the chain.", primary_key=True),
    Column("record_hash", LargeBinary, nullable=False, comment="The leaf hash of its record, 32 bytes."),
    _text("execution_id", "Its own identifier."),
    _text("subject", "Who ran it."),
    _text("subject_from", "How that is known: request, kernel_starter or server_account."),
    _text("notebook", "In which notebook."),
    _text("cell_id", "In which cell."),
    _text("kernel_id", "In which kernel."),
    _text("kernel_name", "Of which kernelspec."),
    _text("recorder_id", "Which recorder saw it."),
    _text("client", "How it was asked for: websocket, direct or in_process."),
    _text("trust", "Whose word the event is: browser, server or enclave."),
    _text("status", "How it ended."),
    _text("error_name", "The name of the error's class.", nullable=True),
    _count("execution_count", "The kernel's prompt number.", nullable=True),
    _text("requested_at", "When it was asked for."),
    _text("started_at", "When the kernel began.", nullable=True),
    _text("finished_at", "When it was over."),
    _count("requested_us", "When it was asked for, in microseconds since 1970 (UTC)."),
    _count("finished_us", "When it was over, in microseconds since 1970 (UTC)."),
    _count("queued_us", "How long it waited.", nullable=True),
    _count("duration_us", "How long it ran.", nullable=True),
    _text("code_hash", "The hash of its code.", nullable=True),
    _text("code_ast_hash", "The hash of its syntax tree: the same whatever the layout and comments.", nullable=True),
    _count("code_bytes", "The size of its code.", nullable=True),
    _count("code_lines", "The lines of its code.", nullable=True),
    _count("lines_added", "Lines that the cell's last run did not have.", nullable=True),
    _count("lines_removed", "Lines that only the cell's last run had.", nullable=True),
    Column("same_code", Boolean, nullable=True, comment="Whether the code is that of the cell's last run."),
    _text("outputs_hash", "The hash of its outputs.", nullable=True),
    _count("outputs", "How many outputs it had."),
    _count("outputs_bytes", "Their size."),
    _flag("silent", "Whether it was asked for without a trace in the kernel's history."),
    _flag("complete", "Whether the recorder saw all of it: reply, outputs, no overflow."),
    Index("executions_of_subject", "subject", "requested_us"),
    Index("executions_by_time", "finished_us"),
    comment="One row for each execution: the fact table.",
)

_PROGRESS = [
    ("runs", "Executions."),
    ("ok", "Those that ended without an error."),
    ("errors", "Those that ended with an error."),
    ("other", "Those that ended otherwise: aborted, interrupted, their kernel gone."),
]
_TIMES = [
    ("first_at", "When the first was asked for."),
    ("last_at", "When the latest was asked for."),
]


def _progress() -> list[Column[int]]:
    return [_count(name, comment) for name, comment in _PROGRESS]


def _times() -> list[Column[str]]:
    return [_text(name, comment) for name, comment in _TIMES]


def _time_on_task() -> list[Column[int]]:
    return [
        _count("on_task_us", "Time on task: running, and between runs no longer apart than the idle threshold."),
        _count("idle_us", "Time between runs further apart than the idle threshold."),
        _count("idle_times", "How often that was."),
        _count("busy_until_us", "Until when it has run so far, in microseconds since 1970 (UTC)."),
    ]


cells = Table(
    "cells",
    metadata,
    _text("subject", "Who.", primary_key=True),
    _text("notebook", "In which notebook.", primary_key=True),
    _text("cell_id", "Which cell.", primary_key=True),
    _count("rank", "Its place among the cells of its notebook in the order of their first runs, from 1."),
    *_progress(),
    _count("same_code_runs", "Runs of the code of the run before."),
    _count("code_versions", "How many different codes it ran (by code_hash)."),
    _count("errors_in_a_row", "Errors since the last run that was no error."),
    _count("longest_error_streak", "The most errors in a row."),
    _count("fixes", "Error streaks that a run without an error ended."),
    _count("time_to_fix_us", "Time from each streak's first error to the end of the run that ended it, summed."),
    _text("streak_since", "When the streak that is still open began.", nullable=True),
    _count("lines_added", "Lines added over all runs."),
    _count("lines_removed", "Lines removed over all runs."),
    _count("first_lines", "Lines of the first code."),
    _count("last_lines", "Lines of the latest code."),
    _count("duration_us", "Time it ran, summed."),
    _text("last_status", "How its latest run ended."),
    _text("last_error", "The error its latest run ended with.", nullable=True),
    _text("last_code_hash", "The code of its latest run.", nullable=True),
    *_times(),
    _text("order_key", "The place of the latest run in the order of runs."),
    comment="One row for each cell a subject ran.",
    **_BY_KEY,
)

notebooks = Table(
    "notebooks",
    metadata,
    _text("subject", "Who.", primary_key=True),
    _text("notebook", "Which notebook.", primary_key=True),
    *_progress(),
    _count("cells", "How many different cells ran."),
    _count("revisits", "Runs of a cell that had first run before the cell that ran just before: going back."),
    *_time_on_task(),
    _count("duration_us", "Time it ran, summed."),
    _text("last_cell_id", "The cell that ran last."),
    _count("last_rank", "The rank of that cell."),
    *_times(),
    _text("order_key", "The place of the latest run in the order of runs."),
    comment="One row for each notebook a subject ran cells of.",
    **_BY_KEY,
)

subjects = Table(
    "subjects",
    metadata,
    _text("subject", "Who.", primary_key=True),
    *_progress(),
    *_time_on_task(),
    _count("duration_us", "Time it ran, summed."),
    *_times(),
    _text("order_key", "The place of the latest run in the order of runs."),
    comment="One row for each subject.",
    **_BY_KEY,
)

minutes = Table(
    "minutes",
    metadata,
    _text("minute", "The minute in which they were asked for: 2026-11-24T10:05Z.", primary_key=True),
    _text("subject", "Who.", primary_key=True),
    *_progress(),
    _count("duration_us", "Time they ran, summed."),
    comment="One row for each minute in which a subject ran something.",
    **_BY_KEY,
)

errors = Table(
    "errors",
    metadata,
    _text("subject", "Who.", primary_key=True),
    _text("notebook", "In which notebook.", primary_key=True),
    _text("cell_id", "In which cell.", primary_key=True),
    _text("error_name", "The name of the error's class.", primary_key=True),
    _count("times", "How often."),
    *_times(),
    comment="One row for each error that a cell ended with.",
    **_BY_KEY,
)

codes = Table(
    "codes",
    metadata,
    _text("subject", "Who.", primary_key=True),
    _text("notebook", "In which notebook.", primary_key=True),
    _text("cell_id", "In which cell.", primary_key=True),
    _text("code_hash", "The hash of the code.", primary_key=True),
    _text("code_ast_hash", "The hash of its syntax tree.", nullable=True),
    _count("runs", "How often it ran there."),
    _count("code_lines", "Its lines."),
    *_times(),
    Index("codes_by_hash", "code_hash"),
    Index("codes_by_ast", "code_ast_hash"),
    Index("codes_of_notebook", "notebook", "code_ast_hash", "subject"),
    comment="One row for each code a cell ran: where the same hash is under two subjects, both ran that code.",
)

kernel_sessions = Table(
    "kernel_sessions",
    metadata,
    _text("kernel_id", "The kernel.", primary_key=True),
    _text("recorder_id", "The recorder that saw it.", primary_key=True),
    _text("subject", "Who started it, or ran something in it first."),
    _text("notebook", "Which notebook it served."),
    _text("kernel_name", "The kernelspec."),
    _text("started_at", "When it was started.", nullable=True),
    _text("ended_at", "When it was shut down or died.", nullable=True),
    _text("end", "How it ended: shut_down or died.", nullable=True),
    _count("restarts", "How often it was restarted."),
    _count("interrupts", "How often it was interrupted."),
    _count("deaths", "How often it died."),
    _text("last_at", "The latest that is known of it."),
    comment="One row for each kernel, from the recorder's own word on its life.",
    **_BY_KEY,
)

recorders = Table(
    "recorders",
    metadata,
    _text("recorder_id", "One start of a server.", primary_key=True),
    _text("started_at", "When it started.", nullable=True),
    _text("last_at", "Its latest word."),
    _text("ended_at", "When it said that it ended, or another said so for it.", nullable=True),
    _text("cause", "How it ended.", nullable=True),
    _count("lost", "Events it had to give up, by its own count."),
    _count("executions", "Executions it had seen, by its own count."),
    _count("heartbeat_us", "How far apart its signs of life are, by its own word.", nullable=True),
    _text("server", "The site's label of the server it is of, by its own word.", nullable=True),
    Index("recorders_of_server", "server", "last_at"),
    comment="One row for each recorder.",
    **_BY_KEY,
)

# What the aggregate makes of the record: the tables a rebuild makes anew.
AGGREGATES = (
    executions,
    cells,
    notebooks,
    subjects,
    minutes,
    errors,
    codes,
    kernel_sessions,
    recorders,
    other_records,
)
