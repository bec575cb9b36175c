"""A real JupyterHub runs the dashboard as its service, and says who may see it."""

from __future__ import annotations

import os
import random
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import psutil
import pytest

PROXY = Path(__file__).parents[2] / "tools/node/node_modules/.bin/configurable-http-proxy"
sys.path.append(str(Path(__file__).parents[1] / "consumers"))

from logs import aggregate, random_log, sqlite_url  # noqa: E402

START_SECONDS = 90.0
CONFIG = """
c.JupyterHub.bind_url = "http://127.0.0.1:{public}"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{hub}"
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{proxy_api}"
c.ConfigurableHTTPProxy.auth_token = {proxy_token!r}
c.ConfigurableHTTPProxy.command = {proxy!r}
c.JupyterHub.authenticator_class = "firstuse"
c.FirstUseAuthenticator.dbm_path = {passwords!r}
c.Authenticator.allowed_users = {{"ada", "bob"}}
c.JupyterHub.services = [
    {{
        "name": "exec-events",
        "url": "http://127.0.0.1:{service}",
        "command": [{python!r}, "-m", "exec_events", "dashboard", "--store", {store!r}],
        "oauth_no_confirm": True,
    }}
]
c.JupyterHub.load_roles = [
    {{"name": "teachers", "users": ["ada"], "scopes": ["access:services!service=exec-events"]}}
]
"""


class Site:
    """A hub with the service behind its proxy, and where the service listens itself."""

    def __init__(self, public: int, service: int, password: str) -> None:
        self.url = f"http://127.0.0.1:{public}/services/exec-events/"
        self.behind = f"http://127.0.0.1:{service}/services/exec-events/"
        self._hub = f"http://127.0.0.1:{public}/hub"
        self._password = password

    def logged_in(self, user: str) -> httpx.Client:
        """A browser in which a user is logged in at the Hub."""
        browser = httpx.Client(follow_redirects=True, timeout=30)
        answer = self._send_form(browser, user, self._password)
        assert answer.status_code == 302, answer.text
        return browser

    def log_in(self, user: str, password: str) -> httpx.Response:
        """What the Hub says to a name and a password."""
        with httpx.Client(timeout=30) as browser:
            return self._send_form(browser, user, password)

    def _send_form(self, browser: httpx.Client, user: str, password: str) -> httpx.Response:
        browser.get(f"{self._hub}/login")
        form = {"username": user, "password": password, "_xsrf": browser.cookies["_xsrf"]}
        return browser.post(f"{self._hub}/login", data=form, follow_redirects=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A hub whose service shows twenty runs to ada, and to bob nothing."""
    assert PROXY.exists(), "JupyterHub's proxy is not installed; run npm ci --prefix tools/node"
    folder = tmp_path_factory.mktemp("hub")
    store = sqlite_url(folder)
    aggregate(store, random_log(random.Random(1), 20).records)
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(4)]
        public, hub, proxy_api, service = (each.getsockname()[1] for each in sockets)
    password = secrets.token_hex(16)
    config = folder / "jupyterhub_config.py"
    config.touch(mode=0o600)
    config.write_text(
        CONFIG.format(
            public=public,
            hub=hub,
            proxy_api=proxy_api,
            service=service,
            proxy_token=secrets.token_hex(16),
            proxy=[str(PROXY)],
            passwords=str(folder / "passwords.dbm"),
            python=sys.executable,
            store=store,
        )
    )
    with (folder / "hub.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterhub", "-f", str(config)],
            cwd=folder,
            env={**os.environ, "JUPYTER_DATA_DIR": str(folder / "data")},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    one = Site(public, service, password)
    try:
        until = time.monotonic() + START_SECONDS
        while not _answers(one.url):
            assert time.monotonic() < until, (folder / "hub.log").read_text()[-6000:]
            assert process.poll() is None, (folder / "hub.log").read_text()[-6000:]
            time.sleep(0.3)
        yield one
    finally:
        family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        _, alive = psutil.wait_procs(family, timeout=5)
        for child in alive:
            child.kill()
    assert password not in (folder / "hub.log").read_text()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 303
    except httpx.HTTPError:
        return False


def test_the_hub_says_who_may_see_it(site: Site) -> None:
    """Whom a role gives the scope sees the pages; another user of the Hub is refused, and nobody is sent to the login."""
    with closing(site.logged_in("ada")) as ada:
        page = ada.get(f"{site.url}person", params={"subject": "subject-1", "since": "all"})
        assert page.status_code == 200
        assert 'id="fact-runs"' in page.text
        assert str(page.url) == f"{site.url}person?subject=subject-1&since=all"
        assert ada.get(site.url, params={"format": "json", "since": "all"}).json()["facts"]["runs"] > 10
        assert ada.get(f"{site.url}static/dashboard.js").status_code == 200
    with closing(site.logged_in("bob")) as bob:
        refused = bob.get(site.url)
        assert refused.status_code == 403
        assert "fact-runs" not in refused.text
    nobody = httpx.get(site.url, follow_redirects=True)
    assert "/hub/login" in str(nobody.url)


def test_a_name_that_is_taken_needs_its_password(site: Site) -> None:
    """Once somebody has logged in under a name, another password is refused, and so is a name that is not allowed."""
    with closing(site.logged_in("ada")):
        pass
    for user, password in (("ada", "another password"), ("eve", "a long password")):
        assert site.log_in(user, password).status_code == 403


@pytest.mark.parametrize(
    "path", ["", "person", "notebook", "cohort", "integrity", "metrics", "live", "static/dashboard.js", "nowhere"]
)
def test_nobody_gets_past_the_hub(site: Site, path: str) -> None:
    """Each route, also beside the proxy, sends whoever has no session to the Hub, whatever they bring."""
    for base in (site.url, site.behind):
        for more in ({}, {"cookie": "service-exec-events=wrong"}, {"authorization": "Bearer wrong"}):
            answer = httpx.get(f"{base}{path}", headers=more)
            assert answer.status_code == 303
            assert "/hub/api/oauth2/authorize" in answer.headers["location"]


def test_a_callback_needs_its_state(site: Site) -> None:
    """Who comes to the callback with a state that is not their own gets no session."""
    for query in ("", "?code=x", "?code=x&state=y", "?state=&code=x"):
        answer = httpx.get(f"{site.url}oauth_callback{query}", headers={"cookie": "service-exec-events-oauth-state=z"})
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers
