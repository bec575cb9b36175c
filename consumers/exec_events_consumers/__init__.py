"""
The readers: tables, files and pages made of the record, and what it takes to make more of it.

`read` gives an analyst the record as tables in memory; `consume` runs a step of one's own over it. Both are
imported when they are asked for, so that importing this package stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .consuming import consume
    from .reading import read

__all__ = ["consume", "read"]

_MODULES = {"read": "reading", "consume": "consuming"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
