"""Times as events carry them: microseconds since the epoch, and RFC 3339 in UTC."""

from __future__ import annotations

import time
from datetime import UTC, datetime

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def now_us() -> int:
    """The clock of this machine: microseconds since the epoch."""
    return time.time_ns() // 1000


def rfc3339(us: int) -> str:
    """Microseconds since the epoch as RFC 3339 in UTC with microseconds."""
    seconds, micro = divmod(us, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{micro:06d}Z"


def microseconds(date: str | None) -> int | None:
    """A message header's date as microseconds since the epoch; None when it is none."""
    if not date:
        return None
    try:
        moment = datetime.fromisoformat(date)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    delta = moment - EPOCH
    us = (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds
    return us if 0 <= us < 253_402_300_800_000_000 else None
