"""
A CSV file of two columns as a lookup that follows the file: read again when it has changed.

What cannot be read is an error at first; later, what was read before stays, and the error is told.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..errors import ConsumerError

Pairs = dict[str, str]
Signature = tuple[int, int, int]

_UNREADABLE = (OSError, UnicodeDecodeError, csv.Error)


class PairsError(ConsumerError):
    """A file that does not hold what it should; says what to do."""


def read_pairs(path: Path, key: str, value: str, *, is_secret: bool = False, is_one_to_one: bool = False) -> Pairs:
    """
    The two columns of those names in a CSV file with a header.

    A secret file is refused where others may read it. Raises PairsError, with no value of a secret in its text.
    """
    pairs: dict[str, str] = {}
    seen: set[str] = set()
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if is_secret and os.name == "posix" and os.fstat(file.fileno()).st_mode & 0o077:
                raise PairsError(f"others may read {path}: run chmod 600 on it")
            rows = csv.DictReader(file, strict=True)
            if not {key, value} <= set(rows.fieldnames or ()):
                raise PairsError(f"the first line of {path} must be {key},{value}")
            for row in rows:
                one, other = ((row[column] or "").strip() for column in (key, value))
                at = f"line {rows.line_num} of {path}"
                if not one and not other:
                    continue
                if not one or not other:
                    raise PairsError(f"{at} has no {value if one else key}")
                if one in pairs:
                    raise PairsError(f"{at} has a {key} that stands in a line before; leave one of the two")
                if is_one_to_one and other in seen:
                    raise PairsError(f"{at} has a {value} that stands in a line before; each is of one {key} only")
                pairs[one] = other
                seen.add(other)
    except _UNREADABLE as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no CSV in UTF-8"
        raise PairsError(f"{path} cannot be read: {reason}") from error
    return pairs


class PairsFile:
    """The pairs in a file, as it is now; ``say`` is told when it cannot be read any more."""

    def __init__(
        self,
        path: Path,
        key: str,
        value: str,
        *,
        is_secret: bool = False,
        is_one_to_one: bool = False,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.path = path
        self._read: Callable[[], Pairs] = partial(
            read_pairs, path, key, value, is_secret=is_secret, is_one_to_one=is_one_to_one
        )
        self._say = say
        self._pairs = self._read()
        self._signature = self._look()

    def now(self) -> Pairs:
        """What it holds; where it has become unreadable, what it held before."""
        signature = self._look()
        if signature != self._signature:
            self._signature = signature
            try:
                self._pairs = self._read()
            except PairsError as error:
                self._say(f"{error}; what it held before still counts")
        return self._pairs

    def _look(self) -> Signature | None:
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
