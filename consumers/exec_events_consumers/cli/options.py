"""What the consumers' verbs have in common: their options, how they say how far they are, and how they end."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import click

from exec_events_consumers.errors import ConsumerError, Stalled
from exec_events_schemas.errors import ContractError

if TYPE_CHECKING:
    from exec_events_consumers.loop import Progress

F = TypeVar("F", bound=Callable[..., Any])

EXIT_FAILED = 2
EXIT_STALLED = 3
_SAY_EVERY_SECONDS = 2.0


def source_options(function: F) -> F:
    """``--from`` and ``--kafka-settings``, as ``source`` and ``kafka_settings``."""
    about = "spool://FOLDER, a folder, a .jsonl file or kafka://HOST:PORT/[PREFIX]; by default this user's spool."
    return click.option("--from", "source", metavar="SOURCE", help=about)(kafka_settings_option(function))


def kafka_settings_option(function: F) -> F:
    """``--kafka-settings``, as ``kafka_settings``."""
    return click.option(
        "--kafka-settings",
        type=click.Path(exists=True, dir_okay=False),
        envvar="EXEC_EVENTS_KAFKA_SETTINGS",
        show_envvar=True,
        help="kafka-python's settings of a connection, as name = value in TOML.",
    )(function)


def store_option(function: F) -> F:
    """``--store``, as ``store``."""
    about = "The database: sqlite:///FILE.db or postgresql+psycopg://USER@HOST/NAME; by default a file of this user's."
    return click.option("--store", metavar="URL", envvar="EXEC_EVENTS_STORE", show_envvar=True, help=about)(function)


def once_option(function: F) -> F:
    """``--once``, as ``once``."""
    return click.option("--once", is_flag=True, help="End when all that is there now has been taken.")(function)


@contextmanager
def clean_end() -> Iterator[threading.Event]:
    """
    An event that Ctrl-C and SIGTERM set; what goes wrong inside is told in one line.

    Exits with 2 where the source or the store fails, with 3 where the process should be started again.
    """
    from sqlalchemy.exc import SQLAlchemyError

    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    except Stalled as error:
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(EXIT_STALLED) from error
    except (ConsumerError, ContractError, SQLAlchemyError) as error:
        text = str(getattr(error, "orig", None) or error).partition("\n")[0]
        click.echo(f"Error: {text}", err=True)
        raise SystemExit(EXIT_FAILED) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Saying:
    """Says on standard error how far a loop has come, at most every two seconds and when that changed."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._said_at = time.monotonic()
        self._said: tuple[int, int | None] = (0, None)
        self._began = self._said_at

    def __call__(self, progress: Progress) -> None:
        """Look at it."""
        now = time.monotonic()
        if now - self._said_at < _SAY_EVERY_SECONDS or (progress.records, progress.waiting) == self._said:
            return
        self._said_at, self._said = now, (progress.records, progress.waiting)
        rate = progress.records / (now - self._began)
        left = "" if progress.waiting is None else f", {progress.waiting:,} left"
        print(f"{self._doing}: {progress.records:,} records, {rate:,.0f}/s{left}", file=sys.stderr, flush=True)


def sum_up(doing: str, progress: Progress) -> str:
    """What a loop did, in one line."""
    words = f"{doing}: {progress.records:,} records read, {progress.events:,} of them new"
    return words + (f", {progress.dead:,} to the dead letters" if progress.dead else "")
