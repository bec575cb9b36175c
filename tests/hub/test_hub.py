"""A real JupyterHub, with its real proxy, publishes its own events through the handler to a real Kafka."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hub_people import Person
from hub_process import STOP_SECONDS, running_hub, until

from exec_events_schemas.record import event_of
from exec_events_schemas.sources.spool import SpoolSource
from kafka_fixtures import RunningKafka
from kafka_topic import messages_of, verified, wrong_with

SERVER_ACTION = "https://schema.jupyter.org/jupyterhub/events/server-action"
LOGIN = "https://exec-events.org/jupyterhub/login"
DOCUMENTED = (Path(__file__).parents[2] / "docs" / "handlers.md").read_text().split("```python\n")[1].split("```")[0]
CONFIG = """
c.Spawner.args = ["--allow-root", "--ServerApp.jpserver_extensions={'exec_events': False}"]
"""


def documented(kafka_url: str, spool: Path) -> str:
    """The lines of docs/handlers.md, for this broker and folder."""
    lines = DOCUMENTED
    for there, here in (
        ("kafka://broker-1:9092,broker-2:9092/jupyterhub", kafka_url),
        ("/srv/jupyterhub/events", str(spool)),
    ):
        assert lines.count(there) == 1
        lines = lines.replace(there, here)
    return lines


@pytest.mark.timeout(400)
def test_starting_and_stopping_a_users_server_arrives_on_the_topic(
    tmp_path: Path, kafka: RunningKafka, kafka_prefix: str
) -> None:
    """With the documented lines each start, stop and login is on the topic, once and in order, in a record that verifies."""
    spool, topic = tmp_path / "spool", f"{kafka_prefix}.events"
    config = documented(f"kafka://{kafka.servers}/{kafka_prefix}", spool) + CONFIG
    with running_hub(tmp_path, ("ada", "bob"), config) as hub:
        for user in ("ada", "bob"):
            hub.start_server(user)
        until(lambda: len(_actions(kafka, topic)) == 2, hub)
        for user in ("bob", "ada"):
            hub.rest("DELETE", f"/users/{user}/server")
            until(lambda user=user: "" not in hub.servers_of(user), hub, STOP_SECONDS)
        until(lambda: len(_actions(kafka, topic)) == 4, hub)
        for password, answer in ((hub.token, 302), ("another-password", 403)):
            assert Person(hub.url, "ada", password).log_in().status_code == answer
    assert _actions(kafka, topic) == [("start", "ada"), ("start", "bob"), ("stop", "bob"), ("stop", "ada")]
    (login,) = _events(kafka, topic, LOGIN)
    assert (login["username"], login["authenticator"]) == ("ada", "FirstUseAuthenticator")
    messages = messages_of(kafka.settings, topic)
    assert wrong_with(messages, SpoolSource(spool)) == []
    report = verified(messages)
    assert (report.ok, report.recorders, report.notes) == (True, 1, ())
    assert "exec-events: fault" not in hub.log


def _actions(kafka: RunningKafka, topic: str) -> list[tuple[str, str]]:
    """What became of whose server, in order."""
    return [(event["action"], event["username"]) for event in _events(kafka, topic, SERVER_ACTION)]


def _events(kafka: RunningKafka, topic: str, schema: str) -> list[dict[str, Any]]:
    """The events of one schema, in order."""
    events = [event_of(message.value) for message in messages_of(kafka.settings, topic)]
    return [event for event in events if event["__schema__"] == schema]
