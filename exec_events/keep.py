"""
The keeper of a spool folder: adopts what dead recorders left, heartbeats, prunes, and delivers.

Runs as tasks on an event loop; on one that serves others too, all that blocks is handed to threads.
"""

from __future__ import annotations

import asyncio
import functools
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from logging import Logger
from pathlib import Path
from typing import Any, Protocol

from jsonschema import ValidationError

from exec_events_schemas.record import Head

from .adopt import Left, closing_events, find_left, previous_of
from .clock import now_us, rfc3339
from .consent import Everybody, Permissions
from .deliver import Deliverer
from .emit import PREFIX
from .errors import SpoolError
from .heads import HEADS_LIMIT, heads_of
from .privacy import chain_of
from .retain import Cut, make_cut, plan_cut
from .spool import Spool
from .spool_file import SpoolFile

ADOPT_TIMEOUT_SECONDS = 30.0
_TROUBLES = (SpoolError, TimeoutError, sqlite3.Error, OSError)


@dataclass(frozen=True, slots=True)
class Retention:
    """How long delivered records stay: ``days`` (0: no limit of age) and ``bytes`` a file (0: no limit of size)."""

    days: float = 0
    bytes: int = 0


class Speaker(Protocol):
    """On whose behalf a folder is kept: it seals events in its recorder's own chain."""

    @property
    def recorder_id(self) -> str:
        """The recorder, and the name of its chain."""

    def started(self, previous: list[dict[str, Any]], versions: dict[str, str], configuration_digest: str) -> None:
        """Seal the first event of the chain, with links to the recorders before."""

    def heartbeat(self) -> None:
        """Seal that it is alive, and where its other chains stand."""

    def say(self, action: str, **more: Any) -> None:
        """Seal any other event of its own."""


class Sender(Protocol):
    """Where an event of ours becomes one: its data validated, its schema named."""

    def send(self, schema_id: str, data: dict[str, Any]) -> dict[str, Any]:
        """The event to be sealed; raises jsonschema.ValidationError."""


# Calls a function that blocks, with its arguments, so that nobody else has to wait for it.
Aside = Callable[..., Awaitable[Any]]


