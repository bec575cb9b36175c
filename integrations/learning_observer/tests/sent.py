"""Records in, the frames that are sent of them, as they come out of JSON, out."""

from __future__ import annotations

import json
from typing import Any

from logs import Log

from exec_events_consumers.decode import Decoded, decode
from exec_events_consumers.feed import Fetched
from exec_events_consumers.learning_observer.frames import frame_of


def frames_of(log: Log) -> list[dict[str, Any]]:
    """The frames of a log."""
    decoded = [decode(Fetched("", 0, *record)) for record in log.records]
    return [json.loads(json.dumps(frame_of(one))) for one in decoded if isinstance(one, Decoded)]
