"""
The Hub's REST API in, the servers that run out.

It needs the scopes ``list:users`` and ``read:servers``, and no other: it sees who has a server, and can do nothing
with it.
"""

from __future__ import annotations

import json
import os
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from exec_events_consumers.errors import ConsumerError
from exec_events_schemas.server_label import server_label

from .silence import RunningServer, Watched

ASK_SECONDS = 10.0
_TIMEOUT_SECONDS = 15.0
_PAGE = 200
_PAGINATED = "application/jupyterhub-pagination+json"

# A path and its parameters in, the JSON of the answer out; raises OSError and ValueError.
Ask = Callable[[str], Any]


class HubServers:
    """
    Knows which servers run, as of the last `look`.

    An answer is believed for ``believed_seconds``, while the Hub gives no other: for no longer than a recorder may be
    silent, or servers that have stopped meanwhile would be an alarm.
    """

    def __init__(
        self, ask: Ask, key: bytes, believed_seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._key = key
        self._believed_seconds = believed_seconds
        self._clock = clock
        self._servers: list[RunningServer] | None = None
        self._ready: dict[tuple[str, datetime], datetime] = {}
        self._answered_at = float("-inf")
        self._problem = "the Hub has not answered yet"

    def watched(self) -> Watched:
        """What it knows."""
        is_true = self._clock() - self._answered_at <= self._believed_seconds
        return Watched(self._servers if is_true else None, self._problem)

    def look(self) -> bool:
        """Ask once; whether the Hub has answered."""
        try:
            servers = list(running_servers(self._ask, self._key, self._ready, datetime.now(UTC)))
        except urllib.error.HTTPError as error:
            needed = "; give this service the scopes list:users and read:servers" if error.code == 403 else ""
            self._problem = f"the Hub answers {error.code}{needed}"
            return False
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._problem = f"the Hub does not answer as it should: {error}"
            return False
        self._ready = {(server.label, server.started): server.ready for server in servers}
        self._servers, self._answered_at, self._problem = servers, self._clock(), ""
        return True


def running_servers(
    ask: Ask, key: bytes, known: Mapping[tuple[str, datetime], datetime], now: datetime
) -> Iterator[RunningServer]:
    """
    Servers that are ready and not about to stop, page after page of their users.

    The Hub says when it began to start one, and not since when it is ready: that is since it is ``known`` to be.
    """
    offset: int | None = 0
    while offset is not None:
        page = ask(f"users?state=active&offset={offset}&limit={_PAGE}")
        for user in page["items"]:
            if "servers" not in user:
                raise ValueError("it does not say which servers run; give this service the scope read:servers")
            for server in user["servers"].values():
                if server["ready"] and not server["pending"]:
                    name, started = server["name"], datetime.fromisoformat(server["started"])
                    label = server_label(key, user["name"], name)
                    yield RunningServer(user["name"], name, label, started, known.get((label, started), now))
        following = page["_pagination"]["next"]
        before, offset = offset, None if following is None else int(following["offset"])
        if offset is not None and offset <= before:
            raise ValueError("its pages of users do not go on")


def ask_the_hub() -> Ask:
    """How this process, a service of a Hub's, asks it; raises ConsumerError where it is none."""
    url, token = os.environ.get("JUPYTERHUB_API_URL", ""), os.environ.get("JUPYTERHUB_API_TOKEN", "")
    if not url.startswith(("http://", "https://")) or not token:
        raise ConsumerError("only a service of a JupyterHub can ask which servers run: leave --server-key-file away")
    # By no proxy, whatever the environment says: the token is for the Hub.
    https = urllib.request.HTTPSHandler(context=_internal_ssl())
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), https)

    def ask(path: str) -> Any:
        headers = {"Authorization": f"token {token}", "Accept": _PAGINATED}
        request = urllib.request.Request(f"{url.rstrip('/')}/{path}", headers=headers)  # noqa: S310 - see above
        with opener.open(request, timeout=_TIMEOUT_SECONDS) as answer:
            return json.load(answer)

    return ask


def _internal_ssl() -> ssl.SSLContext | None:
    """With the certificates that a Hub with internal_ssl gives its services."""
    key, certificate, authority = (
        os.environ.get(f"JUPYTERHUB_SSL_{name}", "") for name in ("KEYFILE", "CERTFILE", "CLIENT_CA")
    )
    if not (key and certificate):
        return None
    context = ssl.create_default_context(cafile=authority or None)
    context.load_cert_chain(certificate, key)
    return context
