"""The routes of the extension: every one asks who is there and what they may, and says nothing it should not."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import jsonschema
import pytest
import yaml
from jupyter_server.base.handlers import APIHandler
from openapi_spec_validator import validate
from tornado.web import RequestHandler

from conftest import PLAIN, events_of, recorded
from exec_events import metrics
from exec_events.api_handlers import AUTH_RESOURCE
from exec_events.app import ExecEvents
from exec_events.testing import RunningServer, records
from two_people import TWO, ask, call, notebook

# Refuses everything of ours to a request that says so, so that one server serves all tests; and keeps what is not
# to be changed from who may only read.
AUTHORIZER = """
from jupyter_server.auth import Authorizer

class Refusing(Authorizer):
    def is_authorized(self, handler, user, action, resource):
        if resource != "exec-events":
            return True
        return "X-Refused" not in handler.request.headers and (
            action == "read" or "X-Reader" not in handler.request.headers
        )

c.ServerApp.authorizer_class = Refusing
"""
CANARY = "canary-77e1c0-in-the-environment"
EVIL = "http://127.0.0.1:1"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
OPENAPI = yaml.safe_load((files("exec_events") / "openapi.yaml").read_text())
NOTEBOOK = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}
BODIES: dict[tuple[str, str], Any] = {
    ("PUT", "/exec-events/consent"): {"version": "1"},
    ("POST", "/exec-events/cells"): {"path": "a.ipynb", "cells": [{"id": "a", "source": "1"}]},
    ("POST", "/exec-events/verify"): {"path": "a.ipynb", "notebook": NOTEBOOK},
}


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
CHANGING = [(method, route) for method, route in CALLS if method != "GET"]
READING = [(method, route) for method, route in CALLS if method in ("GET", "POST")]
SECRETS = ("recorder_id", "subject", "chain", "version", CANARY)


@pytest.fixture(scope="module")
def site() -> Iterator[RunningServer]:
    """A server of two people, in mode consent, with an authorizer of its own, a sink, a listener, and a secret."""
    config = PLAIN + TWO + AUTHORIZER + "c.ExecEvents.listeners = ['logging:debug']\nc.ExecEvents.mode = 'consent'\n"
    config += "import os\nc.ExecEvents.deliver_to = ['file://' + os.environ['JUPYTER_DATA_DIR'] + '/out.jsonl']\n"
    with RunningServer(config=config, env={"CANARY": CANARY}) as running:
        yield running
        assert "exec-events: fault" not in running.log


@pytest.fixture(scope="module")
def cookie(site: RunningServer) -> str:
    """What a browser that logged in sends with every request, whatever page makes it."""
    return call(site, "GET", f"/login?token={site.token}").headers["Set-Cookie"].partition(";")[0]


@pytest.fixture(scope="module")
def xsrf(site: RunningServer, cookie: str) -> str:
    """The XSRF cookie of that browser, which only pages of the server itself can read."""
    answer = call(site, "GET", "/no-such-page", Cookie=cookie)
    (found,) = re.findall(r"_xsrf=[^;]+", str(answer.headers))
    return str(found)


def test_the_routes_are_ours() -> None:
    """The extension has routes, all below /exec-events/, without parameters and with one resource."""
    assert CALLS
    for route, handler in routes():
        assert re.fullmatch(r"/exec-events/[a-z-]+", route)
        assert issubclass(handler, APIHandler)
        assert getattr(handler, "auth_resource", None) == AUTH_RESOURCE


def test_openapi_yaml_is_the_routes() -> None:
    """openapi.yaml is valid, and has exactly the routes and methods that are served."""
    validate(OPENAPI)
    written = {(method.upper(), path) for path, methods in OPENAPI["paths"].items() for method in methods}
    assert written == set(CALLS)


@pytest.mark.parametrize(("method", "route"), CALLS)
def test_nobody_gets_nothing(site: RunningServer, method: str, route: str) -> None:
    """Without a token, or with a wrong one, every route refuses."""
    for headers in ({}, {"Authorization": "token wrong"}, {"Authorization": "token "}):
        status, body, _ = call(site, method, route, BODIES.get((method, route)), **headers)
        assert status in (401, 403)
        assert not [secret for secret in SECRETS if secret in body]


@pytest.mark.parametrize(("method", "route"), CALLS)
def test_who_may_not_is_refused(site: RunningServer, method: str, route: str) -> None:
    """A user whom the Authorizer denies the resource exec-events gets 403 from every route, and changes nothing."""
    token = f"token {site.token}"
    body = BODIES.get((method, route))
    status, text, _ = call(site, method, route, body, Authorization=token, X_Refused="yes")
    assert status == 403
    assert not [secret for secret in SECRETS if secret in text]
    assert not events_of(site, "consent")


@pytest.mark.parametrize(("method", "route"), CALLS)
def test_who_may_only_read_changes_nothing(site: RunningServer, method: str, route: str) -> None:
    """Whom the Authorizer lets read sees their policy, marks and verdicts, and can neither agree nor withdraw."""
    body = BODIES.get((method, route))
    status, _, _ = call(site, method, route, body, Authorization=f"token {site.token}", X_Reader="yes")
    assert status == (200 if (method, route) in READING else 403)


@pytest.mark.parametrize(("method", "route"), CALLS)
def test_who_may_gets_an_answer(site: RunningServer, method: str, route: str) -> None:
    """An allowed user gets 200, the JSON that openapi.yaml describes, nothing of the environment, and no other site may read it."""
    body = BODIES.get((method, route))
    status, text, headers = call(site, method, route, body, Authorization=f"token {site.token}")
    assert status == 200
    assert headers["Content-Type"].startswith("application/json")
    assert headers.get("Access-Control-Allow-Origin", "") == ""
    assert CANARY not in text
    schema = {**described(route, method, "200"), "components": OPENAPI["components"]}
    jsonschema.Draft202012Validator(schema).validate(json.loads(text))


def described(route: str, method: str, status: str) -> dict[str, Any]:
    """The schema of an answer in openapi.yaml."""
    answer = OPENAPI["paths"][route][method.lower()]["responses"][status]
    if "$ref" in answer:
        answer = OPENAPI["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    schema: dict[str, Any] = answer["content"]["application/json"]["schema"]
    return schema


@pytest.mark.parametrize(
    ("method", "route", "body", "status"),
    [
        ("PUT", "consent", b"{", 400),
        ("PUT", "consent", {}, 400),
        ("PUT", "consent", {"version": "2"}, 409),
        ("PUT", "consent", {"version": "1", "subject": "ben"}, 400),
        ("POST", "cells", {"path": "a.ipynb"}, 400),
        ("POST", "cells", {"path": "a.ipynb", "cells": [{"id": "a", "source": 1}]}, 400),
        ("POST", "cells", {"path": "a.ipynb", "cells": [{"id": "a", "source": ""}] * 2001}, 400),
        ("POST", "cells", b" " * (32 * 1024 * 1024 + 1), 413),
        ("POST", "verify", {"path": "a.ipynb", "notebook": {"nbformat": 3, "cells": []}}, 400),
        ("POST", "verify", {"path": "a.ipynb", "notebook": {"nbformat": 4}}, 400),
        ("POST", "verify", {"path": "a.ipynb", "notebook": {"nbformat": 4, "cells": ["secret-9c1"]}}, 400),
        ("GET", "events?limit=0", None, 400),
        ("GET", "events?limit=501", None, 400),
        ("GET", "events?limit=99999999999999999999", None, 400),
        ("GET", "events?limit=%F0%9D%9F%99", None, 400),
    ],
)
def test_what_is_not_as_described_is_refused(
    site: RunningServer, method: str, route: str, body: Any, status: int
) -> None:
    """A request that openapi.yaml does not describe gets 400, 409 or 413 and a message that repeats none of it."""
    answer = ask(site, "ana", method, route, body)
    assert answer.status == status, answer.text
    assert answer.json["message"]
    assert "secret-9c1" not in answer.text
    assert not events_of(site, "consent", subject="ana")


def test_consent_is_nothing_in_mode_audit() -> None:
    """In mode audit consent is null, to agree or withdraw is 400, and nobody can switch recording off so."""
    with RunningServer() as audit:
        assert audit.rest("GET", "/exec-events/consent") is None
        for method in ("PUT", "DELETE"):
            headers = {"Authorization": f"token {audit.token}"}
            answer = call(audit, method, "/exec-events/consent", {"version": "1"}, **headers)
            assert answer.status == 400
            assert "audit" in answer.json["message"]
        policy = audit.rest("GET", "/exec-events/policy")
        assert (policy["mode"], policy["recording"], policy["consent"]) == ("audit", True, None)


def test_where_nothing_is_recorded(tmp_path: Any) -> None:
    """On a server whose recorder could not start, policy says so and why, and the other routes answer 503."""
    config = "c.ExecEvents.mode = 'consent'\nc.ExecEvents.consent_file = '/nowhere/consent.txt'\n"
    with RunningServer(config=config) as server:
        headers = {"Authorization": f"token {server.token}"}
        policy = call(server, "GET", "/exec-events/policy", **headers).json
        assert policy["recording"] is False
        assert "/nowhere/consent.txt" in policy["problems"][0]
        jsonschema.Draft202012Validator(
            {**described("/exec-events/policy", "GET", "200"), "components": OPENAPI["components"]}
        ).validate(policy)
        for method, route in CALLS:
            if not route.endswith(("/policy", "/status")):
                assert call(server, method, route, BODIES.get((method, route)), **headers).status == 503, route


async def test_one_person_sees_nothing_of_another(site: RunningServer) -> None:
    """What ana ran and said is in no answer to ben, in the same notebook and cell."""
    for name in ("ana", "ben"):
        assert (await asyncio.to_thread(ask, site, name, "PUT", "consent", {"version": "1"})).status == 200
    async with notebook(site, "ana", "shared.ipynb") as client:
        await client.execute("'of-ana'", cell_id="c1")
        await recorded(site, 1, kernel_id=client.kernel_id, subject="ana")
        body = {"path": "shared.ipynb", "cells": [{"id": "c1", "source": "'of-ana'"}]}
        hers = (await asyncio.to_thread(ask, site, "ana", "POST", "cells", body)).json
        his = (await asyncio.to_thread(ask, site, "ben", "POST", "cells", body)).json
        assert list(hers["cells"]) == ["c1"]
        assert his == {"cells": {}, "pending": []}
        msg_id = await client.submit("import time; time.sleep(1)", cell_id="c2")
        body["cells"].append({"id": "c2", "source": ""})
        assert (await asyncio.to_thread(ask, site, "ana", "POST", "cells", body)).json["pending"] == ["c2"]
        assert (await asyncio.to_thread(ask, site, "ben", "POST", "cells", body)).json["pending"] == []
        await client.wait(msg_id)
        await recorded(site, 2, kernel_id=client.kernel_id, subject="ana")
    for answer in (ask(site, "ben", "GET", "events?limit=500"), ask(site, "ben", "GET", "policy")):
        assert "ana" not in answer.text.replace("shared.ipynb", "")
    events = ask(site, "ana", "GET", "events?limit=500").json["events"]
    assert {found["event"]["subject"] for found in events} == {"ana"}
    times = [found["event"]["time"] for found in events]
    assert times == sorted(times, reverse=True)
    assert [found["event"]["status"] for found in events if "status" in found["event"]] == ["ok", "ok"]
    assert len(ask(site, "ana", "GET", "events?limit=1").json["events"]) == 1
    for name in ("ana", "ben"):
        assert ask(site, name, "DELETE", "consent").status == 200


@pytest.mark.parametrize(("method", "route"), [*CHANGING, ("POST", "/api/events"), ("POST", "/api/kernels")])
def test_xsrf_stays_on(site: RunningServer, cookie: str, xsrf: str, method: str, route: str) -> None:
    """A browser's cookies alone change nothing: a request without its XSRF token as a header is refused, ours and the server's."""
    body = BODIES.get((method, route))
    for headers in ({}, {"X_XSRFToken": "wrong"}):
        for cookies in (cookie, f"{cookie}; {xsrf}"):
            status, text, _ = call(site, method, route, body, Cookie=cookies, **headers)
            assert (status, "xsrf" in text.lower()) == (403, True)
    token = xsrf.removeprefix("_xsrf=")
    status, text, _ = call(site, method, route, body, Cookie=f"{cookie}; {xsrf}", X_XSRFToken=token)
    assert (status in (200, 201, 400), "xsrf" in text.lower()) == (True, False)


def test_no_handler_turns_checks_off() -> None:
    """No route of ours replaces what jupyter_server does to authenticate, to check the origin and the XSRF token."""
    for _, handler in routes():
        for name in ("prepare", "check_xsrf_cookie", "check_origin", "get_current_user", "get_login_url"):
            assert getattr(handler, name) is getattr(APIHandler, name)


@pytest.mark.parametrize(("method", "route"), [*CALLS, ("POST", "/api/events")])
def test_another_origin_gets_nothing(site: RunningServer, cookie: str, xsrf: str, method: str, route: str) -> None:
    """A page of another origin, in the browser of who is logged in, gets neither an answer nor leave to read one."""
    body = BODIES.get((method, route))
    for origin in ({"Origin": EVIL}, {"Origin": "null"}):
        answer = call(site, method, route, body, Cookie=f"{cookie}; {xsrf}", Referer=f"{EVIL}/", **origin)
        assert answer.status in (403, 404)
        assert not [secret for secret in SECRETS if secret in answer.text]
        preflight = call(site, "OPTIONS", route, Cookie=cookie, Access_Control_Request_Method=method, **origin)
        for found in (answer, preflight):
            assert found.headers.get("Access-Control-Allow-Origin", "") == ""
            assert found.headers.get("Access-Control-Allow-Credentials", "") == ""


def test_another_origin_cannot_listen(site: RunningServer, cookie: str) -> None:
    """The websocket of the event stream opens for a page of the server itself, and for no other origin's, and not for nobody."""
    shake = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec_WebSocket_Version": "13",
        "Sec_WebSocket_Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    own = site.url.rstrip("/")
    path = "/api/events/subscribe"
    assert call(site, "GET", path, **shake, Origin=own).status == 403
    assert call(site, "GET", path, Cookie=cookie, **shake, Origin=EVIL).status == 403
    assert handshake(site, path, Cookie=cookie, **shake, Origin=own) == 101


