"""
Rows and a query go in, the cells of its table with noise come out: differential privacy, through OpenDP.

Adding or removing one person changes one cell, because a table has one row for each and its cells are disjoint. So
a table of counts costs epsilon once, however many cells it has. A mean is a sum over a count, at half of epsilon
each. Sums are of whole millionths of the range between the bounds, because the noise of floats can be told apart.
Which cells there are comes from the policy, and acro is not asked: both would say something without noise.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import opendp.prelude as dp
import pandas as pd

from exec_events_enclave.policy import Queries, Table

from .model import Query
from .rounding import round_count, round_number
from .rules import MAX_CELLS, Cell

_STEPS = 1_000_000


def noisy(frame: pd.DataFrame, query: Query, table: Table, rules: Queries, epsilon: float) -> list[Cell] | None:
    """The noisy, rounded cells; None where a noisy count is below the threshold, or there are too many cells."""
    places = list(product(*(table.variables[name].values or () for name in query.dimensions)))
    if len(places) > MAX_CELLS:
        return None
    rows = frame.dropna(subset=sorted(query.variables))
    counts, sums = _sums(rows, query, table, places)
    if query.value is None:
        found = _with_noise(counts, 1, epsilon)
        if min(found) < rules.threshold:
            return None
        return [
            _at(query, place, "count", round_count(n, rules.round_to)) for place, n in zip(places, found, strict=True)
        ]
    found, noisy_sums = _with_noise(counts, 1, epsilon / 2), _with_noise(sums, _STEPS, epsilon / 2)
    if min(found) < rules.threshold:
        return None
    lower, upper = _bounds(table, query.value)
    means = [
        lower + min(max(total / n / _STEPS, 0.0), 1.0) * (upper - lower)
        for total, n in zip(noisy_sums, found, strict=True)
    ]
    digits = rules.significant_digits
    return [_at(query, place, "mean", round_number(mean, digits)) for place, mean in zip(places, means, strict=True)]


def _with_noise(values: list[int], sensitivity: int, epsilon: float) -> list[int]:
    """Each value with discrete Laplace noise, such that what one person changes costs ``epsilon`` at most."""
    dp.enable_features("contrib")
    space = dp.vector_domain(dp.atom_domain(T=int)), dp.l1_distance(T=int)
    # A little more noise than exactly enough, so that no rounding makes the cost larger than what was debited.
    measurement = dp.m.make_laplace(*space, scale=sensitivity / epsilon * (1 + 1e-9))
    if measurement.map(sensitivity) > epsilon:
        raise RuntimeError("the noise is less than the policy's epsilon needs")
    return [int(value) for value in measurement(values)]


def _sums(rows: pd.DataFrame, query: Query, table: Table, places: list[tuple[str, ...]]) -> tuple[list[int], list[int]]:
    """How many people there are in each place, and the sum of their values in steps above the lower bound."""
    counts = dict.fromkeys(places, 0)
    sums = dict.fromkeys(places, 0)
    keys = rows[list(query.dimensions)].itertuples(index=False, name=None) if query.dimensions else ((),) * len(rows)
    steps = [0] * len(rows)
    if query.value is not None:
        lower, upper = _bounds(table, query.value)
        shares = (rows[query.value].clip(lower, upper) - lower) / (upper - lower)
        steps = [min(max(round(share * _STEPS), 0), _STEPS) for share in shares]
    for place, step in zip(keys, steps, strict=True):
        if place in counts:
            counts[place] += 1
            sums[place] += step
    return list(counts.values()), list(sums.values())


def _bounds(table: Table, name: str) -> tuple[float, float]:
    variable = table.variables[name]
    if variable.lower is None or variable.upper is None:
        raise RuntimeError(f"{name} has no bounds; the policy's validation sees to it")
    return variable.lower, variable.upper


def _at(query: Query, place: tuple[str, ...], statistic: str, value: Any) -> Cell:
    return {"at": dict(zip(query.dimensions, place, strict=True)), statistic: value}
