"""A real server with the recorder, shared by the tests of one module, and its record as tests want to read it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from exec_events.testing import RunningServer, records

Event = dict[str, Any]

PLAIN = "c.ExecEvents.identity = 'plain'\n"


def kind(event: Event) -> str:
    """The short name of an event's schema."""
    return str(event["__schema__"]).split("/")[-2]


def events_of(server: RunningServer, name: str, **fields: Any) -> list[Event]:
    """The committed events of one schema whose fields are these."""
    found = [record["event"] for record in records(server.data_dir)]
    return [e for e in found if kind(e) == name and all(e.get(key) == value for key, value in fields.items())]


async def recorded(
    server: RunningServer, count: int, *, settle: float = 0.3, timeout: float = 15, **fields: Any
) -> list[Event]:
    """
    Exactly ``count`` cell_execution events whose fields are these, by time of request.

    Waits until they are there and a moment longer, so that one too many shows.
    """
    deadline = time.monotonic() + timeout
    while len(await asyncio.to_thread(events_of, server, "cell_execution", **fields)) < count:
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(0.05)
    await asyncio.sleep(settle)
    found = await asyncio.to_thread(events_of, server, "cell_execution", **fields)
    assert len(found) == count, [(e["status"], e["client"], e.get("cell_id")) for e in found]
    return sorted(found, key=lambda event: str(event["requested_at"]))


async def eventually(
    server: RunningServer, name: str, count: int = 1, timeout: float = 15, **fields: Any
) -> list[Event]:
    """At least ``count`` events of one schema whose fields are these, waiting for them."""
    deadline = time.monotonic() + timeout
    while True:
        found = await asyncio.to_thread(events_of, server, name, **fields)
        if len(found) >= count:
            return found
        assert time.monotonic() < deadline, f"{len(found)} {name} events of {fields}, not {count}"
        await asyncio.sleep(0.05)


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """A server whose events carry plain names, so that tests can be read."""
    with RunningServer(config=PLAIN) as running:
        yield running
        assert "exec-events: fault" not in running.log