def handshake(server: RunningServer, path: str, **headers: str) -> int:
    """The status of a websocket's handshake; what follows it is not read."""
    import http.client
    from urllib.parse import urlsplit

    url = urlsplit(server.url)
    connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=30)
    try:
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("route", [route for route, _ in routes()])
def test_no_other_method_does_anything(site: RunningServer, route: str, method: str) -> None:
    """A method that a route does not have is refused, also to an allowed user."""
    if (method, route) in CALLS or method == "OPTIONS":
        return
    assert call(site, method, route, Authorization=f"token {site.token}").status in (403, 404, 405)


async def test_no_environment_and_no_default_endpoint(site: RunningServer) -> None:
    """A secret of the environment that code prints is in no answer and no event, and no record goes where the site did not say."""
    assert (await asyncio.to_thread(ask, site, "ana", "PUT", "consent", {"version": "1"})).status == 200
    async with notebook(site, "ana", "canary.ipynb") as client:
        await client.execute(
            "import os; print(os.environ['CANARY']); raise KeyError(os.environ['CANARY'])", cell_id="c"
        )
        await recorded(site, 1, kernel_id=client.kernel_id)
    texts = [json.dumps(records(site.data_dir)), site.log]
    for method, route in CALLS:
        if method != "DELETE":
            texts.append(ask(site, "ana", method, route.rpartition("/")[2], BODIES.get((method, route))).text)
    assert not [text for text in texts if CANARY in text]
    assert ask(site, "ana", "DELETE", "consent").status == 200
    assert ExecEvents().deliver_to == []
    assert ExecEvents().listeners == []


def figures(text: str) -> dict[str, float]:
    """The samples of ours in what /metrics answers, by name."""
    found = re.findall(r"^(exec_events_[a-z_]+)(?:\{[^}]*\})? ([-0-9.e+]+)$", text, re.MULTILINE)
    return {name: float(value) for name, value in found}


async def test_metrics(site: RunningServer) -> None:
    """/metrics has every name of metrics.py, with what has happened, for who may see the server's metrics only."""
    assert (await asyncio.to_thread(call, site, "GET", "/metrics")).status in (401, 403)
    await asyncio.to_thread(ask, site, "ana", "PUT", "consent", {"version": "1"})
    before = figures(await asyncio.to_thread(site.rest, "GET", "/metrics"))
    async with notebook(site, "ana", "metrics.ipynb") as client:
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
