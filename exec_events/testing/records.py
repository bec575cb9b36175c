"""A server's spool in, its records as dictionaries out, waiting for them if need be."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from exec_events_schemas.sources.jsonl import line_of
from exec_events_schemas.sources.spool import SpoolSource
from exec_events_schemas.spool_layout import FOLDER_NAME

# {"event": ..., "seal": {"chain", "seq", "prev"}, "hash": "sha256:..."}
Record = dict[str, Any]


def records(data_dir: Path) -> list[Record]:
    """
    All records under a Jupyter data folder: files by start of their recorder, records as sealed.

    It reads what is committed at the moment, also while servers write and after they were killed.
    """
    folder = data_dir / FOLDER_NAME
    if not folder.is_dir():
        return []
    return [orjson.loads(line_of(stored)) for stored in SpoolSource(folder)]


def events(data_dir: Path, name: str) -> list[dict[str, Any]]:
    """The events of one schema, as ``events(data_dir, "cell_execution")``."""
    return [record["event"] for record in records(data_dir) if _schema_of(record) == name]


def wait_for_records(data_dir: Path, predicate: Callable[[list[Record]], bool], timeout: float = 10.0) -> list[Record]:
    """
    The records, once ``predicate`` holds for them.

    Raises:
        TimeoutError: it did not in ``timeout`` seconds; the text says what there was.
    """
    deadline = time.monotonic() + timeout
    while True:
        found = records(data_dir)
        if predicate(found):
            return found
        if time.monotonic() > deadline:
            kinds = [_schema_of(record) for record in found]
            counted = {kind: kinds.count(kind) for kind in sorted(set(kinds))}
            raise TimeoutError(f"not the records waited for in {timeout} s; there are {counted or 'none'}")
        time.sleep(0.02)


def executions_of(count: int) -> Callable[[list[Record]], bool]:
    """A predicate for `wait_for_records`: at least ``count`` executions are over."""

    def enough(found: list[Record]) -> bool:
        return sum(_schema_of(record) == "cell_execution" for record in found) >= count

    return enough


def _schema_of(record: Record) -> str:
    # "https://exec-events.org/schemas/<event>/v1"
    return str(record["event"].get("__schema__", "")).rstrip("/").rpartition("/")[0].rpartition("/")[2]
