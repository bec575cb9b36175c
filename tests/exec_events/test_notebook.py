from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exec_events.hashing import Hasher
from exec_events.notebook import CellVerdict, Recorded, Verdict, verify_notebook

PLAIN, KEYED, OTHER = Hasher(), Hasher(b"k" * 32), Hasher(b"o" * 32)
SEQ = count()


def text(*shown: str) -> list[dict[str, Any]]:
    """Outputs of one stdout stream, or none."""
    return [{"output_type": "stream", "name": "stdout", "text": part} for part in shown]


def run(
    code: str,
    outputs: list[dict[str, Any]],
    cell_id: str | None = "a",
    at: int = 0,
    hasher: Hasher = PLAIN,
    **more: Any,
) -> Recorded:
    """The event of an execution at minute ``at``."""
    seq = next(SEQ)
    event = {
        "execution_id": f"run-{seq}",
        "requested_at": f"2026-01-01T00:{at:02}:00.000000Z",
        "status": "ok",
        "code_hash": hasher.code(code),
        "outputs_hash": hasher.outputs(outputs),
        "iopub_seen": True,
        "overflow": False,
        "cell_id": cell_id,
        **more,
    }
    return Recorded({key: value for key, value in event.items() if value is not None}, "chain", seq)


def later(execution: Recorded, outputs: list[dict[str, Any]]) -> Recorded:
    """A late_output event that says what an execution's outputs are now."""
    event = {"execution_id": execution.event["execution_id"], "outputs_hash": PLAIN.outputs(outputs)}
    return Recorded(event, execution.chain, next(SEQ))


def cell(code: str, outputs: list[dict[str, Any]], cell_id: str | None = "a", ran: bool = True) -> dict[str, Any]:
    """A code cell."""
    found = {"cell_type": "code", "source": code.splitlines(True), "outputs": outputs, "metadata": {}, "id": cell_id}
    found["execution_count"] = 1 if ran else None
    return {key: value for key, value in found.items() if key != "id" or value is not None}


def verdicts(
    cells: Sequence[Any], runs: list[Recorded], late: Sequence[Recorded] = (), hasher: Hasher = PLAIN
) -> list[CellVerdict]:
    """The verdicts on a notebook of these cells."""
    return verify_notebook({"nbformat": 4, "nbformat_minor": 5, "cells": cells}, runs, late, hasher)


def verdict(of: dict[str, Any], *runs: Recorded, late: Sequence[Recorded] = (), hasher: Hasher = PLAIN) -> CellVerdict:
    """The verdict on a notebook of one cell."""
    [found] = verdicts([of], list(runs), late, hasher)
    return found


