"""A spool that fills and a deliverer to one Kafka, in this process: what a server has, without the server."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exec_events.clock import now_us, rfc3339
from exec_events.deliver import Deliverer
from exec_events.heads import heads_of
from exec_events.privacy import chain_of
from exec_events.seal import Content
from exec_events.spool import Spool
from exec_events_schemas.sources import StoredRecord
from exec_events_schemas.sources.spool import SpoolSource
from exec_events_schemas.topics import Topics, topics_of
from kafka_topic import messages_of, verified, wrong_with
from spool_files import SCHEMA, execution

LOG = logging.getLogger("test")
DRAIN_SECONDS = 60.0


def wait_until(condition: Callable[[], Any], timeout: float = DRAIN_SECONDS, what: str = "it") -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{what} never held"
        time.sleep(0.02)


@dataclass
class Site:
    """One recorder's spool, and its deliverer to ``url``; executions are those of numbered subjects."""

    folder: Path
    url: str
    prefix: str
    settings: Mapping[str, Any]
    recorder_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    number: int = 0

    def __post_init__(self) -> None:
        self.spool = Spool(self.folder, self.recorder_id, LOG, started_at=rfc3339(now_us()))
        self.deliverer = Deliverer(self.url, LOG, settings=self.settings)
        self.deliverer.add(self.spool)

    @property
    def topics(self) -> Topics:
        """The topics it delivers to."""
        return topics_of(self.prefix)

    @property
    def position(self) -> int:
        """The last row that counts as delivered."""
        return self.spool.position(self.deliverer.name)

    @property
    def problem(self) -> str:
        """What the deliverer says is wrong; empty where nothing is."""
        return self.deliverer.state().problem or ""

    def start(self) -> None:
        """Open the spool, begin the recorder's chain and start delivering."""
        self.spool.start()
        self.say("started")
        self.flush()
        self.deliverer.start()

    def execute(self, count: int = 1, *, subjects: int = 5, contents: tuple[Content, ...] = (), **members: Any) -> None:
        """Put in executions of ``subjects`` people in turn."""
        for _ in range(count):
            subject = self.number % subjects
            event = execution(self.recorder_id, subject, self.number, **members) | {"time": rfc3339(now_us())}
            self.spool.append(event, chain_of(self.recorder_id, event["subject"]), contents=contents)
            self.number += 1

    def say(self, action: str) -> None:
        """Put in an event of the recorder's own, after all that is before it."""
        if action != "started":
            self.flush()
        event = {
            "__schema__": SCHEMA.format("recorder"),
            "__schema_version__": "1",
            "time": rfc3339(now_us()),
            "recorder_id": self.recorder_id,
            "trust": "server",
            "action": action,
            **({} if action == "started" else {"heads": heads_of(self.spool)}),
        }
        self.spool.append(event, self.recorder_id)

    def flush(self) -> None:
        """Wait until all is on disk."""
        self.spool.flush().result(30)

    def drain(self, timeout: float = DRAIN_SECONDS) -> None:
        """Wait until all that was put in is acknowledged."""
        self.flush()
        deadline = time.monotonic() + timeout
        while not self.deliverer.is_drained(self.spool):
            assert time.monotonic() < deadline, f"{self.position} of {self.spool.last_id} delivered; {self.problem}"
            time.sleep(0.02)

    def wait_for_problem(self, *words: str, timeout: float = DRAIN_SECONDS) -> str:
        """Wait until the deliverer's problem holds all these words; the problem."""
        deadline = time.monotonic() + timeout
        while not all(word in self.problem for word in words):
            assert time.monotonic() < deadline, f"the problem is {self.problem!r}, not {words}"
            time.sleep(0.02)
        return self.problem

    def spooled(self) -> list[StoredRecord]:
        """What is in the spool."""
        return list(SpoolSource(self.folder))

    def check(self, client: Mapping[str, Any]) -> list[Any]:
        """Read the topic of events back with ``client``, hold it against the spool and verify it; its messages."""
        messages = messages_of(client, self.topics.events)
        wrong = wrong_with(messages, self.spooled())
        assert not wrong, wrong[:20]
        report = verified(messages)
        assert report.ok, report.findings[:20]
        return messages


@contextmanager
def site(
    folder: Path, servers: str, prefix: str, *, start: bool = True, stop_seconds: float = 15, **settings: Any
) -> Iterator[Site]:
    """A site that delivers to topics of ``prefix`` at ``servers``, stopped at the end."""
    made = Site(folder, f"kafka://{servers}/{prefix}", prefix, settings)
    try:
        if start:
            made.start()
        yield made
    finally:
        made.deliverer.stop(stop_seconds)
        assert made.spool.close(10)


@contextmanager
def streaming(made: Site, per_second: int = 1000) -> Iterator[None]:
    """Executions all the while, from a thread of their own."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(0.02):
            made.execute(max(1, per_second // 50))

    thread = threading.Thread(target=run, name="streaming")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(30)
