"""What a Learning Observer server keeps of a student: the figures of the tables, whatever comes in whatever order."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from logs import Log, aggregate, random_log, sqlite_url
from test_aggregate import rows

from exec_events_consumers.decode import Decoded, decode
from exec_events_consumers.feed import Fetched
from exec_events_consumers.learning_observer.frames import NO_NOTEBOOK, frame_of, notebook_id
from exec_events_consumers.learning_observer.recent import RECENT
from exec_events_consumers.learning_observer.reductions import (
    CELLS,
    NO_RUNS,
    NO_RUNS_IN_NOTEBOOK,
    NOTEBOOKS,
    STREAKS,
    reduce_notebook,
    reduce_student,
)
from exec_events_consumers.learning_observer.seen import CHAINS, GAPS
from spool_files import FIRST, SECOND, chain_of

THIRD = "33333333-3333-4333-8333-333333333333"
STUDENT = "subject-0"
SECONDS = 1_000_000
Record = tuple[bytes, bytes]
State = dict[str, Any]

# Of a row here what the tables do not have, or count elsewhere.
NOT_IN_TABLES = {"notebook", "last_cell_id"}
NOT_IN_FIGURES = {"subject", "notebook", "cell_id", "order_key", "last_code_hash", "code_versions"}


def frame(record: Record) -> dict[str, Any]:
    """The frame that is sent of a record, as it comes out of JSON."""
    decoded = decode(Fetched("", 0, *record))
    assert isinstance(decoded, Decoded)
    made: dict[str, Any] = json.loads(json.dumps(frame_of(decoded)))
    return made


def student_after(records: Iterable[Record], state: State | None = None) -> State:
    """A student's state after these records, kept as JSON between them."""
    for record in records:
        after = reduce_student(state, frame(record))
        assert after is not None
        state = json.loads(json.dumps(after))
    assert state is not None
    return state


def notebooks_after(records: Iterable[Record]) -> dict[str, State]:
    """The state of each notebook after these records, each kept under the key that a frame names."""
    states: dict[str, State] = {}
    for record in records:
        one = frame(record)
        after = reduce_notebook(states.get(one["notebook_id"]), one)
        if after is not None:
            states[one["notebook_id"]] = json.loads(json.dumps(after))
    return states


def check(url: str, student: State, notebooks: dict[str, State]) -> None:
    """The figures of the states are those of the tables, each of them."""
    (subject,) = rows(url, "SELECT * FROM subjects")
    assert student["figures"]["row"] == subject
    of_notebooks = {row["notebook"]: row for row in rows(url, "SELECT * FROM notebooks")}
    of_cells = {(row["notebook"], row["cell_id"]): row for row in rows(url, "SELECT * FROM cells")}
    assert student["figures"]["notebooks"].keys() == notebooks.keys() == {notebook_id(name) for name in of_notebooks}
    for name, table_row in of_notebooks.items():
        short = student["figures"]["notebooks"][notebook_id(name)]
        assert {key: value for key, value in short.items() if key not in NOT_IN_TABLES}.items() <= table_row.items()
        assert (short["notebook"], short["last_cell_id"]) == (name, table_row["last_cell_id"])
        figures = notebooks[notebook_id(name)]["figures"]
        assert figures["row"] == table_row
        cells = {cell: row for (notebook, cell), row in of_cells.items() if notebook == name}
        assert figures["cells"].keys() == cells.keys()
        for cell, table_cell in cells.items():
            there = {key: value for key, value in table_cell.items() if value and key not in NOT_IN_FIGURES}
            assert figures["cells"][cell] == there
    is_open = {key: row for key, row in of_cells.items() if row["errors_in_a_row"]}
    streaks = {(s["notebook"], s["cell_id"]): s for s in student["figures"]["streaks"].values()}
    assert streaks.keys() == is_open.keys()
    for key, streak in streaks.items():
        for member in ("errors_in_a_row", "streak_since", "last_error", "last_at"):
            assert streak[member] == is_open[key][member]
    assert student["figures"]["longest_error_streak"] == max(row["longest_error_streak"] for row in of_cells.values())
    assert student["figures"]["fixes"] == sum(row["fixes"] for row in of_cells.values())
    assert student["figures"]["time_to_fix_us"] == sum(row["time_to_fix_us"] for row in of_cells.values())


