"""What the checker points a steward to in held outputs, and what it says that it does not see."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exec_events_enclave.checker import Finding, check, limits
from exec_events_enclave.policy import Checker

RULES = Checker()
ROWS = [["p17", "north", "83.25", "1"], ["p18", "south", "12.5", "2"]]


def stream(text: str) -> dict[str, Any]:
    """An output as print makes it."""
    return {"output_type": "stream", "name": "stdout", "text": text}


def shown(**data: Any) -> dict[str, Any]:
    """An output as display makes it, by a word for its kind."""
    mimes = {"png": "image/png", "html": "text/html", "plain": "text/plain", "svg": "image/svg+xml"}
    return {"output_type": "display_data", "data": {mimes[kind]: body for kind, body in data.items()}, "metadata": {}}


def kinds(*outputs: dict[str, Any], rules: Checker = RULES, rows: Any = ROWS) -> list[str]:
    """The kinds of what is found."""
    return [finding.kind for finding in check(outputs, rules, rows)]


@pytest.mark.parametrize(
    ("output", "found"),
    [
        (stream("school  pupils\nnorth       60\nsouth        3\n"), ["small-count"]),
        (stream("school,pupils\nnorth,60\nsouth,1\n"), ["small-count"]),
        (stream("| school | n |\n|---|---|\n| north | 7 |\n"), ["small-count"]),
        (shown(plain="north  9\nsouth  10"), ["small-count"]),
        (stream("school  pupils\nnorth       60\nsouth       65\n"), []),
        (stream("school  pupils\nnorth       60\nsouth        0\n"), []),
        (stream("mean 50.12345678\n"), ["high-precision"]),
        (stream("mean \x1b[31m50.12345678\x1b[0m\n"), ["high-precision"]),
        (stream("-1.23456e-05"), ["high-precision"]),
        (stream("mean 50.1\nshare 0.025\n"), []),
        (stream("version 1.2.3.4567"), []),
        (stream("x" * 3000), ["long-text"]),
        (stream("x" * 200_000), ["size", "long-text"]),
        (stream("p17 north 83.25"), ["row-of-the-data"]),
        (stream("{'pupil': 'p18', 'school': 'south', 'score': 12.5}"), ["row-of-the-data"]),
        (stream("p17 south 83.25"), []),
        (stream("p17 north"), []),
        (shown(png="iVBORw0KGgo="), ["image"]),
        (shown(svg="<svg/>"), ["image"]),
        (shown(html="<b>3</b>", plain="three"), ["not-text"]),
        (
            {"output_type": "error", "ename": "KeyError", "evalue": "p17 north 83.25", "traceback": []},
            ["row-of-the-data"],
        ),
        ({"output_type": "error", "ename": "E", "evalue": "", "traceback": ["a 1.2345678", "b"]}, ["high-precision"]),
        (stream(""), []),
    ],
)
def test_what_is_found(output: dict[str, Any], found: list[str]) -> None:
    """Small counts, many digits, length, rows of the data, images and what is no text are found, and harmless text is not."""
    assert kinds(output) == found


def test_the_policy_sets_the_bounds() -> None:
    """What is small, precise, long or a row is what the policy of the dataset says."""
    strict = Checker(small_count=100, significant_digits=2, text_bytes=5, verbatim_values=2)
    assert kinds(stream("school  pupils\nnorth   60\nmean  1.25\np17 north"), rules=strict) == [
        "long-text",
        "small-count",
        "high-precision",
        "row-of-the-data",
    ]


def test_findings_say_where_and_not_all() -> None:
    """A finding names the lines, a few of them, and how many more there are."""
    (finding,) = check([stream("\n".join(f"school{n}  3" for n in range(9)))], RULES)
    assert finding.words.endswith("3 in line 1, 3 in line 2, 3 in line 3, 3 in line 4, 3 in line 5, and 4 more")


def test_it_says_where_it_stopped_looking() -> None:
    """Of an output with very many lines it says how many it checked."""
    assert Finding("size", "only the first 20,000 lines were checked") in check([stream("a\n" * 20_001)], RULES)


def test_it_says_what_it_does_not_see() -> None:
    """The words on its limits name images, low digits and order, and that no finding is no permission."""
    assert all(word in limits() for word in ("low digits", "images", "order", "No finding does not mean"))


@pytest.mark.parametrize(
    "hidden",
    ["scores 50.1 60.2 83.2", "n0rth p-17 eighty-three", "bits 0 1 1 0 1 0 0 1"],
    ids=["rounded", "changed", "bits"],
)
def test_what_it_is_known_not_to_see(hidden: str) -> None:
    """Values that were rounded, spelled otherwise or encoded are not found: this is why a person decides."""
    assert kinds(stream(hidden)) == []


@given(
    st.lists(
        st.dictionaries(st.text(max_size=12), st.text() | st.integers() | st.none() | st.lists(st.text())), max_size=5
    )
)
def test_any_output_can_be_checked(outputs: list[dict[str, Any]]) -> None:
    """Whatever an output holds, checking it gives findings in words and nothing else."""
    for finding in check([{"output_type": "stream", **output} for output in outputs], RULES, ROWS):
        assert finding.kind
        assert finding.words
