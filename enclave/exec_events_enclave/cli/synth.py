"""``exec-events enclave synth``: a synthetic twin, from statistics that a steward approved."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import click

from exec_events_enclave.errors import PolicyError
from exec_events_enclave.policy_file import parse_yaml, read_text
from exec_events_enclave.synth import MAX_ROWS, Statistics, twin


@click.command()
@click.argument("statistics", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--rows", type=click.IntRange(1, MAX_ROWS), help="How many rows.  [default: as the statistics say]")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed makes the same twin.")
def synth(statistics: Path, out: Path, rows: int | None, seed: int) -> None:
    """
    Make a synthetic twin from the file STATISTICS alone, and write it to OUT, a .csv or .parquet file.

    It needs no access to the data. The columns are drawn apart from each other: nothing that relates them is in it.
    """
    if out.suffix not in {".csv", ".parquet"}:
        raise PolicyError(f"{out}: name a .csv or a .parquet file")
    columns = twin(parse_yaml(read_text(statistics), Statistics, str(statistics)), seed, rows)
    _write(columns, out)
    click.echo(f"{out}: {len(next(iter(columns.values()))):,} rows that nobody is in")


def _write(columns: dict[str, list[Any]], out: Path) -> None:
    if out.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.table(columns), out)
        return
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
