"""
Rows of a table, or of the events of a schema, in; typed columns in the form somebody asks for out.

Imports pyarrow, which is not everybody's: imported where tables in memory are made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import import_module
from typing import Any, Literal

import orjson
import pyarrow as pa
from sqlalchemy import Boolean, Integer, LargeBinary, Table

from exec_events_schemas.catalogue import SchemaName, load
from exec_events_schemas.record import event_of, time_of

from .decode import Decoded
from .errors import ConsumerError

Format = Literal["arrow", "pandas", "polars", "batches"]
TIME = pa.timestamp("us", tz="UTC")
_PLACE = [("chain", pa.string()), ("seq", pa.int64())]
ANY_EVENT = pa.schema(
    [*_PLACE, ("kind", pa.string()), ("time", TIME), ("subject", pa.string()), ("event", pa.string())]
)
_TIMES = {"time", "minute", "streak_since"}
_PLAIN = {"string": pa.string(), "integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_()}


def is_time(name: str) -> bool:
    """Whether a member or a column of this name is a time, by the names this project gives."""
    return name in _TIMES or name.endswith("_at")


def schema_of_table(table: Table) -> pa.Schema:
    """The columns of a table."""
    return pa.schema([pa.field(column.name, _type_of_column(column)) for column in table.columns])


def schema_of_events(name: SchemaName) -> pa.Schema:
    """Where its record is, and the members of an event in the order of its schema."""
    members: Mapping[str, Any] = load(name.id)["properties"]
    return pa.schema([*_PLACE, *((member, _type_of_member(member, about)) for member, about in members.items())])


def members_of(decoded: Decoded) -> Mapping[str, Any]:
    """The row of an event of a known schema."""
    return {**decoded.event, "chain": decoded.chain, "seq": decoded.seq}


def json_of(decoded: Decoded) -> Mapping[str, Any]:
    """The row of any event, with the columns of `ANY_EVENT`."""
    subject = decoded.event.get("subject")
    return {
        "chain": decoded.chain,
        "seq": decoded.seq,
        "kind": decoded.kind,
        "time": time_of(decoded.event),
        "subject": subject if isinstance(subject, str) else None,
        "event": event_of(decoded.record),
    }


def arrays(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    """Rows as columns; what a row does not have is null."""
    return pa.RecordBatch.from_arrays(
        [_array([row.get(field.name) for row in rows], field.type) for field in schema], schema=schema
    )


def in_form(form: Format, schema: pa.Schema, rows: Iterator[list[Mapping[str, Any]]]) -> Any:
    """An Arrow table, a DataFrame, or the batches one by one; raises ConsumerError where what it needs is missing."""
    batches = (arrays(part, schema) for part in rows if part)
    if form == "batches":
        return batches
    if form not in ("arrow", "pandas", "polars"):
        raise ConsumerError(f"there is no format {form!r}: there are arrow, pandas, polars and batches")
    library = None if form == "arrow" else _library(form)
    table = pa.Table.from_batches(list(batches), schema)
    if library is None:
        return table
    return table.to_pandas() if form == "pandas" else library.from_arrow(table)


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ConsumerError(f"format={name!r} needs {name}: pip install {name}") from error


def _type_of_column(column: Any) -> pa.DataType:
    if isinstance(column.type, Boolean):
        return pa.bool_()
    if isinstance(column.type, Integer):
        return pa.int64()
    if isinstance(column.type, LargeBinary):
        return pa.binary()
    return TIME if is_time(column.name) else pa.string()


def _type_of_member(name: str, about: Mapping[str, Any]) -> pa.DataType:
    """A type that holds what the schema allows; what has no fixed shape is its JSON text."""
    kinds = about.get("type")
    kind = next((one for one in kinds if one != "null"), None) if isinstance(kinds, list) else kinds
    if kind == "array" and "items" in about:
        return pa.list_(_type_of_member("", about["items"]))
    if kind == "object" and about.get("properties"):
        members = about["properties"].items()
        return pa.struct([pa.field(member, _type_of_member(member, more)) for member, more in members])
    if kind == "string" and is_time(name):
        return TIME
    return _PLAIN.get(str(kind), pa.string())


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    if kind == TIME:
        return _times(values)
    if kind == pa.string():
        values = [
            value if isinstance(value, str) or value is None else orjson.dumps(value).decode() for value in values
        ]
    return pa.array(values, kind)


def _times(values: list[str | None]) -> pa.Array:
    try:
        return pa.array(values, pa.string()).cast(TIME)
    except pa.ArrowInvalid:
        # A time that is none (the 13th month has the form of one), or one without seconds.
        return pa.array([_moment(value) for value in values], TIME)


def _moment(value: str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value or "")
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
