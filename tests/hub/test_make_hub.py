"""`make hub`, as somebody who has never seen it uses it: two people, their notebooks, and the dashboard."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from chromium import launched
from hub_people import Person, run
from made_hub import SCREENSHOTS, Site, started, stop
from playwright.sync_api import Page, expect, sync_playwright

from exec_events.api_handlers import default_handlers
from exec_events.cli.verify import verify_source
from exec_events.privacy import Pseudonyms, read_key
from exec_events_schemas.record import event_of
from exec_events_schemas.sources.spool import SpoolSource

SECONDS = 30.0
OWN_ROUTES = [str(route[0]).strip("/") for route in default_handlers]
JUPYTER_ROUTES = [
    "lab",
    "api/status",
    "api/contents",
    "api/kernels",
    "api/kernelspecs",
    "api/sessions",
    "api/terminals",
    "api/me",
    "api/events/subscribe",
    "files/week1.ipynb",
    "metrics",
]


def subject_of(site: Site, name: str) -> str:
    """What stands for somebody in the record, which who holds the site's key can tell."""
    return Pseudonyms(read_key(site.folder / "state/pseudonym.key")).subject(name)


def recorded(spool: Path) -> list[dict[str, Any]]:
    """The events of somebody's spool."""
    return [event_of(stored.record) for stored in SpoolSource(spool)] if spool.exists() else []


def figures(person: Person, site: Site, page: str = "", **query: str) -> Any:
    """A page of the dashboard, as numbers, seen by somebody who may."""
    answer = person.browser.get(f"{site.dashboard}{page}", params={"format": "json", "since": "all", **query})
    assert answer.status_code == 200, answer.text
    return answer.json()


def until(condition: Any, site: Site) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, site.log[-4000:]
        time.sleep(0.2)


def runs_of(person: Person, site: Site, name: str) -> int:
    """How many runs of somebody the dashboard shows."""
    rows = figures(person, site)["tables"]["people"]
    return sum(int(row["runs"]) for row in rows if row["subject"] == subject_of(site, name))


def test_says_what_one_has_to_know(site: Site) -> None:
    """It prints where the Hub is, and a password for each account, which is then in no file of the Hub's."""
    assert f"\n    {site.url}\n" in site.printed
    assert len(site.passwords) == 2
    for password in site.passwords.values():
        assert site.printed.count(password) == 1
        kept = [path for path in (site.folder / "state").rglob("*") if path.is_file()]
        assert [path.name for path in kept if password.encode() in path.read_bytes()] == []
        assert not any(password in arguments for arguments in site.arguments())


def test_secrets_are_the_hubs_alone(site: Site) -> None:
    """Every file of the Hub's own is readable for nobody else, nor is its folder."""
    state = site.folder / "state"
    assert state.stat().st_mode & 0o077 == 0
    assert [path.name for path in state.rglob("*") if path.stat().st_mode & 0o077] == []


def test_a_wrong_password_opens_nothing(site: Site) -> None:
    """Who gives a wrong password gets 403 and no session."""
    person = site.person(0)
    assert person.log_in("not the password").status_code == 403
    assert "/hub/login" in str(person.browser.get(f"{site.url}/hub/home").url)


def test_a_login_needs_its_form(site: Site) -> None:
    """A login that another site's page sends, without the form's own value, is refused."""
    name = site.names[0]
    answer = httpx.post(f"{site.url}/hub/login", data={"username": name, "password": site.passwords[name]})
    assert answer.status_code == 403


def test_two_people_are_on_the_dashboard(site: Site) -> None:
    """What each of two people runs is shown under their own subject, and nothing under anybody else's."""
    with site.person(0) as ada, site.person(1) as ben:
        first, second = site.names
        before = [runs_of(ada, site, name) for name in site.names]
        asyncio.run(run(ada.start_server(), "6 * 7", "1 / 0"))
        asyncio.run(run(ben.start_server(), "6 * 7"))
        until(lambda: runs_of(ada, site, first) == before[0] + 2, site)
        until(lambda: runs_of(ada, site, second) == before[1] + 1, site)
        assert figures(ada, site)["facts"]["runs"] == sum(before) + 3


def test_the_dashboard_is_not_everybodys(site: Site) -> None:
    """Who was not named for it is refused its pages, though they may log in."""
    with site.person(1) as ben:
        answer = ben.browser.get(site.dashboard)
        assert answer.status_code == 403
        assert "fact-runs" not in answer.text


@pytest.mark.parametrize("route", [*JUPYTER_ROUTES, *OWN_ROUTES])
def test_another_users_server_is_closed(site: Site, route: str) -> None:
    """Each route of somebody's server refuses another user, with their cookies and with a token of theirs."""
    with site.person(0) as ada, site.person(1) as ben:
        theirs, mine = ada.start_server(), ben.start_server()
        assert httpx.get(f"{theirs.url}api/me", headers={"Authorization": f"token {theirs.token}"}).status_code == 200
        answer = ben.browser.get(f"{theirs.url}{route}")
        assert answer.status_code in (403, 405), answer.url  # 405: a route without GET
        for method in ("GET", "POST", "PUT", "DELETE"):
            headers = {"Authorization": f"token {mine.token}"}
            assert httpx.request(method, f"{theirs.url}{route}", headers=headers).status_code in (403, 405)
            # Nobody is sent to log in, or refused.
            assert httpx.request(method, f"{theirs.url}{route}").status_code in (302, 403, 405)


