"""A real JupyterHub runs the dashboard as its service, and says who may see it."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from hub_people import Person
from hub_process import START_SECONDS, Hub, running_hub, until

from tools.hub.hub import free_ports

sys.path.append(str(Path(__file__).parents[1] / "consumers"))

from logs import aggregate, random_log, sqlite_url

CONFIG = """
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


@dataclass(frozen=True, slots=True)
class Site:
    """A hub with the service behind its proxy, and where the service listens itself."""

    hub: Hub
    url: str
    behind: str

    def person(self, user: str) -> Person:
        """A user of the Hub, in a browser."""
        return Person(self.hub.url, user, self.hub.token)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A hub whose service shows twenty runs to ada, and to bob nothing."""
    folder = tmp_path_factory.mktemp("hub")
    store = sqlite_url(folder)
    aggregate(store, random_log(random.Random(1), 20).records)
    (service,) = free_ports(1)
    config = CONFIG.format(service=service, python=sys.executable, store=store)
    with running_hub(folder, ("ada", "bob"), config) as hub:
        path = "services/exec-events/"
        one = Site(hub, f"{hub.url}/{path}", f"http://127.0.0.1:{service}/{path}")
        until(lambda: _answers(one.url), hub, START_SECONDS)
        yield one


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 303
    except httpx.HTTPError:
        return False


def test_the_hub_says_who_may_see_it(site: Site) -> None:
    """Whom a role gives the scope sees the pages; another user of the Hub is refused, and nobody is sent to the login."""
    with site.person("ada") as person:
        ada = person.browser
        page = ada.get(f"{site.url}person", params={"subject": "subject-1", "since": "all"})
        assert page.status_code == 200
        assert 'id="fact-runs"' in page.text
        assert str(page.url) == f"{site.url}person?subject=subject-1&since=all"
        assert ada.get(site.url, params={"format": "json", "since": "all"}).json()["facts"]["runs"] > 10
        assert ada.get(f"{site.url}static/dashboard.js").status_code == 200
    with site.person("bob") as bob:
        refused = bob.browser.get(site.url)
        assert refused.status_code == 403
        assert "fact-runs" not in refused.text
    nobody = httpx.get(site.url, follow_redirects=True)
    assert "/hub/login" in str(nobody.url)


def test_a_name_that_is_taken_needs_its_password(site: Site) -> None:
    """Once somebody has logged in under a name, another password is refused, and so is a name that is not allowed."""
    with site.person("ada"):
        pass
    for user, password in (("ada", "another password"), ("eve", site.hub.token)):
        assert site.person(user).log_in(password).status_code == 403


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
