"""
A held output goes in, what a steward should look at comes out (pure).

The checker helps an honest person and a steward who reads. It does not see what is encoded in the low digits of a
number, in an image, in the order of lines or in words that it does not know, and no finding is no permission: `limits`
says so, and what shows findings shows it, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .policy import Checker

SMALL_COUNT = "small-count"
HIGH_PRECISION = "high-precision"
LONG_TEXT = "long-text"
ROW_OF_THE_DATA = "row-of-the-data"
IMAGE = "image"
NOT_TEXT = "not-text"
SIZE = "size"

_SHOWN = 5
_MOST_LINES = 20_000
_SHORTEST_VALUE = 2
_NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?(?![\w.]*\w)")
_CELLS = re.compile(r"[|,;\t]|\s{2,}")
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_TEXT_MIMES = frozenset({"text/plain", "text/markdown", "text/latex", "application/json"})


class Finding(NamedTuple):
    """One thing to look at: its kind, and what was found in words; never more of the output than a few numbers."""

    kind: str
    words: str


def limits() -> str:
    """What the checker does not see."""
    return (
        "The checker looks at text alone. It does not see what is hidden in low digits, in images, in spacing or "
        "order, or in values that were changed. No finding does not mean that an output is safe."
    )


def check(
    outputs: Sequence[Mapping[str, Any]], rules: Checker, rows: Iterable[Sequence[str]] = ()
) -> tuple[Finding, ...]:
    """
    The findings in the outputs of one run, as a notebook saves them.

    ``rows`` are rows of the data, as text; a line of the output that holds enough values of one is found.
    """
    texts, others = _parts(outputs)
    text = "\n".join(texts)
    lines = text.splitlines()[:_MOST_LINES]
    size = sum(len(part.encode("utf-8", "replace")) for part in texts) + sum(bytes_ for _, bytes_ in others)
    found = [
        *_size(size, text, rules),
        *_of_kinds(others),
        *_small_counts(lines, rules),
        *_high_precision(lines, rules),
        *_rows_of_the_data(lines, rows, rules),
    ]
    if len(text.splitlines()) > _MOST_LINES:
        found.append(Finding(SIZE, f"only the first {_MOST_LINES:,} lines were checked"))
    return tuple(found)


def _parts(outputs: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[tuple[str, int]]]:
    """The texts of outputs, and of what is no text each kind with its size."""
    texts: list[str] = []
    others: list[tuple[str, int]] = []
    for output in outputs:
        kind = output.get("output_type")
        if kind == "stream":
            texts.append(_text(output.get("text", "")))
        elif kind == "error":
            texts += [_text(output.get("ename", "")), _text(output.get("evalue", ""))]
            texts.append(_text("\n".join(map(str, output.get("traceback", [])))))
        for mime, body in (output.get("data") or {}).items():
            if mime in _TEXT_MIMES:
                texts.append(_text(body))
            else:
                others.append((mime, len(_text(body).encode("utf-8", "replace"))))
    return texts, others


def _text(body: Any) -> str:
    joined = "".join(map(str, body)) if isinstance(body, list) else str(body)
    return _ESCAPES.sub("", joined)


def _size(size: int, text: str, rules: Checker) -> Iterator[Finding]:
    if size > rules.output_bytes:
        yield Finding(SIZE, f"{size:,} bytes, and {rules.output_bytes:,} is what the policy calls large")
    length = len(text.encode("utf-8", "replace"))
    if length > rules.text_bytes:
        yield Finding(LONG_TEXT, f"{length:,} bytes of text: too much to read at a glance is enough to hide in")


def _of_kinds(others: list[tuple[str, int]]) -> Iterator[Finding]:
    for mime, size in others:
        if mime.startswith("image/"):
            yield Finding(
                IMAGE, f"{mime} of {size:,} bytes: an image can hold anything, its points are persons' values"
            )
        else:
            yield Finding(NOT_TEXT, f"{mime} of {size:,} bytes, which was not looked into")


def _small_counts(lines: list[str], rules: Checker) -> Iterator[Finding]:
    """Whole numbers below the bound that stand alone in a cell of a line with several."""
    found = []
    for number, line in enumerate(lines, 1):
        cells = [cell.strip() for cell in _CELLS.split(line.strip()) if cell.strip()]
        # The first cell of a table's line is its label.
        values = [int(cell) for cell in cells[1:] if cell.isdecimal() and len(cell) < 10]
        found += [f"{value} in line {number}" for value in values if 0 < value < rules.small_count]
    if found:
        yield Finding(SMALL_COUNT, f"numbers that may be counts below {rules.small_count}: {_few(found)}")


def _high_precision(lines: list[str], rules: Checker) -> Iterator[Finding]:
    found = [
        f"{text} in line {number}"
        for number, line in enumerate(lines, 1)
        for text in _NUMBER.findall(line)
        if _digits(text) > rules.significant_digits and "." in text
    ]
    if found:
        words = f"numbers with more than {rules.significant_digits} significant digits, which can tell persons apart"
        yield Finding(HIGH_PRECISION, f"{words}: {_few(found)}")


def _digits(number: str) -> int:
    mantissa = re.split("[eE]", number)[0]
    return len(re.sub(r"\D", "", mantissa).lstrip("0"))


def _rows_of_the_data(lines: list[str], rows: Iterable[Sequence[str]], rules: Checker) -> Iterator[Finding]:
    """Lines that hold, as whole words, at least so many different values of one row."""
    words_of = [set(re.findall(r"[^\s|,;:'\"\[\](){}=]+", line)) for line in lines]
    has_word: dict[str, set[int]] = {}
    for number, words in enumerate(words_of, 1):
        for word in words:
            has_word.setdefault(word, set()).add(number)
    found: set[int] = set()
    for row in rows:
        seen: dict[int, int] = {}
        for value in {value for value in row if len(value) >= _SHORTEST_VALUE}:
            for number in has_word.get(value, ()):
                seen[number] = seen.get(number, 0) + 1
        found.update(number for number, count in seen.items() if count >= rules.verbatim_values)
    if found:
        shown = [f"line {number}" for number in sorted(found)]
        yield Finding(ROW_OF_THE_DATA, f"{rules.verbatim_values} or more values of one row of the data: {_few(shown)}")


def _few(found: list[str]) -> str:
    rest = f", and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + rest
