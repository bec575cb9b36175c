"""The SOURCE that reading verbs take: opened for a person, and its records chosen by their events."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn, TypeVar

import click

from exec_events import paths
from exec_events_schemas.catalogue import SCHEMA_ID, catalogue
from exec_events_schemas.errors import MalformedRecord, SourceError
from exec_events_schemas.record import event_of
from exec_events_schemas.sources import Damage, Source, StoredRecord, open_source

EXIT_BROKEN = 1
EXIT_UNREADABLE = 2

F = TypeVar("F", bound=Callable[..., Any])

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def source_argument(function: F) -> F:
    """The optional SOURCE argument, as ``source: str | None``."""
    return click.argument("source", required=False)(function)


def selection_options(function: F) -> F:
    """The options ``subject`` and ``since`` of `Selection`."""
    about_since = "From this time on: 2026-11-23, 2026-11-23T10:00 (UTC), or 2h for two hours ago."
    about_subject = "Events of this subject only, as events carry it (exec-events pseudonym NAME)."
    function = click.option("--since", callback=since_time, metavar="TIME", help=about_since)(function)
    return click.option("--subject", help=about_subject)(function)


def kind_option(function: F) -> F:
    """The option ``kind`` of `Selection`."""
    kinds = sorted({name.event for name in catalogue()})
    return click.option("--kind", type=click.Choice(kinds), help="Events of this kind only.")(function)


def open_or_exit(source: str | None) -> Source:
    """The source a person named, or this user's spool; exits with 2 where there is none."""
    try:
        return open_source(paths.spool_folder() if source is None else source)
    except SourceError as error:
        exit_unreadable(error)


def exit_unreadable(error: SourceError) -> NoReturn:
    """Say why a source cannot be read, and exit with 2."""
    click.echo(f"Error: {error}", err=True)
    raise SystemExit(EXIT_UNREADABLE) from error


class Damages:
    """Says on standard error what could not be read, and remembers that there was something."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, damage: Damage) -> None:
        """Say it."""
        self.count += 1
        click.echo(f"Warning: {damage.file}, at {damage.position}: {damage.what}", err=True)

    def exit(self) -> None:
        """Exit with 1 if there was any."""
        if self.count:
            raise SystemExit(EXIT_BROKEN)


def since_time(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """
    A time as events carry it, RFC 3339 in UTC with microseconds.

    Made from a date, a time (UTC where it has no offset), or ``2h`` for two hours ago (s, m, h, d).
    """
    if value is None:
        return None
    text = value.strip()
    try:
        if text[-1:] in _UNITS and text[:-1].isdigit():
            moment = datetime.now(UTC) - timedelta(**{_UNITS[text[-1]]: int(text[:-1])})
        else:
            moment = datetime.fromisoformat(text)
            moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(f"{text!r} is no time: give 2026-11-23, 2026-11-23T10:00, or 2h") from error
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z"


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events are asked for; None asks for all."""

    subject: str | None = None
    kind: str | None = None
    since: str | None = None

    def matches(self, record: bytes) -> bool:
        """Whether a record is among them; one that cannot be read is among all only."""
        if self == _ALL:
            return True
        try:
            event = event_of(record)
        except MalformedRecord:
            return False
        return (
            (self.subject is None or event.get("subject") == self.subject)
            and (self.kind is None or kind_of(event) == self.kind)
            and (self.since is None or str(event.get("time", "")) >= self.since)
        )

    def of(self, records: Iterable[StoredRecord]) -> Iterator[StoredRecord]:
        """The records that are asked for."""
        return (stored for stored in records if self.matches(stored.record))


_ALL = Selection()


def kind_of(event: dict[str, Any]) -> str:
    """The kind of an event, for example cell_execution; "" where it names no schema of ours."""
    match = SCHEMA_ID.fullmatch(str(event.get("__schema__")))
    return match["event"] if match else ""
