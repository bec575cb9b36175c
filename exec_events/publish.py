"""
Events of any application in, sealed and delivered records out, with the recorder's own spool, keeper and deliverer.

A publisher is a recorder without kernels. It needs no event loop of the application's: its keeper runs on one of
its own, in a thread of its own, where what blocks keeps nobody waiting.
"""

from __future__ import annotations

import asyncio
import platform
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from hashlib import sha256
from importlib.metadata import version
from logging import Logger
from pathlib import Path
from typing import Any

from exec_events_schemas.catalogue import load
from exec_events_schemas.record import canonical

from . import __version__
from .clock import now_us, rfc3339
from .deliver import Deliverer, DeliveryState
from .emit import PREFIX, FastValidator
from .errors import SpoolError
from .heads import heads_of
from .keep import Keeper, Retention
from .privacy import chain_of
from .sinks import name_of
from .spool import Spool, SpoolState

TRUST = "server"
# What a stop may take beyond the time it is given for the sink: the last commit, and closing files.
CLOSE_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Setup:
    """Where events go and how they are kept until then; ``settings`` are the sink's, times are in seconds."""

    url: str
    name: str
    folder: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    retention: Retention = Retention()  # noqa: RUF009 - frozen
    heartbeat_seconds: float = 60.0
    stop_seconds: float = 10.0

    def digest(self) -> str:
        """SHA-256 of what the admin chose; of the sink's settings their names, for there may be secrets in them."""
        chosen = {
            "deliver_to": name_of(self.url),
            "name": self.name,
            "sink_settings": sorted(self.settings),
            "retention_days": str(self.retention.days),
            "retention_bytes": self.retention.bytes,
            "heartbeat_seconds": str(self.heartbeat_seconds),
            "stop_seconds": str(self.stop_seconds),
        }
        return f"sha256:{sha256(canonical(chosen)).hexdigest()}"


@dataclass(frozen=True, slots=True)
class PublisherState:
    """What a person wants to know of a publisher; ``lost`` counts events that could be neither sealed nor held."""

    recorder_id: str
    lost: int
    spool: SpoolState
    sink: DeliveryState


class ValidatingSender:
    """Makes events of ours where no EventLogger is at hand; raises jsonschema.ValidationError."""

    def __init__(self) -> None:
        self._schemas: dict[str, tuple[str, FastValidator]] = {}

    def send(self, schema_id: str, data: dict[str, Any]) -> dict[str, Any]:
        """The event: its schema and its data."""
        if schema_id not in self._schemas:
            schema = load(schema_id)
            self._schemas[schema_id] = (schema["version"], FastValidator(schema))
        schema_version, validator = self._schemas[schema_id]
        validator.validate(data)
        return {"__schema__": schema_id, "__schema_version__": schema_version, **data}


