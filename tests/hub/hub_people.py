"""People who use a Hub: logged in over HTTP as a browser is, with their own cookies, and tokens they made themselves."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Self

import httpx

from exec_events.testing import NotebookClient, Result

START_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Server:
    """What a notebook client connects to."""

    url: str
    token: str


class Person:
    """Somebody with a name and a password at a Hub."""

    def __init__(self, hub: str, name: str, password: str) -> None:
        self.hub = hub.rstrip("/")
        self.name = name
        self._password = password
        self.browser = httpx.Client(follow_redirects=True, timeout=60)

    def __enter__(self) -> Self:
        assert self.log_in().status_code == 302
        return self

    def __exit__(self, *exc: object) -> None:
        self.browser.close()

    def log_in(self, password: str | None = None) -> httpx.Response:
        """Send the form; the answer, not followed."""
        self.browser.get(f"{self.hub}/hub/login")
        form = {"username": self.name, "password": password or self._password, "_xsrf": self.xsrf("/hub/")}
        return self.browser.post(f"{self.hub}/hub/login", data=form, follow_redirects=False)

    def xsrf(self, path: str) -> str:
        """The value that a form or a call below this path must send along."""
        return next(one.value or "" for one in self.browser.cookies.jar if one.name == "_xsrf" and one.path == path)

    def hub_api(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """Call the Hub's API as its pages do."""
        self.browser.get(f"{self.hub}/hub/home")
        headers = {"X-XSRFToken": self.xsrf("/hub/"), "Referer": f"{self.hub}/hub/home"}
        return self.browser.request(method, f"{self.hub}/hub/api{path}", json=body, headers=headers)

    def start_server(self) -> Server:
        """Their own server, with a token of theirs for it."""
        if not self.servers():
            answer = self.hub_api("POST", f"/users/{self.name}/server")
            assert answer.status_code in (201, 202), answer.text
        until = time.monotonic() + START_SECONDS
        while not self.server_is_ready():
            assert time.monotonic() < until, f"{self.name}'s server did not start"
            time.sleep(0.3)
        token = self.hub_api("POST", f"/users/{self.name}/tokens", {"note": "test"}).json()["token"]
        return Server(f"{self.hub}/user/{self.name}/", token)

    def stop_server(self) -> None:
        """End it, and wait until the Hub says that it is gone."""
        assert self.hub_api("DELETE", f"/users/{self.name}/server").status_code in (202, 204)
        until = time.monotonic() + START_SECONDS
        while self.servers():
            assert time.monotonic() < until, f"{self.name}'s server did not stop"
            time.sleep(0.3)

    def server_is_ready(self) -> bool:
        """Whether the Hub says so."""
        return bool(self.servers().get("", {}).get("ready"))

    def servers(self) -> dict[str, Any]:
        """What the Hub says of them."""
        answer = self.hub_api("GET", f"/users/{self.name}")
        assert answer.status_code == 200, answer.text
        servers: dict[str, Any] = answer.json()["servers"]
        return servers


async def run(server: Server, *cells: str, notebook: str = "week1.ipynb") -> list[Result]:
    """Run cells in a notebook of that server, as JupyterLab does."""
    async with NotebookClient(server, notebook=notebook) as client:
        return [await client.execute(code, cell_id=f"cell-{number}") for number, code in enumerate(cells)]
