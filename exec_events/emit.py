"""
Event data in, through the server's own EventLogger, validated; the spool gets what came through.

Any other handler an admin configured sees the same events, behind a queue of its own, so that one that
blocks or raises harms neither the server nor the record. Nobody else can emit an event of ours.
"""

from __future__ import annotations

import copy
import logging
import queue
import threading
import time
from typing import Any

import jsonschema_rs
from jsonschema import ValidationError
from jupyter_events import EventLogger
from jupyter_events.schema import EventSchema

from exec_events_schemas.catalogue import catalogue, load

from .errors import ExecEventsError

PREFIX = "https://exec-events.org/schemas/"
# Of the capsule the record keeps the schema's name and version; its time is in the data, in RFC 3339.
DROPPED = ("__timestamp__", "__metadata_version__")
FOREIGN_QUEUE = 10_000
SLOW_SECONDS = 2.0
STOP_SECONDS = 2.0


class ForgedEvent(ExecEventsError):
    """Somebody else tried to emit an event of the recorder's."""


class FastValidator:
    """
    jsonschema-rs in the shape jupyter_events asks of a ``validator_class``.

    ``validate`` raises jsonschema.ValidationError, as the stock validator does.
    """

    def __init__(self, schema: dict[str, Any], registry: Any = None, format_checker: Any = None) -> None:
        self._validator = jsonschema_rs.Draft7Validator(schema)

    def validate(self, instance: Any) -> None:
        """Raise jsonschema.ValidationError when ``instance`` is not valid."""
        try:
            self._validator.validate(instance)
        except jsonschema_rs.ValidationError as error:
            raise ValidationError(error.message, path=list(error.instance_path)) from None


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
        if not (isinstance(record.msg, dict) and str(record.msg.get("__schema__", "")).startswith(PREFIX)):
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


_FLAT = frozenset({str, int, bool})


class _Given(dict[str, Any]):
    """Event data, mostly flat: a deep copy of it need not look into every string, as EventLogger's would."""

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        copied = dict(self)
        for key, value in self.items():
            if type(value) is list and all(type(row) is dict for row in value):
                copied[key] = [dict(row) for row in value]  # rows of an event are flat
            elif type(value) not in _FLAT:
                copied[key] = copy.deepcopy(value, memo)
        return copied


class Emitter(logging.Handler):
    """
    Emits the recorder's events through ``event_logger``, of which it is a handler as well.

    `send` returns the event as it came through, to be sealed; it raises jsonschema.ValidationError for
    data that breaks its schema, and nothing else. Call it on the event loop only.
    """

    def __init__(self, event_logger: EventLogger, log: logging.Logger) -> None:
        super().__init__()
        self._event_logger = event_logger
        self._log = log
        self._isolated: list[IsolatedHandler] = []
        self._schemas: dict[str, EventSchema] = {}
        self._sending = ""
        self._sending_thread = 0
        self._others_failures = 0
        self._came_through: dict[str, Any] | None = None

    def install(self) -> None:
        """Register the schemas, the guard and the handlers."""
        for schema_id in (name.id for name in catalogue()):
            schema = EventSchema(load(schema_id), validator_class=FastValidator)  # type: ignore[arg-type]
            self._schemas[schema_id] = schema
            self._event_logger.register_event_schema(schema)  # type: ignore[arg-type]
            self._event_logger.add_modifier(schema_id=schema_id, modifier=self._guard)
        if self._event_logger.handlers is None:
            self._event_logger.handlers = []
        for handler in list(self._event_logger.handlers):
            self._isolate(handler)
        self._event_logger.register_handler(self)
        register, remove = self._event_logger.register_handler, self._event_logger.remove_handler

        def register_isolated(handler: logging.Handler) -> None:
            register(handler)
            self._isolate(handler)

        def remove_isolated(handler: logging.Handler) -> None:
            remove(handler)
            self._let_go(handler)

        self._event_logger.register_handler = register_isolated  # type: ignore[method-assign]
        self._event_logger.remove_handler = remove_isolated  # type: ignore[method-assign]

    def remove(self) -> None:
        """Take this handler away, and give the others back once they have taken what waits for them."""
        for patched in ("register_handler", "remove_handler"):
            vars(self._event_logger).pop(patched, None)
        self._event_logger.remove_handler(self)
        for isolated in self._isolated:
            isolated.end()
        deadline = time.monotonic() + STOP_SECONDS
        for isolated in self._isolated:
            self._event_logger._logger.removeHandler(isolated)
            if isolated.wait(deadline):
                self._event_logger._logger.addHandler(isolated.handler)
        self._isolated.clear()

    def send(self, schema_id: str, data: dict[str, Any]) -> dict[str, Any]:
        """Validate, hand to every handler and listener, and return the event: its schema and its data."""
        self._came_through = None
        self._sending = schema_id
        self._sending_thread = threading.get_ident()
        try:
            self._event_logger.emit(schema_id=schema_id, data=_Given(data))
        except ValidationError as error:
            # Somebody else's modifier may have broken what was whole; then the event is recorded as it was.
            self._schemas[schema_id].validate(data)
            self._others_failed(error)
        except Exception as error:
            # Somebody else's modifier or handler; this one may or may not have been reached before.
            self._others_failed(error)
        finally:
            self._sending_thread = 0
        capsule = self._came_through
        if capsule is None:
            schema = self._schemas[schema_id]
            schema.validate(data)
            return {"__schema__": schema_id, "__schema_version__": schema.version, **data}
        event = capsule.copy()  # others may still be reading the capsule
        for key in DROPPED:
            event.pop(key, None)
        return event

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the capsule that comes through while `send` runs; nothing is formatted."""
        if (
            self._sending_thread == threading.get_ident()
            and isinstance(record.msg, dict)
            and record.msg.get("__schema__") == self._sending
        ):
            self._came_through = record.msg

    def _guard(self, schema_id: str, data: dict[str, Any]) -> dict[str, Any]:
        """The modifier that keeps everyone else from emitting our events, /api/events above all."""
        if self._sending_thread != threading.get_ident():
            raise ForgedEvent(f"{schema_id} is emitted by the recorder alone")
        return data

    def _others_failed(self, error: Exception) -> None:
        self._others_failures += 1
        if self._others_failures in (1, 100) or self._others_failures % 10_000 == 0:
            self._log.warning(
                "exec-events: %s while others were told of an event (%d times; the record has it): %s",
                type(error).__name__,
                self._others_failures,
                error,
            )

    def _isolate(self, handler: logging.Handler) -> None:
        if isinstance(handler, Emitter | IsolatedHandler):
            return
        logger = self._event_logger._logger
        logger.removeHandler(handler)
        if all(isolated.handler is not handler for isolated in self._isolated):
            isolated = IsolatedHandler(handler, self._log)
            logger.addHandler(isolated)
            self._isolated.append(isolated)

    def _let_go(self, handler: logging.Handler) -> None:
        for isolated in [isolated for isolated in self._isolated if isolated.handler is handler]:
            self._event_logger._logger.removeHandler(isolated)
            self._isolated.remove(isolated)
            isolated.end()
