"""
Who agreed to be recorded: in mode ``consent`` nothing of a person is recorded before they have said yes.

What a person agreed to is a small file of theirs in the spool's folder, and that file alone is the truth: it is looked
at for each execution. So a restart changes nothing, servers that share a folder agree, and what cannot be read is a no.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from .errors import ConfigurationError

VERSION_LIMIT = 64
_CACHED = 1000


class Permissions(Protocol):
    """Who may be recorded."""

    def covers(self, subject: str, at: str) -> bool:
        """Whether what ``subject`` began ``at`` that time (RFC 3339) may be recorded, as things stand now."""


class Everybody:
    """Mode ``audit``: everybody is recorded."""

    def covers(self, subject: str, at: str) -> bool:
        """Always."""
        return True


@dataclass(frozen=True, slots=True)
class ConsentText:
    """What people are asked to agree to; another version or another text is asked for again."""

    version: str
    text: str

    @property
    def hash(self) -> str:
        """SHA-256 of the text."""
        return f"sha256:{sha256(self.text.encode()).hexdigest()}"


def consent_text(version: str, text: str, file: str, contents: str) -> ConsentText:
    """
    The text that the site's settings name, or one that says what is recorded.

    Raises ConfigurationError when there is none, or its version cannot stand in an event.
    """
    if not version or len(version) > VERSION_LIMIT or not version.isprintable():
        raise ConfigurationError(f"c.ExecEvents.consent_version has to be 1 to {VERSION_LIMIT} printable characters")
    if text and file:
        raise ConfigurationError("set c.ExecEvents.consent_text or c.ExecEvents.consent_file, not both")
    if file:
        try:
            text = Path(file).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"cannot read c.ExecEvents.consent_file {file}: {error}") from error
    text = text.strip()
    if file and not text:
        raise ConfigurationError(f"c.ExecEvents.consent_file {file} is empty; write into it what people agree to")
    return ConsentText(version, text or _plain_text(contents))


def _plain_text(contents: str) -> str:
    kept = {
        "none": "The code and its outputs are not kept, only hashes, which show whether they were changed later.",
        "code": "The code is kept; of its outputs only hashes.",
        "code+outputs": "The code and its outputs are kept.",
    }[contents]
    return (
        "May this server record what you run? For each execution it notes who ran it, in which notebook and cell, "
        f"when, for how long, how it ended, and the sizes of code and outputs. {kept} "
        "You can say no and go on working, and you can withdraw a yes at any time: then nothing more is recorded. "
        "What was recorded until then stays."
    )


# Each execution asks a few times, on the event loop: to make the name costs more than to look at the file.
@lru_cache(_CACHED)
def _file_of(folder: Path, subject: str) -> Path:
    return folder / f"consent-{sha256(subject.encode()).hexdigest()[:16]}.json"


class Consents:
    """The consents kept in one folder to one text."""

    def __init__(self, folder: Path, text: ConsentText) -> None:
        self.text = text
        self._folder = folder
        self._known: dict[str, tuple[tuple[int, ...], str | None]] = {}
        self._withdrawn: set[str] = set()  # those whose file could not be removed

    def given_at(self, subject: str) -> str | None:
        """When ``subject`` agreed to the text as it is now (RFC 3339); None when they have not."""
        if subject in self._withdrawn:
            return None
        path = self.path(subject)
        try:
            status = path.stat()
            state = (status.st_mtime_ns, status.st_size, status.st_ino)
            known = self._known.get(subject)
            if known is not None and known[0] == state:
                return known[1]
            kept = json.loads(path.read_bytes())
            is_this = (kept["version"], kept["text_hash"]) == (self.text.version, self.text.hash)
            at = str(kept["given_at"]) if is_this else None
        except (OSError, ValueError, TypeError, KeyError):
            return None
        if len(self._known) >= _CACHED:
            self._known.clear()
        self._known[subject] = (state, at)
        return at

    def covers(self, subject: str, at: str) -> bool:
        """As `Permissions.covers`: consent stands, and was given before."""
        given = self.given_at(subject)
        return given is not None and given <= at

    def path(self, subject: str) -> Path:
        """Where the consent of ``subject`` is kept."""
        return _file_of(self._folder, subject)

    def draft(self, subject: str, at: str) -> Path:
        """Write down a consent that `give` puts into force; blocks. Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.path(subject).with_suffix(f".{secrets.token_hex(8)}")
        kept = {"version": self.text.version, "text_hash": self.text.hash, "given_at": at}
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(kept, file)
            file.flush()
            os.fsync(file.fileno())
        return path

    def give(self, subject: str, draft: Path) -> None:
        """From now on what ``subject`` runs may be recorded. Raises OSError."""
        try:
            draft.replace(self.path(subject))
        except OSError:
            draft.unlink(missing_ok=True)
            raise
        self._withdrawn.discard(subject)

    def withdraw(self, subject: str) -> None:
        """From now on nothing that ``subject`` runs may be recorded; OSError says that this holds until a stop only."""
        try:
            self.path(subject).unlink(missing_ok=True)
        except OSError:
            self._withdrawn.add(subject)
            raise

    def sync(self) -> None:
        """Return once what was given or withdrawn will survive a crash of the machine; blocks. Raises OSError."""
        if os.name == "posix":
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
