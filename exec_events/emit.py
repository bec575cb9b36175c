"""
Event data in, through the server's own EventLogger, validated; the spool gets what came through.

Any other handler an admin configured sees the same events, behind a queue of its own, so that one that
blocks or raises harms neither the server nor the record. Nobody else can emit an event of ours, but through a `Door`.
"""

from __future__ import annotations

import copy
import logging
import threading
import time
from typing import Any, Protocol

import jsonschema_rs
from jsonschema import ValidationError
from jupyter_events import EventLogger
from jupyter_events.schema import EventSchema

from exec_events_schemas.catalogue import catalogue, load

from .errors import ExecEventsError
from .isolate import OURS, IsolatedHandler

PREFIX = OURS
# Of the capsule the record keeps the schema's name and version; its time is in the data, in RFC 3339.
DROPPED = ("__timestamp__", "__metadata_version__")
STOP_SECONDS = 2.0


class ForgedEvent(ExecEventsError):
    """Somebody else tried to emit an event of the recorder's."""


class Door(Protocol):
    """Where others may emit the events of one schema, through /api/events for example."""

    def complete(self, data: dict[str, Any]) -> dict[str, Any]:
        """The event's data, made of what somebody asked to be emitted; raises to refuse it."""

    def emitted(self, event: dict[str, Any]) -> None:
        """It came through, validated: its schema and its data. Must not raise."""


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
        self._doors: dict[str, Door] = {}
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

    def open_door(self, schema_id: str, door: Door) -> None:
        """Let others emit events of this schema, as ``door`` makes them."""
        self._doors[schema_id] = door

    def remove(self) -> None:
        """Take this handler away, and give the others back once they have taken what waits for them."""
        self._doors.clear()
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
        return _event_in(capsule)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the capsule that comes through while `send` runs, or through a door; nothing is formatted."""
        if not isinstance(record.msg, dict):
            return
        schema_id = record.msg.get("__schema__")
        if self._sending_thread == threading.get_ident():
            if schema_id == self._sending:
                self._came_through = record.msg
        elif (door := self._doors.get(str(schema_id))) is not None:
            door.emitted(_event_in(record.msg))

    def _guard(self, schema_id: str, data: dict[str, Any]) -> dict[str, Any]:
        """The modifier that keeps everyone else from emitting our events, /api/events above all."""
        if self._sending_thread == threading.get_ident():
            return data
        if (door := self._doors.get(schema_id)) is None:
            raise ForgedEvent(f"{schema_id} is emitted by the recorder alone")
        return door.complete(data)

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


def _event_in(capsule: dict[str, Any]) -> dict[str, Any]:
    """The event in a capsule, which others may still be reading."""
    return {key: value for key, value in capsule.items() if key not in DROPPED}
