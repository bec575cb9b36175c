"""
From the spool to one sink: a thread that reads committed records in order, hands them over, and notes how far.

What a sink has not acknowledged stays in the spool and comes again; nothing here touches the event loop.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from logging import Logger
from typing import Any
from urllib.parse import unquote

from .seal import Sealed
from .sinks import Sink, name_of, open_sink
from .spool import Spool
from .undelivered import Backlog

RETRY_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True)
class DeliveryState:
    """
    What a person wants to know of one sink.

    ``lag`` counts records that it has not taken, ``lag_bytes`` their bytes, ``oldest_seconds`` is the age of
    the oldest. ``retries`` counts batches that had to be offered again, ``errors`` those and whatever the sink
    refused for good. ``problem`` is None when the last batch went through.
    """

    sink: str
    delivered: int
    lag: int
    lag_bytes: int
    oldest_seconds: float
    retries: int
    errors: int
    problem: str | None


class Deliverer:
    """Delivers one or more spools, in turn, to the sink of ``url``."""

    def __init__(
        self,
        url: str,
        log: Logger,
        *,
        settings: Mapping[str, Any] | None = None,
        open_sink: Callable[..., Sink] = open_sink,
    ) -> None:
        self.name = name_of(url)
        self._url = url
        self._log = log
        self._settings = dict(settings or {})
        self._open_sink = open_sink
        self._backlogs: list[Backlog] = []
        self._sink: Sink | None = None
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._stop_at = 0.0
        self._delivered = 0
        self._failures = 0
        self._retries = 0
        self._problem: str | None = None
        self._thread = threading.Thread(target=self._run, name=f"exec-events-{self.name}", daemon=True)

    def add(self, spool: Spool) -> None:
        """Deliver this spool too, from where the sink left off."""
        self._backlogs = [*self._backlogs, Backlog(spool, self.name)]
        spool.observers.append(self._committed)
        self._wake.set()

    def remove(self, spool: Spool) -> None:
        """Deliver this spool no more."""
        self._backlogs = [other for other in self._backlogs if other.spool is not spool]

    def start(self) -> None:
        """Start delivering."""
        self._thread.start()

    def is_drained(self, spool: Spool) -> bool:
        """Whether the sink has acknowledged all of this spool."""
        return spool.position(self.name) >= spool.last_id

    def state(self) -> DeliveryState:
        """What it is doing now."""
        backlogs = self._backlogs
        return DeliveryState(
            sink=self.name,
            delivered=self._delivered,
            lag=sum(backlog.records for backlog in backlogs),
            lag_bytes=sum(backlog.bytes for backlog in backlogs),
            oldest_seconds=round(max((backlog.oldest_seconds for backlog in backlogs), default=0.0), 3),
            retries=self._retries,
            errors=self._failures + int(getattr(self._sink, "refused", 0)),
            problem=self._problem,
        )

    def stop(self, timeout: float) -> bool:
        """Deliver what is left, at most ``timeout`` seconds long; False when something stays for the next start."""
        self._stop_at = time.monotonic() + timeout
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout)
        if self._thread.is_alive():
            interrupt = getattr(self._sink, "interrupt", None)
            if interrupt is not None:
                interrupt()
            self._thread.join(1)
        return not self._thread.is_alive() and not any(backlog.records for backlog in self._backlogs)

    def _committed(self, sealed: list[Sealed]) -> None:
        self._wake.set()

    def _run(self) -> None:
        failures = 0
        while True:
            self._wake.clear()
            try:
                went = self._deliver_some()
            except Exception as error:  # a sink is anybody's code
                failures += 1
                self._failed(error, failures)
                if self._pause(RETRY_SECONDS[min(failures, len(RETRY_SECONDS)) - 1]):
                    break
                continue
            if failures and went:
                self._log.warning("exec-events: %s takes records again.", self.name)
            if went:
                failures = 0
            elif self._stopping.is_set():
                break
            else:
                self._wake.wait(60)
            if self._stopping.is_set() and time.monotonic() > self._stop_at:
                break
        if self._sink is not None:
            try:
                self._sink.close(max(0.5, self._stop_at - time.monotonic()))
            except Exception as error:
                self._log.warning("exec-events: closing %s: %s: %s", self.name, type(error).__name__, error)

    def _deliver_some(self) -> bool:
        """One batch of each spool that has something; True when any had."""
        if self._sink is None:
            self._sink = self._open_sink(self._url, self._log, **self._settings)
        went = False
        for backlog in self._backlogs:
            batch = backlog.next_batch(getattr(self._sink, "takes_contents", False))
            if batch:
                self._retries += self._problem is not None
                self._sink.deliver(batch)
                backlog.took(batch)
                self._delivered += len(batch)
                self._problem = None
                went = True
        return went

    def _failed(self, error: Exception, failures: int) -> None:
        self._failures += 1
        problem = f"{type(error).__name__}: {without_secrets(str(error), self._url)}"
        if problem != self._problem or failures % 100 == 0:
            self._log.error(
                "exec-events: %s does not take records: %s. They stay in the spool and are tried again.",
                self.name,
                problem,
            )
        self._problem = problem

    def _pause(self, seconds: float) -> bool:
        """Wait before the next try; True when it is time to stop."""
        if not self._stopping.is_set():
            self._stopping.wait(seconds)
            return False
        time.sleep(min(0.1, seconds))
        return time.monotonic() > self._stop_at


def without_secrets(text: str, url: str) -> str:
    """``text`` without the URL and the password in it, which errors of libraries like to repeat."""
    text = text.replace(url, name_of(url))
    userinfo = url.partition("://")[2].rpartition("@")[0]
    password = userinfo.partition(":")[2]
    for secret in {userinfo, password, unquote(password)} - {""}:
        text = text.replace(secret, "***")
    return text
