"""exec-events: a tamper-evident record of every execution of every Jupyter kernel."""

from __future__ import annotations

__version__ = "0.1.0"
