"""A table's file goes in, the rows and columns that a query needs come out, one row for each person."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from exec_events_enclave.errors import QueryUnavailable
from exec_events_enclave.policy import Table

from .model import Condition, Query


def load(folder: Path, name: str, table: Table, wanted: Iterable[str]) -> pd.DataFrame:
    """
    Columns of a table: categories as text, numbers as numbers, what is neither as missing.

    Raises:
        QueryUnavailable: the file is not there or not what the policy says, or has several rows for a person.
    """
    path = (folder / table.file).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise QueryUnavailable(f"the file of {name} leads out of the data folder")
    columns = sorted({table.person, *wanted})
    try:
        # As text first, so that a code such as 007 stays what it is.
        raw = (
            pd.read_parquet(path, columns=columns)
            if path.suffix == ".parquet"
            else pd.read_csv(path, usecols=columns, dtype=str, keep_default_na=False, na_values=[""])
        )
    except Exception as error:
        # Whatever the reader raises may quote the data.
        raise QueryUnavailable(f"the file of {name} cannot be read: {type(error).__name__}") from None
    if raw[table.person].isna().any() or raw[table.person].duplicated().any():
        raise QueryUnavailable(f"{name} does not have one row for each {table.person}, as declared queries need")
    return pd.DataFrame({column: _typed(raw[column], table, column) for column in columns})


def meeting(frame: pd.DataFrame, conditions: Sequence[Condition]) -> pd.Series[bool]:
    """Which rows meet all conditions."""
    found = pd.Series(True, index=frame.index)
    for condition in conditions:
        column = frame[condition.variable]
        if condition.equals is not None:
            found &= column.isin(condition.equals)
        if condition.at_least is not None:
            found &= column >= condition.at_least
        if condition.below is not None:
            found &= column < condition.below
    return found


def needed(query: Query, others: Iterable[Sequence[Condition]]) -> set[str]:
    """The variables that a query and other filters name."""
    conditions = [*query.where, *(condition for other in others for condition in other)]
    return set(query.variables) | {condition.variable for condition in conditions}


def _typed(column: Any, table: Table, name: str) -> Any:
    variable = table.variables.get(name)
    if variable is not None and variable.kind == "number":
        numbers = pd.to_numeric(column, errors="coerce").astype(float)
        return numbers.where(numbers.abs() != float("inf"))
    return column.astype("string").astype(object)
