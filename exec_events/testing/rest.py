"""One call of a Jupyter server's REST API in, the decoded answer out."""

from __future__ import annotations

import json as json_module
import urllib.error
import urllib.request
from typing import Any

REST_TIMEOUT_SECONDS = 60.0


class RestError(RuntimeError):
    """The server answered with an error; ``status`` is its code."""

    def __init__(self, method: str, path: str, status: int, text: str) -> None:
        super().__init__(f"{method} {path}: {status} {text}")
        self.status = status
        self.text = text


def call(
    url: str, token: str, method: str, path: str, json: Any = None, *, timeout: float = REST_TIMEOUT_SECONDS
) -> Any:
    """
    Call ``path`` (as ``/api/status``) of the server at ``url``; the decoded JSON, text, or None if empty.

    Raises:
        RestError: the server answered with an error.
        OSError: no answer in ``timeout`` seconds, or no server.
    """
    request = urllib.request.Request(  # noqa: S310 (the URL is a test server's on 127.0.0.1)
        url.rstrip("/") + path,
        method=method,
        data=None if json is None else json_module.dumps(json).encode(),
        headers={"Authorization": f"token {token}", "Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout) as response:
            body = response.read()
            is_json = "json" in (response.headers.get("Content-Type") or "")
    except urllib.error.HTTPError as error:
        raise RestError(method, path, error.code, error.read().decode(errors="replace")[:2000]) from None
    if not body:
        return None
    return json_module.loads(body) if is_json else body.decode(errors="replace")
