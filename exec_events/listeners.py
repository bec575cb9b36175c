"""
Functions from the server's configuration, called with each sealed event on a thread and loop of their own.

A listener is ``package.module:function``, or an entry point of the group ``exec_events.listeners``: a
coroutine function or a plain one, called as ``function({"event": …, "seal": …, "hash": …})``.
"""

from __future__ import annotations

import asyncio
import inspect
import operator
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from logging import Logger
from typing import Any

import orjson

from exec_events_schemas.record import hash_text

from .errors import ConfigurationError
from .seal import Sealed

GROUP = "exec_events.listeners"
QUEUE_EVENTS = 10_000


@dataclass(frozen=True, slots=True)
class ListenerState:
    """What became of one listener's calls; ``hanging_seconds`` is how long the call under way is over its limit."""

    name: str
    called: int
    failed: int
    timed_out: int
    dropped: int
    hanging_seconds: float


def load_listener(name: str) -> Callable[[dict[str, Any]], Any]:
    """The function ``package.module:function`` names; raises ConfigurationError when it cannot be had."""
    module_name, _, attribute = name.partition(":")
    try:
        function = operator.attrgetter(attribute)(import_module(module_name))
    except (Exception, SystemExit) as error:  # importing a module runs anybody's code
        reason = f"{type(error).__name__}: {error}"
        raise ConfigurationError(f"cannot load the listener {name!r} (package.module:function): {reason}") from error
    if not callable(function):
        raise ConfigurationError(f"the listener {name!r} cannot be called")
    return function  # type: ignore[no-any-return]


def registered_listeners() -> list[str]:
    """The listeners installed packages register, as ``package.module:function``."""
    return [point.value for point in entry_points(group=GROUP)]


class ListenerThread:
    """Calls one listener with one event at a time; slow or broken, it harms nobody else."""

    def __init__(self, name: str, timeout: float, log: Logger) -> None:
        self.name = name
        self._function = load_listener(name)
        self._timeout = timeout
        self._log = log
        self._queue: queue.Queue[Sealed | None] = queue.Queue(QUEUE_EVENTS)
        self._called = self._failures = self._timed_out = self._dropped = 0
        self._since: float | None = None
        self._reported_hanging = False
        self._thread = threading.Thread(target=self._run, name=f"exec-events-{name}", daemon=True)

    def start(self) -> None:
        """Start to call."""
        self._thread.start()

    def committed(self, sealed: list[Sealed]) -> None:
        """Queue what was committed (on the spool's thread); drop it, counted, for a listener that is too slow."""
        self.state()
        for item in sealed:
            try:
                self._queue.put_nowait(item)
            except queue.Full:
                self._dropped += 1
                if self._dropped in (1, 100, 10_000):
                    self._log.warning(
                        "exec-events: listener %s is too slow: %d events dropped", self.name, self._dropped
                    )

    def state(self) -> ListenerState:
        """What became of its calls; reports a call that does not return, once."""
        since = self._since
        hanging = max(0.0, time.monotonic() - since - self._timeout) if since is not None else 0.0
        if hanging > 0 and not self._reported_hanging:
            self._reported_hanging = True
            self._log.error("exec-events: listener %s hangs: over its limit of %.1f s", self.name, self._timeout)
        return ListenerState(self.name, self._called, self._failures, self._timed_out, self._dropped, hanging)

    def stop(self, timeout: float) -> None:
        """Call with what is queued, at most ``timeout`` seconds long."""
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            return
        self._thread.join(timeout)

    def _run(self) -> None:
        with asyncio.Runner() as runner:
            while (sealed := self._queue.get()) is not None:
                self._since = time.monotonic()
                self._reported_hanging = False
                try:
                    runner.run(self._call(sealed))
                except TimeoutError:
                    self._timed_out += 1
                    self._report(self._timed_out, f"did not return within {self._timeout} s")
                except BaseException as error:  # one that raises SystemExit ends nothing here
                    self._failures += 1
                    self._report(self._failures, f"raised {type(error).__name__}: {error}")
                self._called += 1
                self._since = None

    async def _call(self, sealed: Sealed) -> None:
        event = {**orjson.loads(sealed.record), "hash": hash_text(sealed.hash)}
        until = time.monotonic() + self._timeout
        async with asyncio.timeout(self._timeout):
            result = self._function(event)
            if inspect.isawaitable(result):
                await result
        if time.monotonic() > until:
            raise TimeoutError  # a plain function cannot be interrupted, but it is told of

    def _report(self, count: int, what: str) -> None:
        if count in (1, 10, 100) or count % 1000 == 0:
            self._log.error("exec-events: listener %s %s (%d times)", self.name, what, count)
