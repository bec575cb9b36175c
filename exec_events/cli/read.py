"""``exec-events cat`` and ``tail``: records as JSON lines, all of them or the last, and those that come."""

from __future__ import annotations

import os
import sys
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import chain, islice
from threading import Event

import click
import orjson

from exec_events_schemas.contents import Contents
from exec_events_schemas.errors import MalformedRecord, SourceError
from exec_events_schemas.record import event_of, time_of
from exec_events_schemas.sources import Last, Source, StoredRecord
from exec_events_schemas.sources.jsonl import line_of

from .source import Asked, Damages, Selection, exit_unreadable, kind_option, selection_options, source_argument
from .terminal import with_progress

# Bodies are looked up for so many records at once.
CHUNK = 1000


@click.command()
@source_argument
@kind_option
@selection_options
@click.option("--contents", is_flag=True, help="Also the code and outputs a site keeps, or what became of them.")
def cat(asked: Asked, subject: str | None, kind: str | None, since: str | None, contents: bool) -> None:
    """
    Print every record of SOURCE, one JSON line each: {"event":…,"seal":…,"hash":…}.

    SOURCE is spool://FOLDER, a folder, a .jsonl file (with its rotated siblings), - for JSON lines on
    standard input, or kafka://HOST:PORT[,HOST:PORT]/[PREFIX]; by default this user's spool.

    --start begins at the first record of that time, in each partition or file, and prints all that follow;
    --since chooses by each event's own time.
    """
    damages, selection = Damages(), Selection(subject, kind, since)
    with _quiet_ends():
        source = asked.open(selection.start)
        records = selection.of(_counted(source, source.read(damages)))
        if contents:
            with closing(Contents(source, damages)) as bodies:
                _print_with(bodies, records)
        else:
            for stored in records:
                _print(stored)
    damages.exit()


@click.command()
@source_argument
@click.option("-n", "--lines", type=click.IntRange(min=0), default=10, show_default=True, help="How many records.")
@click.option("-f", "--follow", is_flag=True, help="Keep printing records as they come, until Ctrl-C.")
@kind_option
@selection_options
def tail(asked: Asked, lines: int, follow: bool, subject: str | None, kind: str | None, since: str | None) -> None:
    """Print the last records of SOURCE, as `cat` does; -f keeps printing as they come."""
    selection = Selection(subject, kind, since)
    # Where all are wanted, the end of each partition has the last of them.
    source = asked.open(Last(lines) if selection.is_all else selection.start)
    damages = Damages()
    with _quiet_ends():
        if follow:
            _follow(source, selection, lines)
        else:
            for stored in _last(source, selection.of(_counted(source, source.read(damages))), lines):
                _print(stored)
    damages.exit()


def _follow(source: Source, selection: Selection, lines: int) -> None:
    coming = source.follow(Event())
    before = selection.of(iter(lambda: next(coming, None), None))
    for stored in _last(source, before, lines):
        _print(stored)
    sys.stdout.flush()
    for new in coming:
        if new is None:
            sys.stdout.flush()
        elif selection.matches(new.record):
            _print(new)


def _last(source: Source, records: Iterable[StoredRecord], lines: int) -> list[StoredRecord]:
    """The last records: of a source without an order, those of the latest events."""
    if source.is_ordered:
        return list(deque(records, maxlen=lines))
    files: dict[str, deque[StoredRecord]] = defaultdict(lambda: deque(maxlen=lines))
    for stored in records:
        files[stored.file].append(stored)
    return sorted(chain(*files.values()), key=_time)[-lines:] if lines else []


def _time(stored: StoredRecord) -> str:
    try:
        event = event_of(stored.record)
    except MalformedRecord:
        return ""
    return time_of(event)


def _counted(source: Source, records: Iterator[StoredRecord]) -> Iterator[StoredRecord]:
    """The records, with progress where they are not printed to the same terminal."""
    return records if sys.stdout.isatty() else with_progress(records, "reading", lambda: source.total)


def _print_with(bodies: Contents, records: Iterator[StoredRecord]) -> None:
    while chunk := list(islice(records, CHUNK)):
        for stored, found in zip(chunk, bodies.of([stored.record for stored in chunk]), strict=True):
            line = line_of(stored)
            sys.stdout.buffer.write(line if found is None else line[:-1] + b',"contents":%b}' % orjson.dumps(found))
            sys.stdout.buffer.write(b"\n")


def _print(stored: StoredRecord) -> None:
    sys.stdout.buffer.write(line_of(stored) + b"\n")


@contextmanager
def _quiet_ends() -> Iterator[None]:
    """End without a word where the reader of a pipe has gone, or a person pressed Ctrl-C."""
    try:
        yield
        sys.stdout.flush()
    except SourceError as error:
        exit_unreadable(error)
    except KeyboardInterrupt:
        raise SystemExit(0) from None
    except BrokenPipeError:
        # What is still buffered must not raise again when Python closes standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
