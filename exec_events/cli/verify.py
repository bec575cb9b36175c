"""``exec-events verify``: whether a record was changed since it was sealed, or a notebook since it was run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from exec_events.errors import ConfigurationError
from exec_events.notebook import CellVerdict
from exec_events_schemas.chain import Verifier
from exec_events_schemas.errors import SourceError
from exec_events_schemas.findings import Report
from exec_events_schemas.sources import Source, StoredRecord

from .cells import SavedNotebookCheck
from .source import EXIT_BROKEN, Asked, exit_unreadable, source_argument
from .terminal import with_progress

SHOWN = 20


def verify_source(
    source: Source, also: Callable[[StoredRecord], None] | None = None, *, partial: bool = False
) -> Report:
    """
    The report on a whole source, or on the part that it gives; recorders that run are known where a spool has locks.

    ``also`` is called with each record, whatever is wrong with it. Raises SourceError when the source
    cannot be read.
    """
    verifier = Verifier(partial=partial)
    running = source.running()
    for stored in with_progress(source.read(verifier.damaged, verifier.awaits), "verifying", lambda: source.total):
        verifier.add(stored)
        if also is not None:
            also(stored)
    # Asked twice: one that stopped, or started, while its records were read was running too.
    return verifier.finish(running | source.running())


@click.command()
@source_argument
@click.option("--all", "show_all", is_flag=True, help=f"Every broken record, not the first {SHOWN} only.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of text.")
@click.option(
    "--notebook",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A verdict on each code cell of this .ipynb: recorded, edited since, output differs, never run here.",
)
@click.option(
    "--hash-key-file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The key of the site's hashes (c.ExecEvents.hash_key_file), for --notebook.",
)
def verify(asked: Asked, show_all: bool, as_json: bool, notebook: Path | None, hash_key_file: Path | None) -> None:
    """
    Check that no record of SOURCE was changed, dropped, reordered or inserted since it was sealed.

    SOURCE is as for `cat`. With --start or --partition what was left out cannot be missing; what was read is
    checked as ever. Exits with 0 when all is in order, with 1 and the first broken record, or the
    cells that are not as recorded, when not, and with 2 when SOURCE cannot be read.
    """
    source = asked.open()
    cells: list[CellVerdict] = []
    try:
        check = SavedNotebookCheck(notebook, hash_key_file) if notebook else None
        report = verify_source(source, check, partial=asked.is_partial)
        if check is not None:
            cells = check.verdicts()
    except SourceError as error:
        exit_unreadable(error)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        document = report_json(report)
        if check is not None:
            document["cells"] = check.as_json(cells)
        click.echo(json.dumps(document, indent=2))
    else:
        for line in report_lines(report, source.name, None if show_all else SHOWN):
            click.echo(line)
        if check is not None:
            check.show(cells)
    if not report.ok or (check is not None and any(map(check.fails, cells))):
        raise SystemExit(EXIT_BROKEN)


def report_lines(report: Report, name: str, limit: int | None) -> Iterator[str]:
    """A report for a person: the broken records, at most ``limit``, then notes, counts and the verdict."""
    shown = report.findings[:limit]
    for finding in shown:
        yield str(finding)
    if hidden := len(report.findings) - len(shown):
        yield f"... and {hidden:,} more; --all shows them"
    for note in report.notes:
        yield f"note: {note}"
    counts = [
        _counted(report.records, "record"),
        _counted(report.chains, "chain"),
        _counted(report.recorders, "recorder"),
    ]
    if report.duplicates:
        counts.append(f"{_counted(report.duplicates, 'record')} twice, which is no fault")
    yield f"{name}: {', '.join(counts)}"
    if report.ok and not report.records:
        yield "EMPTY: there is no record to check"
    elif report.ok:
        yield "OK: no record was changed, dropped, reordered or inserted since it was sealed"
    else:
        yield f"BROKEN: {_counted(len(report.findings), 'finding')}"


def report_json(report: Report) -> dict[str, Any]:
    """A report as JSON values."""
    return {
        "ok": report.ok,
        "records": report.records,
        "duplicates": report.duplicates,
        "chains": report.chains,
        "recorders": report.recorders,
        "findings": [asdict(finding) for finding in report.findings],
        "notes": [asdict(note) for note in report.notes],
    }


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
