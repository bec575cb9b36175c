"""The cells of a saved notebook beside the executions in a source, as a table or as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from exec_events.errors import ConfigurationError
from exec_events.hashing import Hasher
from exec_events.notebook import CellVerdict, Verdict
from exec_events.notebook_check import NotebookCheck, source_of
from exec_events.privacy import read_key

CODE_SHOWN = 32


class SavedNotebookCheck(NotebookCheck):
    """
    The check of a file, and how it is shown.

    Raises ConfigurationError where the notebook or the key cannot be read.
    """

    def __init__(self, path: Path, hash_key_file: Path | None) -> None:
        hasher = Hasher(read_key(hash_key_file) if hash_key_file else None)
        try:
            super().__init__(json.loads(path.read_bytes()), hasher)
        except ConfigurationError as error:
            raise ConfigurationError(f"{path} is {error}") from error
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{path} is not a notebook that can be read: {error}") from error

    def as_json(self, verdicts: list[CellVerdict]) -> list[dict[str, Any]]:
        """The verdicts as JSON values."""
        return [
            {
                "position": found.position,
                "cell_id": found.cell_id,
                "verdict": str(found.verdict),
                "fails": self.fails(found),
                "reason": found.reason,
                "by_code": found.by_code,
                "execution_id": found.execution_id,
                "chain": found.execution and found.execution.chain,
                "seq": found.execution and found.execution.seq,
                "requested_at": found.execution and found.execution.event.get("requested_at"),
            }
            for found in verdicts
        ]

    def show(self, verdicts: list[CellVerdict]) -> None:
        """Print the verdicts as a table."""
        from rich import box
        from rich.markup import escape
        from rich.table import Table

        from .terminal import console

        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for title in ("cell", "code", "verdict", "run at (UTC)", "why"):
            table.add_column(title, overflow="fold")
        for found in verdicts:
            color = "red" if self.fails(found) else "green" if found.verdict is Verdict.RECORDED else "yellow"
            at = "-" if found.execution is None else str(found.execution.event.get("requested_at", "-"))
            table.add_row(
                str(found.position),
                escape(_shortened(source_of(self.cells[found.position]))),
                f"[{color}]{found.verdict}[/]",
                at[:19].replace("T", " "),
                escape(found.reason),
            )
        console().print(table)


def _shortened(code: str) -> str:
    """The first line of a cell that says something, on one short line, without control characters."""
    line = next((line.strip() for line in code.splitlines() if line.strip()), "")
    line = "".join(character if character.isprintable() else " " for character in line)
    return line if len(line) <= CODE_SHOWN else line[: CODE_SHOWN - 1] + "…"
