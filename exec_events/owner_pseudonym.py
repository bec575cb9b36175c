"""
A user's pseudonym, made by the JupyterHub that keeps the site's key, for a server that its user could read it from.

The server has another key, for notebooks and for whoever else comes to it: with that nobody makes a user's pseudonym.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from .errors import ConfigurationError
from .privacy import Pseudonyms

# Where a server finds it, and where a JupyterHub says whose server it is.
ENVIRONMENT = "EXEC_EVENTS_OWNER_PSEUDONYM"
OWNER = "JUPYTERHUB_USER"
_PSEUDONYM = re.compile(r"p:[0-9a-f]{8}:[0-9a-f]{32}")


def pseudonym_of_spawner(key: bytes) -> Callable[[Any], str]:
    """For the environment of a JupyterHub's spawners, whose values it calls with the spawner."""
    pseudonyms = Pseudonyms(key)
    return lambda spawner: pseudonyms.subject(spawner.user.name)


def given(pseudonym: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The owner's name and their pseudonym; {} for none, and ConfigurationError for one that is none or nobody's."""
    if not pseudonym:
        return {}
    if not _PSEUDONYM.fullmatch(pseudonym):
        raise ConfigurationError("owner_pseudonym is no pseudonym: give what `exec-events pseudonym` prints, or ''")
    owner = environment.get(OWNER)
    if not owner:
        raise ConfigurationError(f"owner_pseudonym is given, but {OWNER} names no owner: leave it empty here")
    return {owner: pseudonym}
