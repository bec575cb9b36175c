"""
Event data in, through the server's own EventLogger, validated; the spool gets what came through.

Any other handler an admin configured sees the same events, behind a queue of its own, so that one that
blocks or raises harms neither the server nor the record. Nobody else can emit an event of ours.
"""

from __future__ import annotations

import logging
import queue
import threading
from typing import Any

import jsonschema_rs
from exec_events_schemas.catalogue import catalogue, load
from jsonschema import ValidationError
from jupyter_events import EventLogger
from jupyter_events.schema import EventSchema

from .errors import ExecEventsError

PREFIX = "https://exec-events.org/schemas/"
KEPT = ("__schema__", "__schema_version__")
FOREIGN_QUEUE = 10_000


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
    Stands before another handler: events of ours reach it on a thread of its own; all else goes straight on.

    What it cannot take in time, beyond `FOREIGN_QUEUE` events, is dropped for it alone and counted.
    """

    def __init__(self, handler: logging.Handler, log: logging.Logger) -> None:
        super().__init__(handler.level)
        self.handler = handler
        self.dropped = 0
        self.failed = 0
        self._log = log
        self._queue: queue.Queue[logging.LogRecord | None] = queue.Queue(FOREIGN_QUEUE)
        self._thread = threading.Thread(target=self._run, name="exec-events-handler", daemon=True)
        self._thread.start()

    def setFormatter(self, fmt: logging.Formatter | None) -> None:  # noqa: N802
        """The formatter belongs to the handler behind."""
        self.handler.setFormatter(fmt)

    def emit(self, record: logging.LogRecord) -> None:
        """Pass one event on."""
        if not (isinstance(record.msg, dict) and str(record.msg.get("__schema__", "")).startswith(PREFIX)):
            self.handler.handle(record)
            return
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1
            if self.dropped in (1, 100, 10_000):
                self._log.warning(
                    "exec-events: the event handler %r is too slow: %d events dropped for it (the record has them).",
                    self.handler,
                    self.dropped,
                )

    def stop(self) -> None:
        """Take no more; what is queued is still handed over while the process lives."""
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            return

    def _run(self) -> None:
        while (record := self._queue.get()) is not None:
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
        self._sending_thread = 0
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
        register = self._event_logger.register_handler

        def register_isolated(handler: logging.Handler) -> None:
            register(handler)
            self._isolate(handler)

        self._event_logger.register_handler = register_isolated  # type: ignore[method-assign]

    def remove(self) -> None:
        """Take this handler away; the threads of others end once they have handed over what they hold."""
        self._event_logger.remove_handler(self)
        for isolated in self._isolated:
            isolated.stop()

    def send(self, schema_id: str, data: dict[str, Any]) -> dict[str, Any]:
        """Validate, hand to every handler and listener, and return the event: its schema and its data."""
        self._came_through = None
        self._sending_thread = threading.get_ident()
        try:
            self._event_logger.emit(schema_id=schema_id, data=data)
        except ValidationError:
            raise
        except Exception as error:
            # Somebody else's modifier or handler; this one may or may not have been reached before.
            self._log.warning("exec-events: %s while others were told of an event: %s", type(error).__name__, error)
        finally:
            self._sending_thread = 0
        capsule = self._came_through
        if capsule is None:
            schema = self._schemas[schema_id]
            schema.validate(data)
            return {"__schema__": schema_id, "__schema_version__": schema.version, **data}
        return {key: value for key, value in capsule.items() if not key.startswith("__") or key in KEPT}

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the capsule that comes through while `send` runs; nothing is formatted."""
        if self._sending_thread == threading.get_ident() and isinstance(record.msg, dict):
            self._came_through = record.msg

    def _guard(self, schema_id: str, data: dict[str, Any]) -> dict[str, Any]:
        """The modifier that keeps everyone else from emitting our events, /api/events above all."""
        if self._sending_thread != threading.get_ident():
            raise ForgedEvent(f"{schema_id} is emitted by the recorder alone")
        return data

    def _isolate(self, handler: logging.Handler) -> None:
        if isinstance(handler, Emitter | IsolatedHandler):
            return
        logger = self._event_logger._logger
        isolated = IsolatedHandler(handler, self._log)
        logger.removeHandler(handler)
        logger.addHandler(isolated)
        self._isolated.append(isolated)
