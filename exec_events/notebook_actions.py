"""
What browsers say that only they know (``notebook_action``): checked, bounded, and completed by the server.

It comes through jupyter_server's own /api/events. Who said it, when and where is the server's word, not the browser's.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from exec_events_schemas.catalogue import load

from .clock import now_us, rfc3339
from .consent import Permissions
from .describe import Describer
from .emit import PREFIX, FastValidator
from .errors import ExecEventsError
from .watch.execution import Identity

SCHEMA_ID = f"{PREFIX}notebook_action/v1"
ASKED = ("action", "notebook", "cell_id", "cells")
PER_SECOND = 5.0
BURST = 100.0
_SUBJECTS = 1000


class Refused(ExecEventsError):
    """A browser's event is not taken."""


class Rate:
    """A bucket of tokens for each subject: ``burst`` at once, ``per_second`` from then on."""

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, subject: str, now: float) -> bool:
        """Whether there is a token left for ``subject``; ``now`` is in seconds and never goes back."""
        tokens, at = self._buckets.pop(subject, (self._burst, now))
        tokens = min(self._burst, tokens + (now - at) * self._per_second)
        taken = tokens >= 1
        self._buckets[subject] = (tokens - 1 if taken else tokens, now)
        if len(self._buckets) > _SUBJECTS:
            self._buckets.popitem(last=False)
        return taken


class NotebookActions:
    """
    The door for browsers' events.

    ``who`` says whose request is being answered; ``seal`` takes what came through.
    """

    def __init__(
        self,
        describer: Describer,
        permissions: Permissions,
        who: Callable[[], Identity | None],
        seal: Callable[[dict[str, Any]], None],
    ) -> None:
        self._describer = describer
        self._permissions = permissions
        self._who = who
        self.emitted = seal
        self._rate = Rate(PER_SECOND, BURST)
        schema = load(SCHEMA_ID)
        properties = {name: schema["properties"][name] for name in ASKED}
        required = [name for name in schema["required"] if name in ASKED]
        self._asked = FastValidator({**schema, "properties": properties, "required": required})

    def complete(self, data: dict[str, Any]) -> dict[str, Any]:
        """The event, of what a browser asked for; raises Refused, or jsonschema.ValidationError."""
        identity = self._who()
        if identity is None:
            raise Refused("a notebook_action comes from the browser of a user who is logged in")
        subject = self._describer.subject(identity)
        if not self._permissions.covers(subject, rfc3339(now_us())):
            raise Refused("nothing is recorded of who has not agreed to it")
        if not self._rate.take(subject, time.monotonic()):
            raise Refused(f"too many notebook actions: at most {PER_SECOND:.0f} a second; this one is not recorded")
        self._asked.validate(data)
        return self._describer.notebook_action(identity, data, now_us())
