"""A folder that is there whole, or not at all."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import ConsumerError


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """
    A place beside ``folder``, not there yet, that takes its name when the block ends, and is removed when it fails.

    Raises ConsumerError where the folder holds something, or the block could not write.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConsumerError(f"{folder} is there already; name a folder that is empty, or not there yet")
    draft = folder.absolute().with_name(f".{folder.absolute().name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        yield draft
        draft.rename(folder)
    except (OSError, sqlite3.Error) as error:
        raise ConsumerError(f"{folder} cannot be written: {error}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