class Publisher:
    """
    Publishes events from `start` to `stop_soon` and `wait`.

    ``refused`` says how many events were not even offered, to be counted as lost. Nothing here waits for the disk or
    for the sink but `wait`.
    """

    def __init__(self, setup: Setup, recorder_id: str, refused: Callable[[], int], log: Logger) -> None:
        self.recorder_id = recorder_id
        self._setup = setup
        self._refused = refused
        self._heartbeat_us = round(setup.heartbeat_seconds * 1_000_000)
        self._log = log
        # No subject begins so: the chain of events without one is nobody's.
        self._own_chain = chain_of(recorder_id, f"\0{setup.name}")
        self._spool = Spool(setup.folder, recorder_id, log, started_at=rfc3339(now_us()))
        self._deliverer = Deliverer(setup.url, log, settings=setup.settings)
        self._deliverer.add(self._spool)
        self._sender = ValidatingSender()
        self._keeper = Keeper(
            setup.folder,
            self._spool,
            self,
            self._sender,
            [self._deliverer],
            setup.retention,
            setup.heartbeat_seconds,
            TRUST,
            log,
            aside=_here,
        )
        self._stop_at: Future[float] = Future()
        self._thread = threading.Thread(target=self._run, name="exec-events-publisher", daemon=True)

    def start(self) -> None:
        """Begin; what takes time is done on the publisher's own thread."""
        self._thread.start()

    def append(self, event: dict[str, Any]) -> None:
        """
        Seal and store one event, as it is.

        Its chain is that of its ``subject``, which is what it is keyed by in Kafka, or the publisher's own. Raises
        MalformedRecord for an event that has no canonical form.
        """
        subject = event.get("subject")
        of_subject = isinstance(subject, str) and subject != ""
        self._spool.append(event, chain_of(self.recorder_id, str(subject)) if of_subject else self._own_chain)

    def state(self) -> PublisherState:
        """What it is doing now."""
        return PublisherState(self.recorder_id, self._lost(), self._spool.state(), self._deliverer.state())

    def stop_soon(self) -> None:
        """Begin to stop; call `append` no more, and this once."""
        self._stop_at.set_result(time.monotonic() + self._setup.stop_seconds)

    def wait(self) -> bool:
        """Wait for the stop, which ends in time; False when something is left for the next start to deliver."""
        self._thread.join(self._setup.stop_seconds + CLOSE_SECONDS)
        if self._thread.is_alive():
            self._log.error("exec-events: no time to seal the end of %s; the next start does it", self._setup.name)
            return False
        state = self._spool.state()
        if state.held:
            self._log.error("exec-events: %d events were lost at the stop: %s", state.held, state.problem)
        waiting = self._deliverer.state().lag
        if waiting:
            self._log.warning(
                "exec-events: %d events wait in %s for the next start to deliver them", waiting, self._setup.folder
            )
        return not (state.held or waiting)

    # What the keeper asks of it.

    def started(self, previous: list[dict[str, Any]], versions: dict[str, str], configuration_digest: str) -> None:
        """Seal the first event of its own chain."""
        links = {"previous": previous} if previous else {}
        self.say(
            "started",
            **links,
            versions=versions,
            configuration_digest=configuration_digest,
            heartbeat_us=self._heartbeat_us,
        )

    def heartbeat(self) -> None:
        """Seal that it is alive, where its chains stand, and how many events were lost."""
        self.say("heartbeat", heads=heads_of(self._spool), lost=self._lost(), heartbeat_us=self._heartbeat_us)

    def say(self, action: str, **more: Any) -> None:
        """Seal an event of its own."""
        common = {"time": rfc3339(now_us()), "recorder_id": self.recorder_id, "trust": TRUST, "action": action}
        try:
            self._spool.append(self._sender.send(f"{PREFIX}recorder/v1", common | more), self.recorder_id)
        except Exception:
            self._log.exception("exec-events: fault, while sealing that the recorder has %s", action)

    def _lost(self) -> int:
        return self._refused() + self._spool.state().lost

    # Its own thread.

    def _run(self) -> None:
        try:
            self._spool.start()
            self._deliverer.start()
            asyncio.run(self._live())
        except Exception:
            self._log.exception("exec-events: fault in the publisher of %s", self._setup.name)

    async def _live(self) -> None:
        versions = {
            "exec_events": __version__,
            "python": platform.python_version(),
            "jupyter_events": version("jupyter_events"),
        }
        try:
            await self._keeper.start(versions, self._setup.digest())
        except Exception:
            self._log.exception("exec-events: fault; events are spooled and delivered, but nothing else is done")
        stop_at = await asyncio.wrap_future(self._stop_at)
        await self._keeper.stop()
        await self._seal_end(stop_at)
        self._deliverer.stop(max(0.0, stop_at - time.monotonic()))
        await self._keeper.close()
        self._spool.close(max(1.0, stop_at - time.monotonic()))

    async def _seal_end(self, stop_at: float) -> None:
        """Seal the last event of its own chain, and note that it is the last."""
        try:
            async with asyncio.timeout(max(1.0, stop_at - time.monotonic())):
                await asyncio.wrap_future(self._spool.flush())
                self.say("stopped", cause="stop", heads=heads_of(self._spool), lost=self._lost())
                closed_at = rfc3339(now_us())
                closing = self._spool.call(lambda file: file.set_meta("closed_at", closed_at), barrier=True)
                await asyncio.wrap_future(closing)
        except (SpoolError, TimeoutError) as error:
            self._log.error("exec-events: the end is not on disk; the next start closes this record: %s", error)


async def _here(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call what blocks where it is: on this loop nobody waits."""
    return function(*arguments)
