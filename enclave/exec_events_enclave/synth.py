"""
Statistics of a table go in, rows that nobody is in come out: a synthetic twin, to write code on.

`statistics_of` reads the data once and says only what many people share. A steward looks at that, edits it, and
signs it with a name. `twin` makes rows from the file alone, so that nothing else of the data can be in them. Columns
are drawn apart from each other: a twin has the columns, kinds and values of the data, and none of what relates them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from .errors import PolicyError
from .policy import Policy, Queries, Table, Variable
from .query.rounding import round_count, round_number

if TYPE_CHECKING:
    import pandas as pd

MAX_ROWS = 1_000_000
_BINS = 10
_DIGITS = 6

Weight = Annotated[int, Field(ge=0, le=2**53 - 1)]
_HEAD = """\
# Statistics of protected data, for a synthetic twin. Rare values and small counts are left out, the rest is rounded.
# Look at each line, change what should not be told, and put your name at approved_by: without it no twin is made.
"""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Column(_Part):
    """A column: of a category each value with its weight, of a number the edges of bins with equally many people."""

    kind: Literal["category", "number"]
    missing: Weight
    values: dict[str, Weight] | None = None
    whole: bool = False
    edges: Annotated[tuple[float, ...], Field(strict=False, min_length=2, max_length=100)] | None = None

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Column:
        if (self.values is not None) != (self.kind == "category") or (self.edges is not None) != (
            self.kind == "number"
        ):
            raise ValueError("a category has values, and a number has edges")
        if self.values is not None and not any(self.values.values()) and not self.missing:
            raise ValueError("give at least one value a weight")
        if self.edges is not None and list(self.edges) != sorted(self.edges):
            raise ValueError("edges rise")
        return self


class Person(_Part):
    """The column that says whose row it is."""

    name: str
    kind: Literal["number", "text"]


class Statistics(_Part):
    """What a twin is made from."""

    dataset: str
    table: str
    policy_digest: str
    approved_by: Annotated[str, Field(min_length=1)] | None = None
    rows: Annotated[int, Field(ge=1, le=MAX_ROWS)]
    person: Person
    columns: Annotated[dict[str, Column], Field(min_length=1)]

    def as_yaml(self) -> str:
        """The file for the steward."""
        return _HEAD + yaml.safe_dump(_plain(self), sort_keys=False, allow_unicode=True)


def statistics_of(frame: pd.DataFrame, policy: Policy, name: str) -> Statistics:
    """
    The statistics of a table as `query.frame.load` gives it, with counts below the policy's threshold left out.

    Raises:
        PolicyError: there are too few people, or the policy has no such table.
    """
    if policy.queries is None or name not in policy.queries.tables:
        raise PolicyError(f"the policy of {policy.name} has no table {name}")
    rules, table = policy.queries, policy.queries.tables[name]
    if len(frame) < 2 * rules.threshold:
        raise PolicyError(f"{name} has too few people for statistics: make its twin by hand")
    ids = frame[table.person]
    return Statistics(
        dataset=policy.name,
        table=name,
        policy_digest=policy.digest,
        rows=min(max(round_count(len(frame), rules.round_to), 1), MAX_ROWS),
        person=Person(name=table.person, kind="number" if ids.str.isdecimal().all() else "text"),
        columns={key: _column(frame[key], variable, rules) for key, variable in _asked(table)},
    )


def twin(statistics: Statistics, seed: int, rows: int | None = None) -> dict[str, list[Any]]:
    """
    Columns of as many rows; the same for the same statistics and seed.

    Raises:
        PolicyError: no steward has approved the statistics.
    """
    if statistics.approved_by is None:
        raise PolicyError("no steward has approved these statistics: look at them, and fill in approved_by")
    number = statistics.rows if rows is None else rows
    person = statistics.person
    made: dict[str, list[Any]] = {
        person.name: [n if person.kind == "number" else f"made-up-{n}" for n in range(1, number + 1)]
    }
    for name, column in statistics.columns.items():
        # Each column has a seed of its own: one that is added or removed leaves the others as they were.
        source = random.Random(f"{seed}/{name}")
        missing = min(column.missing / statistics.rows, 1.0)
        made[name] = [None if source.random() < missing else _value(column, source) for _ in range(number)]
    return made


def _asked(table: Table) -> Iterator[tuple[str, Variable]]:
    yield from table.variables.items()


def _column(values: Any, variable: Variable, rules: Queries) -> Column:
    present = values.dropna()
    absent = len(values) - len(present)
    missing = round_count(absent, rules.round_to) if absent >= rules.threshold else 0
    if variable.kind == "category":
        counts = {str(value): int(count) for value, count in present.value_counts().items()}
        common = {value: round_count(n, rules.round_to) for value, n in counts.items() if n >= rules.threshold}
        # What the policy names is known anyway; how rare it is, is not told.
        named = {value: 1 for value in variable.values or () if value not in common}
        return Column(kind="category", missing=missing, values=dict(sorted((common | named or {"other": 1}).items())))
    return _number_column(present, variable, rules, missing)


def _number_column(present: Any, variable: Variable, rules: Queries, missing: int) -> Column:
    """Edges between groups of at least the threshold; the outermost are the policy's bounds, or within the data."""
    digits, ordered = rules.significant_digits, sorted(map(float, present))
    whole = bool(ordered) and all(value.is_integer() for value in ordered)
    if len(ordered) < rules.threshold:
        lower, upper = (
            (0.0, 1.0) if variable.lower is None or variable.upper is None else (variable.lower, variable.upper)
        )
        return Column(kind="number", missing=missing, edges=(lower, upper))
    bins = min(_BINS, len(ordered) // rules.threshold)
    inner = [round_number(ordered[len(ordered) * number // bins], digits) for number in range(1, bins)]
    # No mean of the outermost: one value that is far out would show in it.
    low, high = ordered[rules.threshold - 1], ordered[-rules.threshold]
    first = round_number(low, digits) if variable.lower is None else variable.lower
    last = round_number(high, digits) if variable.upper is None else variable.upper
    edges = sorted([first, *(min(max(edge, first), last) for edge in inner), last])
    return Column(kind="number", missing=missing, whole=whole, edges=tuple(edges))


def _value(column: Column, source: random.Random) -> Any:
    if column.values is not None:
        if not any(column.values.values()):
            return None
        return source.choices(list(column.values), weights=list(column.values.values()))[0]
    edges = column.edges or (0.0, 1.0)
    number = source.randrange(len(edges) - 1)
    drawn = source.uniform(edges[number], edges[number + 1])
    return round(drawn) if column.whole else round_number(drawn, _DIGITS)


def _plain(statistics: Statistics) -> dict[str, Any]:
    """As YAML writes it: no tuples, and nothing that a column has not."""
    found: dict[str, Any] = statistics.model_dump(mode="json", exclude_none=True, exclude_defaults=False)
    found = {key: found.get(key) for key in Statistics.model_fields}
    for column in found["columns"].values():
        if column["kind"] == "category":
            column.pop("whole")
    return found
