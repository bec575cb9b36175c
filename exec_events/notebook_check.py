"""A notebook and a stream of records go in, a verdict on each of its code cells comes out: what `verify` says of it."""

from __future__ import annotations

from typing import Any

from exec_events_schemas.catalogue import SCHEMA_ID
from exec_events_schemas.errors import MalformedRecord
from exec_events_schemas.record import event_of, seal_of
from exec_events_schemas.sources import StoredRecord

from .errors import ConfigurationError
from .hashing import Hasher
from .notebook import CellVerdict, Recorded, Verdict, verify_notebook

_FAILING = frozenset({Verdict.EDITED, Verdict.OUTPUT_DIFFERS})


class NotebookCheck:
    """
    Collects what bears on a notebook (parsed JSON): call it with each record, then ask for `verdicts`.

    Raises ConfigurationError where it is no notebook.
    """

    def __init__(self, notebook: Any, hasher: Hasher) -> None:
        self._hasher = hasher
        try:
            self.notebook: dict[str, Any] = notebook
            self.cells: list[dict[str, Any]] = notebook["cells"]
            # Of a long record only what may be about this notebook is kept.
            self._ids = {str(cell["id"]) for cell in self.cells if "id" in cell}
            self._codes = {hasher.code(source_of(cell)) for cell in self.cells}
        except (AttributeError, TypeError, KeyError) as error:
            raise ConfigurationError(f"not a notebook that can be read: {error}") from error
        self._executions: list[Recorded] = []
        self._late: list[Recorded] = []

    def __call__(self, stored: StoredRecord) -> None:
        """Keep a record if it may be about this notebook."""
        try:
            event, seal = event_of(stored.record), seal_of(stored.record)
        except MalformedRecord:
            return  # the verification of chains has it
        match = SCHEMA_ID.fullmatch(str(event.get("__schema__")))
        kind = match["event"] if match else ""
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
        shows_outputs = bool(self.cells[verdict.position].get("outputs"))
        return verdict.verdict in _FAILING or (verdict.verdict is Verdict.NEVER_RUN and shows_outputs)


def source_of(cell: dict[str, Any]) -> str:
    """A cell's source as one string."""
    source = cell.get("source", "")
    return "".join(map(str, source)) if isinstance(source, list) else str(source)
