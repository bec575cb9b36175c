"""
A SOURCE or a store in, its executions, events and tables as Arrow, pandas or Polars out: for notebooks.

What is read passes in batches, so that only the answer itself is ever in memory whole.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Table, inspect, select

from exec_events_schemas.catalogue import SchemaName, catalogue
from exec_events_schemas.record import time_of
from exec_events_schemas.sources import Damage, open_source
from exec_events_schemas.topics import SCHEME
from exec_events_schemas.upcast import newest_version

from . import tables
from .chaining import Chain, chained
from .decode import DeadLetter, Decoded, decode
from .errors import ConsumerError
from .executions import execution_row
from .feed import Fetched
from .loop import Progress
from .open_feed import default_spool
from .store import open_engine

if TYPE_CHECKING:
    import pyarrow as pa

    from .columns import Format

# Rows in batches, and the columns they have.
Found = tuple["pa.Schema", Iterator[list[Mapping[str, Any]]]]
# A point in time: ISO 8601 as text, or a datetime; UTC where it names no zone.
Moment = str | datetime

BATCH_RECORDS = 5000
EXECUTION = "cell_execution"
# A topic is searched by the time events were made. A direct client's clock, which says when it asked, may be ahead.
_CLOCKS_DIFFER = timedelta(days=1)


def read(
    source: str | os.PathLike[str] | None = None,
    *,
    settings: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Reading:
    """
    What is recorded in ``source``: a SOURCE as `exec-events cat` takes it (None: this user's spool), or a store.

    Nothing is read before something is asked of it. ``settings`` are kafka-python's for kafka://. With ``progress``
    whatever takes more than two seconds says on standard error how far it is.

    Raises:
        SourceError, StoreError: there is no such source, or no such store.
        ConsumerError: pyarrow is not installed.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ConsumerError(f"tables in memory need pyarrow ({error}): pip install 'exec-events[export]'") from error
    text = None if source is None else os.fspath(source)
    if text is not None and text.startswith(("sqlite:", "postgresql")):
        return StoreReading(text)
    return SourceReading(text, settings or {}, progress=progress)


class Reading:
    """
    What can be asked of a source or a store.

    ``since`` and ``until`` (up to, and not with) are of the time an execution was asked for, and of the time of any
    other event. ``format`` is what comes back: an Arrow table, a DataFrame of pandas or of Polars, or ``"batches"``,
    an iterator of Arrow record batches, of which only one is in memory. Times are timestamps in UTC, durations
    microseconds, whatever has no value null.
    """

    name: str

    def executions(
        self,
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        subject: str | None = None,
        format: Format = "arrow",
    ) -> Any:
        """One row for each execution, with the columns of the table ``executions`` (docs/tables.md)."""
        schema, rows = self._executions(_Filter(_time(since), _time(until), subject))
        return _given(format, schema, rows)

    def events(
        self,
        kind: str | None = None,
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        subject: str | None = None,
        format: Format = "arrow",
    ) -> Any:
        """
        One row for each event of a kind, with all its members; without a kind every event, as JSON text.

        Raises ConsumerError for a kind that is not known, and of a store, which has tables and no events.
        """
        schema, rows = self._events(kind, _Filter(_time(since), _time(until), subject))
        return _given(format, schema, rows)

    def table(self, name: str, *, subject: str | None = None, format: Format = "arrow") -> Any:
        """A table of a store, by its name in docs/tables.md; raises ConsumerError of a source, which has none."""
        schema, rows = self._table(name, subject)
        return _given(format, schema, rows)

    def _executions(self, wanted: _Filter) -> Found:
        raise NotImplementedError

    def _events(self, kind: str | None, wanted: _Filter) -> Found:
        raise ConsumerError(f"{self.name} is a store: ask it for executions() or table(NAME), and a SOURCE for events")

    def _table(self, name: str, subject: str | None) -> Found:
        raise ConsumerError(
            f"{self.name} has records, not tables: `exec-events aggregate` makes a store of it, which has them"
        )


class _Filter:
    def __init__(self, since: str | None, until: str | None, subject: str | None) -> None:
        self.since, self.until, self.subject = since, until, subject

    def takes(self, time: str, subject: Any) -> bool:
        """Whether it is asked for; times are RFC 3339 in UTC, and compare as text."""
        return (
            (self.since is None or time >= self.since)
            and (self.until is None or time < self.until)
            and (self.subject is None or subject == self.subject)
        )


class SourceReading(Reading):
    """The records of a source, each once, those that cannot be used left out, with a warning of how many they are."""

    def __init__(self, source: str | None, settings: Mapping[str, Any], *, progress: bool) -> None:
        self._source = default_spool() if source is None else source
        self._settings = settings
        self._progress = progress
        self.name = open_source(self._source, settings=settings).name

    def _executions(self, wanted: _Filter) -> Found:
        from .columns import schema_of_table

        def rows() -> Iterator[list[Mapping[str, Any]]]:
            for events in self._decoded(wanted.since):
                found = [execution_row(event) for event in events if event.kind == EXECUTION]
                yield [row for row in found if wanted.takes(row["requested_at"], row["subject"])]

        return schema_of_table(tables.executions), rows()

    def _events(self, kind: str | None, wanted: _Filter) -> Found:
        from .columns import ANY_EVENT, json_of, members_of, schema_of_events

        known = sorted({name.event for name in catalogue()})
        if kind in known:
            schema, make = schema_of_events(SchemaName(str(kind), newest_version(str(kind)))), members_of
        elif kind is None or "/" in kind:
            schema, make = ANY_EVENT, json_of
        else:
            raise ConsumerError(
                f"there is no kind {kind!r}: there are {', '.join(known)}, and the ids of other schemas"
            )

        def rows() -> Iterator[list[Mapping[str, Any]]]:
            for events in self._decoded(wanted.since):
                found = [event for event in events if kind is None or event.kind == kind]
                yield [make(e) for e in found if wanted.takes(_asked_at(e), e.event.get("subject"))]

        return schema, rows()

    def _decoded(self, since: str | None) -> Iterator[list[Decoded]]:
        """Batches of what is new in its chain."""
        saying = _saying(self.name) if self._progress else None
        progress = Progress()
        chains: dict[str, Chain] = {}
        left_out: list[DeadLetter] = []
        records = self._records(since, left_out)
        while True:
            batch = [decode(fetched) for _, fetched in zip(range(BATCH_RECORDS), records, strict=False)]
            if not batch:
                break
            left_out += [one for one in batch if isinstance(one, DeadLetter)]
            new, odd = chained((one for one in batch if isinstance(one, Decoded)), chains, lambda chain, seq: None)
            left_out += odd
            progress.records += len(batch)
            if saying is not None:
                saying(progress)
            yield new
            # Only the first is named: what is of no use must not fill the memory.
            progress.dead += len(left_out[1:])
            del left_out[1:]
        if left_out:
            first = left_out[0]
            warnings.warn(
                f"{progress.dead + 1:,} records of {self.name} cannot be used and are left out; the first, "
                f"{first.partition}:{first.position}: {first.reason}",
                stacklevel=2,
            )

    def _records(self, since: str | None, left_out: list[DeadLetter]) -> Iterator[Fetched]:
        def damaged(damage: Damage) -> None:
            left_out.append(DeadLetter(damage.file, damage.position or 0, None, damage.what))

        start = None
        if since is not None and str(self._source).startswith(f"{SCHEME}://"):
            start = datetime.fromisoformat(since) - _CLOCKS_DIFFER
        source = open_source(self._source, start=start, settings=self._settings)
        for stored in source.read(damaged):
            yield Fetched(stored.file, stored.position, stored.record, stored.hash)


class StoreReading(Reading):
    """The tables of a store."""

    def __init__(self, url: str) -> None:
        engine = open_engine(url, read_only=True)
        self.name = engine.url.render_as_string(hide_password=True)
        engine.dispose()
        self._url = url

    def _executions(self, wanted: _Filter) -> Found:
        at = tables.executions.c.requested_at
        conditions = [at >= wanted.since] if wanted.since is not None else []
        conditions += [at < wanted.until] if wanted.until is not None else []
        return self._rows(tables.executions, wanted.subject, *conditions)

    def _table(self, name: str, subject: str | None) -> Found:
        table = tables.metadata.tables.get(name)
        if table is None:
            raise ConsumerError(f"there is no table {name!r}: there are {', '.join(sorted(tables.metadata.tables))}")
        if subject is not None and "subject" not in table.c:
            raise ConsumerError(f"the table {name} has no column subject")
        return self._rows(table, subject)

    def _rows(self, table: Table, subject: str | None, *conditions: Any) -> Found:
        from .columns import schema_of_table

        query = select(table).where(*conditions)
        if subject is not None:
            query = query.where(table.c.subject == subject)

        def rows() -> Iterator[list[Mapping[str, Any]]]:
            engine = open_engine(self._url, read_only=True)
            try:
                with engine.connect() as connection:
                    if not inspect(connection).has_table(table.name):
                        raise ConsumerError(f"{self.name} has no tables yet: `exec-events aggregate` makes them")
                    found = connection.execution_options(yield_per=BATCH_RECORDS).execute(query).mappings()
                    for part in found.partitions():
                        yield [dict(row) for row in part]
            finally:
                engine.dispose()

        return schema_of_table(table), rows()


def _given(form: Format, schema: pa.Schema, rows: Iterator[list[Mapping[str, Any]]]) -> Any:
    from .columns import in_form

    return in_form(form, schema, rows)


def _time(moment: Moment | None) -> str | None:
    """A point in time as events carry it."""
    if moment is None:
        return None
    try:
        at = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    except ValueError as error:
        raise ConsumerError(f"{moment!r} is no time: write 2026-11-24 or 2026-11-24T10:05") from error
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return f"{at:%Y-%m-%dT%H:%M:%S.%f}Z"


def _asked_at(decoded: Decoded) -> str:
    return str(decoded.event["requested_at"]) if decoded.kind == EXECUTION else time_of(decoded.event)


def _saying(name: str) -> Any:
    from .cli.options import Saying

    return Saying(f"read {name}")
