"""notebook_action: what only browsers know, through /api/events, on the server's terms."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_events import EventLogger

from conftest import PLAIN, events_of, eventually
from exec_events.emit import Emitter, ForgedEvent
from exec_events.notebook_actions import BURST, SCHEMA_ID, NotebookActions, Rate
from exec_events.testing import RunningServer, records
from two_people import TWO, Answer, ask, call

ON = "c.ExecEvents.actions = True\n"
ACTIONS = (
    "opened",
    "closed",
    "saved",
    "cell_added",
    "cell_removed",
    "cell_moved",
    "cell_pasted",
    "visible",
    "hidden",
)


@pytest.fixture(scope="module")
def site() -> Iterator[RunningServer]:
    """A server of two people that takes notebook actions."""
    with RunningServer(config=PLAIN + TWO + ON) as running:
        yield running
        assert "exec-events: fault" not in running.log


def say(server: RunningServer, name: str, data: Any, **more: Any) -> Answer:
    """Post a notebook action as the browser of ana or ben does."""
    body = {"schema_id": SCHEMA_ID, "version": "1", "data": data, **more}
    return call(server, "POST", "/api/events", body, Authorization=f"token token-of-{name}")


def said(server: RunningServer, **fields: Any) -> list[dict[str, Any]]:
    """The notebook actions that are recorded."""
    return events_of(server, "notebook_action", **fields)


async def test_every_action_is_sealed_into_its_persons_chain(site: RunningServer) -> None:
    """Each action is recorded once, in its person's chain, as the browser's word, with the server's time and recorder."""
    for action in ACTIONS:
        data = {"action": action, "notebook": "a.ipynb", "cell_id": "c1", "cells": 3}
        assert (await asyncio.to_thread(say, site, "ana", data)).status == 204
    found = await eventually(site, "notebook_action", len(ACTIONS), subject="ana")
    assert [event["action"] for event in found] == list(ACTIONS)
    status = await asyncio.to_thread(site.rest, "GET", "/exec-events/status")
    for event in found:
        assert {name: value for name, value in event.items() if name not in ("time", "action")} == {
            "__schema__": SCHEMA_ID,
            "__schema_version__": "1",
            "recorder_id": status["recorder_id"],
            "trust": "browser",
            "subject": "ana",
            "subject_from": "request",
            "notebook": "a.ipynb",
            "cell_id": "c1",
            "cells": 3,
        }
    chains = {r["seal"]["chain"] for r in records(site.data_dir) if r["event"].get("subject") == "ana"}
    assert len(chains) == 1
    assert ask(site, "ana", "GET", "policy").json["actions"] is True


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"action": "opened"},
        {"action": "typed", "notebook": "b.ipynb"},
        {"action": "opened", "notebook": ""},
        {"action": "opened", "notebook": "n" * 1025},
        {"action": "opened", "notebook": 1},
        {"action": "opened", "notebook": "b.ipynb", "cell_id": "c" * 129},
        {"action": "opened", "notebook": "b.ipynb", "cells": -1},
        {"action": "opened", "notebook": "b.ipynb", "cells": 10**9},
        {"action": "opened", "notebook": "b.ipynb", "source": "1 + 1"},
        {"action": "opened", "notebook": "b.ipynb", "subject": "ana"},
        {"action": "opened", "notebook": "b.ipynb", "trust": "server"},
        {"action": "opened", "notebook": "b.ipynb", "time": "2020-01-01T00:00:00.000000Z"},
        {"action": "opened", "notebook": "b.ipynb", "__timestamp__": "2020-01-01T00:00:00Z"},
    ],
)
def test_what_a_browser_may_not_say_is_refused(site: RunningServer, data: Any) -> None:
    """Anything but an action, a notebook, a cell and a count of cells, each within its bounds, is refused and not recorded."""
    assert say(site, "ben", data).status == 400
    assert not said(site, subject="ben")
    assert not said(site, notebook="b.ipynb")


