"""Where this user's record is kept: the spools' folders and the key of its pseudonyms."""

from __future__ import annotations

from pathlib import Path

from jupyter_core.paths import jupyter_data_dir

from exec_events_schemas.spool_layout import FOLDER_NAME

HANDLERS_FOLDER_NAME = "exec-events-handlers"
KEY_NAME = "pseudonym.key"


def spool_folder() -> Path:
    """This user's spool: ``exec-events`` in Jupyter's data directory; it may not exist yet."""
    return Path(jupyter_data_dir()) / FOLDER_NAME


def key_file() -> Path:
    """The key that pseudonyms are made with, beside the spool's files; it may not exist yet."""
    return spool_folder() / KEY_NAME


def handler_folder(name: str) -> Path:
    """
    The spool of the event handlers of that name; it may not exist yet.

    It is not in the user's own spool, for who starts in a folder adopts what was left in it.
    """
    return Path(jupyter_data_dir()) / HANDLERS_FOLDER_NAME / name
