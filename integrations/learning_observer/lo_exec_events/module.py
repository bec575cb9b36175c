"""What Learning Observer looks for in a module: its name, reducers, queries and page."""

from __future__ import annotations

from typing import Any

from exec_events_consumers.learning_observer.frames import SOURCE
from exec_events_consumers.learning_observer.reductions import (
    NO_RUNS,
    NO_RUNS_IN_NOTEBOOK,
    NOTHING_HEARD,
    NOTHING_HEARD_OF_NOTEBOOK,
)

from . import page
from .queries import EXECUTION_DAG
from .reducers import OF_NOTEBOOK, OF_STUDENT, notebook_runs, student_runs

__all__ = ["COURSE_DASHBOARDS", "DASH_PAGES", "EXECUTION_DAG", "NAME", "REDUCERS"]

NAME = "Jupyter executions"

REDUCERS: list[dict[str, Any]] = [
    {
        "context": SOURCE,
        "scope": OF_STUDENT,
        "function": student_runs,
        "default": {"figures": NO_RUNS, "record": NOTHING_HEARD},
    },
    {
        "context": SOURCE,
        "scope": OF_NOTEBOOK,
        "function": notebook_runs,
        "default": {"figures": NO_RUNS_IN_NOTEBOOK, "record": NOTHING_HEARD_OF_NOTEBOOK},
    },
]

# Nothing is fetched from elsewhere: no CSS, script or font but what is in assets.
DASH_PAGES: list[dict[str, Any]] = [
    {
        "MODULE": page,
        "LAYOUT": page.layout,
        "ASSETS": "assets",
        "TITLE": page.TITLE,
        "DESCRIPTION": page.DESCRIPTION,
        "SUBPATH": page.SUBPATH,
    }
]

COURSE_DASHBOARDS: list[dict[str, Any]] = [
    {
        "name": NAME,
        "url": f"/lo_exec_events/dash/{page.SUBPATH}",
        "icon": {"type": "fas", "icon": "fa-laptop-code"},
    }
]
