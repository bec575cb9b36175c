"""What the tests of `exec-events forward` have a Learning Observer reduce: idempotent, and exact about order and loss."""

from __future__ import annotations

from typing import Any

from learning_observer_stand_in import Reducer

from exec_events_consumers.learning_observer.frames import EXECUTION, OTHER, SOURCE, is_proved

POISON = "poison"


def tally(state: dict[str, Any] | None, event: dict[str, Any]) -> dict[str, Any] | None:
    """Of a student: frames by kind, what came twice, what came out of order; an error named POISON is fatal."""
    if event["event"] not in (EXECUTION, OTHER):
        return None
    state = state or {"chains": {}, "executions": 0, "errors": 0, "others": 0, "duplicates": 0, "gaps": 0, "false": 0}
    chain, seq = event["chain_id"], event["seq"]
    last = state["chains"].get(chain, -1)
    if seq <= last:
        return state | {"duplicates": state["duplicates"] + 1}
    state = state | {"chains": state["chains"] | {chain: seq}, "gaps": state["gaps"] + seq - last - 1}
    if event["event"] == OTHER:
        return state | {"others": state["others"] + 1}
    execution = event["execution"]
    if execution.get("error_name") == POISON:
        raise ValueError("this reducer does not survive it")
    state["executions"] += 1
    state["errors"] += execution["status"] == "error"
    state["false"] += not is_proved(event)
    return state


REDUCERS = [Reducer("tally", SOURCE, "student", tally)]
