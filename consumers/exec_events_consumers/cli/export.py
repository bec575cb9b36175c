"""``exec-events export``: the record in the form that others expect."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from exec_events_schemas.kafka_settings import SETTINGS_FILE

from .options import clean_end, source_options

_SAY_EVERY_SECONDS = 2.0
_SHOWN = 20


@click.group()
def export() -> None:
    """Write the record in a form that others expect."""


@export.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@source_options
@click.option("--course", default="", metavar="NAME", help="The CourseID of every event.")
@click.option(
    "--notebook",
    "notebooks",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A notebook of nbgrader's, whose cells' names become ProblemIDs; may be given several times.",
)
@click.option("--without-code", is_flag=True, help="Leave code out, also where the site keeps it.")
def progsnap2(
    folder: Path,
    source: str | None,
    kafka_settings: str | None,
    course: str,
    notebooks: tuple[Path, ...],
    without_code: bool,
) -> None:
    """
    Write all executions of SOURCE into FOLDER as a ProgSnap2 1.0 dataset, and check it.

    \b
    exec-events export progsnap2 dataset/
    exec-events export progsnap2 dataset/ --from kafka://broker:9092 --course "Physics 1" --notebook release/week1.ipynb
    """
    from exec_events_consumers.open_feed import default_spool
    from exec_events_consumers.progsnap import Choices, problems_of
    from exec_events_consumers.progsnap import export as write
    from exec_events_schemas.sources import open_source

    settings: dict[str, Any] = {SETTINGS_FILE: kafka_settings} if kafka_settings else {}
    with clean_end():
        choices = Choices(course, problems_of(notebooks), with_code=not without_code)
        opened = open_source(default_spool() if source is None else source, settings=settings)
        made = write(opened, folder, choices, _Saying())
    if made.no_code:
        click.echo(f"export: no code: {made.no_code}", err=True)
    click.echo(
        f"export: {made.runs:,} runs, {made.sessions:,} sessions, {made.code_states:,} code states "
        f"({made.bodies:,} with their code), {made.left_out:,} executions left out, {made.errors:,} logging errors"
    )
    _check(folder)


@export.command(name="study-log")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@source_options
@click.option("--gzip", "compress", is_flag=True, help="Write .study.log.gz.")
def study_log(folder: Path, source: str | None, kafka_settings: str | None, compress: bool) -> None:
    """
    Write SOURCE into FOLDER as study logs of Learning Observer, one for each subject and day, for its offline replay.

    \b
    exec-events export study-log logs/
    exec-events export study-log logs/ --from kafka://broker:9092 --gzip
    """
    from exec_events_consumers.learning_observer.study_log import export as write
    from exec_events_consumers.open_feed import default_spool
    from exec_events_schemas.sources import open_source

    settings: dict[str, Any] = {SETTINGS_FILE: kafka_settings} if kafka_settings else {}
    with clean_end():
        opened = open_source(default_spool() if source is None else source, settings=settings)
        made = write(opened, folder, compress=compress, on_progress=_Saying())
    for reason in made.reasons:
        click.echo(f"export: not used: {reason}", err=True)
    click.echo(
        f"export: {made.records:,} records read, {made.events:,} events in {made.files:,} files, "
        f"{made.unusable:,} not used" + (": `exec-events verify` says more" if made.unusable else "")
    )


@export.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def check(folder: Path) -> None:
    """
    Check a ProgSnap2 1.0 dataset: columns, types, values, references; exits with 1 where something is wrong.

    \b
    exec-events export check dataset/
    """
    _check(folder)


class _Saying:
    """Says on standard error how many records were read, every two seconds."""

    def __init__(self) -> None:
        self._said_at = time.monotonic()

    def __call__(self, records: int) -> None:
        if time.monotonic() - self._said_at >= _SAY_EVERY_SECONDS:
            self._said_at = time.monotonic()
            print(f"export: {records:,} records read", file=sys.stderr, flush=True)


def _check(folder: Path) -> None:
    from exec_events_consumers.progsnap_check import check as problems_of

    problems = problems_of(folder)
    for problem in problems[:_SHOWN]:
        click.echo(str(problem), err=True)
    if problems:
        raise click.ClickException(f"{folder}: {len(problems):,} things are wrong")
    click.echo(f"{folder} is ProgSnap2 1.0: nothing is wrong")
