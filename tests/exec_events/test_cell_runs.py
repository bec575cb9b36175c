"""The marks: the last run of each cell as the spool has it, kept up while servers write."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from conftest import PLAIN, recorded
from exec_events.cell_runs import Cell, CellRuns
from exec_events.hashing import Hasher
from exec_events.testing import NotebookClient, RunningServer
from exec_events_schemas.sources.recent import SpoolTail, newest_first
from spool_files import FIRST, SECOND, Recording, chain_of, execution

HASHER = Hasher(None)


async def ask(server: RunningServer, path: str, **sources: str) -> Any:
    """The marks of a notebook's cells."""
    body = {"path": path, "cells": [{"id": cell, "source": source} for cell, source in sources.items()]}
    return await asyncio.to_thread(server.rest, "POST", "/exec-events/cells", body)


async def test_marks_as_a_notebook_is_worked_in(tmp_path: Path) -> None:
    """A mark is the cell's last run, at once, with its place in the record; edited code shows; and marks survive a restart."""
    async with RunningServer(tmp_path, config=PLAIN) as server, NotebookClient(server, notebook="a.ipynb") as client:
        await client.execute("1", cell_id="one")
        await client.execute("1/0", cell_id="two")
        await client.execute("2", cell_id="one")
        await recorded(server, 3, kernel_id=client.kernel_id)
        marks = (await ask(server, "a.ipynb", one="2", two="1/1", three="3"))["cells"]
        assert (await ask(server, "/a.ipynb", one="2"))["cells"]["one"] == marks["one"]
        assert (await ask(server, "b.ipynb", one="2"))["cells"] == {}
        events = (await client.rest("GET", "/exec-events/events"))["events"]
    assert marks.keys() == {"one", "two"}
    assert (marks["one"]["edited"], marks["two"]["edited"]) == (False, True)
    assert (marks["two"]["status"], marks["two"]["error_name"]) == ("error", "ZeroDivisionError")
    assert marks["one"]["execution_count"] == 3
    (found,) = [e for e in events if e["event"].get("execution_id") == marks["one"]["execution_id"]]
    for name in ("chain", "seq", "hash"):
        assert found[name] == marks["one"][name]
    for name in ("code_hash", "outputs_hash", "status", "requested_at", "finished_at", "execution_count"):
        assert found["event"][name] == marks["one"][name]
    async with RunningServer(tmp_path, config=PLAIN) as server, NotebookClient(server, notebook="a.ipynb") as client:
        assert (await ask(server, "a.ipynb", one="2", two="1/1"))["cells"] == marks
        await client.execute("3", cell_id="one")
        await recorded(server, 1, kernel_id=client.kernel_id)
        assert (await ask(server, "a.ipynb", one="3"))["cells"]["one"]["chain"] != marks["one"]["chain"]


def run(number: int, recorder: str = FIRST, **more: Any) -> dict[str, Any]:
    """An execution of subject 1 in a notebook."""
    return {
        **execution(recorder, 1, number),
        "notebook": "n",
        "requested_at": f"2026-01-01T00:00:{number:02}.000000Z",
        **more,
    }


def write(folder: Path, events: list[dict[str, Any]], recorder: str = FIRST) -> None:
    """Write events into a spool's file."""
    recording = Recording(recorder)
    for event in events:
        recording.seal(event, chain_of(recorder, 1))
    recording.write(folder)


def subject() -> str:
    """Who the made-up executions are of."""
    return str(execution(FIRST, 1, 0)["subject"])


def test_a_notebook_without_ids_is_found_by_its_code(tmp_path: Path) -> None:
    """A cell with a new id has the run of the same code in a cell that is gone, each run once, and none of a cell that is there."""
    codes = ["a", "b", "b", " "]
    write(tmp_path, [run(n, cell_id=f"old{n}", code_hash=HASHER.code(code)) for n, code in enumerate(codes)])
    runs = CellRuns(tmp_path, HASHER)
    found = runs.last(subject(), "n", [Cell("x", "a"), Cell("y", "b"), Cell("z", "b"), Cell("w", " "), Cell("v", "c")])
    assert found.keys() == {"x", "y"}
    assert {(mark["by_code"], mark["edited"]) for mark in found.values()} == {(True, False)}
    found = runs.last(subject(), "n", [Cell("x", "a"), Cell("old0", "a")])
    assert found.keys() == {"old0"}
    assert found["old0"]["by_code"] is False


