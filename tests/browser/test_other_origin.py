"""A page of another origin, open in the browser of somebody who is logged in to their Jupyter server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from exec_events.testing import RunningServer, events

CONFIG = "c.ExecEvents.mode = 'consent'\nc.ExecEvents.actions = True\n"
# What the page tries: reading each route, and posting in each way that needs no leave, or asks for it.
TRY = """
async ([url, routes]) => {
  const tried = {};
  const attempt = async (name, work) => {
    try { tried[name] = await work(); } catch (error) { tried[name] = "refused"; }
  };
  for (const [method, route, body] of routes) {
    const options = { method, body, credentials: "include" };
    await attempt(`${method} ${route}`, async () => (await fetch(url + route, options)).text());
    await attempt(`${method} ${route} as JSON`, async () =>
      (await fetch(url + route, { ...options, headers: { "Content-Type": "application/json" } })).text());
    if (method === "GET" || method === "POST") {
      await attempt(`${method} ${route} blindly`, async () =>
        (await fetch(url + route, { ...options, mode: "no-cors" })).text());
    }
  }
  await attempt("form", () => new Promise((resolve) => {
    const frame = document.createElement("iframe");
    frame.name = "f";
    document.body.append(frame);
    const form = document.createElement("form");
    Object.assign(form, { action: url + "exec-events/cells", method: "POST", target: "f", enctype: "text/plain" });
    document.body.append(form);
    frame.onload = () => {
      let text = "refused";
      try { text = frame.contentDocument.body.textContent; } catch (error) {}
      resolve(text === "" ? "refused" : text);
    };
    form.submit();
  }));
  await attempt("websocket", () => new Promise((resolve, reject) => {
    const socket = new WebSocket(url.replace("http", "ws") + "api/events/subscribe");
    socket.onopen = () => resolve("open");
    socket.onerror = reject;
  }));
  return tried;
}
"""
ROUTES: list[list[Any]] = [
    ["GET", "exec-events/status", None],
    ["GET", "exec-events/policy", None],
    ["GET", "exec-events/consent", None],
    ["GET", "exec-events/events", None],
    ["PUT", "exec-events/consent", '{"version": "1"}'],
    ["DELETE", "exec-events/consent", None],
    ["POST", "exec-events/cells", '{"path": "a.ipynb", "cells": []}'],
    ["POST", "exec-events/verify", '{"path": "a.ipynb", "notebook": {"nbformat": 4, "cells": []}}'],
    [
        "POST",
        "api/events",
        '{"schema_id": "https://exec-events.org/schemas/notebook_action/v1", "version": "1", '
        '"data": {"action": "opened", "notebook": "a.ipynb"}}',
    ],
]


class Empty(BaseHTTPRequestHandler):
    """A site with one empty page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><body></body>")

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    """A page of another origin: the same host, so that the browser sends it every cookie, and another port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Empty) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def site() -> Iterator[RunningServer]:
    """A server in mode consent that takes notebook actions."""
    with RunningServer(config=CONFIG) as running:
        yield running


def logged_in(browser: Browser, site: RunningServer) -> Page:
    """A page in a browser that is logged in."""
    page = browser.new_context().new_page()
    page.goto(f"{site.url}login?token={site.token}")
    return page


def test_it_reads_nothing_and_changes_nothing(browser: Browser, site: RunningServer, elsewhere: str) -> None:
    """Every fetch, form, blind post and websocket of another origin's page gives it nothing, and none leaves an event."""
    page = logged_in(browser, site)
    own = page.evaluate("async (url) => (await fetch(url)).status", f"{site.url}exec-events/policy")
    assert own == 200
    page.goto(elsewhere)
    tried = page.evaluate(TRY, [site.url, ROUTES])
    assert len(tried) == 2 * len(ROUTES) + sum(row[0] in ("GET", "POST") for row in ROUTES) + 2
    assert {name: answer for name, answer in tried.items() if answer not in ("refused", "")} == {}
    page.context.close()
    assert events(site.data_dir, "consent") == []
    assert events(site.data_dir, "notebook_action") == []
