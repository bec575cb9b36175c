"""The last recorded run of each cell, found in the spool and kept up to date: what the marks in a notebook show."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from exec_events_schemas.errors import MalformedRecord
from exec_events_schemas.record import canonical, event_of, hash_text, leaf_hash, seal_of
from exec_events_schemas.sources.recent import SpoolTail

from .emit import PREFIX
from .hashing import Hasher

# So far back each file is searched for runs of a notebook that was not asked about before.
RECORDS_LOOKED_AT = 500_000
# So many runs are kept, and so many of a file's are read when a notebook is first asked about.
RUNS_KEPT = 20_000
NOTEBOOKS_KEPT = 200
LET_OTHERS = 200
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
    """
    The runs in one spool's folder; it blocks, and is for one thread at a time.

    A notebook's runs are searched for when it is first asked about; later what is new is read. Those of the notebooks
    not asked about for longest are forgotten.
    """

    def __init__(
        self, folder: Path, hasher: Hasher, limit: int = RUNS_KEPT, looked_at: int = RECORDS_LOOKED_AT
    ) -> None:
        self._folder = folder
        self._hasher = hasher
        self._limit = limit
        self._looked_at = looked_at
        self._notebooks: OrderedDict[tuple[str, str], _NotebookRuns] = OrderedDict()

    def last(self, subject: str, notebook: str, cells: list[Cell]) -> dict[str, dict[str, Any]]:
        """
        The last run of each of these cells that ``subject`` ran in ``notebook``, by cell id; others are left out.

        Where a notebook keeps no ids its cells have new ones each time it is opened: a cell that no run names is found
        by its code (``by_code``), if that was last run in a cell that is not there any more.
        """
        runs = self._runs(subject, notebook)
        found, ids, taken = {}, {cell.id for cell in cells}, set()
        for cell in cells:
            code_hash = self._hasher.code(cell.source)
            run = runs.of_cell.get(cell.id)
            if run is not None:
                found[cell.id] = {**run.shown, "edited": self._edited(run, code_hash), "by_code": False}
                continue
            run = runs.of_code.get(code_hash)
            if run is None or run.cell_id in ids or run.cell_id in taken or not cell.source.strip():
                continue
            taken.add(run.cell_id)
            found[cell.id] = {**run.shown, "edited": False, "by_code": True}
        return found

    def _edited(self, run: Run, code_hash: str) -> bool | None:
        recorded = run.shown["code_hash"]
        return code_hash != recorded if recorded is not None and recorded.startswith(self._hasher.prefix) else None

    def _runs(self, subject: str, notebook: str) -> _NotebookRuns:
        key = (subject, notebook)
        runs = self._notebooks.get(key)
        if runs is None:
            runs = self._notebooks[key] = _NotebookRuns(self._folder, subject, notebook, self._limit, self._looked_at)
        self._notebooks.move_to_end(key)
        runs.refresh()
        while len(self._notebooks) > 1 and self._are_too_many():
            self._notebooks.popitem(last=False)
        return runs

    def _are_too_many(self) -> bool:
        return len(self._notebooks) > NOTEBOOKS_KEPT or sum(map(len, self._notebooks.values())) > self._limit


class _NotebookRuns:
    """The last runs of one person in one notebook, by cell and by hash of the code; the longest not run go first."""

    def __init__(self, folder: Path, subject: str, notebook: str, limit: int, looked_at: int) -> None:
        self.of_cell: OrderedDict[str, Run] = OrderedDict()
        self.of_code: OrderedDict[str, Run] = OrderedDict()
        self._subject, self._notebook, self._limit = subject, notebook, limit
        # The most telling of its members: a quote within a string is escaped, so it stands nowhere else.
        self._tail = SpoolTail(folder, b'"notebook":' + canonical(notebook), looked_at, limit)

    def __len__(self) -> int:
        return max(len(self.of_cell), len(self.of_code))

    def refresh(self) -> None:
        """Take in what is new in the spool."""
        for run in self._new():
            self._keep(self.of_cell, run.cell_id, run)
            self._keep(self.of_code, str(run.shown["code_hash"]), run)

    def _new(self) -> Iterator[Run]:
        for count, stored in enumerate(self._tail.new(), 1):
            if count % LET_OTHERS == 0:
                time.sleep(0.001)  # the first look may read much, and the event loop has work meanwhile
            try:
                event, seal = event_of(stored.record), seal_of(stored.record)
            except MalformedRecord:
                continue  # `verify` has it
            if event.get("__schema__") != _EXECUTION or not event.get("cell_id"):
                continue
            if (event.get("subject"), event.get("notebook")) != (self._subject, self._notebook):
                continue
            place = {"chain": seal.chain, "seq": seal.seq, "hash": hash_text(leaf_hash(stored.record))}
            shown = place | {name: event.get(name) for name in _SHOWN}
            yield Run(str(event["cell_id"]), str(event.get("requested_at", "")), shown)

    def _keep(self, table: OrderedDict[str, Run], name: str, run: Run) -> None:
        known = table.get(name)
        if known is None or known.requested_at <= run.requested_at:
            table[name] = run
            table.move_to_end(name)
        if len(table) > self._limit:
            table.popitem(last=False)