def check_against_aggregate(taken: list[Record], counted: list[Record]) -> tuple[State, dict[str, State]]:
    """Reduce ``taken``, aggregate ``counted``, and compare."""
    student, notebooks = student_after(taken), notebooks_after(taken)
    with TemporaryDirectory() as folder:
        url = sqlite_url(Path(folder))
        aggregate(url, counted)
        check(url, student, notebooks)
    return student, notebooks


def late_by(records: list[Record], by: int, which: set[int]) -> list[Record]:
    """Those at ``which`` places moved ``by`` places on."""
    moved = sorted(range(len(records)), key=lambda n: (n + by + 0.5) if n in which else n)
    return [records[n] for n in moved]


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, RECENT),
    st.sampled_from([(FIRST,), (FIRST, SECOND), (FIRST, SECOND, THIRD)]),
    st.sampled_from(["chains one by one", "chains backwards", "shuffled"]),
    st.integers(0, 30),
)
@example(0, RECENT, (FIRST,), "shuffled", 0)
@example(0, 65, (FIRST,), "shuffled", 0)
def test_any_order_and_any_copies(seed: int, runs: int, recorders: tuple[str, ...], order: str, copies: int) -> None:
    """Within the horizon, in any order of chains or of records, and with any copies, each figure is that of the tables."""
    rng = random.Random(seed)
    log = random_log(rng, runs, subjects=1, recorders=recorders)
    if all(event["silent"] for event in log.events):
        return
    taken = list(log.records)
    if order == "shuffled":
        rng.shuffle(taken)
    else:
        in_chains = [chain_of(recorder, 0).encode() for recorder in recorders]
        sign = 1 if order == "chains one by one" else -1
        taken.sort(key=lambda record: sign * next(n for n, chain in enumerate(in_chains) if chain in record[0]))
    for again in rng.choices(log.records, k=copies):
        taken.insert(rng.randrange(len(taken) + 1), again)
    student, notebooks = check_against_aggregate(taken, log.records)
    record = student["record"]
    assert record["frames"] == len(taken)
    assert (record["duplicates"], record["missing"], record["too_late"], record["refused"]) == (copies, 0, 0, 0)
    assert all(state["record"]["before_horizon"] == 0 for state in notebooks.values())


