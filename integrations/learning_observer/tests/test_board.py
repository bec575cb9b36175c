"""What the teacher's page says, from states that the real reductions made: who, how, on what, in which order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logs import Log
from sent import frames_of

from exec_events_consumers.learning_observer.reductions import NO_RUNS, NOTHING_HEARD, reduce_student
from exec_events_consumers.measures import IDLE_US, microseconds
from lo_exec_events.board import AWAY_US, ROWS, Help, Line, board, duration

MINUTE = 60_000_000
DAY_BEGINS = microseconds("2026-01-01T00:00:00.000000Z")
ERROR = {"status": "error", "error_name": "ValueError"}


def value(log: Log | None, name: str | None = None, frames: slice = slice(None)) -> dict[str, Any]:
    """What the query gives of a student whose record this is."""
    state = None
    for frame in frames_of(log)[frames] if log else ():
        state = reduce_student(state, frame)
    figures, record = (state["figures"], state["record"]) if state else (NO_RUNS, NOTHING_HEARD)
    told = {key: figures[key] for key in ("row", "latest", "streaks")} | {"record": record}
    return told if name is None else {**told, "profile": {"name": {"full_name": name}}}


def runs(*cells: tuple[int, str, dict[str, Any]], notebook: str = "p:0a1b2c3d:feedbeef00112233445566778899aabb") -> Log:
    """A record of runs, each at a minute."""
    log = Log()
    for minute, cell, members in cells:
        log.run(0, minute * MINUTE, notebook=notebook, cell_id=cell, **members)
    return log


def heard(students: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What a browser that is connected keeps."""
    return {"course": "1", "status": "open", "error": None, "students": students, **more}


def lines(students: dict[str, Any], minute: float) -> list[Line]:
    """The lines of the page at a minute."""
    return board(heard(students), DAY_BEGINS + int(minute * MINUTE)).lines


def line(log: Log, minute: float, **more: Any) -> Line:
    """The line of one student."""
    (only,) = lines({"s": value(log, **more)}, minute)
    return only


def test_somebody_stuck() -> None:
    """Three errors in a row in one cell read as stuck, with the error, how often, and where."""
    found = line(runs((0, "mean", {}), (1, "plot", ERROR), (2, "plot", ERROR), (3, "plot", ERROR)), 4)
    assert (found.help, found.how) == (Help.STUCK, "Seems stuck")
    assert found.on_what == "ValueError, 3 times in a row, in cell plot of notebook feedbeef"
    assert (found.latest, found.runs, found.on_task) == ("1 min ago", "4, 3 with an error", "3 min")


def test_two_errors_are_no_reason_to_come() -> None:
    """Two errors in a row read as working with an error, three with a run that went well between as well."""
    two = line(runs((1, "plot", ERROR), (2, "plot", ERROR)), 3)
    mended = line(runs((0, "p", ERROR), (1, "p", ERROR), (2, "p", {}), (3, "p", ERROR)), 4)
    assert (two.how, mended.how) == ("Working, has an error", "Working, has an error")
    assert mended.on_what == "ValueError, once, in cell p of notebook feedbeef"


def test_what_was_left_behind_is_not_what_they_are_at() -> None:
    """A streak of errors that somebody left long ago for another cell is told, and does not make them stuck."""
    found = line(runs(*((n, "old", ERROR) for n in range(3)), (9, "new", {}), (12, "new", {})), 12)
    assert (found.help, found.how) == (Help.WORKING, "Working")
    assert found.on_what == "cell new of notebook feedbeef; 1 other cell left with an error"


@pytest.mark.parametrize(
    ("after_us", "stuck", "well"),
    [
        (IDLE_US, "Seems stuck", "Working"),
        (IDLE_US + MINUTE, "Seems stuck, and ran nothing for 6 min", "Ran nothing for 6 min"),
        (AWAY_US, "Seems stuck, and ran nothing for 2 h 0 min", "Ran nothing for 2 h 0 min"),
        (AWAY_US + 1, "Away, and was stuck", "Away"),
    ],
)
def test_time_goes_by(after_us: int, stuck: str, well: str) -> None:
    """At five minutes without a run, and at two hours, the words change, for those stuck and for those not."""
    three_errors, fine = runs(*((0, "c", ERROR),) * 3), runs((0, "c", {}))
    now = DAY_BEGINS + after_us
    found = board(heard({"a": value(three_errors), "b": value(fine)}), now).lines
    assert [one.how for one in found] == [stuck, well]


