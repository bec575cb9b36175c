"""``exec-events forward``: the record into a Learning Observer server, and who is who there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from exec_events_schemas.kafka_settings import SETTINGS_FILE

from .options import Saying, clean_end, once_option, source_options, store_option

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from exec_events_consumers.learning_observer.forward import Counts
    from exec_events_consumers.loop import Progress

# So many records are in the server's hands, at most, when anything is killed.
BATCH_RECORDS = 2000
_HERE = ("localhost", "127.0.0.1", "::1")


@click.group(invoke_without_command=True)
@source_options
@click.option("--to", "url", metavar="URL", help="The server: ws(s)://HOST/wsapi/in/.")
@click.option(
    "--login",
    default="local_storage",
    show_default=True,
    metavar="METHOD",
    help="One of the methods in the server's event_auth: local_storage, http_basic, chromebook, hash_identify, guest, "
    "testcase_auth, or what a plug-in adds.",
)
@click.option(
    "--secrets",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Tokens or passwords: a CSV file (learning_observer_id,secret) that only you can read. It may change.",
)
@click.option(
    "--people",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Who is who: a CSV file (subject,learning_observer_id), which may change; else `forward people` says.",
)
@click.option("--insecure", is_flag=True, help="Allow logins that anybody could do, and ws:// to another machine.")
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=BATCH_RECORDS,
    show_default=True,
    metavar="RECORDS",
    help="Send so many at most before the server must have processed them.",
)
@click.option(
    "--patience",
    type=click.FloatRange(min=1),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Give up a connection on which the server has not processed a batch for so long.",
)
@store_option
@once_option
@click.pass_context
def forward(
    context: click.Context,
    source: str | None,
    url: str | None,
    kafka_settings: str | None,
    login: str,
    secrets: Path | None,
    people: Path | None,
    insecure: bool,
    batch: int,
    patience: float,
    store: str | None,
    once: bool,
) -> None:
    """
    Send every execution in SOURCE to a Learning Observer server, as its student's.

    Who is who there, you say; events of others are held until you do. It may be ended and killed at any time: it
    goes on where the server is. Started several times on the same kafka:// SOURCE, and on a PostgreSQL store, it
    shares the work.

    \b
    exec-events forward --to wss://lo.example.org/wsapi/in/ --people people.csv --secrets tokens.csv
    exec-events forward --from kafka://broker:9092 --to wss://lo.example.org/wsapi/in/ --secrets tokens.csv
    exec-events forward people import people.csv
    exec-events forward held
    """
    if context.invoked_subcommand is not None:
        return
    if url is None:
        raise click.UsageError("--to is missing: give the server's ws(s)://HOST/wsapi/in/")
    _check(url, insecure)
    with clean_end() as stop:
        from exec_events_consumers.learning_observer import forward as forwarding
        from exec_events_consumers.learning_observer.authentication import open_authentication
        from exec_events_consumers.learning_observer.holding import held_count, stream_of
        from exec_events_consumers.learning_observer.identities import PeopleFile, PeopleTable
        from exec_events_consumers.learning_observer.sending import Sender
        from exec_events_consumers.loop import run
        from exec_events_consumers.open_feed import open_feed, open_office

        authentication = open_authentication(login, secrets, insecure=insecure, say=_say)
        known = PeopleFile(people, _say) if people else PeopleTable()
        settings: dict[str, Any] = {SETTINGS_FILE: kafka_settings} if kafka_settings else {}
        with (
            closing(forwarding.open_store(store or _default_store())) as opened,
            closing(open_feed(source, forwarding.NAME, settings, batch_records=batch)) as feed,
            open_office(source, forwarding.NAME, settings) as office,
        ):
            with opened.engine.begin() as connection:
                stream = stream_of(connection, opened.owner)
            with closing(Sender(url, authentication, stream, patience=patience, say=_say)) as sender:
                mine = getattr(feed, "mine", None)
                step = forwarding.Forward(opened, sender, known, stop, office=office, mine=mine, say=_say)
                saying = Saying("forward")

                def on_progress(progress: Progress) -> None:
                    saying(progress)
                    step.between(progress)

                progress = run(feed, opened, step, once=once, stop=stop, office=office, on_progress=on_progress)
                if once:
                    step.finish()
            with opened.engine.begin() as connection:
                waiting = held_count(connection)
            click.echo(_sum_up(progress, step.counts(), waiting))


@forward.group(name="people")
def people_group() -> None:
    """
    Say who is who at the server, in a table of the store: for forwarders that share the work.

    \b
    exec-events forward people import people.csv
    exec-events forward people list
    """


@people_group.command(name="import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@store_option
def import_people(file: Path, store: str | None) -> None:
    """
    Put the people in FILE, a CSV file (subject,learning_observer_id), in place of those in the table.

    A forwarder that runs sends what it held of them within a second or two. `exec-events pseudonym NAME` says what
    stands for a name in the record.

    \b
    exec-events forward people import people.csv
    """
    with _tables(store) as engine:
        from exec_events_consumers.learning_observer import identities

        with engine.begin() as connection:
            count = identities.import_people(connection, file)
        click.echo(f"{count:,} people")


@people_group.command(name="list")
@store_option
def list_people(store: str | None) -> None:
    """
    Print the table as CSV.

    \b
    exec-events forward people list > people.csv
    """
    import csv

    with _tables(store) as engine:
        from exec_events_consumers.learning_observer import identities

        with engine.begin() as connection:
            listed = identities.listed_people(connection)
        rows = csv.writer(sys.stdout, lineterminator="\n")
        rows.writerow((identities.SUBJECT, identities.LO_ID))
        rows.writerows(listed)


@forward.command()
@store_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def held(store: str | None, as_json: bool) -> None:
    """
    List the people whose events wait, how many wait, and for what.

    \b
    exec-events forward held
    exec-events forward held --json | jq -r .subject
    """
    import json

    with _tables(store) as engine:
        from exec_events_consumers.learning_observer.holding import counts_by_subject

        with engine.begin() as connection:
            found = [*counts_by_subject(connection)]
    if as_json:
        for one, count in found:
            click.echo(json.dumps({**one._asdict(), "events": count}))
    elif not found:
        click.echo("Nobody's events wait.")
    for one, count in [] if as_json else found:
        until = f" (until {one.until[:19]}Z)" if one.until else ""
        click.echo(f"{one.subject}  {count:,} events since {one.since[:19]}Z: {one.reason}{until}")


def _check(url: str, insecure: bool) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise click.UsageError("--to is a websocket's URL: ws(s)://HOST/wsapi/in/")
    if parts.username or parts.password or parts.query:
        raise click.UsageError("--to has no name, password or query in it: others can read it; --secrets is a file")
    if parts.scheme == "ws" and parts.hostname not in _HERE and not insecure:
        raise click.UsageError("ws:// sends names and tokens over the network in the clear: use wss://, or --insecure")


def _default_store() -> str:
    """Of its own: while it sends, others could not write."""
    from exec_events_consumers.open_feed import default_store

    return default_store().replace("aggregate.db", "forward.db")


@contextmanager
def _tables(url: str | None) -> Iterator[Engine]:
    with clean_end():
        from exec_events_consumers.learning_observer import forward as forwarding

        with closing(forwarding.open_store(url or _default_store())) as store:
            yield store.engine


def _say(text: str) -> None:
    click.echo(f"forward: {text}", err=True)


def _sum_up(progress: Progress, counts: Counts, waiting: int) -> str:
    """What became of every record, in one line."""
    known = progress.records - progress.events - progress.dead
    line = (
        f"forward: {progress.records:,} records read: {counts.sent:,} sent, {counts.held:,} held, "
        f"{counts.dead + progress.dead:,} to the dead letters, {known:,} known already, "
        f"{counts.of_nobody:,} of no person"
    )
    if counts.released or counts.released_dead:
        line += f"; of those held, {counts.released:,} sent"
        line += f", {counts.released_dead:,} to the dead letters" if counts.released_dead else ""
    return line + (f"; {waiting:,} wait: `exec-events forward held`" if waiting else "")