class TestByCellId:
    def test_recorded(self) -> None:
        """A cell whose code and outputs are those of its latest run is recorded, and says which run."""
        latest = run("x\ny", text("1"), at=2)
        found = verdict(cell("x\ny", text("1")), latest, run("x\ny", text("1"), at=1))
        assert (found.verdict, found.execution, found.execution_id) == (
            Verdict.RECORDED,
            latest,
            latest.event["execution_id"],
        )
        assert found.reason == "as recorded, run 2026-01-01T00:02:00.000000Z"
        assert not found.by_code

    def test_an_older_run_says_so(self) -> None:
        """A cell that shows an older run than its latest is recorded, with both times."""
        old, new = run("x", text("1"), at=1), run("x", text("2"), at=2)
        found = verdict(cell("x", text("1")), old, new)
        assert (found.verdict, found.execution) == (Verdict.RECORDED, old)
        assert "older run" in found.reason
        assert "00:01:00" in found.reason
        assert "00:02:00" in found.reason

    def test_late_output(self) -> None:
        """Outputs that came after the execution was sealed count as its own, at each stage."""
        execution = run("x", text("1"))
        late = [later(execution, text("1", "2")), later(execution, text("1", "2", "3"))]
        for shown in (text("1"), text("12"), text("123")):
            assert verdict(cell("x", shown), execution, late=late).verdict is Verdict.RECORDED
        assert verdict(cell("x", text("13")), execution, late=late).verdict is Verdict.OUTPUT_DIFFERS

    def test_edited(self) -> None:
        """A cell that ran, but never with this code, was edited since."""
        found = verdict(cell("x = 2", text("1")), run("x", text("1")))
        assert found.verdict is Verdict.EDITED
        assert found.execution is not None

    def test_output_differs(self) -> None:
        """The recorded code with other outputs is found, and so are outputs that were removed."""
        changed = verdict(cell("x", text("2")), run("x", text("1")))
        assert changed.verdict is Verdict.OUTPUT_DIFFERS
        assert "not those of that run" in changed.reason
        cleared = verdict(cell("x", [], ran=False), run("x", text("1")))
        assert cleared.verdict is Verdict.OUTPUT_DIFFERS
        assert "removed" in cleared.reason

    def test_an_unusual_end_is_said(self) -> None:
        """The status of a run that did not end by itself is in the reason."""
        assert "(interrupted)" in verdict(cell("x", text("1")), run("x", text("1"), status="interrupted")).reason

    def test_never_run(self) -> None:
        """A cell of which nothing is recorded never ran here, whatever it shows."""
        assert verdict(cell("x", text("1"))).verdict is Verdict.NEVER_RUN
        assert "no run of it is recorded" in verdict(cell("x", text("1"))).reason
        assert "not been executed" in verdict(cell("x", [], ran=False)).reason
        assert "nothing to run" in verdict(cell(" \n", [], ran=False)).reason
        pasted = verdict(cell("x", text("1"), "pasted"), run("x", text("1"), "origin"))
        assert pasted.verdict is Verdict.NEVER_RUN
        assert "another cell" in pasted.reason

    def test_typed_input_is_not_proved(self) -> None:
        """A recorded cell that shows typed input says that this part is not in the record."""
        typed = {"output_type": "stream", "name": "stdin", "text": "name? x\n"}
        found = verdict(cell("x", [typed, *text("1")]), run("x", text("1")))
        assert found.verdict is Verdict.RECORDED
        assert "typed" in found.reason


class TestCannotTell:
    def test_another_key(self) -> None:
        """Hashes with another key, or with none where we have one, say nothing, and the reason names both keys."""
        of = cell("x", text("1"))
        assert verdict(of, run("x", text("1"), hasher=KEYED), hasher=KEYED).verdict is Verdict.RECORDED
        for made_with, ours in ((KEYED, PLAIN), (PLAIN, KEYED), (OTHER, KEYED)):
            found = verdict(of, run("x", text("1"), hasher=made_with), hasher=ours)
            assert found.verdict is Verdict.CANNOT_TELL
            for key in (made_with.key_id, ours.key_id):
                assert (key or "without a key") in found.reason

    @pytest.mark.parametrize(
        ("more", "reason"),
        [
            ({"overflow": True, "outputs_hash": None}, "more outputs than the recorder keeps"),
            ({"iopub_missed": 3}, "did not see all"),
            ({"iopub_seen": False}, "did not see all"),
            ({"outputs_hash": None}, "no hash of its outputs"),
            ({"outputs_hash": KEYED.outputs([])}, KEYED.key_id),
        ],
    )
    def test_outputs_the_recorder_does_not_know(self, more: dict[str, Any], reason: str) -> None:
        """Where the record of the outputs is incomplete, other outputs in the notebook prove nothing."""
        found = verdict(cell("x", text("2")), run("x", text("1"), **more))
        assert found.verdict is Verdict.CANNOT_TELL
        assert reason in found.reason

    def test_code_the_recorder_does_not_know(self) -> None:
        """A run whose code was never seen leaves open what was run."""
        found = verdict(cell("x", text("1")), run("x", text("1"), code_hash=None))
        assert found.verdict is Verdict.CANNOT_TELL
        assert "no hash of its code" in found.reason

    def test_outputs_too_deep_to_hash(self) -> None:
        """A notebook whose outputs cannot be hashed gets a verdict, not an exception."""
        deep: Any = 1
        for _ in range(500):
            deep = [deep]
        shown = [{"output_type": "display_data", "data": {"application/json": deep}, "metadata": {}}]
        found = verdict(cell("x", shown), run("x", text("1")))
        assert found.verdict is Verdict.CANNOT_TELL
        assert "too deep" in found.reason


