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

from .source import Asked, Damages, Selection, exit_unreadable, kind_of, selection_options, source_argument
from .terminal import abbreviated, console, duration, with_progress

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


# Columns that stand only where somebody's count is not zero.
RARE: dict[str, Callable[[Group], int]] = {
    "aborted": lambda group: group.statuses["aborted"],
    "interrupted": lambda group: group.statuses["interrupted"],
    "unfinished": lambda group: group.unfinished,
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
            group = groups.get(name)
            if group is None:
                group = groups[name] = Group()
            group.add(event)
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
def report(asked: Asked, by: str, as_json: bool, subject: str | None, since: str | None) -> None:
    """Who ran what: executions, errors, durations and reruns in SOURCE, by default this user's spool."""
    members, damages = GROUPINGS[by], Damages()
    selection = Selection(subject=subject, since=since)
    source = asked.open(selection.start)
    try:
        records = with_progress(source.read(damages), "reading", lambda: source.total)
        groups = summarise(selection.of(records), members)
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

    out = console()
    everybody = list(groups.values())
    rare = {title: count for title, count in RARE.items() if any(map(count, everybody))}
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_footer=len(groups) > 1)
    for number, title in enumerate(titles):
        table.add_column(title, overflow="fold", footer="" if number else "all")
    table.add_column("runs", justify="right", no_wrap=True, footer=f"{sum(g.executions for g in everybody):,}")
    table.add_column("errors", overflow="fold", footer=f"{sum(g.statuses['error'] for g in everybody):,}")
    for title, count in rare.items():
        table.add_column(title, justify="right", no_wrap=True, footer=f"{sum(map(count, everybody)):,}")
    table.add_column("reruns (same code)", footer=_reruns(everybody))
    table.add_column("time", justify="right", no_wrap=True, footer=duration(sum(sum(g.durations) for g in everybody)))
    table.add_column("median", justify="right", no_wrap=True)
    table.add_column("from, to (UTC)")
    for name, group in groups.items():
        table.add_row(
            *(escape(abbreviated(part) if out.is_terminal else part) or "-" for part in name),
            f"{group.executions:,}",
            escape(_errors(group)),
            *(f"{count(group):,}" for count in rare.values()),
            _reruns([group]),
            duration(sum(group.durations)),
            duration(median(group.durations)) if group.durations else "-",
            _span(group.first, group.last),
        )
    out.print(table)


def _errors(group: Group) -> str:
    count = group.statuses["error"]
    names = ", ".join(f"{name} {times:,}" for name, times in group.errors.most_common(ERRORS_SHOWN))
    return f"{count:,} ({names})" if names else f"{count:,}"


def _reruns(groups: list[Group]) -> str:
    return f"{sum(group.reruns for group in groups):,} ({sum(group.same_code for group in groups):,})"


def _span(first: str, last: str) -> str:
    """Two times to the minute; the day once where it is the same."""
    begin, end = first[:16].replace("T", " "), last[:16].replace("T", " ")
    if begin == end:
        return begin
    return f"{begin} to {end[11:] if begin[:10] == end[:10] else end}"
