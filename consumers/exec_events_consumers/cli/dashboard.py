"""``exec-events dashboard``: pages of the tables, live."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from exec_events_schemas.kafka_settings import SETTINGS_FILE

from .options import clean_end, kafka_settings_option, store_option

if TYPE_CHECKING:
    from exec_events_consumers.dashboard.outside import Letters
    from exec_events_consumers.dashboard.serve import Place
    from exec_events_consumers.dashboard.watching import Watching

F = TypeVar("F", bound=Callable[..., Any])

PORT = 8790
TOKEN_FILE_NAME = "dashboard.token"  # noqa: S105


def place_options(function: F) -> F:
    """``--host``, ``--port``, ``--token-file`` and ``--allow-host``, of which ``place`` makes a Place."""
    for option in reversed(
        (
            click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on."),
            click.option("--port", default=PORT, show_default=True, help="The port; 0 takes a free one."),
            click.option(
                "--token-file",
                type=click.Path(dir_okay=False, path_type=Path),
                help="A file of this user's alone with the token; made where it is not there. "
                "By default there is a new token at each start.",
            ),
            click.option(
                "--allow-host",
                "hosts",
                metavar="NAME",
                multiple=True,
                help="A name by which browsers ask for the pages, behind a proxy say. May be given more than once.",
            ),
        )
    ):
        function = option(function)
    return function


def place(host: str, port: int, token_file: Path | None, hosts: tuple[str, ...]) -> Place:
    """Where to listen, and where the token is kept."""
    from jupyter_core.paths import jupyter_data_dir

    from exec_events_consumers.dashboard.serve import Place
    from exec_events_consumers.open_feed import TABLES_FOLDER_NAME

    file = token_file or Path(jupyter_data_dir()) / TABLES_FOLDER_NAME / TOKEN_FILE_NAME
    return Place(host, port, file, token_file is not None, hosts)


@click.command()
@store_option
@click.option(
    "--from",
    "source",
    metavar="SOURCE",
    help="What the tables are made from: of a spool the page says how much is left, of kafka://HOST:PORT/[PREFIX] "
    "how many dead letters are on their topic.",
)
@kafka_settings_option
@click.option(
    "--server-key-file",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="EXEC_EVENTS_SERVER_KEY_FILE",
    show_envvar=True,
    help="As a Hub's service: the key of the labels that the Hub gives its servers. Then it is an alarm when a server "
    "runs and its recorder is silent.",
)
@click.option(
    "--heartbeat-seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    help="How often the site has set its recorders to speak; three times that is silence.",
)
@place_options
def dashboard(
    store: str | None,
    source: str | None,
    kafka_settings: str | None,
    server_key_file: Path | None,
    heartbeat_seconds: float,
    host: str,
    port: int,
    token_file: Path | None,
    hosts: tuple[str, ...],
) -> None:
    """
    Serve pages of the tables that `aggregate` keeps: now, people, notebooks, cohorts, integrity.

    Prints the URL, with the token that is needed to see them. Started by JupyterHub as a service, it leaves
    that to the Hub.

    \b
    exec-events dashboard
    exec-events dashboard --store postgresql+psycopg://analyst@db/exec_events --port 0
    """
    from exec_events_consumers.dashboard.outside import Outside
    from exec_events_consumers.dashboard.serve import reading_engine, serve, waiting_in_spool
    from exec_events_consumers.open_feed import default_spool, default_store
    from exec_events_schemas.errors import SourceError
    from exec_events_schemas.sources import open_source
    from exec_events_schemas.sources.spool import SpoolSource
    from exec_events_schemas.topics import SCHEME

    with clean_end():
        engine = reading_engine(store or default_store())
        folder = None
        topic = source if source is not None and source.startswith(f"{SCHEME}://") else None
        if source is not None and topic is None:
            opened = open_source(source, settings={})
            if not isinstance(opened, SpoolSource):
                raise SourceError(f"{opened.name} is neither a spool nor Kafka: leave --from away")
            folder = opened.folder
        elif store is None and default_spool().is_dir():
            folder = default_spool()
        try:
            waiting = (lambda: None) if folder is None else waiting_in_spool(engine, folder)
            with (
                _watching(server_key_file, heartbeat_seconds) as watching,
                _letters(topic, kafka_settings) as letters,
            ):
                outside = Outside(waiting, letters, watching)
                serve(engine, place(host, port, token_file, hosts), outside, _say)
        finally:
            engine.dispose()


@contextmanager
def _letters(topic: str | None, kafka_settings: str | None) -> Iterator[Letters]:
    """Who counts dead letters on their topic: Kafka, where the tables are made from it, or nobody."""
    if topic is None:
        yield lambda read: None
        return
    from exec_events_consumers.dashboard.repeated import repeated
    from exec_events_consumers.dashboard.topic_letters import LOOK_SECONDS, TopicLetters

    letters = TopicLetters(topic, {SETTINGS_FILE: kafka_settings} if kafka_settings else {})
    with repeated(letters.look, LOOK_SECONDS):
        yield letters.waiting


@contextmanager
def _watching(key_file: Path | None, heartbeat_seconds: float) -> Iterator[Watching]:
    """Who says which servers run: the Hub, where there is a key, or nobody."""
    from exec_events_consumers.dashboard.watching import Watching

    interval = timedelta(seconds=heartbeat_seconds)
    if key_file is None:
        yield Watching(interval=interval)
        return
    from exec_events_consumers.dashboard.hub_servers import ASK_SECONDS, HubServers, ask_the_hub
    from exec_events_consumers.dashboard.repeated import repeated
    from exec_events_consumers.dashboard.silence import INTERVALS
    from exec_events_schemas.server_label import label_key

    hub = HubServers(ask_the_hub(), label_key(key_file), INTERVALS * heartbeat_seconds)
    with repeated(hub.look, min(ASK_SECONDS, heartbeat_seconds)):
        yield Watching(hub.watched, interval)


def _say(url: str) -> None:
    click.echo(f"dashboard: {url}")
