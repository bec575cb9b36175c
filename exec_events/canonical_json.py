"""
A JSON value goes in, the RFC 8785 bytes of what a JavaScript client would make of it come out.

`exec_events_schemas.record.canonical` is strict, for our own events. This one is for what kernels, clients and
notebooks say: integers beyond 2**53 are rounded to doubles, NaN and infinities become null, lone surrogates
become U+FFFD. It goes through orjson, which agrees with RFC 8785 on all but a few numbers and keys;
those are written out first, so that a figure with a million floats costs milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite
from typing import Any

import orjson
import rfc8785

MAX_DEPTH = 200

_MAX_INTEGER = 2**53 - 1
_ATOMS = frozenset({str, bool, type(None)})
_LAST_BEFORE_SURROGATES = "\ud7ff"


def canonical_json(value: Any, max_depth: int = MAX_DEPTH) -> bytes:
    """
    RFC 8785 bytes of a JSON value (dicts, lists, strings, numbers, booleans, None).

    Raises:
        ValueError: it is nested deeper than ``max_depth`` levels (at most 250), or holds something that is not JSON.
    """
    try:
        return _dump(_prepared(value, max_depth))
    except TypeError:
        pass
    try:
        return _dump(_prepared(_well_formed(value), max_depth))
    except TypeError as error:
        raise ValueError(f"not a JSON value: {error}") from error


def well_formed_text(text: str) -> str:
    """``text`` with each lone surrogate replaced by U+FFFD, and surrogates that make a pair joined."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _dump(prepared: Any) -> bytes:
    return orjson.dumps(prepared, option=orjson.OPT_SORT_KEYS)


def _prepared(value: Any, room: int) -> Any:
    """The value such that orjson writes it as RFC 8785 wants; the same object where it does already."""
    kind = type(value)
    if kind in _ATOMS:
        return value
    if kind is int:
        return value if -_MAX_INTEGER <= value <= _MAX_INTEGER else _number(value)
    if kind is float:
        return _number(value)
    if room <= 0:
        raise ValueError("JSON nested too deep")
    if isinstance(value, dict):
        return _members(value, room - 1)
    if isinstance(value, (list, tuple)):
        return _items(value, room - 1)
    raise ValueError(f"not a JSON value: {kind.__name__}")


def _items(values: Iterable[Any], room: int) -> Any:
    kinds = set(map(type, values))
    if kinds <= _ATOMS:
        return values
    if kinds == {float}:
        return [number if _is_simple(number) else _number(number) for number in values]
    return [_prepared(item, room) for item in values]


def _members(values: dict[Any, Any], room: int) -> Any:
    if not all(map(_sorts_the_same, values)):
        # Sorted here by UTF-16 code units, as RFC 8785 asks; orjson sorts by code points.
        names = sorted(values, key=lambda name: name.encode("utf-16-be", "surrogatepass"))
        members = [_dump(name) + b":" + _dump(_prepared(values[name], room)) for name in names]
        return orjson.Fragment(b"{" + b",".join(members) + b"}")
    if set(map(type, values.values())) <= _ATOMS:
        return values
    return {name: _prepared(item, room) for name, item in values.items()}


def _sorts_the_same(name: Any) -> bool:
    if not isinstance(name, str):
        raise ValueError(f"a key of a JSON object is not a string: {name!r}")
    return name.isascii() or max(name) <= _LAST_BEFORE_SURROGATES


def _is_simple(number: float) -> bool:
    """Whether orjson and JavaScript write it alike: no exponent, and not ``1.0`` for ``1``."""
    return 1e-5 <= abs(number) < 1e15 and number % 1 != 0


def _number(number: float) -> Any:
    if _is_simple(number):
        return number
    try:
        double = float(number)
    except OverflowError:
        return None
    if not isfinite(double):
        return None
    if abs(double) <= _MAX_INTEGER and double % 1 == 0:
        return int(double)
    return orjson.Fragment(rfc8785.dumps(double))


def _well_formed(value: Any) -> Any:
    if isinstance(value, str):
        return well_formed_text(value)
    if isinstance(value, dict):
        # Sorted, so that of two names that become one the same member stays, whatever their order was.
        return {well_formed_text(name): _well_formed(value[name]) for name in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [_well_formed(item) for item in value]
    return value
