"""How the recorder is: one reading of its parts, and what of it somebody should do something about (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .deliver import DeliveryState
from .listeners import ListenerState
from .spool import SpoolState


@dataclass(frozen=True, slots=True)
class Health:
    """One reading; ``notes`` is what went wrong when the parts were put together."""

    spool: SpoolState
    sinks: Sequence[DeliveryState]
    listeners: Sequence[ListenerState]
    faults: int
    pending: int
    notes: Sequence[str]

    @property
    def problems(self) -> list[str]:
        """What is wrong, a sentence each; empty when all is well."""
        problems = [*self.notes, *(text for text in (self.spool.problem, self.spool.damaged) if text)]
        if self.spool.lost:
            problems.append(f"{self.spool.lost} events were lost while the spool could not be written")
        if self.faults:
            problems.append(f"{self.faults} faults of the recorder's own; see the server's log")
        problems += [f"{sink.sink} does not take records: {sink.problem}" for sink in self.sinks if sink.problem]
        problems += [f"listener {state.name} hangs" for state in self.listeners if state.hanging_seconds > 0]
        return problems

    def figures(self) -> dict[str, Any]:
        """What `GET /exec-events/status` tells of it."""
        problems = self.problems
        return {
            "recorder_id": self.spool.recorder_id,
            "recording": True,
            "healthy": not problems,
            "problems": problems,
            "spooled": self.spool.records,
            "pending": self.pending,
            "open_executions": self.spool.open_executions,
            "held": self.spool.held,
            "lost": self.spool.lost,
            "faults": self.faults,
            "spool_bytes": self.spool.size_bytes,
            "journal_mode": self.spool.journal_mode,
            "sinks": {state.sink: asdict(state) for state in self.sinks},
            "listeners": {state.name: asdict(state) for state in self.listeners},
        }
