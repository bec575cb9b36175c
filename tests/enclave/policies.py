"""Texts of policy files, for the tests of the enclave."""

from __future__ import annotations

MINIMAL = "name: attainment\nversion: 1\ndata: /srv/attainment\nmode: held\n"
FULL = """\
name: attainment
version: 3
data: /srv/attainment
mode: held
stewards: 2
grid_seconds: 60
limits: {memory_bytes: 1_000_000_000, cpu_seconds: 60}
budgets: {cells: 100, queries: 20, epsilon: 1.0, epsilon_total: 5}
queries:
  threshold: 10
  nk: {n: 2, k: 0.9}
  epsilon_per_query: 0.1
  tables:
    pupils:
      file: pupils.csv
      person: pupil
      variables:
        school: {kind: category, values: [north, south]}
        score: {kind: number, lower: 0, upper: 100}
checker: {small_count: 10}
"""


def changed(old: str, new: str) -> str:
    """The full policy with one piece of text replaced."""
    assert FULL.count(old) == 1
    return FULL.replace(old, new)