def test_a_page_of_another_origin_gets_nothing(site: Site) -> None:
    """A page elsewhere that uses a person's own cookies posts nothing, opens no websocket, and may read no answer."""
    with site.person(0) as ada:
        server = ada.start_server()
        ada.browser.get(f"{server.url}lab")
        elsewhere = {"Origin": "https://elsewhere.example", "Referer": "https://elsewhere.example/"}
        posted = ada.browser.post(f"{server.url}api/kernels", headers=elsewhere, json={"name": "python3"})
        assert posted.status_code == 403
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        key = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
        opened = ada.browser.get(f"{server.url}api/events/subscribe", headers={**elsewhere, **upgrade, **key})
        assert opened.status_code == 403
        for url in (
            f"{server.url}exec-events/status",
            f"{server.url}api/contents",
            site.dashboard,
            f"{site.url}/hub/home",
        ):
            answer = ada.browser.get(url, headers=elsewhere)
            assert "access-control-allow-origin" not in answer.headers, url
            assert "access-control-allow-credentials" not in answer.headers, url


def test_another_user_starts_and_stops_nothing(site: Site) -> None:
    """The Hub lets nobody see, start or stop somebody else's server, nor make a token for them."""
    with site.person(0) as ada, site.person(1) as ben:
        ada.start_server()
        name = ada.name
        for method, path in (
            ("GET", f"/users/{name}"),
            ("POST", f"/users/{name}/server"),
            ("DELETE", f"/users/{name}/server"),
            ("POST", f"/users/{name}/tokens"),
        ):
            assert ben.hub_api(method, path).status_code in (403, 404), (method, path)
        assert ada.server_is_ready()


def test_logging_out_closes_it(site: Site) -> None:
    """After a logout the browser is asked to log in again by the Hub, by the person's server and by its routes."""
    with site.person(0) as ada:
        server = ada.start_server()
        ada.browser.get(f"{server.url}lab")
        headers = {"X-XSRFToken": ada.xsrf(f"/user/{ada.name}/")}
        assert ada.browser.get(f"{server.url}api/status", headers=headers).status_code == 200
        assert ada.browser.get(f"{server.url}exec-events/status", headers=headers).status_code == 200
        ada.browser.get(f"{site.url}/hub/logout")
        for url in (f"{site.url}/hub/home", f"{server.url}lab"):
            assert "/hub/login" in str(ada.browser.get(url).url), url
        for route in ("api/status", "exec-events/status"):
            assert ada.browser.get(f"{server.url}{route}", headers=headers).status_code == 403


def test_a_server_that_is_started_again_goes_on_recording(site: Site) -> None:
    """Records of a person's first and second server are all in their spool, which verifies, and each server's end too."""
    with site.person(1) as ben:
        spool = site.spool(ben.name)
        if ben.servers():
            ben.stop_server()
        before = recorded(spool)
        asyncio.run(run(ben.start_server(), "1"))
        ben.stop_server()
        asyncio.run(run(ben.start_server(), "2"))
        ben.stop_server()
    assert verify_source(SpoolSource(spool)).ok
    new = recorded(spool)[len(before) :]
    assert [event["status"] for event in new if "status" in event] == ["ok", "ok"]
    assert [event["cause"] for event in new if event.get("action") == "stopped"] == ["stop", "stop"]


def test_in_a_browser(site: Site) -> None:
    """Two people log in, run a cell in JupyterLab, and one of them sees both on the dashboard."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright, launched(playwright) as browser:
        for name in site.names:
            page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
            page.set_default_timeout(60_000)
            log_in(page, site, name)
            run_a_cell(page, site, name)
            page.screenshot(path=SCREENSHOTS / f"hub-{name[:3]}-lab.png")
            if name == site.names[0]:
                first = page
        first.goto(site.dashboard)
        for name in site.names:
            expect(first.get_by_text(subject_of(site, name)[:16]).first).to_be_visible(timeout=30_000)
        first.screenshot(path=SCREENSHOTS / "hub-dashboard.png", full_page=True)


def log_in(page: Page, site: Site, name: str) -> None:
    """As a person does."""
    page.goto(site.url)
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(site.passwords[name])
    page.screenshot(path=SCREENSHOTS / "hub-login.png")
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/lab**", timeout=120_000)


def run_a_cell(page: Page, site: Site, name: str) -> None:
    """In a new notebook; what it shows is there."""
    page.locator(".jp-LauncherCard[data-category=Notebook]").first.click()
    # Before its kernel is there, a new notebook may take what is typed away again.
    expect(page.get_by_text("| Idle")).to_be_visible(timeout=60_000)
    cell = page.locator(".jp-Notebook .jp-Cell .cm-content").first
    cell.click()
    page.keyboard.type(f"'hello ' + '{name}'")
    expect(cell).to_contain_text(name)
    page.keyboard.press("Shift+Enter")
    expect(page.locator(".jp-OutputArea-output").first).to_contain_text(f"hello {name}", timeout=60_000)
    mark = page.locator(".jp-Notebook .jp-CodeCell").first.locator(".jp-ExecEvents-mark")
    expect(mark).to_have_attribute("data-kind", "recorded", timeout=60_000)


@pytest.mark.timeout(400)
def test_its_end_is_the_end_of_everything(installed: Path) -> None:
    """After Ctrl-C no process of the Hub, its services, its users' servers, their kernels and their daemons is left."""
    with started(installed) as site:
        with site.person(0) as ada:
            daemon = "import subprocess; subprocess.Popen(['sleep', '4321'], start_new_session=True).pid"
            asyncio.run(run(ada.start_server(), daemon))
        running = site.processes()
        assert len(running) > 5
        # What make ends with, as every program that Ctrl-C ends.
        assert stop(site.process) == -signal.SIGINT
        assert [
            process for process in running if process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        ] == []
        assert site.processes() == []
        assert not os.path.exists(site.folder / "state/jupyterhub.pid")
