"""The routes of the extension: every one asks who is there and what they may, and says nothing it should not."""

from __future__ import annotations

import asyncio
import http.client
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from jupyter_server.base.handlers import APIHandler
from tornado.web import RequestHandler

from conftest import PLAIN, recorded
from exec_events import metrics
from exec_events.api_handlers import AUTH_RESOURCE
from exec_events.app import ExecEvents
from exec_events.testing import NotebookClient, RunningServer

# Refuses everything of ours to a request that says so, so that one server serves all tests.
AUTHORIZER = """
from jupyter_server.auth import Authorizer

class Refusing(Authorizer):
    def is_authorized(self, handler, user, action, resource):
        return not (resource == "exec-events" and "X-Refused" in handler.request.headers)

c.ServerApp.authorizer_class = Refusing
"""
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def routes() -> list[tuple[str, type[RequestHandler]]]:
    """Every route as the extension registers it."""
    extension = ExecEvents()
    extension.initialize_handlers()
    return [(route[0], route[1]) for route in extension.handlers]


def implemented(handler: type[RequestHandler]) -> list[str]:
    """The methods a handler answers."""
    nothing = RequestHandler._unimplemented_method
    return [m for m in METHODS if getattr(handler, m.lower()) is not nothing and m != "OPTIONS"]


CALLS = [(method, route) for route, handler in routes() for method in implemented(handler)]


@pytest.fixture(scope="module")
def site() -> Iterator[RunningServer]:
    """A server with an authorizer of its own, a sink and a listener."""
    config = PLAIN + AUTHORIZER + "c.ExecEvents.listeners = ['logging:debug']\n"
    config += "import os\nc.ExecEvents.deliver_to = ['file://' + os.environ['JUPYTER_DATA_DIR'] + '/out.jsonl']\n"
    with RunningServer(config=config) as running:
        yield running


def call(server: RunningServer, method: str, path: str, **headers: str) -> tuple[int, str, dict[str, str]]:
    """Call a server with these headers and no others: status, body, headers."""
    url = urlsplit(server.url)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=30)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), dict(answer.getheaders())
    finally:
        connection.close()


def test_the_routes_are_ours() -> None:
    """The extension has routes, all below /exec-events/, without parameters and with one resource."""
    assert CALLS
    for route, handler in routes():
        assert re.fullmatch(r"/exec-events/[a-z-]+", route)
        assert issubclass(handler, APIHandler)
        assert getattr(handler, "auth_resource", None) == AUTH_RESOURCE


@pytest.mark.parametrize(("method", "route"), CALLS)
def test_nobody_gets_nothing(site: RunningServer, method: str, route: str) -> None:
    """Without a token, or with a wrong one, every route refuses."""
    for headers in ({}, {"Authorization": "token wrong"}, {"Authorization": "token "}):
        status, body, _ = call(site, method, route, **headers)
        assert status in (401, 403)
        assert "recorder_id" not in body


@pytest.mark.parametrize(("method", "route"), CALLS)
def test_who_may_not_is_refused(site: RunningServer, method: str, route: str) -> None:
    """A user whom the Authorizer denies the resource exec-events gets 403 from every route."""
    status, body, _ = call(site, method, route, Authorization=f"token {site.token}", X_Refused="yes")
    assert status == 403
    assert "recorder_id" not in body


@pytest.mark.parametrize(("method", "route"), CALLS)
def test_who_may_gets_an_answer(site: RunningServer, method: str, route: str) -> None:
    """An allowed user gets 200 and JSON that no other site can read."""
    status, _, headers = call(site, method, route, Authorization=f"token {site.token}")
    assert status == 200
    assert headers["Content-Type"].startswith("application/json")
    assert headers.get("Access-Control-Allow-Origin", "") == ""


@pytest.mark.parametrize("route", [route for route, _ in routes()])
def test_xsrf_stays_on(site: RunningServer, route: str) -> None:
    """A browser's cookie alone changes nothing: a request without its XSRF token is refused, ours and the server's."""
    _, _, headers = call(site, "GET", f"/login?token={site.token}")
    cookie = headers["Set-Cookie"].partition(";")[0]
    assert call(site, "GET", route, Cookie=cookie)[0] in (200, 403)
    for path in (route, "/api/events", "/api/kernels"):
        status, body, _ = call(site, "POST", path, Cookie=cookie)
        assert (status, "xsrf" in body.lower()) == (403, True), path
    for _, handler in routes():
        assert handler.check_xsrf_cookie is APIHandler.check_xsrf_cookie
        assert handler.prepare is APIHandler.prepare


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("route", [route for route, _ in routes()])
def test_no_other_method_does_anything(site: RunningServer, route: str, method: str) -> None:
    """A method that a route does not have is refused, also to an allowed user."""
    if (method, route) in CALLS or method == "OPTIONS":
        return
    assert call(site, method, route, Authorization=f"token {site.token}")[0] in (403, 404, 405)


def figures(text: str) -> dict[str, float]:
    """The samples of ours in what /metrics answers, by name."""
    found = re.findall(r"^(exec_events_[a-z_]+)(?:\{[^}]*\})? ([-0-9.e+]+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


async def test_metrics(site: RunningServer) -> None:
    """/metrics has every name of metrics.py, with what has happened, for who may see the server's metrics only."""
    assert (await asyncio.to_thread(call, site, "GET", "/metrics"))[0] in (401, 403)
    before = figures(await asyncio.to_thread(site.rest, "GET", "/metrics"))
    async with NotebookClient(site, notebook="metrics.ipynb") as client:
        for n in range(4):
            await client.execute(f"print({n})")
        msg_id = await client.submit("import time; time.sleep(1)")
        await recorded(site, 4, kernel_id=client.kernel_id)
        during = figures(await asyncio.to_thread(site.rest, "GET", "/metrics"))
        await client.wait(msg_id)
        await recorded(site, 5, kernel_id=client.kernel_id)
    text = await asyncio.to_thread(site.rest, "GET", "/metrics")
    after = figures(text)
    constants = {value for name, value in vars(metrics).items() if name.isupper() and isinstance(value, str)}
    samples = {name.removesuffix("_total") for name in after}
    assert samples == {name for name in constants if name.startswith("exec_events_")}
    status: dict[str, Any] = await asyncio.to_thread(site.rest, "GET", "/exec-events/status")
    assert after["exec_events_spooled_total"] >= before["exec_events_spooled_total"] + 5
    assert after["exec_events_spooled_total"] == status["spooled"]
    assert (during["exec_events_open_executions"], after["exec_events_open_executions"]) == (1, 0)
    assert after["exec_events_delivered_total"] == after["exec_events_spooled_total"]
    assert after["exec_events_healthy"] == 1
    assert after["exec_events_spool_bytes"] > 10_000
    for name in (
        "lost_total",
        "held",
        "faults_total",
        "delivery_lag",
        "delivery_retries_total",
        "listener_failures_total",
    ):
        assert after[f"exec_events_{name}"] == 0, name
    assert 'listener="logging:debug"' in text
    assert "out.jsonl" in text
