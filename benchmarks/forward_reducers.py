"""What the server of the benchmark of forward makes of frames: little, so that what brings them is measured."""

from __future__ import annotations

from typing import Any

from exec_events_consumers.learning_observer.frames import EXECUTION, SOURCE
from tests.pipeline.learning_observer_stand_in import Reducer


def count(state: dict[str, Any] | None, event: dict[str, Any]) -> dict[str, Any] | None:
    """A student's executions, each once."""
    if event["event"] != EXECUTION:
        return None
    state = state or {"chain": event["chain_id"], "seq": -1, "executions": 0}
    is_new = event["seq"] > state["seq"]
    return {**state, "seq": max(state["seq"], event["seq"]), "executions": state["executions"] + is_new}


REDUCERS = [Reducer("count", SOURCE, "student", count)]
