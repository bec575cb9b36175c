"""A saved notebook and the records of executions go in, a verdict on each code cell comes out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from .canonical_outputs import TYPED_INPUT
from .hashing import Hasher

_BY_CODE = " (found by its code alone, without a cell id: another cell with the same code may be meant)"
_USUAL = ("ok", "error")
_TYPED = "; the input typed into it is shown too, which is not part of the record"


class Verdict(StrEnum):
    """What the records say of a code cell as it stands in the notebook."""

    RECORDED = "recorded"
    EDITED = "edited since"
    OUTPUT_DIFFERS = "output differs"
    NEVER_RUN = "never run here"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, slots=True)
class Recorded:
    """A ``cell_execution`` or ``late_output`` event and where it stands: ``seq`` in ``chain``."""

    event: dict[str, Any]
    chain: str
    seq: int


@dataclass(frozen=True, slots=True)
class CellVerdict:
    """
    The verdict on one code cell, with a reason for people.

    ``position`` counts all cells of the notebook from 0. ``execution`` is the recorded execution the verdict is
    about, None when there is none. ``by_code`` marks the weaker match, by code instead of by cell id.
    """

    position: int
    cell_id: str | None
    verdict: Verdict
    reason: str
    execution: Recorded | None = None
    by_code: bool = False

    @property
    def execution_id(self) -> str | None:
        """The id of that execution."""
        return None if self.execution is None else self.execution.event.get("execution_id")


def verify_notebook(
    notebook: dict[str, Any], executions: Iterable[Recorded], late: Iterable[Recorded], hasher: Hasher
) -> list[CellVerdict]:
    """
    Compare each code cell of a notebook with what was recorded.

    Cells are found by ``cell_id``. Where the notebook has no ids (before nbformat 4.5) or the client named
    no cell, they are found by the hash of their code, each execution for one cell only, in the notebook's order.

    Args:
        notebook: the parsed ``.ipynb`` file, nbformat 4.
        executions: ``cell_execution`` events, of this notebook as far as that is known.
        late: ``late_output`` events.
        hasher: with the key, or none, that made the hashes in the events.

    Raises:
        ValueError: it is not an nbformat 4 notebook.
    """
    cells = notebook.get("cells")
    if notebook.get("nbformat") != 4 or not isinstance(cells, list):
        raise ValueError("not an nbformat 4 notebook: convert it with `jupyter nbconvert --to notebook`")
    records = _Records(executions, late, hasher)
    code_cells = [
        _Cell.read(position, cell, hasher)
        for position, cell in enumerate(cells)
        if isinstance(cell, dict) and cell.get("cell_type") == "code"
    ]
    # First who shows what, so that a cell with other outputs takes no run that another cell shows.
    shown = {cell.position: _shown_by_code(cell, records) for cell in code_cells if not records.runs_of(cell)}
    return [
        _by_cell_id(cell, runs, records) if (runs := records.runs_of(cell)) else _by_code(cell, shown, records)
        for cell in code_cells
    ]


@dataclass(frozen=True, slots=True)
class _Cell:
    position: int
    cell_id: str | None
    code_hash: str
    outputs_hash: str | None
    is_blank: bool
    is_bare: bool
    has_typed_input: bool

    @classmethod
    def read(cls, position: int, cell: dict[str, Any], hasher: Hasher) -> _Cell:
        code = _text(cell.get("source"))
        outputs = cell.get("outputs")
        outputs = outputs if isinstance(outputs, list) else []
        try:
            outputs_hash = hasher.outputs(outputs)
        except ValueError:
            outputs_hash = None
        cell_id = cell.get("id")
        return cls(
            position,
            cell_id if isinstance(cell_id, str) and cell_id else None,
            hasher.code(code),
            outputs_hash,
            is_blank=not code.strip(),
            is_bare=not outputs,
            has_typed_input=any(isinstance(item, dict) and item.get("name") == TYPED_INPUT for item in outputs),
        )

    def verdict(
        self, verdict: Verdict, reason: str, execution: Recorded | None = None, *, by_code: bool = False
    ) -> CellVerdict:
        if by_code and execution is not None:
            reason += _BY_CODE
        if self.has_typed_input and verdict is Verdict.RECORDED:
            reason += _TYPED
        return CellVerdict(self.position, self.cell_id, verdict, reason, execution, by_code)


class _Pool:
    """Executions in the order they were requested, by the hash of their code."""

    def __init__(self, executions: list[Recorded], prefix: str) -> None:
        self.by_code: dict[str, list[Recorded]] = {}
        self.foreign: Recorded | None = None  # the latest whose code hash cannot be compared with ours
        for execution in executions:
            code_hash = execution.event.get("code_hash")
            if isinstance(code_hash, str) and code_hash.startswith(prefix):
                self.by_code.setdefault(code_hash, []).append(execution)
            else:
                self.foreign = execution


class _Records:
    """What was recorded, by cell and by code."""

    def __init__(self, executions: Iterable[Recorded], late: Iterable[Recorded], hasher: Hasher) -> None:
        self.prefix = hasher.prefix
        ordered = sorted(executions, key=_requested)
        self._by_cell: dict[str, list[Recorded]] = {}
        for execution in ordered:
            self._by_cell.setdefault(execution.event.get("cell_id", ""), []).append(execution)
        self.all = _Pool(ordered, self.prefix)
        self.unnamed = _Pool(self._by_cell.get("", []), self.prefix)
        self._late: dict[str, list[Recorded]] = {}
        for output in late:
            self._late.setdefault(str(output.event.get("execution_id")), []).append(output)
        self._taken: set[tuple[str, int]] = set()

    def runs_of(self, cell: _Cell) -> list[Recorded]:
        """The executions that name this cell."""
        return self._by_cell.get(cell.cell_id, []) if cell.cell_id else []

    def pool_for(self, cell: _Cell) -> _Pool:
        """Where a cell is looked up by its code: a cell with an id is not a run that names another one."""
        return self.unnamed if cell.cell_id else self.all

    def comparable(self, found: Any) -> bool:
        """Whether a hash in an event is made as ours are: with the same key, or none."""
        return isinstance(found, str) and found.startswith(self.prefix)

    def shown_by(self, execution: Recorded, outputs_hash: str | None) -> bool:
        """Whether its outputs had this hash when it ended, or after some late output."""
        if outputs_hash is None:
            return False
        later = self._late.get(str(execution.event.get("execution_id")), ())
        return any(state.event.get("outputs_hash") == outputs_hash for state in (execution, *later))

    def take(self, execution: Recorded) -> None:
        """An execution found by its code is one cell's."""
        self._taken.add((execution.chain, execution.seq))

    def free(self, executions: list[Recorded]) -> list[Recorded]:
        """Those that no cell was found to show yet."""
        return [found for found in executions if (found.chain, found.seq) not in self._taken]


