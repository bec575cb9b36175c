"""The bodies a kernel sent go in one by one, the few rows that an event says of them come out."""

from __future__ import annotations

import re
from typing import Any

ERROR_MIME = "application/vnd.jupyter.error"

_MAX_ROWS = 64
_MAX_KIND_ROWS = 32
_STREAM_NAMES = frozenset({"stdout", "stderr"})
_NAME = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*"
_MIME = re.compile(rf"(?:application|audio|font|image|message|model|multipart|text|video)/{_NAME}")
_MAX_MIME = 128


class OutputCounts:
    """
    How many bodies of which kind and MIME type, and their bytes: the ``outputs`` of an event.

    Names come from the kernel, so only plain MIME types of registered top-level types are kept, and only the
    first 31 of a kind; the rest is counted as ``other``. Streams are ``stdout``, ``stderr`` or ``other``.
    """

    __slots__ = ("_rows",)

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], list[int]] = {}

    def add(self, kind: str, mime: str, size: int) -> None:
        """Count one body of ``size`` bytes."""
        row = self._rows.get((kind, mime))
        if row is None:
            row = self._new_row(kind, mime)
        row[0] += 1
        row[1] += size

    def rows(self) -> list[dict[str, Any]]:
        """Rows ``{"kind", "mime", "count", "bytes"}`` sorted by kind and mime: at most 32 of a kind and 64 in all."""
        rows = dict(self._rows)
        surplus = len(rows) - _MAX_ROWS
        if surplus > 0:
            _fold(rows, surplus)
        return [
            {"kind": kind, "mime": mime, "count": count, "bytes": size}
            for (kind, mime), (count, size) in sorted(rows.items())
        ]

    def _new_row(self, kind: str, mime: str) -> list[int]:
        named = sum(of == kind and name != "other" for of, name in self._rows)
        if named >= _MAX_KIND_ROWS - 1 or not _is_plain(kind, mime):
            mime = "other"
        return self._rows.setdefault((kind, mime), [0, 0])


def _is_plain(kind: str, mime: str) -> bool:
    if kind == "stream":
        return mime in _STREAM_NAMES
    return len(mime) <= _MAX_MIME and _MIME.fullmatch(mime) is not None


def _fold(rows: dict[tuple[str, str], list[int]], surplus: int) -> None:
    """Fold the last ``surplus`` rows of results in their row "other"."""
    named = sorted(row for row in rows if row[0] == "execute_result" and row[1] != "other")
    if ("execute_result", "other") not in rows:
        surplus += 1
    count, size = rows.get(("execute_result", "other"), (0, 0))
    for row in named[-surplus:]:
        more = rows.pop(row)
        count, size = count + more[0], size + more[1]
    rows["execute_result", "other"] = [count, size]
