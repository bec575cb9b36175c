"""A figure is a number with its target: rows in, one table or JSON out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """
    One row: what was measured, and what it must reach.

    ``target`` None marks a row that is there to be read (a control, a spread), not reached.
    """

    name: str
    measured: float
    unit: str = ""
    target: float | None = None
    bound: Literal["at least", "at most"] = "at least"
    note: str = ""
    rounds: tuple[float, ...] = field(default=(), repr=False)

    @property
    def ok(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if self.target is None:
            return None
        return self.measured >= self.target if self.bound == "at least" else self.measured <= self.target


def table(figures: list[Figure]) -> Table:
    """All rows as one table."""
    made = Table(title="exec-events: what recording costs")
    made.add_column("figure")
    made.add_column("target", justify="right")
    made.add_column("measured", justify="right")
    made.add_column("ok?")
    made.add_column("", style="dim")
    for figure in figures:
        target = "" if figure.target is None else f"{figure.bound} {_number(figure.target, figure.unit)}"
        verdict = {True: "[green]yes[/]", False: "[bold red]NO[/]", None: ""}[figure.ok]
        made.add_row(figure.name, target, _number(figure.measured, figure.unit), verdict, figure.note)
    return made


def as_json(figures: list[Figure]) -> list[dict[str, Any]]:
    """All rows as plain data, each round's value included."""
    return [{**asdict(figure), "ok": figure.ok} for figure in figures]


def _number(value: float, unit: str) -> str:
    if unit == "x":
        return f"{value:.3f} x"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.2f}"
    return f"{text} {unit}".rstrip()
