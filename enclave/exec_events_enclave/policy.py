"""The frozen rules of one dataset, what they must be, and their digest; `policy_file` reads them."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from exec_events_schemas.record import HASH_PREFIX, canonical

MICRO = 1_000_000

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")

Count = Annotated[int, Field(ge=0, le=2**53 - 1)]
Positive = Annotated[int, Field(ge=1, le=2**53 - 1)]
Epsilon = Annotated[float, Field(ge=1 / MICRO, le=1000)]


class _Rules(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Limits(_Rules):
    """What one kernel may use."""

    memory_bytes: Annotated[int, Field(ge=64 * 2**20, le=2**53 - 1)] = 2 * 2**30
    cpu_seconds: Positive = 600
    processes: Positive = 64
    files: Annotated[int, Field(ge=16, le=2**20)] = 256
    file_bytes: Positive = 100_000_000
    output_bytes: Positive = 1_000_000
    wall_seconds: Positive = 900


class Budgets(_Rules):
    """What one person may use of this dataset in one UTC day; ``epsilon_total`` is for ever."""

    cells: Count = 200
    released_bytes: Count = 1_000_000
    queries: Count = 50
    epsilon: Epsilon | None = None
    epsilon_total: Epsilon | None = None


class Dominance(_Rules):
    """The (n, k) rule: the n largest contributors may not make more than the share k of a cell."""

    n: Annotated[int, Field(ge=1, le=100)] = 2
    k: Annotated[float, Field(gt=0, lt=1)] = 0.9


class Variable(_Rules):
    """One column that queries may name; with ``values`` or bounds it can be asked under differential privacy."""

    kind: Literal["category", "number"]
    values: Annotated[tuple[str, ...], Field(strict=False, min_length=1, max_length=1000)] | None = None
    lower: float | None = None
    upper: float | None = None

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Variable:
        if self.kind == "category" and (self.lower is not None or self.upper is not None):
            raise ValueError("lower and upper are for numbers; a category has values")
        if self.kind == "number" and self.values is not None:
            raise ValueError("values are for categories; a number has lower and upper")
        if (self.lower is None) != (self.upper is None):
            raise ValueError("give both lower and upper, or neither")
        if self.lower is not None and self.upper is not None and self.lower >= self.upper:
            raise ValueError("lower must be less than upper")
        if self.values is not None and len(set(self.values)) != len(self.values):
            raise ValueError("a value is listed twice")
        return self


class Table(_Rules):
    """One file of the dataset that queries may ask; ``person`` is the column that says whose row it is."""

    file: str
    person: Annotated[str, Field(min_length=1, max_length=128)]
    variables: Annotated[dict[str, Variable], Field(min_length=1, max_length=500)]

    @field_validator("file")
    @classmethod
    def _stays_inside(cls, value: str) -> str:
        path = PurePosixPath(value)
        if not value or path.is_absolute() or ".." in path.parts or path.suffix not in {".csv", ".parquet"}:
            raise ValueError("give a .csv or .parquet file below the data folder, as a relative path without ..")
        return value

    @model_validator(mode="after")
    def _person_is_not_asked(self) -> Table:
        if self.person in self.variables:
            raise ValueError(f"{self.person} says whose row it is; it cannot be a variable, too")
        return self


class Queries(_Rules):
    """The rules of declared queries: acro's, the rounding, and how long a query is remembered for overlaps."""

    threshold: Annotated[int, Field(ge=3, le=2**31)] = 10
    dof: Annotated[int, Field(ge=1, le=2**31)] = 10
    nk: Dominance = Dominance()
    p_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.1
    round_to: Annotated[int, Field(ge=1, le=1000)] = 5
    significant_digits: Annotated[int, Field(ge=1, le=6)] = 3
    overlap_days: Annotated[int, Field(ge=1, le=3650)] = 30
    epsilon_per_query: Epsilon | None = None
    tables: Annotated[dict[str, Table], Field(min_length=1, max_length=100)]


class Checker(_Rules):
    """What the checker points a steward to."""

    small_count: Annotated[int, Field(ge=1, le=1000)] = 10
    significant_digits: Annotated[int, Field(ge=1, le=15)] = 4
    text_bytes: Positive = 2_000
    output_bytes: Positive = 100_000
    verbatim_values: Annotated[int, Field(ge=1, le=100)] = 3


class Policy(_Rules):
    """The rules of one dataset."""

    name: str
    version: Annotated[int, Field(ge=1, le=2**31)]
    data: Annotated[Path, Field(strict=False)]
    mode: Literal["synthetic", "held", "batch"]
    stewards: Literal[1, 2] = 1
    grid_seconds: Annotated[int, Field(ge=1, le=86_400)] = 60
    limits: Limits = Limits()
    budgets: Budgets = Budgets()
    queries: Queries | None = None
    checker: Checker = Checker()

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if not _NAME.fullmatch(value):
            raise ValueError("a name is up to 63 lower-case letters, digits and dashes, and begins with no dash")
        return value

    @field_validator("data")
    @classmethod
    def _is_a_folder_of_its_own(cls, value: Path) -> Path:
        if not value.is_absolute() or ".." in value.parts or value == Path("/"):
            raise ValueError("give the data folder as an absolute path without .., and not /")
        return value

    @model_validator(mode="after")
    def _epsilon_is_whole(self) -> Policy:
        per_query = self.queries.epsilon_per_query if self.queries else None
        if self.queries is None or per_query is None:
            if self.budgets.epsilon is not None or self.budgets.epsilon_total is not None:
                raise ValueError("budgets.epsilon is spent by queries.epsilon_per_query, which is not set")
            return self
        if self.budgets.epsilon is None or self.budgets.epsilon_total is None:
            raise ValueError("with queries.epsilon_per_query set budgets.epsilon and budgets.epsilon_total, too")
        if not per_query <= self.budgets.epsilon <= self.budgets.epsilon_total:
            raise ValueError("epsilon_per_query may not exceed budgets.epsilon, nor that budgets.epsilon_total")
        for table_name, table in self.queries.tables.items():
            for name, variable in table.variables.items():
                if variable.values is None and variable.lower is None:
                    need = "values" if variable.kind == "category" else "lower and upper"
                    raise ValueError(
                        f"with epsilon_per_query it must be said what {table_name}.{name} can be: give it {need}"
                    )
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of these rules, defaults written out."""
        return HASH_PREFIX + sha256(canonical(self.model_dump(mode="json"))).hexdigest()


def micro(epsilon: float) -> int:
    """An epsilon in millionths: events and budgets hold no floats."""
    return round(epsilon * MICRO)