class Keeper:
    """Keeps one spool folder on behalf of one recorder; ``aside`` is where it does what blocks."""

    def __init__(
        self,
        folder: Path,
        spool: Spool,
        recorder: Speaker,
        sender: Sender,
        deliverers: Sequence[Deliverer],
        retention: Retention,
        heartbeat_seconds: float,
        trust: str,
        log: Logger,
        aside: Aside = asyncio.to_thread,
        permissions: Permissions | None = None,
    ) -> None:
        self._folder = folder
        self._spool = spool
        self._recorder = recorder
        self._sender = sender
        self._deliverers = deliverers
        self._retention = retention
        self._heartbeat_seconds = heartbeat_seconds
        self._trust = trust
        self._log = log
        self._aside = aside
        self._permissions = permissions or Everybody()
        self._left: list[Left] = []
        self._adopted: dict[str, Spool] = {}
        self._cuts: dict[str, dict[str, dict[str, Any]]] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self, versions: dict[str, str], configuration_digest: str) -> None:
        """Adopt, seal that the recorder started, and go on in the background."""
        previous: list[dict[str, Any]] = []
        try:
            previous = await asyncio.wait_for(self._adopt(), ADOPT_TIMEOUT_SECONDS)
        except _TROUBLES as error:
            self._log.error("exec-events: cannot look at what earlier recorders left: %s", error)
        self._recorder.started(previous, versions, configuration_digest)
        try:
            await self._written(self._spool)
            for link in previous:
                await self._note(link["chain"], "linked_by", self._recorder.recorder_id)
        except _TROUBLES as error:
            self._log.error("exec-events: %s", error)
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop the background work."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def close(self) -> None:
        """Let go of what was adopted, once the sinks have acknowledged what they took."""
        for spool in self._adopted.values():
            await self._aside(spool.close, 5)

    async def _adopt(self) -> list[dict[str, Any]]:
        self._left = await self._aside(find_left, self._folder, self._recorder.recorder_id, self._log)
        self._cuts = {left.recorder_id: left.cuts for left in self._left}
        heads: dict[str, dict[str, Head]] = {left.recorder_id: left.heads for left in self._left}
        for left in self._left:
            if left.closed:
                continue
            try:
                heads[left.recorder_id] = await self._close(left)
            except _TROUBLES as error:
                self._log.error("exec-events: cannot close what recorder %s left: %s", left.recorder_id, error)
        return previous_of(self._left, lambda recorder_id: heads[recorder_id])

    async def _close(self, left: Left) -> dict[str, Head]:
        """End a dead recorder's chains."""
        spool = self._open(left)
        await self._written(spool)
        for name, data, execution_id in closing_events(left, self._recorder.recorder_id, self._trust, now_us()):
            chain = left.recorder_id
            if name == "cell_execution":
                if not self._permissions.covers(data["subject"], data["requested_at"]):
                    spool.forget(str(execution_id))  # withdrawn since
                    continue
                chain = chain_of(left.recorder_id, data["subject"])
            if name == "recorder":
                await self._written(spool)
                data["heads"] = heads_of(spool)
            try:
                event = self._sender.send(f"{PREFIX}{name}/v1", data)
            except ValidationError as error:
                self._log.error(
                    "exec-events: what recorder %s left breaks its schema: %s", left.recorder_id, error.message
                )
                continue
            spool.append(event, chain, closes=execution_id)
        await self._written(spool)
        closed_at = rfc3339(now_us())
        await asyncio.wrap_future(spool.call(lambda file: _mark_closed(file, closed_at)))
        self._log.warning(
            "exec-events: recorder %s died; closed %d of its executions", left.recorder_id, len(left.begun)
        )
        return spool.heads()

    def _open(self, left: Left) -> Spool:
        spool = self._adopted.get(left.recorder_id)
        if spool is None:
            spool = self._adopted[left.recorder_id] = Spool(self._folder, left.recorder_id, self._log)
            spool.start()
        return spool

    async def _written(self, spool: Spool) -> None:
        await asyncio.wait_for(asyncio.wrap_future(spool.flush()), ADOPT_TIMEOUT_SECONDS)

    async def _note(self, recorder_id: str, key: str, value: str) -> None:
        spool = self._adopted.get(recorder_id)
        if spool is not None:
            await asyncio.wrap_future(spool.call(lambda file: file.set_meta(key, value)))
        else:
            await self._aside(_with_file, self._folder, recorder_id, lambda file: file.set_meta(key, value))

    async def _run(self) -> None:
        delivering = asyncio.create_task(self._deliver_left())
        try:
            beat = time.monotonic()
            while True:
                beat += self._heartbeat_seconds
                await asyncio.sleep(max(0.0, beat - time.monotonic()))
                self._recorder.heartbeat()
                if self._deliverers:
                    await self._prune()
        finally:
            delivering.cancel()

    async def _deliver_left(self) -> None:
        """Deliver what adopted files still hold, one after the other, then give them up."""
        for left in self._left:
            try:
                await self._deliver_one(left)
            except _TROUBLES as error:
                self._log.error("exec-events: cannot deliver what recorder %s left: %s", left.recorder_id, error)

    async def _deliver_one(self, left: Left) -> None:
        if self._deliverers:
            spool = self._open(left)
            await self._written(spool)
            for deliverer in self._deliverers:
                deliverer.add(spool)
            while not all(deliverer.is_drained(spool) for deliverer in self._deliverers):
                await asyncio.sleep(0.5)
            for deliverer in self._deliverers:
                deliverer.remove(spool)
        if (adopted := self._adopted.pop(left.recorder_id, None)) is not None:
            await self._aside(adopted.close, 10)

    async def _prune(self) -> None:
        """Cut delivered records that are older, or more, than the site keeps."""
        if not (self._retention.days or self._retention.bytes):
            return
        try:
            delivered = min(self._spool.position(d.name) for d in self._deliverers)
            plan = functools.partial(self._plan, delivered=delivered)
            cut = await asyncio.wrap_future(self._spool.call(plan))
            if cut is not None:
                await self._seal_cut(self._recorder.recorder_id, cut)
                await asyncio.wrap_future(self._spool.call(lambda file: make_cut(file, cut)))
            for left in list(self._left):
                if left.recorder_id not in self._adopted:
                    await self._prune_left(left)
        except _TROUBLES as error:
            self._log.error("exec-events: cannot prune the spool: %s", error)

    async def _prune_left(self, left: Left) -> None:
        """Cut the file of a recorder that is gone; once nothing but its end is left, remove it whole."""
        cut = await self._aside(
            _with_file, self._folder, left.recorder_id, lambda file: self._plan(file, self._delivered(file), whole=True)
        )
        if cut is None:
            return
        await self._seal_cut(left.recorder_id, cut)
        empty = await self._aside(_with_file, self._folder, left.recorder_id, functools.partial(_cut, cut=cut))
        if empty:
            self._left.remove(left)

    def _plan(self, file: SpoolFile, delivered: int, whole: bool = False) -> Cut | None:
        before = rfc3339(now_us() - int(self._retention.days * 86_400e6)) if self._retention.days else ""
        return plan_cut(file, delivered, before, self._retention.bytes or None, whole=whole)

    def _delivered(self, file: SpoolFile) -> int:
        return min(file.position(deliverer.name) for deliverer in self._deliverers)

    async def _seal_cut(self, recorder_id: str, cut: Cut) -> None:
        """Seal what goes from one file, and what went from any before: the event that said so may go with it."""
        self._cuts[recorder_id] = cut.cuts
        cuts = [one for of_file in self._cuts.values() for one in of_file.values()]
        self._recorder.say("pruned", cuts=cuts[-HEADS_LIMIT:])
        # Not a flush, which fails at the cap, where a cut is what makes room.
        await asyncio.wait_for(asyncio.wrap_future(self._spool.call(lambda _: None)), ADOPT_TIMEOUT_SECONDS)


def _mark_closed(file: SpoolFile, closed_at: str) -> None:
    file.set_meta("closed_at", closed_at)
    file.begun_path.unlink(missing_ok=True)


def _cut(file: SpoolFile, cut: Cut) -> bool:
    """Make the cut; True when the file held nothing else and is gone."""
    make_cut(file, cut)
    if file.last_id():
        return False
    file.remove()
    return True


def _with_file(folder: Path, recorder_id: str, function: Callable[[SpoolFile], Any]) -> Any:
    """Own a file for as long as ``function`` takes; raises SpoolError when somebody else does."""
    file = SpoolFile(folder, recorder_id)
    file.open()
    try:
        return function(file)
    finally:
        file.close()
