"""exec-events: a tamper-evident record of every execution of every Jupyter kernel."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """Where jupyter_server finds the extension."""
    from .app import ExecEvents

    return [{"module": "exec_events", "app": ExecEvents}]
