"""
What a teacher's browser heard of a course in, what the page says out (pure): who is stuck, who works, and on what.

Nothing here knows Learning Observer or Dash. What was heard comes from a browser, so any of it may be missing or odd.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, NamedTuple

from exec_events_consumers.measures import IDLE_US, STUCK_ERRORS, microseconds

# Behind this, somebody does not pause but is away: a lesson's length.
AWAY_US = 2 * 60 * 60 * 1_000_000
# More rows than this are no class.
ROWS = 1000
_NAME_LENGTH = 40


class Help(IntEnum):
    """How much help seems needed, most first."""

    STUCK = 0
    STUCK_AND_QUIET = 1
    ERROR = 2
    WORKING = 3
    QUIET = 4
    UNKNOWN = 5
    NOT_BEGUN = 6
    AWAY = 7


class Line(NamedTuple):
    """One student's line of the page, in words; ``record`` is empty where nothing is wrong with the record."""

    help: Help
    who: str
    how: str
    on_what: str
    latest: str
    runs: str
    on_task: str
    record: str


class Board(NamedTuple):
    """The page: a sentence about the connection, one about the class, and a line for each student."""

    connection: str
    summary: str
    lines: list[Line]


def board(heard: Any, now_us: int) -> Board:
    """The page at ``now_us``; ``heard`` is what assets/listen.js keeps."""
    heard = _object(heard)
    students = _object(heard.get("students"))
    lines = sorted(
        (_ordered(str(student), _object(value), now_us) for student, value in list(students.items())[:ROWS]),
        key=lambda ordered: ordered[0],
    )
    found = [line for _, line in lines]
    return Board(_connection(heard, bool(students)), _summary(found, len(students)), found)


def _ordered(student: str, value: dict[str, Any], now_us: int) -> tuple[tuple[Any, ...], Line]:
    try:
        since, line = _line(student, value, now_us)
    except (KeyError, TypeError, ValueError, AttributeError):
        since, line = "", _unknown(student, value)
    return (line.help, since, line.who.casefold(), student), line


def _line(student: str, value: dict[str, Any], now_us: int) -> tuple[str, Line]:
    """A student's line, and since when what it tells has been so, where that says who comes first."""
    row, record = value["row"], _record(value["record"])
    if row is None:
        nothing = Line(Help.NOT_BEGUN, _name(student, value), "No run yet", "", "never", "0", "", record)
        return "", nothing
    last_us = microseconds(row["last_at"])
    ago = now_us - last_us
    open_streaks = sorted(value["streaks"].values(), key=lambda s: (-s["errors_in_a_row"], s["last_at"]))
    # One that somebody left behind, and works well elsewhere, is not what they are at now.
    current = [s for s in open_streaks if last_us - microseconds(s["last_at"]) <= IDLE_US]
    streak = current[0] if current else None
    help_, how = _how(streak, ago)
    latest = value["latest"]
    on_what = _errors(streak) if streak and help_ <= Help.ERROR else _place(latest["notebook"], latest["cell_id"])
    if left := len(open_streaks) - (streak is not None):
        on_what += f"; {_many(left, 'other cell')} left with an error"
    line = Line(
        help_,
        _name(student, value),
        how,
        on_what,
        _ago(ago),
        f"{row['runs']:,}, {row['errors']:,} with an error" if row["errors"] else f"{row['runs']:,}",
        duration(row["on_task_us"]),
        record,
    )
    return (streak["streak_since"] if streak and help_ <= Help.STUCK_AND_QUIET else ""), line


def _how(streak: dict[str, Any] | None, ago: int) -> tuple[Help, str]:
    is_stuck = streak is not None and streak["errors_in_a_row"] >= STUCK_ERRORS
    if ago > AWAY_US:
        return Help.AWAY, "Away, and was stuck" if is_stuck else "Away"
    if is_stuck:
        if ago > IDLE_US:
            return Help.STUCK_AND_QUIET, f"Seems stuck, and ran nothing for {duration(ago)}"
        return Help.STUCK, "Seems stuck"
    if ago > IDLE_US:
        return Help.QUIET, f"Ran nothing for {duration(ago)}"
    return (Help.ERROR, "Working, has an error") if streak else (Help.WORKING, "Working")


def _errors(streak: dict[str, Any]) -> str:
    count = streak["errors_in_a_row"]
    name = _short(str(streak["last_error"] or "an error"))
    times = "once" if count == 1 else f"{count} times in a row"
    return f"{name}, {times}, in {_place(streak['notebook'], streak['cell_id'])}"


def _place(notebook: str, cell: str) -> str:
    where = f"notebook {_short(_unkeyed(notebook))}" if notebook else "a console"
    return f"cell {_short(cell)} of {where}" if cell else where


def _unkeyed(name: str) -> str:
    """A pseudonym without what names the site's key, which is the same for all."""
    return name.split(":", 2)[2][:8] if name.startswith("p:") and name.count(":") == 2 else name


def _name(student: str, value: dict[str, Any]) -> str:
    """A student's name as the server's roster has it; where it has none, the server's name for the account."""
    full = _object(_object(value.get("profile")).get("name")).get("full_name")
    return full.strip() if isinstance(full, str) and full.strip() else student


def _record(record: dict[str, int]) -> str:
    said = []
    if record["missing"]:
        said.append(f"{_many(record['missing'], 'record')} missing")
    if record["too_late"]:
        said.append(f"{_many(record['too_late'], 'run')} came too late to be counted")
    if record["refused"]:
        said.append(f"{_many(record['refused'], 'frame')} refused")
    return ", ".join(said)


def _unknown(student: str, value: dict[str, Any]) -> Line:
    return Line(Help.UNKNOWN, _name(student, value), "Not known", "The server gave no figures", "", "", "", "")


def _connection(heard: dict[str, Any], has_students: bool) -> str:
    if error := heard.get("error"):
        return f"The server could not answer: {str(error)[:300]}"
    if not heard.get("course"):
        return "No course was chosen: open this page from a course on Learning Observer's home page."
    if heard.get("status") != "open":
        return "Not connected to the server" + ("; what is below is what was heard last." if has_students else " yet.")
    return "" if has_students else "Connected; nobody of this course was heard of yet. Is its roster empty?"


_COUNTED = {
    "stuck, it seems": (Help.STUCK, Help.STUCK_AND_QUIET),
    "working": (Help.ERROR, Help.WORKING),
    "quiet": (Help.QUIET,),
    "not begun": (Help.NOT_BEGUN,),
    "away": (Help.AWAY,),
    "not known": (Help.UNKNOWN,),
}


def _summary(lines: list[Line], students: int) -> str:
    if not lines:
        return ""
    counts = {words: sum(line.help in levels for line in lines) for words, levels in _COUNTED.items()}
    said = "; ".join(f"{count} {words}" for words, count in counts.items() if count)
    return f"Of {_many(students, 'student')}: {said}." + (f" Only {ROWS:,} are shown." if students > ROWS else "")


def duration(us: int) -> str:
    """A duration as one reads it at a glance."""
    minutes = us // 60_000_000
    if minutes < 1:
        return "under a minute"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // (24 * 60)} days"


def _ago(us: int) -> str:
    # A recorder's clock may be ahead of the server's.
    return "just now" if us < 60_000_000 else f"{duration(us)} ago"


def time_text(us: int) -> str:
    """A time of day, in UTC."""
    return f"{datetime.fromtimestamp(us // 1_000_000, UTC):%H:%M:%S} UTC"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _short(text: str) -> str:
    return text if len(text) <= _NAME_LENGTH else f"{text[: _NAME_LENGTH - 1]}…"


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
