"""
Rows and a query go in, the cells of its table come out, or None where the policy's rules do not let it through.

The rules are acro's, which knows what each statistic needs. It checks here, where no code of a user's runs: its
verdict in a user's kernel would be the user's. Beside it stand rules that it has not: degrees of freedom of means,
cells whose values are all the same, and dominance where values are negative.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import pandas as pd

from exec_events_enclave.policy import Queries

from .model import Query
from .rounding import round_count, round_number

MAX_CELLS = 500

Cell = dict[str, Any]


def protected(frame: pd.DataFrame, query: Query, rules: Queries) -> list[Cell] | None:
    """The rounded cells of a table of complete rows; None for a table with any cell that is not safe."""
    rows = frame.dropna(subset=sorted(query.variables))
    if rows.empty:
        return None
    axes = [sorted(rows[name].unique()) for name in query.dimensions]
    places = list(product(*axes))
    if len(places) > MAX_CELLS:
        return None
    groups = _groups(rows, query)
    if any(place not in groups or len(groups[place]) < rules.threshold for place in places):
        return None
    if query.value is not None and not all(_is_spread(groups[place][query.value], rules) for place in places):
        return None
    if not _acro_passes(rows, query, rules):
        return None
    return [_cell(place, groups[place], query, rules) for place in places]


def _groups(rows: pd.DataFrame, query: Query) -> dict[tuple[str, ...], pd.DataFrame]:
    if not query.dimensions:
        return {(): rows}
    return {place: group for place, group in rows.groupby(list(query.dimensions))}  # noqa: C416, a GroupBy is no mapping


def _is_spread(values: pd.Series[float], rules: Queries) -> bool:
    """Whether a mean of these has enough degrees of freedom, and does not say what each of them is."""
    return len(values) - 1 >= rules.dof and values.nunique() > 1


def _acro_passes(rows: pd.DataFrame, query: Query, rules: Queries) -> bool:
    """acro's own verdict; it leaves dominance among negative values open, so that sizes are looked at."""
    from acro import ACRO

    session = ACRO(suppress=False)
    session.config.update(
        safe_threshold=rules.threshold,
        safe_dof_threshold=rules.dof,
        safe_nk_n=rules.nk.n,
        safe_nk_k=rules.nk.k,
        safe_pratio_p=rules.p_ratio,
        zeros_are_disclosive=True,
    )
    whole = pd.Series("", index=rows.index, name="whole")
    index = [rows[name].rename(f"row {name}") for name in query.rows] or [whole.rename("rows")]
    columns = [rows[name].rename(f"column {name}") for name in query.columns] or [whole.rename("columns")]
    values = None if query.value is None else rows[query.value].abs().rename("value")
    session.crosstab(index, columns, values=values, aggfunc=None if values is None else "mean")
    record = session.results.get_index(0)
    # Another table that this could be subtracted from is looked for in `overlap` and in the worker.
    found = {check: cells for check, cells in record.sdc["summary"].items() if check != "PresenceOfLinkedTableCheck"}
    return record.status == "pass" and "MinimumThresholdCheck" in found and not any(found.values())


def _cell(place: tuple[str, ...], group: pd.DataFrame, query: Query, rules: Queries) -> Cell:
    at = dict(zip(query.dimensions, place, strict=True))
    if query.value is None:
        return {"at": at, "count": round_count(len(group), rules.round_to)}
    return {"at": at, "mean": round_number(float(group[query.value].mean()), rules.significant_digits)}
