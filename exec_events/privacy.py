"""
The site's policy: what names become before anything leaves the server (pure, but for reading the key).

By default a subject and a notebook path become pseudonyms: HMAC-SHA256 under a key of the site's, so
that equal names stay equal here and mean nothing elsewhere (docs/hashing.md).
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from .errors import ConfigurationError

KEY_BYTES = 32
_ERROR_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:]{0,127}\Z")


def load_key(path: Path) -> bytes:
    """
    The key kept in ``path`` as 64 hexadecimal digits, made on first use with mode 0600.

    Raises ConfigurationError when it is not a key, or others than its owner may read it.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return read_key(path)
    except FileNotFoundError:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return load_key(path)
    key = secrets.token_bytes(KEY_BYTES)
    with os.fdopen(descriptor, "w") as file:
        file.write(key.hex() + "\n")
        file.flush()
        os.fsync(file.fileno())
    return key


def read_key(path: Path) -> bytes:
    """The key kept in ``path``; raises ConfigurationError when there is none or others may read it."""
    try:
        text = path.read_text().strip()
        mode = path.stat().st_mode
    except OSError as error:
        raise ConfigurationError(f"cannot read the key {path}: {error.strerror}") from error
    if os.name == "posix" and mode & 0o077:
        raise ConfigurationError(f"others may read the key {path}: run chmod 600 on it")
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ConfigurationError(f"{path} does not hold a key (64 hexadecimal digits); move it away to get a new one")
    return bytes.fromhex(text)


def key_id(key: bytes) -> str:
    """The name of a key, 8 hexadecimal digits that say nothing of it."""
    return sha256(b"exec-events key id" + key).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """Names to pseudonyms; with ``key`` None (identity = "plain") names stay as they are."""

    key: bytes | None

    def subject(self, name: str) -> str:
        """What stands for a user's name in events."""
        return self._pseudonym("subject", name, 256)

    def notebook(self, path: str) -> str:
        """What stands for a notebook's path in events."""
        return self._pseudonym("notebook", path, 1024)

    def _pseudonym(self, domain: str, name: str, limit: int) -> str:
        if self.key is None:
            return clean(name, limit) or "unknown"
        message = f"{domain}\0{name}".encode("utf-8", "surrogatepass")
        return f"p:{key_id(self.key)}:{hmac.new(self.key, message, sha256).hexdigest()[:32]}"


def clean(text: Any, limit: int) -> str:
    """A string that can stand in an event: no lone surrogates, no control characters, at most ``limit`` long."""
    plain = str(text).encode("utf-8", "replace").decode()
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in plain[:limit])


def error_name(name: str | None) -> str | None:
    """
    An error's name as an event may carry it: a plain identifier, else ``other``; None when there is none.

    An error's name is chosen by whoever wrote the code, so it gets no room for data.
    """
    if not name:
        return None
    return name if _ERROR_NAME.match(name) else "other"


def chain_of(recorder_id: str, subject: str) -> str:
    """The name of the chain of one subject at one recorder."""
    return f"{recorder_id}/{sha256(subject.encode()).hexdigest()[:16]}"