async def test_the_time_is_the_servers(site: RunningServer) -> None:
    """A timestamp that the browser chose changes nothing of the record."""
    data = {"action": "opened", "notebook": "time.ipynb"}
    answer = await asyncio.to_thread(say, site, "ana", data, timestamp="2020-01-01T00:00:00+00:00Z")
    assert answer.status == 204
    (event,) = await eventually(site, "notebook_action", notebook="time.ipynb")
    assert event["time"] > "2026"
    assert "2020" not in str(event)


def test_other_events_of_ours_stay_closed(site: RunningServer) -> None:
    """With actions switched on, no other event of the recorder's can be posted, a consent least of all."""
    for name in ("consent", "cell_execution", "kernel_lifecycle", "recorder", "late_output"):
        body = {"schema_id": SCHEMA_ID.replace("notebook_action", name), "version": "1", "data": {"action": "given"}}
        answer = call(site, "POST", "/api/events", body, Authorization="token token-of-ana")
        assert answer.status == 400
        assert "recorder alone" in answer.text


def test_one_persons_flood_is_cut_and_another_is_heard(tmp_path: Path) -> None:
    """Beyond a hundred at once a person's actions are refused, and another person's are still taken."""
    with RunningServer(tmp_path, config=PLAIN + TWO + ON) as server:
        data = {"action": "visible", "notebook": "flood.ipynb"}
        taken = [say(server, "ana", data).status for _ in range(300)]
        assert say(server, "ben", data).status == 204
        assert set(taken) == {204, 400}
        assert taken[:100] == [204] * 100
        refused = say(server, "ana", {"action": "visible", "notebook": "flood.ipynb"})
        assert (refused.status == 204) or "too many" in refused.text
    assert len(said(server, subject="ana")) == taken.count(204) + (refused.status == 204)
    assert len(said(server, subject="ben")) == 1


def test_a_bucket_fills_again() -> None:
    """A subject may say its burst at once, then so many a second, and no more than the burst after a rest."""
    rate = Rate(2.0, 3.0)
    assert [rate.take("a", 0.0) for _ in range(4)] == [True, True, True, False]
    assert rate.take("b", 0.0)
    assert not rate.take("a", 0.4)
    assert rate.take("a", 0.5)
    assert not rate.take("a", 0.9)
    assert [rate.take("a", 100.0) for _ in range(4)] == [True, True, True, False]
    for number in range(2000):
        rate.take(f"s{number}", 100.0)
    assert len(rate._buckets) == 1000


@pytest.mark.parametrize("config", ["", "c.ExecEvents.mode = 'consent'\n" + ON])
def test_off_or_not_agreed_nothing_is_taken(tmp_path: Path, config: str) -> None:
    """Where actions are off, as they are by default, or the person did not agree to be recorded, every action is refused and policy says so."""
    with RunningServer(tmp_path, config=PLAIN + TWO + config) as server:
        answer = say(server, "ana", {"action": "opened", "notebook": "a.ipynb"})
        assert answer.status == 400
        assert ask(server, "ana", "GET", "policy").json["actions"] is False
    assert not said(server)


def test_only_a_request_can_speak_for_somebody() -> None:
    """Code that emits a notebook action outside anybody's request is refused, and after a stop nobody is heard."""
    logger = EventLogger()
    logger.register_handler(logging.NullHandler())
    emitter = Emitter(logger, logging.getLogger("test"))
    emitter.install()
    sealed: list[Any] = []
    actions = NotebookActions(None, None, lambda: None, sealed.append)  # type: ignore[arg-type]
    data = {"action": "opened", "notebook": "a.ipynb"}
    with pytest.raises(ForgedEvent):
        logger.emit(schema_id=SCHEMA_ID, data=data)
    emitter.open_door(SCHEMA_ID, actions)
    with pytest.raises(Exception, match="logged in"):
        logger.emit(schema_id=SCHEMA_ID, data=data)
    emitter.remove()
    with pytest.raises(ForgedEvent):
        logger.emit(schema_id=SCHEMA_ID, data=data)
    assert sealed == []
    assert BURST == 100
