"""The example notebooks: each runs from top to bottom on the record beside it, and is kept without outputs."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from click.testing import CliRunner
from nbclient import NotebookClient
from nbformat import NotebookNode

from exec_events.cli import main

FOLDER = Path(__file__).parents[2] / "docs" / "examples"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def opened(path: Path) -> NotebookNode:
    """A notebook, valid."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def test_there_are_examples() -> None:
    """At least one notebook is there to be tried."""
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_it_is_kept_without_outputs(path: Path) -> None:
    """What is in the repository is what somebody wrote, and nothing that a run left."""
    for cell in opened(path).cells:
        if cell.cell_type == "code":
            assert (cell.outputs, cell.execution_count) == ([], None)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_it_runs(path: Path) -> None:
    """Each cell runs, and the plots are there."""
    notebook = opened(path)
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(path.parent)}})
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2


def test_the_first_look_finds_the_mistakes() -> None:
    """What the notebook prints of the record is what happened: three occasions, one cell that failed, and was mended."""
    notebook = opened(FOLDER / "first-look.ipynb")
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(FOLDER)}}).execute()
    cell = next(cell for cell in notebook.cells if cell.id == "streaks")
    lines = [line.partition(", and")[0] for output in cell.outputs for line in output["text"].splitlines()]
    assert lines == [f"occasion {number}: busiest failed {errors} times" for number, errors in ((1, 1), (2, 3), (3, 2))]


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.jsonl")), ids=lambda path: path.name)
def test_its_record_is_whole(path: Path) -> None:
    """The record beside the notebooks verifies, and names nobody."""
    result = CliRunner().invoke(main, ["verify", str(path)])
    assert result.exit_code == 0, result.output
    subjects = {part.split('"')[0] for part in path.read_text().split('"subject":"')[1:]}
    assert subjects
    assert all(subject.startswith("p:") for subject in subjects)
