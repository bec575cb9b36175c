"""Somebody else's event handler, behind a queue and a thread of its own: it can neither block nor break ours."""

from __future__ import annotations

import copy
import logging
import queue
import threading
import time

OURS = "https://exec-events.org/schemas/"
FOREIGN_QUEUE = 10_000
SLOW_SECONDS = 2.0


class IsolatedHandler(logging.Handler):
    """
    Stands before another handler: events of ours reach it on a thread of its own.

    All else goes straight on, or waits its turn behind events of ours the handler has not taken yet. What
    the handler cannot take in time, beyond `FOREIGN_QUEUE` events of ours, is dropped for it alone and counted.
    """

    def __init__(self, handler: logging.Handler, log: logging.Logger) -> None:
        super().__init__()
        self.handler = handler
        self.dropped = 0
        self.failed = 0
        self._log = log
        # Both are written by one thread only: by who emits (under this handler's lock), and by `_run`.
        self._queued = 0
        self._handled = 0
        self._since: float | None = None
        self._reported_slow = False
        self._queue: queue.SimpleQueue[logging.LogRecord | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="exec-events-handler", daemon=True)
        self._thread.start()

    def setFormatter(self, fmt: logging.Formatter | None) -> None:  # noqa: N802
        """The formatter belongs to the handler behind."""
        self.handler.setFormatter(fmt)

    def emit(self, record: logging.LogRecord) -> None:
        """Pass one event on."""
        if record.levelno < self.handler.level:
            return
        waiting = self._queued - self._handled
        if not (isinstance(record.msg, dict) and str(record.msg.get("__schema__", "")).startswith(OURS)):
            if not waiting:
                self.handler.handle(record)
                return
        elif waiting >= FOREIGN_QUEUE:
            self._drop()
            return
        self._report_slow()
        self._queued += 1
        # The handler works on a copy: what it does to an event is not to change the record.
        own = copy.copy(record)
        own.msg = copy.deepcopy(record.msg)
        self._queue.put(own)

    def end(self) -> None:
        """Take no more; the thread ends once it has handed over what waits."""
        self._queue.put(None)

    def wait(self, deadline: float) -> bool:
        """Whether all was handed over by ``deadline`` (monotonic); a handler that hangs is given up."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        if not self._thread.is_alive():
            return True
        self._log.error(
            "exec-events: the event handler %r hangs: %d events never reached it (the record has them).",
            self.handler,
            self._queued - self._handled,
        )
        # It hangs with its lock held, which logging waits for when the process exits.
        self.handler.createLock()
        return False

    def _drop(self) -> None:
        self.dropped += 1
        if self.dropped in (1, 100, 10_000):
            self._log.warning(
                "exec-events: the event handler %r is too slow: %d events dropped for it (the record has them).",
                self.handler,
                self.dropped,
            )

    def _report_slow(self) -> None:
        since = self._since
        if since is not None and not self._reported_slow and time.monotonic() - since > SLOW_SECONDS:
            self._reported_slow = True
            self._log.warning(
                "exec-events: the event handler %r blocks: it has been busy with one event for %.0f s; "
                "others wait for it on a thread of its own.",
                self.handler,
                time.monotonic() - since,
            )

    def _run(self) -> None:
        while (record := self._queue.get()) is not None:
            self._since = time.monotonic()
            try:
                self.handler.handle(record)
            except Exception as error:
                self.failed += 1
                if self.failed in (1, 100, 10_000):
                    self._log.warning(
                        "exec-events: the event handler %r failed %d times, last: %s: %s",
                        self.handler,
                        self.failed,
                        type(error).__name__,
                        error,
                    )
            self._since = None
            self._handled += 1
