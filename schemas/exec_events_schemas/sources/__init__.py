"""Sources: a spool's folder, JSON lines, or what a plug-in reads, as one stream of stored records."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from exec_events_schemas.errors import SourceError

from .jsonl import JsonLinesSource, StandardInputSource
from .later import LaterSource
from .spool import SpoolSource
from .stored import Damage, Last, OnDamage, Source, Start, StoredRecord, never, refuse_damage

__all__ = [
    "Damage",
    "Last",
    "OnDamage",
    "Source",
    "Start",
    "StoredRecord",
    "never",
    "open_source",
    "refuse_damage",
]

# An entry point's name is the scheme of its sources' URLs. It is called with the URL, and by keyword with
# start, partitions and settings; what it returns is a Source.
ENTRY_POINT_GROUP = "exec_events.sources"
EXPECTED = "Give spool://FOLDER, a folder, a .jsonl file or kafka://HOST:PORT."


def open_source(
    source: str | os.PathLike[str],
    *,
    start: Start | None = None,
    partitions: Sequence[int] = (),
    settings: Mapping[str, Any] | None = None,
) -> Source:
    """
    The source a person names.

    ``spool://FOLDER`` or a folder is a spool; ``file:///PATH.jsonl`` or a path ending in ``.jsonl``
    (or a rotated ``.jsonl.N``) is JSON lines; ``-`` is JSON lines on standard input. Other schemes, ``kafka://``
    among them, are entry points of the group ``exec_events.sources``, which ``partitions`` (none: all) and
    ``settings`` of the connection are for.

    Raises:
        SourceError: there is no such source, the name says none, or it has no partitions to choose from.
    """
    text = os.fspath(source)
    scheme = urlsplit(text).scheme.lower() if "://" in text else ""
    if scheme not in ("", "spool", "file"):
        return _plugged_in(scheme, text, start=start, partitions=partitions, settings=settings or {})
    if partitions:
        raise SourceError(f"{text!r} has no partitions to choose from: only the topics of kafka://HOST:PORT have")
    opened = _files(scheme, text)
    if start is None or isinstance(start, Last):
        return opened
    return LaterSource(opened, start, each_file=isinstance(opened, SpoolSource))


def _files(scheme: str, text: str) -> Source:
    if text == "-":
        return StandardInputSource()
    if scheme == "spool":
        return SpoolSource(_path(text))
    if scheme == "file":
        return JsonLinesSource(_path(text))
    path = Path(text).expanduser()
    if path.is_dir():
        return SpoolSource(path)
    if path.is_file() or ".jsonl" in path.suffixes:
        return JsonLinesSource(path)
    raise SourceError(f"{text!r} does not exist. {EXPECTED}")


def _plugged_in(scheme: str, url: str, **how: Any) -> Source:
    for entry_point in entry_points(group=ENTRY_POINT_GROUP, name=scheme):
        try:
            opened: Source = entry_point.load()(url, **how)
        except ImportError as error:
            needed = f"pip install 'exec-events[{scheme}]'"
            raise SourceError(f"{scheme}:// cannot be read here ({error}): {needed}") from error
        return opened
    # What follows the scheme may hold a password.
    raise SourceError(f"{scheme}:// is not read here. {EXPECTED}")


def _path(url: str) -> Path:
    """The path of a ``spool://`` or ``file://`` URL; what follows ``//`` may also be a relative path."""
    _, _, path = url.partition("://")
    path = path.removeprefix("localhost/") if path.startswith("localhost/") else path
    return Path(unquote(path)).expanduser()
