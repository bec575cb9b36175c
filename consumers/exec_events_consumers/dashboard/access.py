"""
Who may see the pages: a request in, nothing or the answer that turns it away out.

Every answer, of whatever route, goes through here: the Host it was asked of, who asks, and the headers that
keep a browser from running anything but this package's own files.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Collection
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exec_events_consumers.errors import ConsumerError

SHORTEST_TOKEN = 16
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_HOST = re.compile(r"(?:\[(?P<six>[0-9a-f:.]+)\]|(?P<name>[^:\[\]]+))(?::[0-9]{1,5})?")
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
SECURITY_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Access(Protocol):
    """Decides on a request."""

    async def refusal(self, request: Request) -> Response | None:
        """None for who may see the pages; the answer for who may not, or not yet."""


class TokenAccess:
    """
    Whoever has the token: in the URL, which is exchanged for a cookie, or in an Authorization header.

    The cookie is no token: it is worth nothing at another start, and another server on this host that is sent
    it, as cookies know no ports, learns no token from it.
    """

    def __init__(self, token: str, port: int) -> None:
        self._token = token.encode()
        self.cookie_name = f"exec-events-{port}"
        self._cookie = hmac.new(secrets.token_bytes(32), self._token, hashlib.sha256).hexdigest()

    async def refusal(self, request: Request) -> Response | None:
        """Turn away who has neither token nor cookie; take a token out of the URL."""
        given = request.query_params.get("token")
        if given is not None:
            if not self._is_token(given):
                return _unauthorised()
            response = RedirectResponse(_without_token(request), status_code=303)
            response.set_cookie(
                self.cookie_name,
                self._cookie,
                httponly=True,
                samesite="lax",
                secure=request.url.scheme == "https",
                path="/",
            )
            return response
        cookie = request.cookies.get(self.cookie_name, "")
        if hmac.compare_digest(cookie.encode(), self._cookie.encode()):
            return None
        scheme, _, word = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() in ("bearer", "token") and self._is_token(word):
            return None
        return _unauthorised()

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token)


class Guard:
    """The outermost layer: checks Host and access, and adds the headers, to every answer there is."""

    def __init__(self, app: ASGIApp, access: Access, hosts: Collection[str] | None) -> None:
        self._app = app
        self._access = access
        self._hosts = None if hosts is None else {*_LOOPBACK, *(host.lower() for host in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers[name] = value
            await send(message)

        refusal = self._wrong_host(scope) or await self._access.refusal(Request(scope))
        await (refusal or self._app)(scope, receive, guarded)

    def _wrong_host(self, scope: Scope) -> Response | None:
        """A page elsewhere that has its own name point here must not read this one."""
        if self._hosts is None or _host_of(Headers(scope=scope).get("host", "")) in self._hosts:
            return None
        return PlainTextResponse("This server is not asked by that name: see --allow-host.\n", status_code=421)


def new_token() -> str:
    """A token that nobody guesses."""
    return secrets.token_urlsafe(32)


def keep_token(path: Path, token: str) -> None:
    """Write a token to a file that this user alone can read."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{token}\n")


def kept_token(path: Path) -> str:
    """
    The token in a file; one that is not there is made.

    Raises ConsumerError for a file that others can read, and for a token that can be guessed.
    """
    try:
        with path.open() as file:
            if os.fstat(file.fileno()).st_mode & 0o077:
                raise ConsumerError(f"others can read {path}: chmod 600 it, or they see what you see")
            token = file.read().strip()
    except FileNotFoundError:
        token = new_token()
        keep_token(path, token)
    if len(token) < SHORTEST_TOKEN:
        raise ConsumerError(f"the token in {path} is shorter than {SHORTEST_TOKEN} characters: delete it for a new one")
    return token


def _unauthorised() -> Response:
    text = "These pages are for whoever has their token: open the whole URL that was printed at the start.\n"
    return PlainTextResponse(text, status_code=401, headers={"www-authenticate": 'Bearer realm="exec-events"'})


def _without_token(request: Request) -> str:
    # Relative, so that it is right behind a proxy that takes a prefix away.
    last = request.url.path.rpartition("/")[2]
    rest = [(name, value) for name, value in request.query_params.multi_items() if name != "token"]
    return f"./{quote(last)}" + (f"?{urlencode(rest)}" if rest else "")


def _host_of(header: str) -> str:
    found = _HOST.fullmatch(header.lower())
    return "" if found is None else found["six"] or found["name"]
