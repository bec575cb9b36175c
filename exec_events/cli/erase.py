"""
``exec-events erase NAME``: one subject's stored code and outputs go; the events, and every chain, stay.

They go from the spool's files, and from each Kafka that the spool was delivered to.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import click

from exec_events import paths
from exec_events.errors import ConfigurationError, ExecEventsError
from exec_events.privacy import SUBJECT_LIMIT, Pseudonyms, clean, read_key
from exec_events_schemas.errors import ContractError
from exec_events_schemas.kafka_settings import SETTINGS_FILE
from exec_events_schemas.sources.spool import connect_read_only
from exec_events_schemas.spool_layout import DDL, FILE_SUFFIX

BUSY_SECONDS = 30


def erase_subject(path: Path, subjects: list[str]) -> int:
    """
    Remove the stored bodies of ``subjects`` (as events name them) from one spool file; returns how many.

    Works beside a running server, which waits and goes on. Raises sqlite3.Error when the file cannot be
    written, or its journal cannot be emptied: then run it again.
    """
    with closing(sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)) as connection:
        connection.execute("PRAGMA secure_delete=ON")
        connection.execute("BEGIN IMMEDIATE")
        try:
            removed = _rebuild_without(connection, subjects)
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        # The journal holds the pages as they were: bring it into the file and empty it.
        (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise sqlite3.OperationalError(f"{removed} bodies are removed, but its journal is in use and has them")
    return removed


def _rebuild_without(connection: sqlite3.Connection, subjects: list[str]) -> int:
    """
    Make the table of bodies anew without those of ``subjects``; returns how many these were.

    secure_delete overwrites pages that are given up, but not what is left on a page when SQLite moves rows to
    another: only a table that is dropped whole leaves nothing of the rows it held.
    """
    (before,) = connection.execute("SELECT count(*) FROM contents").fetchone()
    connection.execute("DROP INDEX IF EXISTS contents_of_subject")
    connection.execute("ALTER TABLE contents RENAME TO contents_before")
    for statement in DDL.split(";"):
        connection.execute(statement)
    marks = ", ".join("?" * len(subjects))
    kept = f"SELECT * FROM contents_before WHERE subject NOT IN ({marks})"  # noqa: S608
    copied = connection.execute(f"INSERT INTO contents {kept}", subjects)
    connection.execute("DROP TABLE contents_before")
    return int(before) - copied.rowcount


def spool_files(folder: Path) -> list[Path]:
    """Every file of a spool that may hold bodies: those that were damaged and set aside, too."""
    journals = ("-wal", "-shm", "-journal")
    aside = [path for path in folder.glob(f"*{FILE_SUFFIX}.damaged-*") if not path.name.endswith(journals)]
    return sorted([*folder.glob(f"*{FILE_SUFFIX}"), *aside])


@click.command()
@click.argument("name")
@click.option(
    "--spool",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="The spool's folder; by default this user's.",
)
@click.option(
    "--key-file", type=click.Path(path_type=Path), default=None, help="The site's key; by default this user's."
)
@click.option(
    "--kafka",
    "given",
    multiple=True,
    metavar="URL",
    help="Also on this kafka://…, besides those that the spool was delivered to.",
)
@click.option(
    "--kafka-settings",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A TOML file with kafka-python's settings for the connection.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
def erase(
    name: str,
    spool: Path | None,
    key_file: Path | None,
    given: tuple[str, ...],
    kafka_settings: Path | None,
    yes: bool,
) -> None:
    """
    Remove the stored code and outputs of NAME, a user's name or a subject as events carry it.

    They go from the spool, and by tombstones from the contents topic of each Kafka it was delivered to. Events
    hold only commitments to what is removed, so every chain stays valid. Nothing brings it back.
    """
    folder = spool or paths.spool_folder()
    subjects = [name, clean(name, SUBJECT_LIMIT)]
    if not name.startswith("p:"):
        try:
            subjects.append(Pseudonyms(read_key(key_file or paths.key_file())).subject(name))
        except ConfigurationError as error:
            click.echo(f"without pseudonyms: {error}", err=True)
    files = spool_files(folder)
    topics = sorted({*given, *(sink for path in files for sink in kafka_sinks(path))})
    if not files and not topics:
        raise click.ClickException(f"no spool in {folder}; name one with --spool")
    if not yes:
        where = " and ".join([f"{len(files)} files in {folder}", *topics])
        click.confirm(f"Remove the stored code and outputs of {name} from {where}?", abort=True)
    removed, failed = 0, False
    for path in files:
        try:
            removed += erase_subject(path, subjects)
        except sqlite3.Error as error:
            failed = True
            advice = "remove the file yourself" if ".damaged-" in path.name else "run the command again"
            click.echo(f"{path} may still hold some: {error}; {advice}", err=True)
    for url in topics:
        try:
            removed += _erase_from_kafka(url, kafka_settings, subjects)
        except (ExecEventsError, ContractError, ImportError) as error:
            failed = True
            click.echo(f"{url} may still hold some: {error}; mend that, and run the command again", err=True)
    click.echo(f"{removed} bodies removed")
    if failed:
        raise SystemExit(1)


def kafka_sinks(path: Path) -> list[str]:
    """The Kafka sinks that a spool file was delivered to."""
    try:
        with closing(connect_read_only(path)) as connection:
            sinks = connection.execute("SELECT sink FROM deliveries WHERE sink LIKE 'kafka://%'").fetchall()
    except sqlite3.Error:
        return []  # what cannot be read is told of when it cannot be written either
    return [sink for (sink,) in sinks]


def _erase_from_kafka(url: str, settings_file: Path | None, subjects: list[str]) -> int:
    from exec_events.sinks.kafka_erase import erase_bodies

    settings = {SETTINGS_FILE: str(settings_file)} if settings_file else {}
    return erase_bodies(url, settings, subjects)
