"""
Handlers for any jupyter_events application: its events in, sealed, spooled and delivered as the recorder's own are.

A handler is made while a configuration file is read: in a process that may be about to print its help, or to fork.
So making one starts nothing. It starts when an EventLogger takes it, which is when what an earlier process left is
delivered, or else with the first event; a forked child starts anew with its own first event. It stops, and drains,
when it is closed, or when the main thread is over: before ``atexit``, where a Kafka client closes itself.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import threading
import uuid
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from traitlets.config import Application

from exec_events_schemas.errors import SourceError
from exec_events_schemas.topics import kafka_address

from . import paths
from .emit import PREFIX
from .errors import ConfigurationError
from .keep import Retention
from .publish import Publisher, PublisherState, Setup

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")


class EventHandler(logging.Handler):
    """
    Publishes the events of an application that emits them with jupyter_events to the sink at ``url``.

    ``c.EventLogger.handlers = [EventHandler("file:///var/log/events.jsonl")]``. Events are published as they are, in
    the order in which they were emitted, each at least once from the moment it is on disk, some milliseconds after it
    was emitted. `emit` never waits and never raises. Events of this project's own are left out: a recorder publishes
    them itself.

    ``spool`` is the folder in which events wait; handlers that deliver to different places must not share one. By
    default it is ``exec-events-handlers/<name>`` in Jupyter's data directory. ``settings`` are the sink's.
    ``retention_days`` and ``retention_bytes`` say how long and how much of what is delivered stays in the spool (0: no
    limit), ``heartbeat_seconds`` how often a sign of life is sealed, ``stop_seconds`` how long a stop may wait for the
    sink. Messages go to ``log``, by default that of the application. Raises ConfigurationError.
    """

    def __init__(
        self,
        url: str,
        *,
        spool: str | os.PathLike[str] | None = None,
        settings: Mapping[str, Any] | None = None,
        name: str = "events",
        retention_days: float = 30.0,
        retention_bytes: int = 0,
        heartbeat_seconds: float = 60.0,
        stop_seconds: float = 10.0,
        log: logging.Logger | None = None,
    ) -> None:
        super().__init__()
        if not _NAME.fullmatch(name):
            raise ConfigurationError(f"{name!r} is no name of a handler: up to 64 letters, digits, dots, dashes")
        folder = paths.handler_folder(name) if spool is None else Path(spool).expanduser().absolute()
        if folder.resolve() == paths.spool_folder().resolve():
            raise ConfigurationError(f"{folder} is the recorder's own spool; give this handler another folder")
        self._setup = Setup(
            url=url,
            name=name,
            folder=folder,
            settings=dict(settings or {}),
            retention=Retention(retention_days, retention_bytes),
            heartbeat_seconds=heartbeat_seconds,
            stop_seconds=stop_seconds,
        )
        self.refused = 0
        self._given_log = log
        self._publisher: Publisher | None = None
        # Not the lock of logging.Handler, which who closes a handler holds while it drains.
        self._guard = threading.RLock()
        _handlers.add(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """The handler itself: configurations are copied, and what they hold with them."""
        return self

    def setFormatter(self, fmt: logging.Formatter | None) -> None:  # noqa: N802
        """Start: an EventLogger gives a formatter to each handler it takes. Nothing is formatted."""
        super().setFormatter(fmt)
        try:
            with self._guard:
                self._started()
        except Exception as error:
            self._log.error("exec-events: cannot publish yet: %s. The next event tries again.", error)

    def handle(self, record: logging.LogRecord) -> bool:
        """Filter and emit, without the lock of logging.Handler."""
        passed: Any = self.filter(record)
        if passed:
            # From Python 3.12 on a filter may give another record.
            self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return bool(passed)

    def emit(self, record: logging.LogRecord) -> None:
        """Seal and spool the event that is the record's ``msg``; what cannot be is counted and logged."""
        event = record.msg
        try:
            if not isinstance(event, dict):
                raise TypeError("it is no event; let jupyter_events' EventLogger emit to this handler")
            if not str(event.get("__schema__", "")).startswith(PREFIX):
                with self._guard:
                    self._started().append(event)
        except Exception as error:
            self._refuse(event, error)

    def state(self) -> PublisherState | None:
        """What it is doing now; None while it has not started."""
        publisher = self._publisher
        return None if publisher is None else publisher.state()

    def close(self) -> None:
        """
        Seal the end, deliver what is left within ``stop_seconds``, and let go of the spool.

        What the sink did not take stays there for the next start. A later event starts the handler again:
        `logging.config` closes all handlers there are, those in use too.
        """
        publisher = self._let_go()
        if publisher is not None:
            publisher.wait()
        super().close()

    def _started(self) -> Publisher:
        """The publisher of this process; called with the guard held."""
        if self._publisher is None:
            publisher = Publisher(self._setup, str(uuid.uuid4()), lambda: self.refused, self._log)
            publisher.start()
            self._publisher = publisher
            _close_at_exit(self)
        return self._publisher

    def _let_go(self) -> Publisher | None:
        """Let the publisher stop, and be without one."""
        with self._guard:
            publisher, self._publisher = self._publisher, None
            _open.discard(self)
        if publisher is not None:
            publisher.stop_soon()
        return publisher

    def _forget_parent(self) -> None:
        """In a forked child: the publisher and its files are the parent's, whose threads did not come along."""
        if self._publisher is not None:
            _inherited.append(self._publisher)
            self._publisher = None
        self._guard = threading.RLock()

    def _refuse(self, event: Any, error: Exception) -> None:
        with self._guard:
            self.refused += 1
            refused = self.refused
        if refused in (1, 100) or refused % 10_000 == 0:
            self._log.error(
                "exec-events: %d events could not be published, the last (schema %s) for %s: %s",
                refused,
                event.get("__schema__") if isinstance(event, dict) else None,
                type(error).__name__,
                error,
            )

    @property
    def _log(self) -> logging.Logger:
        if self._given_log is not None:
            return self._given_log
        log = Application.instance().log if Application.initialized() else None
        return log if isinstance(log, logging.Logger) else logging.getLogger("exec_events")


