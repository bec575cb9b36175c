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
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from .errors import ConfigurationError
from .hashing import key_id

KEY_BYTES = 32
SUBJECT_LIMIT = 256
_ERROR_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:]{0,127}\Z")


def load_key(path: Path) -> bytes:
    """
    The key kept in ``path`` as 64 hexadecimal digits, made on first use with mode 0600.

    Raises ConfigurationError when it is not a key, or others than its owner may read it.
    """
    if path.exists():
        return read_key(path)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_key(path)
    except OSError as error:
        raise ConfigurationError(f"cannot make the key {path}: {error.strerror}") from error
    return read_key(path)


def _make_key(path: Path) -> None:
    """Make ``path`` a new key, whole or not at all; where another server is faster, its key stays."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_bytes(KEY_BYTES).hex() + "\n")
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def read_key(path: Path) -> bytes:
    """The key kept in ``path``; raises ConfigurationError when there is none or others may read it."""
    try:
        text = path.read_text(errors="replace").strip()
        mode = path.stat().st_mode
    except OSError as error:
        raise ConfigurationError(f"cannot read the key {path}: {error.strerror}") from error
    if os.name == "posix" and mode & 0o077:
        raise ConfigurationError(f"others may read the key {path}: run chmod 600 on it")
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise ConfigurationError(f"{path} does not hold a key (64 hexadecimal digits); move it away to get a new one")
    return bytes.fromhex(text)


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """
    Names to pseudonyms; with ``key`` None (identity = "plain") names stay as they are.

    ``given`` are users' that somebody else made, who holds another key.
    """

    key: bytes | None
    given: Mapping[str, str] = field(default_factory=dict)

    def subject(self, name: str) -> str:
        """What stands for a user's name in events."""
        return self.given.get(name) or self._pseudonym("subject", name, SUBJECT_LIMIT)

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