@pytest.mark.parametrize("seed", range(3))
def test_late_within_the_horizon(seed: int) -> None:
    """Of a log of many horizons, runs late by fewer than the horizon's, and copies of any, leave each figure that of the tables."""
    rng = random.Random(seed)
    log = random_log(rng, 5 * RECENT, subjects=1, recorders=(FIRST, SECOND))
    late = set(rng.sample(range(len(log.records)), 40))
    taken = late_by(log.records, RECENT // 2, late)
    copies = rng.choices(log.records, k=50)
    student, notebooks = check_against_aggregate([*taken, *copies], log.records)
    record = student["record"]
    assert (record["duplicates"], record["missing"], record["too_late"]) == (50, 0, 0)
    # A notebook's state cannot tell an old copy from what is too late, and says so.
    told = sum(state["record"]["duplicates"] + state["record"]["before_horizon"] for state in notebooks.values())
    assert told == sum(b'"silent":false' in copy for copy, _ in copies)


def test_later_than_the_horizon() -> None:
    """A run that comes when the horizon has passed it is counted as too late, and leaves each figure that of the others."""
    log = Log()
    for number in range(2 * RECENT):
        log.run(0, number * SECONDS, recorder=SECOND if number == 3 else FIRST, notebook="n", cell_id="c")
    others = [record for n, record in enumerate(log.records) if n != 3]
    student, notebooks = check_against_aggregate([*others, log.records[3]], others)
    assert (student["record"]["too_late"], student["record"]["duplicates"]) == (1, 0)
    again = student_after([log.records[3]], student)
    assert (again["record"]["too_late"], again["record"]["duplicates"]) == (1, 1)
    assert again["figures"] == student["figures"]
    assert notebooks[notebook_id("n")]["record"]["before_horizon"] == 1


def test_what_is_missing_is_said_until_it_comes() -> None:
    """Places of a chain that have not come are counted as missing, and no more once they come."""
    log = Log()
    for number in range(8):
        log.run(0, number * SECONDS)
    first, second, third = log.records[2:4], log.records[6:], log.records[:2]
    state = student_after([*first, *second])
    assert state["record"]["missing"] == 4
    state = student_after(third, state)
    assert state["record"]["missing"] == 2
    state = student_after(log.records[4:6], state)
    assert (state["record"]["missing"], state["record"]["duplicates"]) == (0, 0)
    assert state["chains"][chain_of(FIRST, 0)]["gaps"] == []


def test_another_record_fills_its_place() -> None:
    """A record that is no execution counts as seen in its chain, and changes no figure."""
    log = Log()
    log.run(0, 0)
    (executed,) = (frame(record) for record in log.records)
    other = {"event": "exec_events_other", "chain_id": executed["chain_id"], "seq": 1, "kind": "consent", "time": ""}
    before = student_after(log.records)
    after = reduce_student(before, other)
    assert after is not None
    assert (after["record"]["missing"], after["chains"][executed["chain_id"]]["head"]) == (0, 1)
    assert after["figures"] == before["figures"]
    assert reduce_notebook(None, other) is None


def test_a_silent_run_is_no_run() -> None:
    """A silent execution takes its place in its chain, and counts in no figure."""
    log = Log()
    log.run(0, 0, silent=True)
    state = student_after(log.records)
    assert (state["figures"], state["record"]["missing"]) == (NO_RUNS, 0)
    assert notebooks_after(log.records) == {}


def test_a_console_has_a_state_of_its_own() -> None:
    """Runs without a notebook are kept under the name that stands for none, and are those of the tables."""
    log = Log()
    for number in range(3):
        log.run(0, number * SECONDS)
        del log.events[-1]["notebook"], log.events[-1]["cell_id"]
    again = Log()
    for event in log.events:
        again.add(event, chain_of(FIRST, 0))
    _, notebooks = check_against_aggregate(again.records, again.records)
    assert notebooks.keys() == {NO_NOTEBOOK}


def test_states_are_bounded() -> None:
    """Thousands of chains, notebooks, cells and open streaks leave states of bounded size, which say what they forgot."""
    student: State | None = None
    notebook: State | None = None
    name = "n" * 1000
    for number in range(700):
        log = Log()
        at = number * SECONDS
        error = {"status": "error", "error_name": "E" * 128}
        recorder = f"{number:08x}-1111-4111-8111-111111111111"
        log.run(0, at, recorder=recorder, notebook=f"{name}{number}", cell_id=f"{'c' * 100}{number}", **error)
        log.run(0, at + 1, recorder=recorder, notebook=name, cell_id=f"{'d' * 100}{number}", **error)
        student = student_after(log.records, student)
        notebook = reduce_notebook(notebook, frame(log.records[1]))
    assert student is not None
    assert notebook is not None
    figures = student["figures"]
    assert (len(student["runs"]), len(student["chains"])) == (RECENT, CHAINS)
    assert (len(figures["notebooks"]), len(figures["streaks"])) == (NOTEBOOKS, STREAKS)
    assert (figures["forgotten_notebooks"], figures["forgotten_streaks"]) == (701 - NOTEBOOKS, 1400 - STREAKS)
    assert student["record"]["forgotten_chains"] == 700 - CHAINS
    assert (student["record"]["missing"], student["record"]["too_late"]) == (0, 0)
    assert figures["row"]["runs"] == 1400
    assert (len(notebook["figures"]["cells"]), notebook["figures"]["runs_of_further_cells"]) == (CELLS, 700 - CELLS)
    assert notebook["figures"]["row"]["runs"] == 700
    # Names as long as events allow; of usual ones it is a twentieth.
    assert len(json.dumps(student)) < 700_000
    assert len(json.dumps(notebook)) < 500_000


def test_gaps_are_as_many_as_the_horizon_leaves() -> None:
    """As many records as are put in order cannot leave more gaps in one chain than are kept."""
    assert GAPS >= RECENT / 2


def test_a_chain_of_many_gaps_is_bounded() -> None:
    """Of a chain with more gaps than are kept, those that are forgotten stay counted as missing."""
    log = Log()
    for number in range(200):
        log.run(0, number * SECONDS)
    state = student_after(log.records[::2])
    assert len(state["chains"][chain_of(FIRST, 0)]["gaps"]) == GAPS
    assert state["record"]["missing"] == 99


def test_a_chain_that_was_forgotten_raises_no_alarm() -> None:
    """A chain that was forgotten and goes on is counted, once, and nothing before it is called missing."""
    log = Log()
    log.run(0, 0)
    recorders = [f"{n:08x}-1111-4111-8111-111111111111" for n in range(CHAINS + 1)]
    for number, recorder in enumerate(recorders):
        log.run(0, (number + 1) * SECONDS, recorder=recorder)
    log.run(0, 1000 * SECONDS)
    state = student_after([*log.records, log.records[0]])
    assert state["record"]["forgotten_chains"] > 0
    assert (state["figures"]["row"]["runs"], state["record"]["missing"]) == (len(log.records), 0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
WRONG = st.dictionaries(
    st.sampled_from(["event", "chain_id", "seq", "hash", "execution", "seal", "notebook_id"]),
    JSON | st.sampled_from(["exec_events_execution", "exec_events_other"]),
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(JSON, WRONG, WRONG.map(lambda wrong: {**frame(ONE), **wrong})))
def test_no_frame_raises(wrong: Any) -> None:
    """Whatever a frame holds, no reduction raises: it is somebody else's, refused, or counted."""
    before = student_after([TWO])
    for state in (None, before):
        after = reduce_student(state, wrong)
        kept = (state or {"record": {"refused": 0, "frames": 0}})["record"]
        assert after is None or after["record"]["frames"] == kept["frames"] + 1
        reduce_notebook(None, wrong)


def _two() -> list[Record]:
    log = Log()
    log.run(0, 0, notebook="n", cell_id="c")
    log.run(0, SECONDS, notebook="n", cell_id="c")
    return log.records


ONE, TWO = _two()


@pytest.mark.parametrize(
    "change",
    [
        {"hash": "sha256:" + "0" * 64},
        {"execution": {**frame(ONE)["execution"], "status": "error"}},
        {"execution": {**frame(ONE)["execution"], "requested_at": "2026-02-31T00:00:00.000000Z"}},
        {"seal": {**frame(ONE)["seal"], "seq": 5}},
        {"seal": None},
    ],
    ids=["hash", "status", "time", "seq", "no seal"],
)
def test_a_frame_that_is_not_what_it_says_is_refused(change: dict[str, Any]) -> None:
    """A frame whose execution, seal and hash do not go together is refused, and in no figure."""
    wrong = {**frame(ONE), **change}
    student, notebook = reduce_student(None, wrong), reduce_notebook(None, wrong)
    assert student is not None
    assert notebook is not None
    assert (student["record"]["refused"], student["figures"]) == (1, NO_RUNS)
    assert (notebook["record"]["refused"], notebook["figures"]) == (1, NO_RUNS_IN_NOTEBOOK)


def test_a_frame_of_a_time_that_is_none_is_refused() -> None:
    """An execution sealed with a day that no month has is refused."""
    log = Log()
    log.run(0, 0, finished_at="2026-02-31T00:00:00.000000Z")
    assert student_after(log.records)["record"]["refused"] == 1


@pytest.mark.parametrize("frames", [{"event": "lock_fields"}, {"event": "user", "user_id": "x"}, {}, [], None, 3])
def test_somebody_elses_frames_write_nothing(frames: Any) -> None:
    """A frame that is not ours, such as the one that says who it is, leaves nothing to write."""
    assert reduce_student(None, frames) is None
    assert reduce_notebook(None, frames) is None


def test_reductions_are_pure() -> None:
    """A state that was given is as it was, after runs in order, late, forgotten and refused."""
    rng = random.Random(3)
    log = random_log(rng, 2 * RECENT, subjects=1, recorders=(FIRST, SECOND))
    student: State | None = None
    notebook: State | None = None
    for record in late_by(log.records, 20, set(range(0, 2 * RECENT, 7))):
        for reduce, state in ((reduce_student, student), (reduce_notebook, notebook)):
            copy = deepcopy(state)
            reduce(state, frame(record))
            assert state == copy
        student = reduce_student(student, frame(record))
        notebook = reduce_notebook(notebook, frame(record)) or notebook
    assert NO_RUNS["row"] is None
    assert NO_RUNS["notebooks"] == {} == NO_RUNS_IN_NOTEBOOK["cells"]


def test_a_state_of_another_format_begins_anew() -> None:
    """A state that another version wrote is not gone on with."""
    state = {**student_after([ONE]), "format": 0}
    assert student_after([TWO], state)["figures"]["row"]["runs"] == 1


def test_importing_it_is_cheap() -> None:
    """In a fresh interpreter the reductions bring neither SQLAlchemy nor Kafka nor a server with them."""
    code = "import sys, exec_events_consumers.learning_observer.reductions; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "exec_events_consumers" in loaded
    assert loaded.isdisjoint(
        {"sqlalchemy", "alembic", "kafka", "jupyter_server", "jupyter_client", "websockets", "pyarrow", "exec_events"}
    )
