"""The one error of this package."""

from __future__ import annotations


class BrokerError(RuntimeError):
    """There is no broker; the text says what to install, or ends with the broker's log."""