class TestByCode:
    def test_notebooks_without_cell_ids(self) -> None:
        """Before nbformat 4.5 a cell is found by its code, and the verdict says that this is weaker."""
        found = verdict(cell("x", text("1"), None), run("x", text("1"), None))
        assert found.verdict is Verdict.RECORDED
        assert found.by_code
        assert "by its code alone" in found.reason
        assert verdict(cell("x", text("2"), None), run("x", text("1"), None)).verdict is Verdict.OUTPUT_DIFFERS
        edited = verdict(cell("y", text("1"), None), run("x", text("1"), None))
        assert edited.verdict is Verdict.NEVER_RUN
        assert "edited" in edited.reason

    def test_clients_that_name_no_cell(self) -> None:
        """An execution without a cell id may be that of a cell with one, found by its code."""
        found = verdict(cell("x", text("1")), run("x", text("1"), None))
        assert (found.verdict, found.by_code) == (Verdict.RECORDED, True)

    def test_each_run_is_one_cells(self) -> None:
        """Two cells of one code need two runs; each takes the run whose outputs it shows."""
        first, second = run("x", text("1"), None, at=1), run("x", text("2"), None, at=2)
        cells = [cell("x", text("2"), None), cell("x", text("1"), None), cell("x", text("1"), None)]
        found = verdicts(cells, [first, second])
        assert [item.execution for item in found] == [second, first, None]
        assert [item.verdict for item in found] == [Verdict.RECORDED, Verdict.RECORDED, Verdict.NEVER_RUN]
        assert "2 times" in found[2].reason

    def test_other_outputs_take_no_run_from_a_cell_that_shows_it(self) -> None:
        """A cell with changed outputs above leaves the recorded run to the cell below that shows it."""
        cells = [cell("x", text("9"), None), cell("x", text("1"), None)]
        runs = [run("x", text("1"), None, at=1), run("x", text("2"), None, at=2)]
        found = verdicts(cells, runs)
        assert [item.verdict for item in found] == [Verdict.OUTPUT_DIFFERS, Verdict.RECORDED]
        assert [item.execution for item in found] == [runs[1], runs[0]]

    def test_another_key(self) -> None:
        """Without a cell id, too, hashes of another key leave it open."""
        found = verdict(cell("x", text("1"), None), run("x", text("1"), None, hasher=KEYED))
        assert found.verdict is Verdict.CANNOT_TELL


class TestNotebooks:
    def test_only_code_cells_are_judged(self) -> None:
        """Verdicts carry the position among all cells; what is no code cell has none."""
        cells = [{"cell_type": "markdown", "source": "x", "id": "m"}, cell("x", text("1")), None]
        assert [(item.position, item.cell_id) for item in verdicts(cells, [])] == [(1, "a")]

    @pytest.mark.parametrize("notebook", [{}, {"nbformat": 3, "worksheets": []}, {"nbformat": 4, "cells": None}])
    def test_other_formats_are_refused(self, notebook: dict[str, Any]) -> None:
        """Only nbformat 4 is understood; the error says how to get there."""
        with pytest.raises(ValueError, match="nbconvert"):
            verify_notebook(notebook, [], [], PLAIN)

    @given(
        st.lists(
            st.dictionaries(
                st.sampled_from(["cell_type", "source", "outputs", "id", "execution_count"]),
                st.just("code")
                | st.none()
                | st.lists(st.just("x") | st.integers())
                | st.dictionaries(st.text(), st.text()),
            )
        )
    )
    def test_no_cell_raises(self, cells: list[dict[str, Any]]) -> None:
        """Whatever a notebook's cells hold, each code cell gets a verdict."""
        assert len(verdicts(cells, [run("x", [])])) == sum(item.get("cell_type") == "code" for item in cells)
