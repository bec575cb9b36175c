"""What the module hands to Learning Observer, of whose names a stand-in is imported here."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import server_names
from logs import Log
from sent import frames_of

from exec_events_consumers.learning_observer.frames import SOURCE
from exec_events_consumers.learning_observer.reductions import reduce_notebook, reduce_student
from lo_exec_events import module, page, queries, reducers

ASSETS = Path(page.__file__).parent / "assets"
DAG = module.EXECUTION_DAG


def log() -> Log:
    """A record of three runs."""
    made = Log()
    for number in range(3):
        made.run(0, number * 1_000_000, notebook="n", cell_id="c")
    return made


def sent(frame: Any) -> dict[str, Any]:
    """An event as a reducer gets it: the frame is but a part, with what the server adds to it."""
    return {"client": {**frame, "source": SOURCE, "auth": {"user_id": "x"}}, "server": {}, "metadata": {}}


def test_the_server_finds_it() -> None:
    """The distribution has one entry point, of the group the server looks in, to a module with what it must define."""
    (found,) = [one for one in entry_points(group="lo_modules") if one.name == "lo_exec_events"]
    assert found.load() is module
    assert module.__name__.endswith(".module")
    assert module.NAME


def test_reducers_take_what_forward_sends() -> None:
    """Each reducer is a coroutine function, for the source that forward names, once in its declared scope."""
    assert {reducer["context"] for reducer in module.REDUCERS} == {SOURCE}
    for reducer in module.REDUCERS:
        assert inspect.iscoroutinefunction(reducer["function"])
        assert reducer["function"].scope == reducer["scope"]
    # An event that names no notebook_id is kept from the second: records that are no executions have none.
    assert [len(reducer["scope"]) for reducer in module.REDUCERS] == [1, 2]


def test_reducers_do_what_the_reductions_do() -> None:
    """Fed frame by frame, each reducer's state is that of the pure reduction, and no second state is written."""
    states: dict[str, Any] = {"student": None, "notebook": None}
    wanted: dict[str, Any] = dict(states)
    for frame in frames_of(log()):
        states["student"], external = asyncio.run(reducers.student_runs(sent(frame), states["student"]))
        assert external is False
        states["notebook"], external = asyncio.run(reducers.notebook_runs(sent(frame), states["notebook"]))
        assert external is False
        wanted["student"] = reduce_student(wanted["student"], frame)
        wanted["notebook"] = reduce_notebook(wanted["notebook"], frame)
    assert states == wanted
    assert states["student"]["figures"]["row"]["runs"] == 3


def test_frames_that_are_not_ours_write_nothing() -> None:
    """The frame that says who it is, which reaches reducers too, changes no state."""
    for reducer in (reducers.student_runs, reducers.notebook_runs):
        said = asyncio.run(reducer({"client": {"event": "test_framework_fake_identity", "user_id": "x"}}, None))
        assert said == (False, False)
        assert asyncio.run(reducer({}, None)) == (False, False)


def within(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in a value."""
    if isinstance(value, dict):
        yield value
        for member in value.values():
            yield from within(member)


def needed(node: str) -> set[str]:
    """The nodes that a node is made of, itself among them."""
    named = {one["variable"] for one in within(DAG["execution_dag"][node]) if "variable" in one}
    return {node}.union(*(needed(name) for name in named))


def test_every_query_begins_with_a_roster() -> None:
    """Each export is made of nodes that are there, and takes a course but no student: only its roster's states are read."""
    for export in DAG["exports"].values():
        nodes = needed(export["returns"])
        assert "roster" in nodes
        asked = {one["parameter"] for name in nodes for one in within(DAG["execution_dag"][name]) if "parameter" in one}
        assert asked == {"runtime", "course_id"}
        assert export["parameters"] == ["course_id"]
    called = {one["call"] for one in within(DAG["execution_dag"]) if "call" in one}
    assert called == {"learning_observer.courseroster", *server_names.PUBLISHED}
    assert {one["keys"] for one in within(DAG["execution_dag"]) if "keys" in one} == {
        f"lo_exec_events.{reducer['function'].__name__}" for reducer in module.REDUCERS
    }


def test_queries_find_what_they_ask_for() -> None:
    """Each member that a query picks is in the states that the reducers write, and in what stands for none."""
    frame = frames_of(log())[0]
    written = [reduce_student(None, frame), reduce_notebook(None, frame)]
    for reducer, state in zip(module.REDUCERS, written, strict=True):
        id_ = f"lo_exec_events.{reducer['function'].__name__}"
        picked = [s["fields"] for s in within(DAG["execution_dag"]) if "select" in s and s["select"]["keys"] == id_]
        assert picked
        for path in {path for fields in picked for path in fields}:
            for one in (reducer["default"], state):
                for name in path.split("."):
                    one = one[name]


def test_notebooks_are_those_of_the_students() -> None:
    """Of each student the notebooks it ran are named, once; of one without figures none."""

    async def students() -> AsyncIterator[dict[str, Any]]:
        for name, notebooks in (("a", {"1": {}, "2": {}}), ("b", {"1": {}}), ("c", {"error": "x"}["error"]), ("d", {})):
            yield {"provenance": {"provenance": {"STUDENT": {"user_id": name}}}, "notebooks": notebooks}

    found = asyncio.run(queries.notebooks_of_students(students()))
    assert [(one["user_id"], one["notebook_id"]) for one in found] == [("a", "1"), ("a", "2"), ("b", "1")]


def test_nothing_is_fetched_from_elsewhere() -> None:
    """The page names no style, script or font but its own, and its files no address; the module asks for no download."""
    (shown,) = module.DASH_PAGES
    assert {"CSS", "SCRIPTS"}.isdisjoint(shown)
    assert {"THIRD_PARTY", "STATIC_FILE_GIT_REPOS"}.isdisjoint(vars(module))
    assert shown["ASSETS"] == ASSETS.name
    files = sorted(ASSETS.iterdir())
    assert [file.name for file in files] == ["board.css", "listen.js"]
    for file in files:
        text = file.read_text()
        assert re.findall(r"\w+://(?!\$)|@import|url\(", text) == []


def test_styles_are_of_this_page_alone() -> None:
    """Each rule of the style sheet, which all pages of a server load, is for what is within this module's page."""
    css = re.sub(r"/\*.*?\*/", "", (ASSETS / "board.css").read_text(), flags=re.DOTALL)
    css = re.sub(r"@media [^{]*\{", "", css)
    selectors = [one.strip() for group in re.findall(r"([^{}]+)\{", css) for one in group.split(",")]
    assert len(selectors) > 5
    assert [one for one in selectors if not one.startswith(".lo-exec-events")] == []


def test_the_dashboard_leads_to_the_page() -> None:
    """What is listed among a course's dashboards is the address that the server gives the page."""
    (listed,), (shown,) = module.COURSE_DASHBOARDS, module.DASH_PAGES
    assert listed["url"] == f"/lo_exec_events/dash/{shown['SUBPATH']}"
    assert "execution_dag: 'lo_exec_events'" in (ASSETS / "listen.js").read_text()
    assert "target_exports: ['board']" in (ASSETS / "listen.js").read_text()
    assert "board" in DAG["exports"]
