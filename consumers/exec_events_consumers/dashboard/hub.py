"""
Access by JupyterHub: whoever the Hub lets use this service may see the pages.

The Hub starts the service and tells it its address, prefix and token in JUPYTERHUB_* variables; who may use it is
said there, by the scope ``access:services!service=NAME``. The Hub's OAuth token stays here: a browser gets a
random session alone. A program brings a token of the Hub's that has the scope.
"""

from __future__ import annotations

import hmac
import os
import secrets
import time
from typing import Any
from urllib.parse import urlencode, urlsplit

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from exec_events_consumers.errors import ConsumerError

CALLBACK = "oauth_callback"
SESSION_SECONDS = 8 * 3600
_MOST_SESSIONS = 10_000
_ASKED_AGAIN_SECONDS = 60


def is_service() -> bool:
    """Whether a JupyterHub has started this process as a service with a place of its own."""
    return bool(os.environ.get("JUPYTERHUB_SERVICE_PREFIX") and os.environ.get("JUPYTERHUB_API_TOKEN"))


def service_address() -> tuple[str, int, str]:
    """The host, port and prefix at which the Hub's proxy looks for this service; raises ConsumerError."""
    address = urlsplit(os.environ.get("JUPYTERHUB_SERVICE_URL", ""))
    if not address.hostname or not address.port:
        raise ConsumerError("the Hub gave this service no address: set its url to http://127.0.0.1:PORT")
    return address.hostname, address.port, os.environ["JUPYTERHUB_SERVICE_PREFIX"]


class HubAccess:
    """Sends whoever has no session to the Hub, and makes one for whom it sends back and lets use this service."""

    def __init__(self, prefix: str) -> None:
        try:
            from jupyterhub.services.auth import HubOAuth
        except ImportError as error:
            raise ConsumerError(f"a Hub's service needs JupyterHub ({error}): pip install jupyterhub") from error
        self._auth: Any = HubOAuth(cache_max_age=_ASKED_AGAIN_SECONDS)
        if not self._auth.access_scopes:
            raise ConsumerError("the Hub said not who may see these pages: its version must be 3 or later")
        self._prefix = prefix
        self._sessions: dict[str, tuple[float, str]] = {}

    async def refusal(self, request: Request) -> Response | None:
        """None for who may use the service, by the Hub's word, which is asked for anew every minute."""
        if request.url.path == f"{self._prefix}{CALLBACK}":
            return await self._callback(request)
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() in ("bearer", "token") and given:
            # Of a program: a user's or a service's own token of the Hub.
            owner = await self._auth.user_for_token(given, sync=False)
            if owner is not None:
                return None if self._may(owner) else _forbidden()
        began, token = self._sessions.get(request.cookies.get(self._auth.cookie_name, ""), (0.0, ""))
        if not token or time.monotonic() - began > SESSION_SECONDS:
            return self._to_the_hub(request)
        user = await self._auth.user_for_token(token, sync=False)
        if user is None:
            return self._to_the_hub(request)
        return None if self._may(user) else _forbidden()

    def _may(self, user: Any) -> bool:
        return bool(self._auth.check_scopes(self._auth.access_scopes, user))

    def _to_the_hub(self, request: Request) -> Response:
        path = request.url.path
        back = f"{path}?{request.url.query}" if request.url.query else path
        more, extra = {}, {}
        if hasattr(self._auth, "generate_pkce_code_challenge"):  # JupyterHub 6
            extra["code_verifier"], challenge, method = self._auth.generate_pkce_code_challenge()
            more = {"code_challenge": challenge, "code_challenge_method": method}
        # A path that begins with two slashes would name another host.
        state = self._auth.generate_state(next_url=f"/{back.lstrip('/')}", **extra)
        response = RedirectResponse(f"{self._auth.login_url}&{urlencode({'state': state, **more})}", status_code=303)
        self._set(response, self._auth.state_cookie_name, state, 600, request)
        return response

    async def _callback(self, request: Request) -> Response:
        code, state = request.query_params.get("code"), request.query_params.get("state", "")
        kept = request.cookies.get(self._auth.state_cookie_name, "")
        if not code or not state or not hmac.compare_digest(state.encode(), kept.encode()):
            return _forbidden()
        verifier = {"code_verifier": found} if (found := self._verifier(state)) else {}
        token = await self._auth.token_for_code(code, sync=False, **verifier)
        user = await self._auth.user_for_token(token, use_cache=False, sync=False)
        if user is None or not self._may(user):
            return _forbidden()
        response = RedirectResponse(self._auth.get_next_url(state) or self._prefix, status_code=303)
        self._auth.clear_oauth_state(state)
        response.delete_cookie(self._auth.state_cookie_name, path=self._prefix)
        session = secrets.token_urlsafe(32)
        while len(self._sessions) >= _MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[session] = (time.monotonic(), token)
        self._set(response, self._auth.cookie_name, session, SESSION_SECONDS, request)
        return response

    def _verifier(self, state: str) -> Any:
        return self._auth.get_code_verifier(state) if hasattr(self._auth, "get_code_verifier") else None

    def _set(self, response: Response, name: str, value: str, seconds: int, request: Request) -> None:
        is_https = request.headers.get("x-forwarded-proto", request.url.scheme).split(",")[0] == "https"
        response.set_cookie(
            name, value, max_age=seconds, path=self._prefix, httponly=True, samesite="lax", secure=is_https
        )


def _forbidden() -> Response:
    return PlainTextResponse("The Hub does not let you see these pages.\n", status_code=403)