class KafkaEventHandler(EventHandler):
    """
    An `EventHandler` that publishes to Kafka, ``kafka://host:port[,host:port]/[prefix]``.

    ``settings`` are kafka-python's, as for the recorder's own sink. Raises ConfigurationError for another URL, and
    where the Kafka client is not installed.
    """

    def __init__(self, url: str, **options: Any) -> None:
        try:
            kafka_address(url)
        except SourceError as error:
            raise ConfigurationError(f"{error} (for this handler: in its argument settings)") from error
        if importlib.util.find_spec("kafka") is None:
            raise ConfigurationError("no Kafka client is installed; run pip install 'exec-events[kafka]'")
        super().__init__(url, **options)


# The end of the process, and its children.

_handlers: weakref.WeakSet[EventHandler] = weakref.WeakSet()
_open: set[EventHandler] = set()
# Never closed and never freed: their files and connections are the parent's.
_inherited: list[Publisher] = []
_watcher: threading.Thread | None = None


def _close_at_exit(handler: EventHandler) -> None:
    global _watcher  # noqa: PLW0603 - one for each process
    _open.add(handler)
    if _watcher is None:
        # Not a daemon: the interpreter waits for it, with everything still in working order.
        _watcher = threading.Thread(target=_close_all_after, args=(threading.main_thread(),), name="exec-events-exit")
        _watcher.start()


def _close_all_after(main_thread: threading.Thread) -> None:
    main_thread.join()
    stopping = [handler._let_go() for handler in list(_open)]
    for publisher in stopping:
        if publisher is not None:
            publisher.wait()


def _after_fork_in_child() -> None:
    global _watcher  # noqa: PLW0603 - the parent's
    for handler in list(_handlers):
        handler._forget_parent()
    _open.clear()
    _watcher = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