def _requested(execution: Recorded) -> tuple[str, str, int]:
    return str(execution.event.get("requested_at", "")), execution.chain, execution.seq


def _text(source: Any) -> str:
    if isinstance(source, list):
        return "".join([line for line in source if isinstance(line, str)])
    return source if isinstance(source, str) else ""


def _shown_by_code(cell: _Cell, records: _Records) -> Recorded | None:
    """The first execution of this code that gave these outputs and is no other cell's; it is taken."""
    same_code = records.pool_for(cell).by_code.get(cell.code_hash, [])
    shown = _shown(cell, records.free(same_code), records)
    if shown is not None:
        records.take(shown)
    return shown


def _by_cell_id(cell: _Cell, runs: list[Recorded], records: _Records) -> CellVerdict:
    same_code = [run for run in runs if run.event.get("code_hash") == cell.code_hash]
    if not same_code:
        latest = runs[-1]
        if not records.comparable(latest.event.get("code_hash")):
            return cell.verdict(Verdict.CANNOT_TELL, _incomparable("code", latest, records), latest)
        return cell.verdict(Verdict.EDITED, f"the code is not what was last run here, {_when(latest)}", latest)
    shown = _shown(cell, reversed(same_code), records)
    if shown is None:
        return _other_outputs(cell, same_code[-1], records)
    reason = f"as recorded, run {_when(shown)}"
    if shown is not runs[-1]:
        reason = f"as recorded, but by an older run, {_when(shown)}; it was run again {_when(runs[-1])}"
    return cell.verdict(Verdict.RECORDED, reason, shown)


