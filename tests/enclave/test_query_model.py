"""Declared queries as they come: what is one, what is refused with which words, and which can be subtracted."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exec_events_enclave.errors import QueryError
from exec_events_enclave.policy_file import parse_policy
from exec_events_enclave.query.model import Query, read_query
from exec_events_enclave.query.overlap import Asked, overlapping, with_other_filters
from exec_events_enclave.query.rounding import round_count, round_number
from policies import FULL, MINIMAL

POLICY = parse_policy(FULL)
COUNT = {"table": "pupils", "statistic": "count", "rows": ["school"]}
MEAN = {"table": "pupils", "statistic": "mean", "value": "score", "rows": ["school"]}
NORTH = {"variable": "school", "equals": ["north"]}


def read(query: Any) -> Query:
    """A query as it comes over the wire."""
    return read_query(json.dumps(query).encode(), POLICY)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({**COUNT, "table": "teachers"}, "there is no table 'teachers'; there are pupils"),
        ({**COUNT, "rows": ["pupil"]}, "there is no variable 'pupil' to ask for; there are school, score"),
        ({**MEAN, "value": "name"}, "there is no variable 'name' to ask for"),
        ({**COUNT, "where": [{"variable": "name", "equals": ["x"]}]}, "there is no variable 'name' to ask for"),
        ({**COUNT, "rows": ["score"]}, "rows and columns are categories, and score is a number"),
        ({**MEAN, "value": "school", "rows": []}, "a mean is of numbers, and school is a category"),
        ({**COUNT, "where": [{"variable": "school", "at_least": 1}]}, "school is a category: categories have equals"),
        ({**COUNT, "where": [{"variable": "score", "equals": ["1"]}]}, "score is a number: categories have equals"),
        ({**COUNT, "where": [{"variable": "school", "equals": ["' OR 1=1 --"]}]}, "school is never \"' OR 1=1 --\"; it can be north, south"),
        ({**COUNT, "where": [{"variable": "school", "equals": ["north"], "below": 2}]}, "give either equals, or at_least"),
        ({**COUNT, "where": [{"variable": "score"}]}, "give either equals, or at_least"),
        ({**COUNT, "where": [{"variable": "score", "at_least": 2, "below": 2}]}, "at_least must be less than below"),
        ({**COUNT, "where": [NORTH, NORTH]}, "a variable has one condition"),
        ({**COUNT, "where": "score > 5"}, "where: Input should be a valid array"),
        ({**COUNT, "where": [{"variable": "__import__('os').system('id')", "equals": ["x"]}]}, "there is no variable"),
        ({**COUNT, "where": [{"variable": "score", "at_least": "0; DROP TABLE x"}]}, "where.0.at_least: Input should be a valid number"),
        ({**COUNT, "where": [{"variable": "school", "equals": [7]}]}, "where.0.equals.0: Input should be a valid string"),
        ({**COUNT, "where": [{"variable": "school", "equals": ["x"] * 51}]}, "at most 50 items"),
        ({**COUNT, "where": [NORTH] * 6}, "at most 5 items"),
        ({**COUNT, "columns": ["school"]}, "a variable is in rows or columns once"),
        ({**COUNT, "rows": ["school"] * 3}, "rows: Tuple should have at most 2 items"),
        ({**COUNT, "value": "score"}, "a mean needs the value it is of, and a count has none"),
        ({**COUNT, "statistic": "mean"}, "a mean needs the value it is of"),
        ({**COUNT, "statistic": "max"}, "statistic: Input should be 'count' or 'mean'"),
        ({**COUNT, "code": "print(1)"}, "code: unknown key"),
        ({**COUNT, "rows": ["x" * 200]}, "at most 128 characters"),
        ({"statistic": "count"}, "table: Field required"),
        ([COUNT], "the query: Input should be an object"),
        ({**COUNT, "rows": ["x" * 20_000]}, "a query is not longer than 10,000 bytes"),
    ],
)  # fmt: skip
def test_what_is_no_query_is_told(query: Any, words: str) -> None:
    """A query that is none, too large, or names what the policy does not allow is refused with what would be right."""
    with pytest.raises(QueryError) as caught:
        read(query)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"\xff", b"NaN", b"[" * 9000, b'{"table": "pupils", "statistic": "count"} x']
)
def test_bytes_that_are_no_json(raw: bytes) -> None:
    """What is no JSON is told as such, however it is broken."""
    with pytest.raises(QueryError, match=r"no JSON|should be an object"):
        read_query(raw, POLICY)


def test_infinities_are_no_bounds() -> None:
    """A bound that is no finite number is refused."""
    with pytest.raises(QueryError, match="finite"):
        read_query(
            b'{"table": "pupils", "statistic": "count", "where": [{"variable": "score", "below": 1e999}]}', POLICY
        )


def test_a_dataset_without_queries_takes_none() -> None:
    """Where the policy declares no queries each is refused."""
    with pytest.raises(QueryError, match="attainment takes no declared queries"):
        read_query(json.dumps(COUNT).encode(), parse_policy(MINIMAL))


@settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_is_a_query_or_refused(value: Any) -> None:
    """Whatever JSON comes, reading it raises QueryError or gives a query, and nothing else."""
    for query in (value, {**COUNT, "where": value}, {**COUNT, "rows": value}, {**MEAN, "value": value}):
        with suppress(QueryError):
            assert isinstance(read(query), Query)


def test_the_order_of_conditions_does_not_matter() -> None:
    """Conditions and their values in another order, or twice, are the same query with the same hash."""
    low = {"variable": "score", "at_least": 10}
    one = read({**COUNT, "where": [low, {"variable": "school", "equals": ["south", "north", "north"]}]})
    other = read({**COUNT, "where": [{"variable": "school", "equals": ["north", "south"]}, low]})
    assert one == other
    assert one.digest == other.digest
    assert read({**COUNT, "where": [low]}).digest != one.digest


@pytest.mark.parametrize(
    ("earlier", "later", "overlaps"),
    [
        (COUNT, COUNT, False),
        (COUNT, {**COUNT, "where": [NORTH]}, True),
        ({**COUNT, "where": [NORTH]}, COUNT, True),
        (COUNT, {**COUNT, "columns": [], "rows": [], "where": [NORTH]}, True),
        ({**COUNT, "rows": [], "where": [NORTH]}, MEAN, True),
        (MEAN, {**MEAN, "where": [{"variable": "score", "at_least": 10}]}, True),
        (MEAN, COUNT, False),
    ],
)
def test_what_could_be_subtracted(earlier: Any, later: Any, overlaps: bool) -> None:
    """Another filter on the same variables, or on some of them, overlaps; another table of the same filter does not."""
    asked = [Asked("q-1", read(earlier))]
    assert (overlapping(read(later), asked) is not None) == overlaps
    assert bool(with_other_filters(read(later), asked)) == overlaps


def test_other_variables_are_left_to_the_worker() -> None:
    """Two tables with no variables in common do not overlap by themselves; with other filters their people are compared."""
    mean = Query(table="pupils", statistic="mean", value="score", where=())
    count = Query.model_validate({**COUNT, "where": [{"variable": "score", "below": 3}]})
    assert overlapping(count, [Asked("q-1", mean)]) is None
    assert with_other_filters(count, [Asked("q-1", mean)])


@given(st.integers(0, 10**9), st.integers(1, 1000))
def test_a_rounded_count_is_a_multiple_and_near(count: int, base: int) -> None:
    """A count becomes a multiple of the base, at most half of it away."""
    assert round_count(count, base) % base == 0
    assert abs(round_count(count, base) - count) * 2 <= base


@given(st.floats(-1e12, 1e12), st.integers(1, 6))
def test_a_rounded_number_has_no_more_digits(value: float, digits: int) -> None:
    """A number keeps so many significant digits and no more, and is never minus zero."""
    rounded = round_number(value, digits)
    assert rounded == float(f"{rounded:.{digits}g}")
    assert str(rounded) != "-0.0"
