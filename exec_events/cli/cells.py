"""The cells of a saved notebook beside the executions in a source: collected while reading, shown as a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from exec_events.errors import ConfigurationError
from exec_events.hashing import Hasher
from exec_events.notebook import CellVerdict, Recorded, Verdict, verify_notebook
from exec_events.privacy import read_key
from exec_events_schemas.errors import MalformedRecord
from exec_events_schemas.record import event_of, seal_of
from exec_events_schemas.sources import StoredRecord

from .source import kind_of

CODE_SHOWN = 32
_FAILING = frozenset({Verdict.EDITED, Verdict.OUTPUT_DIFFERS})


class NotebookCheck:
    """
    A notebook and what bears on it in a stream of records: call it with each record, then ask for `verdicts`.

    Raises ConfigurationError where the notebook or the key cannot be read.
    """

    def __init__(self, path: Path, hash_key_file: Path | None) -> None:
        try:
            self.notebook: dict[str, Any] = json.loads(path.read_bytes())
            self._cells: list[dict[str, Any]] = self.notebook["cells"]
            self._hasher = Hasher(read_key(hash_key_file) if hash_key_file else None)
            # Of a long record only what may be about this notebook is kept.
            self._ids = {str(cell["id"]) for cell in self._cells if "id" in cell}
            self._codes = {self._hasher.code(_source(cell)) for cell in self._cells}
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ConfigurationError(f"{path} is not a notebook that can be read: {error}") from error
        self._executions: list[Recorded] = []
        self._late: list[Recorded] = []

    def __call__(self, stored: StoredRecord) -> None:
        """Keep a record if it may be about this notebook."""
        try:
            event, seal = event_of(stored.record), seal_of(stored.record)
        except MalformedRecord:
            return  # the verification of chains has it
        kind = kind_of(event)
        if kind == "cell_execution" and self._may_be_here(event):
            self._executions.append(Recorded(event, seal.chain, seal.seq))
        elif kind == "late_output" and "execution_id" in event:
            self._late.append(Recorded(event, seal.chain, seal.seq))

    def _may_be_here(self, event: dict[str, Any]) -> bool:
        code_hash = str(event.get("code_hash", ""))
        return (
            event.get("cell_id") in self._ids
            or code_hash in self._codes
            or not code_hash.startswith(self._hasher.prefix)
        )

    def verdicts(self) -> list[CellVerdict]:
        """A verdict on each code cell; raises ConfigurationError for a notebook older than nbformat 4."""
        try:
            return verify_notebook(self.notebook, self._executions, self._late, self._hasher)
        except ValueError as error:
            raise ConfigurationError(str(error)) from error

    def fails(self, verdict: CellVerdict) -> bool:
        """Whether a cell shows what was not recorded: edited, other outputs, or outputs that no run made."""
        shows_outputs = bool(self._cells[verdict.position].get("outputs"))
        return verdict.verdict in _FAILING or (verdict.verdict is Verdict.NEVER_RUN and shows_outputs)

    def as_json(self, verdicts: list[CellVerdict]) -> list[dict[str, Any]]:
        """The verdicts as JSON values."""
        return [
            {
                "position": found.position,
                "cell_id": found.cell_id,
                "verdict": str(found.verdict),
                "fails": self.fails(found),
                "reason": found.reason,
                "by_code": found.by_code,
                "execution_id": found.execution_id,
                "chain": found.execution and found.execution.chain,
                "seq": found.execution and found.execution.seq,
                "requested_at": found.execution and found.execution.event.get("requested_at"),
            }
            for found in verdicts
        ]

    def show(self, verdicts: list[CellVerdict]) -> None:
        """Print the verdicts as a table."""
        from rich import box
        from rich.markup import escape
        from rich.table import Table

        from .terminal import console

        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for title in ("cell", "code", "verdict", "run at (UTC)", "why"):
            table.add_column(title, overflow="fold")
        for found in verdicts:
            color = "red" if self.fails(found) else "green" if found.verdict is Verdict.RECORDED else "yellow"
            at = "-" if found.execution is None else str(found.execution.event.get("requested_at", "-"))
            table.add_row(
                str(found.position),
                escape(_shortened(_source(self._cells[found.position]))),
                f"[{color}]{found.verdict}[/]",
                at[:19].replace("T", " "),
                escape(found.reason),
            )
        console().print(table)


def _source(cell: dict[str, Any]) -> str:
    source = cell.get("source", "")
    return "".join(map(str, source)) if isinstance(source, list) else str(source)


def _shortened(code: str) -> str:
    """The first line of a cell that says something, on one short line, without control characters."""
    line = next((line.strip() for line in code.splitlines() if line.strip()), "")
    line = "".join(character if character.isprintable() else " " for character in line)
    return line if len(line) <= CODE_SHOWN else line[: CODE_SHOWN - 1] + "…"
