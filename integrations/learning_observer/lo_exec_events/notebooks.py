"""Students with the notebooks they ran, as a query gives them, in; each pair of student and notebook out (pure)."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Any


async def notebooks_of_students(students: AsyncIterable[dict[str, Any]]) -> list[dict[str, str]]:
    """
    The keys of notebooks' states, for students that are on the roster the query began with.

    A list: of a stream that is read twice, once for each part of a key, the server pairs the wrong items.
    """
    pairs = []
    async for student in students:
        user_id = student["provenance"]["provenance"]["STUDENT"]["user_id"]
        notebooks = student.get("notebooks")
        for notebook_id in notebooks if isinstance(notebooks, dict) else ():
            pairs.append({"user_id": user_id, "notebook_id": notebook_id})
    return pairs
