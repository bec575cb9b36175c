"""``exec-events report``: who ran what, how often, how long, and with which errors."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import click
from exec_events_schemas.errors import MalformedRecord, SourceError
from exec_events_schemas.record import event_of
from exec_events_schemas.sources import StoredRecord

from .source import Damages, Selection, exit_unreadable, kind_of, open_or_exit, selection_options, source_argument
from .terminal import console, duration, with_progress

# What each --by groups by, and the title of its columns.
GROUPINGS: dict[str, dict[str, str]] = {
    "subject": {"subject": "who"},
    "subject-notebook": {"subject": "who", "notebook": "notebook"},
    "notebook": {"notebook": "notebook"},
    "cell": {"notebook": "notebook", "cell_id": "cell"},
}
NEVER_FINISHED = frozenset({"kernel_died", "kernel_restarted", "kernel_shut_down", "recorder_stopped"})
ERRORS_SHOWN = 3


@dataclass(slots=True)
class Group:
    """What was run by one person, in one notebook, or both; durations are in microseconds."""

    executions: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    reruns: int = 0
    same_code: int = 0
    durations: array[int] = field(default_factory=lambda: array("q"))
    first: str = ""
    last: str = ""

    def add(self, event: dict[str, Any]) -> None:
        """Count one cell_execution event."""
        self.executions += 1
        self.statuses[event.get("status", "unknown")] += 1
        if "error_name" in event:
            self.errors[event["error_name"]] += 1
        if "same_code_as_last_run" in event:
            self.reruns += 1
            self.same_code += bool(event["same_code_as_last_run"])
        if isinstance(event.get("duration_us"), int):
            self.durations.append(event["duration_us"])
        at = str(event.get("requested_at", event.get("time", "")))
        self.first = min(self.first or at, at)
        self.last = max(self.last, at)

    @property
    def unfinished(self) -> int:
        """Executions that a death, a restart or a stop ended."""
        return sum(self.statuses[status] for status in NEVER_FINISHED)

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {
            "executions": self.executions,
            "statuses": dict(self.statuses.most_common()),
            "errors": dict(self.errors.most_common()),
            "reruns": self.reruns,
            "reruns_of_the_same_code": self.same_code,
            "duration_us_total": sum(self.durations),
            "duration_us_median": int(median(self.durations)) if self.durations else None,
            "first": self.first,
            "last": self.last,
        }


# The columns of counts.
COUNTS: dict[str, Callable[[Group], int]] = {
    "runs": lambda group: group.executions,
    "errors": lambda group: group.statuses["error"],
    "aborted": lambda group: group.statuses["aborted"],
    "interrupted": lambda group: group.statuses["interrupted"],
    "unfinished": lambda group: group.unfinished,
    "reruns": lambda group: group.reruns,
    "same code": lambda group: group.same_code,
}


def summarise(records: Iterable[StoredRecord], members: Iterable[str]) -> dict[tuple[str, ...], Group]:
    """Executions grouped by these members of their events ("" where absent), the first to run first."""
    keys = tuple(members)
    groups: dict[tuple[str, ...], Group] = {}
    for stored in records:
        try:
            event = event_of(stored.record)
        except MalformedRecord:
            continue  # verify's business
        if kind_of(event) == "cell_execution":
            name = tuple(str(event.get(key, "")) for key in keys)
            groups.setdefault(name, Group()).add(event)
    return groups


@click.command()
@source_argument
@click.option(
    "--by",
    type=click.Choice(list(GROUPINGS)),
    default="subject-notebook",
    show_default=True,
    help="One line for each of these.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
@selection_options
def report(source: str | None, by: str, as_json: bool, subject: str | None, since: str | None) -> None:
    """Who ran what: executions, errors, durations and reruns in SOURCE, by default this user's spool."""
    members, damages = GROUPINGS[by], Damages()
    try:
        records = with_progress(open_or_exit(source).read(damages), "reading")
        groups = summarise(Selection(subject=subject, since=since).of(records), members)
    except SourceError as error:
        exit_unreadable(error)
    if as_json:
        lines = [{**dict(zip(members, name, strict=True)), **group.as_json()} for name, group in groups.items()]
        click.echo(json.dumps({"by": by, "groups": lines}, indent=2, ensure_ascii=False))
    elif groups:
        _show(groups, list(members.values()))
    else:
        click.echo("No executions.")
    damages.exit()


def _show(groups: dict[tuple[str, ...], Group], titles: list[str]) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    all_groups = groups.values()
    table = Table(box=box.SIMPLE_HEAD, show_footer=len(groups) > 1)
    for number, title in enumerate(titles):
        table.add_column(title, overflow="fold", footer="" if number else "all")
    # A column of nothing but zeros says less than its absence.
    counts = {title: [count(group) for group in all_groups] for title, count in COUNTS.items()}
    counts = {title: column for title, column in counts.items() if any(column)}
    for title, column in counts.items():
        table.add_column(title, justify="right", footer=f"{sum(column):,}")
    has_errors = any(group.errors for group in all_groups)
    if has_errors:
        table.add_column("errors by name", overflow="fold")
    table.add_column("time", justify="right", footer=duration(sum(sum(group.durations) for group in all_groups)))
    table.add_column("median", justify="right")
    table.add_column("first (UTC)")
    table.add_column("last (UTC)")
    for number, (name, group) in enumerate(groups.items()):
        errors = ", ".join(f"{error} {count:,}" for error, count in group.errors.most_common(ERRORS_SHOWN))
        table.add_row(
            *(escape(part) or "-" for part in name),
            *(f"{column[number]:,}" for column in counts.values()),
            *([escape(errors)] if has_errors else []),
            duration(sum(group.durations)),
            duration(median(group.durations)) if group.durations else "-",
            _minute(group.first),
            _minute(group.last),
        )
    console().print(table)


def _minute(time: str) -> str:
    return time[:16].replace("T", " ")
