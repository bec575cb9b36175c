"""A number that was computed goes in, one that may be told comes out (pure)."""

from __future__ import annotations


def round_count(count: int, base: int) -> int:
    """The nearest multiple of ``base``, upwards from the middle on."""
    return (count + base // 2) // base * base


def round_number(value: float, digits: int) -> float:
    """``digits`` significant digits; never minus zero."""
    return float(f"{value:.{digits}g}") + 0.0
