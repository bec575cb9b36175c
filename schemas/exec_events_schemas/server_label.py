"""
What a site calls a server of a user's: a name in, a label out from which nobody without the site's key tells it.

The Hub gives each server its label, its recorder repeats it, and who knows from the Hub which servers run makes the
same labels: so a recorder is found that a server should have. Neither side needs the key of the pseudonyms.
"""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from .errors import LabelKeyError

# Where a server finds its label.
ENVIRONMENT = "EXEC_EVENTS_SERVER_LABEL"
SHORTEST_KEY = 32


def server_label(key: bytes, user: str, server: str = "") -> str:
    """The label of the server ``server`` ("" is the default one) of a user."""
    message = f"server\0{user}\0{server}".encode()
    key_id = sha256(b"exec-events server key" + key).hexdigest()[:8]
    return f"s:{key_id}:{hmac.new(key, message, sha256).hexdigest()[:32]}"


def label_of_spawner(key: bytes) -> Callable[[Any], str]:
    """For the environment of a JupyterHub's spawners, whose values it calls with the spawner."""
    return lambda spawner: server_label(key, spawner.user.name, spawner.name)


def label_key(path: Path) -> bytes:
    """
    The key in a file, which is made where it is not there, for this account's eyes alone.

    Raises LabelKeyError for one that others can read, and for one that can be guessed.
    """
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{secrets.token_hex(32)}\n")
    except FileExistsError:
        pass
    except OSError as error:
        raise LabelKeyError(f"the key of the servers' labels cannot be made: {error}") from error
    try:
        with path.open() as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise LabelKeyError(f"others can read {path}: chmod 600 it")
            key = file.read().strip().encode()
    except OSError as error:
        raise LabelKeyError(f"the key of the servers' labels cannot be read: {error}") from error
    if len(key) < SHORTEST_KEY:
        raise LabelKeyError(f"the key in {path} is shorter than {SHORTEST_KEY} characters: delete it for a new one")
    return key
