"""Sources: a spool's folder, or JSON lines, as one stream of stored records."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from exec_events_schemas.errors import SourceError

from .jsonl import JsonLinesSource, StandardInputSource
from .spool import SpoolSource
from .stored import Damage, OnDamage, Source, StoredRecord, refuse_damage

__all__ = ["Damage", "OnDamage", "Source", "StoredRecord", "open_source", "refuse_damage"]


def open_source(source: str | os.PathLike[str]) -> Source:
    """
    The source a person names.

    ``spool://FOLDER`` or a folder is a spool; ``file:///PATH.jsonl`` or a path ending in ``.jsonl``
    (or a rotated ``.jsonl.N``) is JSON lines; ``-`` is JSON lines on standard input.

    Raises:
        SourceError: there is no such folder or file, or the name says neither.
    """
    text = os.fspath(source)
    if text == "-":
        return StandardInputSource()
    scheme = urlsplit(text).scheme if "://" in text else ""
    if scheme == "spool":
        return SpoolSource(_path(text))
    if scheme == "file":
        return JsonLinesSource(_path(text))
    if scheme:
        raise SourceError(f"{text!r}: {scheme}:// is not read here. Give spool://FOLDER, a folder or a .jsonl file.")
    path = Path(text).expanduser()
    if path.is_dir():
        return SpoolSource(path)
    if path.is_file() or ".jsonl" in path.suffixes:
        return JsonLinesSource(path)
    raise SourceError(f"{text!r} does not exist. Give spool://FOLDER, a folder or a .jsonl file.")


def _path(url: str) -> Path:
    """The path of a ``spool://`` or ``file://`` URL; what follows ``//`` may also be a relative path."""
    _, _, path = url.partition("://")
    path = path.removeprefix("localhost/") if path.startswith("localhost/") else path
    return Path(unquote(path)).expanduser()
