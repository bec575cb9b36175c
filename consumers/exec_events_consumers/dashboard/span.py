"""``since`` and ``until`` as a URL has them in, a span of time out (pure)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from exec_events_consumers.measures import EPOCH

_AGO = re.compile(r"(\d{1,6})(s|m|h|d|w)")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
EVER = "all"
# The choices the pages offer, and what a person calls them.
OFFERED = {
    "15m": "15 minutes",
    "2h": "2 hours",
    "24h": "24 hours",
    "7d": "7 days",
    "30d": "30 days",
    EVER: "all time",
}
# Buckets as prefixes of an RFC 3339 time: up to this span, so many characters.
_BUCKETS = ((timedelta(hours=3), 16), (timedelta(hours=36), 15), (timedelta(days=7), 13))
_DAY = 10


class BadSpan(ValueError):
    """A time range that cannot be read; the text says what can."""


@dataclass(frozen=True, slots=True)
class Span:
    """From ``begin`` (None: the beginning) to ``end`` (None: now, and on); ``now`` is when it was asked for."""

    since: str
    until: str
    begin: datetime | None
    end: datetime | None
    now: datetime

    @property
    def is_live(self) -> bool:
        """Whether what happens next is in it."""
        return self.end is None

    @property
    def is_ever(self) -> bool:
        """Whether it leaves nothing out."""
        return self.begin is None and self.end is None

    @property
    def begin_us(self) -> int:
        """Its beginning in microseconds since 1970."""
        return 0 if self.begin is None else microseconds(self.begin)

    @property
    def end_us(self) -> int:
        """Its end in microseconds since 1970; far away where it has none."""
        return 2**62 if self.end is None else microseconds(self.end)

    @property
    def bucket(self) -> int:
        """How many characters of a time tell the buckets of a chart of this span apart."""
        return _DAY if self.begin is None else bucket_of((self.end or self.now) - self.begin)


def bucket_of(length: timedelta) -> int:
    """How many characters of a time tell the buckets apart in which a chart of so long a time is drawn."""
    return next((characters for most, characters in _BUCKETS if length <= most), _DAY)


def span_of(since: str, until: str, now: datetime) -> Span:
    """The span that these name; raises BadSpan."""
    begin, end = _time(since, now, "since"), _time(until, now, "until") if until else None
    if begin is not None and begin > (end or now):
        raise BadSpan("since is after until")
    return Span(since, until, begin, end, now)


def microseconds(time: datetime) -> int:
    """A time as microseconds since 1970 (UTC)."""
    return (time - EPOCH) // timedelta(microseconds=1)


def rfc3339(time: datetime) -> str:
    """A time as events carry it."""
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}Z"


def _time(text: str, now: datetime, name: str) -> datetime | None:
    if text == EVER and name == "since":
        return None
    try:
        if ago := _AGO.fullmatch(text):
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        time = datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        hint = "give an age (15m, 2h, 7d), a time (2026-01-31T09:00Z)"
        raise BadSpan(f"{name} cannot be read: {hint}{' or all' if name == 'since' else ''}") from None
