"""The last recorded run of each cell, found in the spool and kept up to date: what the marks in a notebook show."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from exec_events_schemas.errors import MalformedRecord
from exec_events_schemas.record import event_of, hash_text, leaf_hash, seal_of
from exec_events_schemas.sources.recent import SpoolTail

from .emit import PREFIX
from .hashing import Hasher

RUNS_KEPT = 20_000
_EXECUTION = f"{PREFIX}cell_execution/v1"
_SHOWN = (
    "execution_id",
    "code_hash",
    "outputs_hash",
    "status",
    "error_name",
    "requested_at",
    "finished_at",
    "execution_count",
)


class Cell(NamedTuple):
    """A cell as it stands in a notebook."""

    id: str
    source: str


class Run(NamedTuple):
    """A recorded execution: of which cell, when, and what is shown of it."""

    cell_id: str
    requested_at: str
    shown: dict[str, Any]


class CellRuns:
    """The runs in one spool's folder; it blocks, and is for one thread at a time."""

    def __init__(self, folder: Path, hasher: Hasher, limit: int = RUNS_KEPT) -> None:
        self._tail = SpoolTail(folder)
        self._hasher = hasher
        self._limit = limit
        # By subject, notebook and cell, or hash of the code; the longest not run is forgotten first.
        self._of_cell: OrderedDict[tuple[str, str, str], Run] = OrderedDict()
        self._of_code: OrderedDict[tuple[str, str, str], Run] = OrderedDict()

    def last(self, subject: str, notebook: str, cells: list[Cell]) -> dict[str, dict[str, Any]]:
        """
        The last run of each of these cells that ``subject`` ran in ``notebook``, by cell id; others are left out.

        Where a notebook keeps no ids its cells have new ones each time it is opened: a cell that no run names is found
        by its code (``by_code``), if that was last run in a cell that is not there any more.
        """
        self._refresh()
        found, ids, taken = {}, {cell.id for cell in cells}, set()
        for cell in cells:
            code_hash = self._hasher.code(cell.source)
            run = self._of_cell.get((subject, notebook, cell.id))
            if run is not None:
                found[cell.id] = {**run.shown, "edited": self._edited(run, code_hash), "by_code": False}
                continue
            run = self._of_code.get((subject, notebook, code_hash))
            if run is None or run.cell_id in ids or run.cell_id in taken or not cell.source.strip():
                continue
            taken.add(run.cell_id)
            found[cell.id] = {**run.shown, "edited": False, "by_code": True}
        return found

    def _edited(self, run: Run, code_hash: str) -> bool | None:
        recorded = run.shown["code_hash"]
        return code_hash != recorded if recorded is not None and recorded.startswith(self._hasher.prefix) else None

    def _refresh(self) -> None:
        for stored in self._tail.new():
            try:
                event, seal = event_of(stored.record), seal_of(stored.record)
            except MalformedRecord:
                continue  # `verify` has it
            if event.get("__schema__") != _EXECUTION or not event.get("cell_id") or not event.get("notebook"):
                continue
            place = {"chain": seal.chain, "seq": seal.seq, "hash": hash_text(leaf_hash(stored.record))}
            shown = place | {name: event.get(name) for name in _SHOWN}
            run = Run(str(event["cell_id"]), str(event.get("requested_at", "")), shown)
            self._keep(self._of_cell, event, run.cell_id, run)
            self._keep(self._of_code, event, str(event.get("code_hash")), run)

    def _keep(
        self, table: OrderedDict[tuple[str, str, str], Run], event: Mapping[str, Any], name: str, run: Run
    ) -> None:
        key = (str(event.get("subject")), str(event["notebook"]), name)
        known = table.get(key)
        if known is None or known.requested_at <= run.requested_at:
            table[key] = run
            table.move_to_end(key)
        if len(table) > self._limit:
            table.popitem(last=False)
