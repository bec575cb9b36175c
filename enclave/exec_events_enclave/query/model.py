"""The bytes of a declared query go in, a frozen query that its policy allows comes out, or what is wrong (pure)."""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from exec_events_enclave.errors import QueryError
from exec_events_enclave.policy import Policy, Table
from exec_events_schemas.record import HASH_PREFIX, canonical

MAX_QUERY_BYTES = 10_000

Name = Annotated[str, Field(min_length=1, max_length=128)]
Names = Annotated[tuple[Name, ...], Field(strict=False, max_length=2)]
Values = Annotated[tuple[Annotated[str, Field(max_length=200)], ...], Field(strict=False, min_length=1, max_length=50)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Condition(_Part):
    """Which rows: those whose category is one of ``equals``, or whose number is in [``at_least``, ``below``)."""

    variable: Name
    equals: Values | None = None
    at_least: float | None = None
    below: float | None = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if (self.equals is not None) == (self.at_least is not None or self.below is not None):
            raise ValueError("give either equals, or at_least, below or both")
        if self.at_least is not None and self.below is not None and self.at_least >= self.below:
            raise ValueError("at_least must be less than below")
        return self


class Query(_Part):
    """A table of counts or of means, by up to two rows and two columns, of the rows that meet all conditions."""

    table: Name
    statistic: Literal["count", "mean"]
    rows: Names = ()
    columns: Names = ()
    value: Name | None = None
    where: Annotated[tuple[Condition, ...], Field(strict=False, max_length=5)] = ()

    @model_validator(mode="after")
    def _is_a_table(self) -> Self:
        if (self.statistic == "mean") != (self.value is not None):
            raise ValueError("a mean needs the value it is of, and a count has none")
        if len(set(self.dimensions)) != len(self.dimensions):
            raise ValueError("a variable is in rows or columns once")
        filtered = [condition.variable for condition in self.where]
        if len(set(filtered)) != len(filtered):
            raise ValueError("a variable has one condition")
        return self

    @property
    def dimensions(self) -> tuple[str, ...]:
        """What the table is by."""
        return self.rows + self.columns

    @property
    def variables(self) -> frozenset[str]:
        """What the table is of, whatever its filter."""
        return frozenset(self.dimensions) | ({self.value} if self.value else frozenset())

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, in which the order of conditions does not matter."""
        return HASH_PREFIX + sha256(canonical(self.model_dump(mode="json", exclude_none=True))).hexdigest()


def read_query(raw: bytes, policy: Policy) -> Query:
    """
    The query in ``raw``, if it is one and the policy allows it; conditions and their values in a fixed order.

    Raises:
        QueryError: it says what is wrong, and what may be asked.
    """
    if policy.queries is None:
        raise QueryError(f"{policy.name} takes no declared queries")
    if len(raw) > MAX_QUERY_BYTES:
        raise QueryError(f"a query is not longer than {MAX_QUERY_BYTES:,} bytes; this one has {len(raw):,}")
    try:
        query = Query.model_validate_json(raw)
    except ValidationError as error:
        raise QueryError("; ".join(_saying(one) for one in error.errors(include_url=False))) from error
    table = policy.queries.tables.get(query.table)
    if table is None:
        raise QueryError(f"there is no table {query.table!r}; there are {_list(policy.queries.tables)}")
    _refuse_what_is_not_allowed(query, table)
    return query.model_copy(update={"where": tuple(sorted(map(_in_order, query.where), key=lambda one: one.variable))})


def _refuse_what_is_not_allowed(query: Query, table: Table) -> None:
    kinds = {name: variable.kind for name, variable in table.variables.items()}
    filtered = [condition.variable for condition in query.where]
    for name in [*query.dimensions, *([query.value] if query.value else []), *filtered]:
        if name not in kinds:
            raise QueryError(f"there is no variable {name!r} to ask for; there are {_list(kinds)}")
    for name in query.dimensions:
        if kinds[name] != "category":
            raise QueryError(f"rows and columns are categories, and {name} is a {kinds[name]}")
    if query.value and kinds[query.value] != "number":
        raise QueryError(f"a mean is of numbers, and {query.value} is a {kinds[query.value]}")
    for condition in query.where:
        wanted = "category" if condition.equals is not None else "number"
        if kinds[condition.variable] != wanted:
            raise QueryError(
                f"{condition.variable} is a {kinds[condition.variable]}: categories have equals, numbers bounds"
            )
        values = table.variables[condition.variable].values
        unknown = sorted(set(condition.equals or ()) - set(values)) if values is not None else []
        if unknown:
            raise QueryError(f"{condition.variable} is never {unknown[0]!r}; it can be {_list(values or ())}")


def _in_order(condition: Condition) -> Condition:
    if condition.equals is None:
        return condition
    return condition.model_copy(update={"equals": tuple(sorted(set(condition.equals)))})


def _list(names: Any) -> str:
    shown = sorted(names)
    return ", ".join(shown[:20]) + (", …" if len(shown) > 20 else "")


def _saying(error: Any) -> str:
    where = ".".join(map(str, error["loc"])) or "the query"
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key"
    if error["type"] == "json_invalid":
        return f"no JSON: {error['msg'].removeprefix('Invalid JSON: ')}"
    return f"{where}: {error['msg'].removeprefix('Value error, ')}"
