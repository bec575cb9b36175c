"""
What a person sets of a connection to Kafka in, kafka-python's own settings out; secrets come from files.

Names and meanings are kafka-python's (``security_protocol``, ``sasl_mechanism``, ``ssl_cafile``, …). A name
with ``_file`` behind it reads its value from a file, so that no password stands in a configuration, in argv
or in a log.
"""

from __future__ import annotations

import os
import stat
import tomllib
from collections.abc import Mapping
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import Any

from .errors import SourceError

SETTINGS_FILE = "settings_file"
TOKEN_FILE = "sasl_oauth_token_file"  # noqa: S105
TOKEN_PROVIDER = "sasl_oauth_token_provider"  # noqa: S105
SECRETS = ("sasl_plain_password", "ssl_password")
# What the sink takes beside kafka-python's settings, for topics it makes: one file may serve it and readers.
TOPIC_SETTINGS = ("create_topics", "partitions", "replication_factor", "retention_days", "max_message_bytes")
# kafka-python takes any other word for plain text.
PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_FILE = "_file"


class TokenFile:
    """
    A token for SASL/OAUTHBEARER that something else keeps fresh in a file; read anew at each (re)authentication.

    It has the methods of kafka-python's AbstractTokenProvider, of which modules that import Kafka register it
    as a subclass.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def token(self) -> str:
        """The token that is in the file now; raises SourceError."""
        return _secret(self._path)

    def extensions(self) -> dict[str, str]:
        """No SASL extensions."""
        return {}


def read_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """
    Settings for kafka-python's clients.

    ``settings_file`` names a TOML file with more of them, over which those given win. ``<name>_file`` gives
    ``<name>`` what the file holds, white space around it taken off. ``sasl_oauth_token_file`` names a file
    with a token that is read again whenever one is needed; ``sasl_oauth_token_provider`` may be
    ``"package.module:Class"`` instead. Raises SourceError, with no secret in its text.
    """
    settings = dict(given)
    path = settings.pop(SETTINGS_FILE, None)
    if path is not None:
        settings = {**_read_toml(Path(str(path)).expanduser()), **settings}
    for name in [name for name in settings if name.endswith(_FILE) and name != TOKEN_FILE]:
        settings[name.removesuffix(_FILE)] = _secret(Path(str(settings.pop(name))).expanduser())
    if TOKEN_FILE in settings:
        settings[TOKEN_PROVIDER] = TokenFile(Path(str(settings.pop(TOKEN_FILE))).expanduser())
    elif isinstance(settings.get(TOKEN_PROVIDER), str):
        settings[TOKEN_PROVIDER] = _provider(settings[TOKEN_PROVIDER])
    if (protocol := settings.get("security_protocol", "PLAINTEXT")) not in PROTOCOLS:
        raise SourceError(f"security_protocol is one of {', '.join(PROTOCOLS)}, not {protocol!r}")
    return settings


def _read_toml(path: Path) -> dict[str, Any]:
    text = _read(path)
    try:
        settings = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # The error may repeat a line, and that line may be a password.
        raise SourceError(f"{str(path)!r} is not TOML; write kafka-python's settings as name = value") from error
    if any(name in settings for name in SECRETS):
        _refuse_readable(path)
    if SETTINGS_FILE in settings:
        raise SourceError(f"{str(path)!r} names another {SETTINGS_FILE}; put all settings into one")
    return settings


def _secret(path: Path) -> str:
    _refuse_readable(path)
    secret = _read(path).strip()
    if not secret:
        raise SourceError(f"{str(path)!r} is empty")
    return secret


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SourceError(f"{str(path)!r} cannot be read: {reason}") from error


def _refuse_readable(path: Path) -> None:
    """A secret that others can read is none."""
    if os.name != "posix":
        return
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise SourceError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SourceError(f"{str(path)!r} holds a secret and others can read it; chmod 600 it")


def _provider(name: str) -> Any:
    """An instance of the class ``package.module:Class`` names."""
    module_name, _, attribute = name.partition(":")
    try:
        return attrgetter(attribute)(import_module(module_name))()
    except Exception as error:
        raise SourceError(f"cannot load the token provider {name!r} (package.module:Class): {error}") from error
