"""``exec-events aggregate`` and ``rebuild``: the record into tables that people can query."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import click

from exec_events_schemas.kafka_settings import SETTINGS_FILE

from .options import Saying, clean_end, once_option, source_options, store_option, sum_up


@click.command()
@source_options
@store_option
@once_option
def aggregate(source: str | None, store: str | None, kafka_settings: str | None, once: bool) -> None:
    """
    Keep the tables of executions, cells, notebooks, people, errors and codes up to date with SOURCE.

    Started several times on the same kafka:// SOURCE, and on a PostgreSQL store, it shares the work. It may be
    ended and killed at any time: it goes on where its tables stand.

    \b
    exec-events aggregate --once
    exec-events aggregate --from kafka://broker:9092 --store postgresql+psycopg://analyst@db/exec_events
    """
    _run(source, store, kafka_settings, once=once, anew=False)


@click.command()
@source_options
@store_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def rebuild(source: str | None, store: str | None, kafka_settings: str | None, yes: bool) -> None:
    """
    Empty the tables and make them anew from SOURCE: the same rows, or what a new version makes of the record.

    End every `aggregate` on the store first; one that still runs ends by itself, having written nothing more.
    """
    if not yes:
        click.confirm("Empty the tables of executions and all that is made of them, and make them anew?", abort=True)
    _run(source, store, kafka_settings, once=True, anew=True)


def _run(source: str | None, url: str | None, kafka_settings: str | None, *, once: bool, anew: bool) -> None:
    from exec_events_consumers import aggregate as aggregating
    from exec_events_consumers.loop import run
    from exec_events_consumers.open_feed import default_store, open_feed, open_office
    from exec_events_consumers.store import Store

    settings: dict[str, Any] = {SETTINGS_FILE: kafka_settings} if kafka_settings else {}
    with clean_end() as stop:
        with (
            closing(Store(url or default_store(), aggregating.NAME)) as store,
            closing(open_feed(source, aggregating.NAME, settings)) as feed,
            open_office(source, aggregating.NAME, settings) as office,
        ):
            if anew:
                with store.transaction({}) as transaction:
                    aggregating.forget(transaction)
            progress = run(
                feed,
                store,
                aggregating.aggregate,
                once=once,
                stop=stop,
                office=office,
                known_hashes=aggregating.known_hashes,
                on_progress=Saying("rebuild" if anew else "aggregate"),
            )
        click.echo(sum_up("rebuild" if anew else "aggregate", progress))
