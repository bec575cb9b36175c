"""Ana and Ben on one server, each with a token of their own, and calls as one of them, as nobody, or as a browser."""

from __future__ import annotations

import http.client
import json
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from exec_events.testing import NotebookClient, RunningServer

TWO = """
from jupyter_server.auth import IdentityProvider, User

class Two(IdentityProvider):
    async def get_user_token(self, handler):
        name = {"token-of-ana": "ana", "token-of-ben": "ben"}.get(self.get_token(handler))
        return User(name) if name else await super().get_user_token(handler)

c.ServerApp.identity_provider_class = Two
"""


@dataclass
class Person:
    """Where to connect to as somebody."""

    url: str
    token: str


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    text: str
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        """Its body."""
        return json.loads(self.text)


def call(server: RunningServer, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    """Call a server with these headers (``X_User`` is X-User) and no others."""
    url = urlsplit(server.url)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=30)
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body=data, headers=named)
        answer = connection.getresponse()
        return Answer(answer.status, answer.read().decode(), dict(answer.getheaders()))
    finally:
        connection.close()


def ask(server: RunningServer, name: str, method: str, path: str, body: Any = None) -> Answer:
    """Call a route of ours as ana or ben."""
    return call(server, method, f"/exec-events/{path}", body, Authorization=f"token token-of-{name}")


def notebook(server: RunningServer, name: str, path: str, **options: Any) -> NotebookClient:
    """A notebook that ana or ben has open."""
    return NotebookClient(Person(server.url, f"token-of-{name}"), notebook=path, **options)
