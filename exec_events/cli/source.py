"""The SOURCE that reading verbs take: opened for a person, and its records chosen by their events."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any, NoReturn, TypeVar, cast

import click
from click.core import ParameterSource

from exec_events import paths
from exec_events_schemas.catalogue import SCHEMA_ID, catalogue
from exec_events_schemas.errors import MalformedRecord, SourceError
from exec_events_schemas.kafka_settings import SETTINGS_FILE
from exec_events_schemas.record import event_of
from exec_events_schemas.sources import Damage, Source, Start, StoredRecord, open_source

EXIT_BROKEN = 1
EXIT_UNREADABLE = 2

F = TypeVar("F", bound=Callable[..., Any])

ABOUT_START = "Read from the first event of this time on, as for --since, or what comes from now on; `cat` says more."
ABOUT_PARTITION = "Read this partition of a kafka:// SOURCE only; may be given several times."
ABOUT_SETTINGS = "kafka-python's settings of a connection, such as ssl_cafile, as name = value in TOML."

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True, slots=True)
class Asked:
    """The SOURCE a person named (None: this user's spool), and from where on, and which of it, they want to read."""

    source: str | None = None
    start: Start | None = None
    partitions: tuple[int, ...] = ()
    kafka_settings: str | None = None

    @property
    def is_partial(self) -> bool:
        """Whether a part of the source is asked for."""
        return self.start is not None or bool(self.partitions)

    def open(self, otherwise: Start | None = None) -> Source:
        """The source; read from ``otherwise`` where no --start was given. Exits with 2 where there is none."""
        settings = {} if self.kafka_settings is None else {SETTINGS_FILE: self.kafka_settings}
        named = paths.spool_folder() if self.source is None else self.source
        start = otherwise if self.start is None else self.start
        try:
            return open_source(named, start=start, partitions=self.partitions, settings=settings)
        except SourceError as error:
            exit_unreadable(error)


def source_argument(function: F) -> F:
    """The optional SOURCE argument with the options that say how to read it, as ``asked: Asked``."""

    @click.argument("source", required=False)
    @click.option("--start", callback=_start, metavar="TIME|now", help=ABOUT_START)
    @click.option("--partition", "partitions", type=click.IntRange(min=0), multiple=True, help=ABOUT_PARTITION)
    @click.option(
        "--kafka-settings",
        type=click.Path(exists=True, dir_okay=False),
        envvar="EXEC_EVENTS_KAFKA_SETTINGS",
        show_envvar=True,
        help=ABOUT_SETTINGS,
    )
    @wraps(function)
    def command(
        source: str | None,
        start: Start | None,
        partitions: tuple[int, ...],
        kafka_settings: str | None,
        **options: Any,
    ) -> Any:
        said = click.get_current_context().get_parameter_source("kafka_settings") is ParameterSource.COMMANDLINE
        if said and not (source or "").startswith("kafka:"):
            raise click.UsageError("--kafka-settings is for a SOURCE kafka://HOST:PORT/[PREFIX]")
        return function(asked=Asked(source, start, partitions, kafka_settings), **options)

    return cast(F, command)


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
    return None if value is None else f"{_moment(value):%Y-%m-%dT%H:%M:%S.%f}Z"


def _start(context: click.Context, parameter: click.Parameter, value: str | None) -> Start | None:
    if value is None or value.strip() == "now":
        return None if value is None else "now"
    return _moment(value)


def _moment(value: str) -> datetime:
    text = value.strip()
    try:
        if text[-1:] in _UNITS and text[:-1].isdigit():
            return datetime.now(UTC) - timedelta(**{_UNITS[text[-1]]: int(text[:-1])})
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(f"{text!r} is no time: give 2026-11-23, 2026-11-23T10:00, or 2h") from error


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events are asked for; None asks for all."""

    subject: str | None = None
    kind: str | None = None
    since: str | None = None

    @property
    def start(self) -> datetime | None:
        """From where on a source has to be read: what comes before is not asked for, by its time."""
        return None if self.since is None else datetime.fromisoformat(self.since)

    @property
    def is_all(self) -> bool:
        """Whether every event is asked for."""
        return self == _ALL

    def matches(self, record: bytes) -> bool:
        """Whether a record is among them; one that cannot be read is among all only."""
        if self.is_all:
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
