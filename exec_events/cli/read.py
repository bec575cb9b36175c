"""``exec-events cat`` and ``tail``: records as JSON lines, all of them or the last, and those that come."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

import click

from exec_events_schemas.errors import SourceError
from exec_events_schemas.sources import Source, StoredRecord
from exec_events_schemas.sources.jsonl import line_of

from .source import Damages, Selection, exit_unreadable, kind_option, open_or_exit, selection_options, source_argument


@click.command()
@source_argument
@kind_option
@selection_options
def cat(source: str | None, subject: str | None, kind: str | None, since: str | None) -> None:
    """
    Print every record of SOURCE, one JSON line each: {"event":…,"seal":…,"hash":…}.

    SOURCE is spool://FOLDER, a folder, a .jsonl file (with its rotated siblings), or - for JSON lines on
    standard input; by default this user's spool.
    """
    damages = Damages()
    with _quiet_ends():
        for stored in Selection(subject, kind, since).of(open_or_exit(source).read(damages)):
            _print(stored)
    damages.exit()


@click.command()
@source_argument
@click.option("-n", "--lines", type=click.IntRange(min=0), default=10, show_default=True, help="How many records.")
@click.option("-f", "--follow", is_flag=True, help="Keep printing records as they come, until Ctrl-C.")
@kind_option
@selection_options
def tail(
    source: str | None, lines: int, follow: bool, subject: str | None, kind: str | None, since: str | None
) -> None:
    """Print the last records of SOURCE, as `cat` does; -f keeps printing as they come."""
    opened, selection = open_or_exit(source), Selection(subject, kind, since)
    damages = Damages()
    with _quiet_ends():
        if follow:
            _follow(opened, selection, lines)
        else:
            for stored in deque(selection.of(opened.read(damages)), maxlen=lines):
                _print(stored)
    damages.exit()


def _follow(source: Source, selection: Selection, lines: int) -> None:
    last: deque[StoredRecord] | None = deque(maxlen=lines)
    for stored in source.follow(Event()):
        if stored is None:
            if last is not None:
                for earlier in last:
                    _print(earlier)
                last = None
            sys.stdout.flush()
        elif selection.matches(stored.record):
            if last is None:
                _print(stored)
            else:
                last.append(stored)


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