def test_order_is_who_needs_help_most() -> None:
    """Stuck longest comes first, then stuck and quiet, an error, working, quiet, no figures, not begun, away; then names."""
    stuck_long = runs(*((200 + n, "c", ERROR) for n in range(5)))
    stuck_quiet = runs(*((150 + n, "c", ERROR) for n in range(4)))
    students = {
        "away": value(runs((0, "c", {})), "Zoe"),
        "not-begun": value(None, "Yan"),
        "odd": {"row": {"error": "no key"}, "record": {}},
        "quiet": value(runs((190, "c", {})), "Xia"),
        "working-b": value(runs((204, "c", {})), "ben"),
        "working-a": value(runs((203, "c", {})), "Ada"),
        "error": value(runs((204, "c", ERROR)), "Wim"),
        "stuck-quiet": value(stuck_quiet, "Vic"),
        "stuck-late": value(runs(*((202 + n, "c", ERROR) for n in range(3))), "Abe"),
        "stuck-long": value(stuck_long, "Uli"),
    }
    found = lines(students, 204.5)
    assert [one.who for one in found] == ["Uli", "Abe", "Vic", "Wim", "Ada", "ben", "Xia", "odd", "Yan", "Zoe"]
    assert [one.help for one in found] == sorted(one.help for one in found)


def test_the_class_in_one_sentence() -> None:
    """The summary counts everybody once, in words."""
    students = {
        "a": value(runs(*((0, "c", ERROR),) * 3)),
        "b": value(runs((0, "c", {}))),
        "c": value(runs((0, "c", ERROR))),
        "d": value(None),
    }
    said = board(heard(students), DAY_BEGINS + MINUTE).summary
    assert said == "Of 4 students: 1 stuck, it seems; 2 working; 1 not begun."


def test_names_are_as_the_server_gives_them() -> None:
    """The name is the roster's; where it gives none, the server's name of the account; never the record's pseudonym."""
    log = runs((0, "c", {}))
    assert line(log, 1, name="Ada Lovelace").who == "Ada Lovelace"
    assert line(log, 1, name=" ").who == "s"
    assert line(log, 1).who == "s"


@pytest.mark.parametrize(
    ("notebook", "cell", "words"),
    [
        ("p:0a1b2c3d:feedbeef00112233445566778899aabb", "mean", "cell mean of notebook feedbeef"),
        ("week 3/plots.ipynb", "mean", "cell mean of notebook week 3/plots.ipynb"),
        ("n", "c" * 60, f"cell {'c' * 39}… of notebook n"),
    ],
)
def test_places_are_short(notebook: str, cell: str, words: str) -> None:
    """A pseudonym is shortened to what tells notebooks apart, a path stays, a long name is cut."""
    assert line(runs((0, cell, {}), notebook=notebook), 1).on_what == words


def test_a_console_has_no_cell() -> None:
    """Runs of a console are on a console."""
    log = Log()
    log.run(0, 0)
    del log.events[-1]["notebook"], log.events[-1]["cell_id"]
    again = Log()
    again.add(log.events[0], "11111111-1111-4111-8111-111111111111/0000000000000000")
    assert line(again, 1).on_what == "a console"


def test_what_the_record_is_short_of_is_told() -> None:
    """Records that are missing, came too late or were refused are said, each with its number."""
    log = runs(*((n, "c", {}) for n in range(4)))
    assert line(log, 4, frames=slice(0, 4, 3)).record == "2 records missing"
    odd = value(log)
    odd["record"] = {**odd["record"], "too_late": 1, "refused": 2}
    (only,) = lines({"s": odd}, 4)
    assert only.record == "1 run came too late to be counted, 2 frames refused"
    assert line(log, 4).record == ""


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (None, "No course was chosen: open this page from a course on Learning Observer's home page."),
        ({"course": "1", "status": "closed"}, "Not connected to the server yet."),
        (heard({}), "Connected; nobody of this course was heard of yet. Is its roster empty?"),
        (heard({}, error="Required parameter"), "The server could not answer: Required parameter"),
        (heard({"s": value(None)}), ""),
        (
            heard({"s": value(None)}, status="closed"),
            "Not connected to the server; what is below is what was heard last.",
        ),
    ],
)
def test_the_connection_is_told(state: Any, words: str) -> None:
    """Without a course, a connection, students, or an answer, the page says which, and what to do."""
    assert board(state, 0).connection == words


def test_a_crowd_is_cut() -> None:
    """Of more students than a class has, the page shows a thousand and says so."""
    found = board(heard({str(n): value(None) for n in range(ROWS + 5)}), 0)
    assert len(found.lines) == ROWS
    assert found.summary.endswith("Only 1,000 are shown.")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["row", "record", "streaks", "latest", "students", "profile", "name", "last_at"]), inner
        )
    ),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_nothing_that_is_heard_breaks_the_page(odd: Any) -> None:
    """Whatever a browser sends, there is a line for each student it names."""
    assert len(board(heard({"s": odd}), 0).lines) == 1
    board(odd, 0)


@pytest.mark.parametrize(
    ("us", "words"),
    [(0, "under a minute"), (MINUTE, "1 min"), (61 * MINUTE, "1 h 1 min"), (50 * 60 * MINUTE, "2 days")],
)
def test_durations(us: int, words: str) -> None:
    """A duration is said in its greatest units."""
    assert duration(us) == words