def test_the_last_run_is_the_latest_asked_for(tmp_path: Path) -> None:
    """Of two servers' files the run that was requested later counts, and a hash that cannot be compared leaves edited open."""
    keyed = f"hmac-sha256:0123abcd:{'0' * 64}"
    write(tmp_path, [run(5, cell_id="a"), run(3, cell_id="b", code_hash=keyed)])
    write(
        tmp_path, [run(4, SECOND, cell_id="a"), run(6, SECOND, cell_id="a", subject="p:00000000:" + "0" * 32)], SECOND
    )
    found = CellRuns(tmp_path, HASHER).last(subject(), "n", [Cell("a", "x"), Cell("b", "x")])
    assert found["a"]["requested_at"] == "2026-01-01T00:00:05.000000Z"
    assert found["b"]["edited"] is None


def test_memory_is_bounded(tmp_path: Path) -> None:
    """Of more cells than fit, those whose last run is oldest are forgotten."""
    write(tmp_path, [run(n, cell_id=f"c{n}") for n in range(20)])
    found = CellRuns(tmp_path, HASHER, limit=5).last(subject(), "n", [Cell(f"c{n}", "") for n in range(20)])
    assert sorted(found) == sorted(f"c{n}" for n in range(15, 20))


def test_many_notebooks_are_forgotten_and_found_again(tmp_path: Path) -> None:
    """Of more notebooks than fit, the one not asked about for longest is forgotten, and found again when it is asked about."""
    write(tmp_path, [run(n, cell_id="c", notebook=f"n{n // 2}") for n in range(20)])
    runs = CellRuns(tmp_path, HASHER, limit=3)
    for _ in range(2):
        for n in range(10):
            assert runs.last(subject(), f"n{n}", [Cell("c", "")])["c"]["seq"] == 2 * n + 1
            assert len(runs._notebooks) <= 3
    assert runs.last(subject(), "none", [Cell("c", "")]) == {}


def test_only_the_last_records_are_looked_at(tmp_path: Path) -> None:
    """A run further back than the bound is not found, and what is recorded after the first look is, however long nobody asked."""
    write(tmp_path, [run(0, cell_id="old"), *(run(n % 50 + 1, cell_id="new") for n in range(10))])
    runs = CellRuns(tmp_path, HASHER, looked_at=10)
    assert runs.last(subject(), "n", [Cell("old", ""), Cell("new", "")]).keys() == {"new"}
    write(tmp_path, [run(n, SECOND, cell_id=f"b{n}") for n in range(12)], SECOND)
    assert sorted(runs.last(subject(), "n", [Cell(f"b{n}", "") for n in range(12)])) == sorted(
        f"b{n}" for n in range(2, 12)
    )


def test_a_name_in_another_member_is_not_the_notebook(tmp_path: Path) -> None:
    """A record that holds a notebook's name elsewhere, or another notebook whose name begins alike, gives no mark."""
    write(
        tmp_path,
        [
            run(1, cell_id="a", notebook="n2"),
            run(2, cell_id="b", notebook="m", cell_type='"notebook":"n"'),
            run(3, cell_id="c", notebook='x","notebook":"n'),
            run(4, cell_id="d", nested={"notebook": "n"}, notebook="m"),
        ],
    )
    assert CellRuns(tmp_path, HASHER).last(subject(), "n", [Cell(name, "") for name in "abcd"]) == {}


def test_the_tail_gives_each_record_once(tmp_path: Path) -> None:
    """What is new since the last look is given once, also from a file that comes later; a file that is none is left alone."""
    write(tmp_path, [run(0), run(1)])
    (tmp_path / "none.db").write_text("not a database")
    tail = SpoolTail(tmp_path, b"", 1000, 1000)
    assert len(list(tail.new())) == 2
    assert list(tail.new()) == []
    write(tmp_path, [run(2, SECOND)], SECOND)
    assert len(list(tail.new())) == 1
    assert list(tail.new()) == []


def test_the_newest_come_first_and_only_so_far_back(tmp_path: Path) -> None:
    """Records are given from the end, page by page, those that hold the words, and none beyond the bound."""
    write(tmp_path, [run(n % 60, cell_id=f"c{n % 2}") for n in range(1500)])
    path = tmp_path / f"{FIRST}.db"
    assert [stored.position for stored in newest_first(path, b"", 10_000)] == list(range(1500, 0, -1))
    assert [stored.position for stored in newest_first(path, b'"c1"', 1300)] == list(range(1500, 200, -2))
    assert json.loads(next(newest_first(path, b"", 1)).record)["event"]["cell_id"] == "c1"
    assert list(newest_first(tmp_path / "missing.db", b"", 10)) == []
