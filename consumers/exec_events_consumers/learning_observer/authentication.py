"""
How a forwarder says on a connection whose events come on it: a strategy for each method a server may have.

A strategy is a class registered under the entry point group ``exec_events.learning_observer_logins`` by the
method's name, as the server's ``event_auth`` has it. No method lets a trusted service vouch for a student. Some
believe whatever they are told: they are for trials, and refused unless a person says otherwise.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar, Protocol

from ..errors import ConsumerError
from .pairs import PairsFile

GROUP = "exec_events.learning_observer_logins"
LO_ID, SECRET = "learning_observer_id", "secret"


class LoginError(ConsumerError):
    """A way to log in that does not exist, is not safe enough, or lacks something."""


class NoSecret(Exception):
    """There is none for this person; nothing can be sent for them."""


@dataclass(frozen=True, slots=True)
class Login:
    """
    What logs a person in: headers of the handshake, and a first frame.

    ``user_id`` is what the server must then call the person; None where that is the server's to choose.
    """

    frame: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    user_id: str | None = None


class Authentication(Protocol):
    """Logs people in; made with the function that finds a person's secret, which raises NoSecret."""

    is_insecure: ClassVar[bool]
    needs_secrets: ClassVar[bool]

    def __init__(self, secret_of: Callable[[str], str], /) -> None: ...

    def login(self, lo_id: str) -> Login:
        """What logs this person in; raises NoSecret."""


class _Strategy:
    is_insecure: ClassVar[bool] = False
    needs_secrets: ClassVar[bool] = False

    def __init__(self, secret_of: Callable[[str], str], /) -> None:
        self._secret_of = secret_of


class LocalStorage(_Strategy):
    """``local_storage``: a token for each person, ``ls-<token>`` a line of the server's ``userfile``."""

    needs_secrets = True

    def login(self, lo_id: str) -> Login:
        """The token names the person to the server."""
        token = self._secret_of(lo_id)
        return Login({"event": "local_storage", "user_tag": token}, user_id=f"ls-{token}")


class HttpBasic(_Strategy):
    """``http_basic``: name and password in the handshake, which nginx in front of the server checks."""

    needs_secrets = True

    def login(self, lo_id: str) -> Login:
        """The id is the name; any frame makes the server look at the headers."""
        if ":" in lo_id:
            raise NoSecret(f"a name with a colon in it, as {lo_id!r}, cannot log in with http_basic")
        given = b64encode(f"{lo_id}:{self._secret_of(lo_id)}".encode()).decode()
        return Login({"event": "exec_events_hello"}, {"Authorization": f"Basic {given}"}, lo_id)


class Guest(_Strategy):
    """``guest``: the server makes up somebody new at each connection."""

    is_insecure = True

    def login(self, lo_id: str) -> Login:
        """Nothing is said."""
        return Login({"event": "exec_events_hello"})


class Chromebook(_Strategy):
    """``chromebook``: a Google id, which the server believes; people are those of Google rosters."""

    is_insecure = True

    def login(self, lo_id: str) -> Login:
        """The id without its ``gc-``."""
        google_id = lo_id.removeprefix("gc-")
        return Login({"event": "chrome_identity", "chrome_identity": {"id": google_id}}, user_id=f"gc-{google_id}")


class HashIdentify(_Strategy):
    """``hash_identify``: a name, which the server believes."""

    is_insecure = True

    def login(self, lo_id: str) -> Login:
        """The id."""
        return Login({"event": "exec_events_hello", "hash": lo_id}, user_id=f"hi-{lo_id}")


class TestcaseAuth(_Strategy):
    """``testcase_auth``: a name, which the server believes; for tests, by the server's own word."""

    is_insecure = True

    def login(self, lo_id: str) -> Login:
        """The id."""
        return Login({"event": "test_framework_fake_identity", "user_id": lo_id}, user_id=f"testcase-{lo_id}")


def methods() -> list[str]:
    """The names that `open_authentication` takes."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def open_authentication(
    method: str, secrets: Path | None, *, insecure: bool = False, say: Callable[[str], None] = lambda text: None
) -> Authentication:
    """
    The strategy of that name, with a CSV file of secrets; raises LoginError and PairsError.

    The file has the columns ``learning_observer_id`` and ``secret``, is its owner's alone, and may change.
    """
    found = {point.name: point for point in entry_points(group=GROUP)}
    if method not in found:
        raise LoginError(f"there is no login {method!r}: no installed package registers it (known: {', '.join(found)})")
    strategy: type[Authentication] = found[method].load()
    if strategy.is_insecure and not insecure:
        raise LoginError(
            f"with {method} the server believes whoever connects: anybody may send events as any student. "
            "For a trial, say --insecure; else use local_storage or http_basic"
        )
    if secrets is None:
        if strategy.needs_secrets:
            raise LoginError(f"{method} needs --secrets FILE, a CSV file ({LO_ID},{SECRET}) that only you can read")

        def none(lo_id: str) -> str:
            raise NoSecret(f"there is no file of secrets, and none for {lo_id}")

        return strategy(none)
    file = PairsFile(secrets, LO_ID, SECRET, is_secret=True, say=say)

    def secret_of(lo_id: str) -> str:
        try:
            return file.now()[lo_id]
        except KeyError:
            raise NoSecret(f"{file.path} has no secret for {lo_id}") from None

    return strategy(secret_of)