def _by_code(cell: _Cell, shown: dict[int, Recorded | None], records: _Records) -> CellVerdict:
    found = shown[cell.position]
    if found is not None:
        return cell.verdict(Verdict.RECORDED, f"as recorded, run {_when(found)}", found, by_code=True)
    pool = records.pool_for(cell)
    same_code = pool.by_code.get(cell.code_hash, [])
    free = records.free(same_code)
    if free:
        records.take(free[0])
        return _other_outputs(cell, free[0], records, by_code=True)
    if pool.foreign is not None and not same_code:
        return cell.verdict(Verdict.CANNOT_TELL, _incomparable("code", pool.foreign, records), by_code=True)
    return cell.verdict(Verdict.NEVER_RUN, _why_never(cell, same_code, records), by_code=cell.cell_id is None)


def _shown(cell: _Cell, runs: Iterable[Recorded], records: _Records) -> Recorded | None:
    return next((run for run in runs if records.shown_by(run, cell.outputs_hash)), None)


def _other_outputs(cell: _Cell, run: Recorded, records: _Records, *, by_code: bool = False) -> CellVerdict:
    doubt = _doubt(cell, run, records)
    if doubt is not None:
        return cell.verdict(Verdict.CANNOT_TELL, doubt, run, by_code=by_code)
    cleared = "its outputs were removed after" if cell.is_bare else "its outputs are not those of"
    return cell.verdict(
        Verdict.OUTPUT_DIFFERS, f"the code is as run {_when(run)}, but {cleared} that run", run, by_code=by_code
    )


def _doubt(cell: _Cell, run: Recorded, records: _Records) -> str | None:
    """Why other outputs than the recorded ones prove nothing, if so."""
    event = run.event
    if cell.outputs_hash is None:
        return "the outputs in the notebook are nested too deep to be hashed"
    if event.get("overflow"):
        return f"run {_when(run)}, with more outputs than the recorder keeps"
    if event.get("iopub_missed") or event.get("iopub_seen") is False:
        return f"run {_when(run)}, but the recorder did not see all of its outputs"
    if not records.comparable(event.get("outputs_hash")):
        return _incomparable("outputs", run, records)
    return None


def _incomparable(what: str, run: Recorded, records: _Records) -> str:
    found = run.event.get(f"{what}_hash")
    if found is None:
        return f"run {_when(run)}, but the record holds no hash of its {what}"
    return f"run {_when(run)}, but hashed {_key(str(found))}, and we hash {_key(records.prefix)}"


def _key(prefix: str) -> str:
    parts: Sequence[str] = prefix.split(":")
    return f"with the key {parts[1]}" if parts[0].startswith("hmac") else "without a key"


def _why_never(cell: _Cell, same_code: list[Recorded], records: _Records) -> str:
    if cell.is_blank and cell.is_bare:
        return "it is empty: there is nothing to run"
    if same_code:
        return f"its code was run {len(same_code)} times, and as many other cells hold the same code"
    reason = "it has not been executed" if cell.is_bare else "it shows outputs, but no run of it is recorded"
    if cell.cell_id is None:
        return reason + "; without cell ids, edited code looks the same as code that never ran"
    elsewhere = records.all.by_code.get(cell.code_hash)
    if elsewhere:
        reason += f"; the same code was run in another cell, {_when(elsewhere[-1])}"
    return reason


def _when(run: Recorded) -> str:
    requested, status = str(run.event.get("requested_at", "at an unknown time")), run.event.get("status", "ok")
    return requested if status in _USUAL else f"{requested} ({status})"
