"""
What may be asked of the states, in the words of Learning Observer's communication protocol.

Each query begins with a course's roster, as the server gives it to the teacher who asks: nobody else's state is read.
"""

from __future__ import annotations

from typing import Any

from learning_observer.communication_protocol import query as q
from learning_observer.communication_protocol.integration import publish_function

from .notebooks import notebooks_of_students

_NOTEBOOKS_OF_STUDENTS = "lo_exec_events.notebooks_of_students"
publish_function(_NOTEBOOKS_OF_STUDENTS)(notebooks_of_students)

# What the page needs of a student; the state behind it, with its latest runs, stays on the server.
BOARD_FIELDS = {
    "figures.row": "row",
    "figures.latest": "latest",
    "figures.streaks": "streaks",
    "record": "record",
}
_STUDENT_ON_ROSTER = "provenance.provenance.STUDENT.value.user_id"


def _of_students(fields: dict[str, str]) -> Any:
    return q.select(
        q.keys("lo_exec_events.student_runs", STUDENTS=q.variable("roster"), STUDENTS_path="user_id"), fields=fields
    )


def _with_names(students: str) -> Any:
    return q.join(LEFT=q.variable(students), RIGHT=q.variable("roster"), LEFT_ON=_STUDENT_ON_ROSTER, RIGHT_ON="user_id")


def _export(returns: str) -> dict[str, Any]:
    return {"returns": returns, "parameters": ["course_id"]}


EXECUTION_DAG: dict[str, Any] = {
    "execution_dag": {
        "roster": q.call("learning_observer.courseroster")(
            runtime=q.parameter("runtime"), course_id=q.parameter("course_id", required=True)
        ),
        "board": _of_students(BOARD_FIELDS),
        "board_with_names": _with_names("board"),
        "students": _of_students({"figures": "figures", "record": "record"}),
        "students_with_names": _with_names("students"),
        "notebooks_of_each": _of_students({"figures.notebooks": "notebooks"}),
        "pairs": q.call(_NOTEBOOKS_OF_STUDENTS)(students=q.variable("notebooks_of_each")),
        "notebooks": q.select(
            q.keys(
                "lo_exec_events.notebook_runs",
                scope_fields={
                    "student": {"values": q.variable("pairs"), "path": "user_id"},
                    "notebook_id": {"values": q.variable("pairs"), "path": "notebook_id"},
                },
            ),
            fields={"figures": "figures", "record": "record"},
        ),
    },
    "exports": {
        "board": _export("board_with_names"),
        "students": _export("students_with_names"),
        "notebooks": _export("notebooks"),
    },
}
