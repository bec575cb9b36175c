"""Learning Observer's reducers: each hands a frame to a pure reduction of exec-events, and its state on."""

from __future__ import annotations

from typing import Any

from learning_observer.stream_analytics.fields import EventField, KeyField, Scope
from learning_observer.stream_analytics.helpers import kvs_pipeline

from exec_events_consumers.learning_observer.reductions import reduce_notebook, reduce_student

OF_STUDENT = Scope([KeyField.STUDENT])
OF_NOTEBOOK = Scope([KeyField.STUDENT, EventField("notebook_id")])
# What the server takes for: write nothing.
NOTHING = (False, False)

State = dict[str, Any]


@kvs_pipeline(scope=OF_STUDENT)
async def student_runs(event: dict[str, Any], state: State | None) -> tuple[State | bool, bool]:
    """A student's executions, errors, streaks, time on task and notebooks."""
    return _written(reduce_student(state, event.get("client")))


@kvs_pipeline(scope=OF_NOTEBOOK)
async def notebook_runs(event: dict[str, Any], state: State | None) -> tuple[State | bool, bool]:
    """How far a student has come in one notebook."""
    return _written(reduce_notebook(state, event.get("client")))


def _written(state: State | None) -> tuple[State | bool, bool]:
    # One state, not two: queries read the internal one.
    return NOTHING if state is None else (state, False)
