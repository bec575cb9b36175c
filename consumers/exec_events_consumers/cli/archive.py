"""``exec-events archive``: the record as Parquet files, one folder a day."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import click

from exec_events_consumers.gathered import BATCH_RECORDS, Gathered
from exec_events_consumers.pyarrow_alone import import_pyarrow_alone
from exec_events_schemas.kafka_settings import SETTINGS_FILE

from .options import Saying, clean_end, once_option, source_options, sum_up

# So small batches are put together, so that a file has hardly more than it should.
POLLED = 500


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@source_options
@once_option
@click.option(
    "--every",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Write a file at the latest so long after its first event came.",
)
@click.option(
    "--records",
    type=click.IntRange(min=1),
    default=BATCH_RECORDS,
    show_default=True,
    help="Write a file when so many records are there; larger files take more memory.",
)
def archive(
    folder: Path, source: str | None, kafka_settings: str | None, once: bool, every: float, records: int
) -> None:
    """
    Keep every record of SOURCE in Parquet files in FOLDER, each in the folder of its event's day.

    It may be ended and killed at any time: every event is in exactly one file. Started several times on the same
    kafka:// SOURCE and FOLDER, on one machine, it shares the work.

    \b
    exec-events archive archive/ --once
    exec-events archive archive/ --from kafka://broker:9092
    """
    try:
        import_pyarrow_alone()
        from exec_events_consumers import archive as archiving
    except ImportError as error:
        needed = "pip install 'exec-events[consumers,export]'"
        raise click.ClickException(f"archive needs more than is installed ({error}): {needed}") from error
    from exec_events_consumers.loop import run
    from exec_events_consumers.open_feed import open_feed, open_office

    settings: dict[str, Any] = {SETTINGS_FILE: kafka_settings} if kafka_settings else {}
    with clean_end() as stop:
        with (
            closing(archiving.ArchiveStore(folder)) as store,
            closing(open_feed(source, archiving.NAME, settings, batch_records=min(records, POLLED))) as feed,
            open_office(source, archiving.NAME, settings) as office,
        ):
            progress = run(
                Gathered(feed, stop, once=once, records=records, seconds=every),
                store,
                archiving.Archive(folder),
                once=once,
                stop=stop,
                office=office,
                on_progress=Saying("archive"),
            )
        click.echo(sum_up("archive", progress))
