"""Rows of an answer as Arrow and Parquet, typed by the names of their fields.

A field has one type in every answer, whatever its rows hold, also where all are null or there are
none: instants `timestamp[ns, UTC]` in whichever form they were asked for, days `date32`. A field
that nobody has declared has the type of its values.
"""

import contextlib
import io
import types
import typing
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from pyarrow import parquet

from api.rest.encoders import Row, column_names
from api.rest.query import parse_instant
from pipeline.models import (
    LEG_COLUMNS,
    ChainAggregates,
    ChainHeader,
    MarketSnapshot,
    Smile,
)
from pipeline.units import unit_metadata

PARQUET_CODEC = "zstd"
INSTANT = pa.timestamp("ns", "UTC")
_INSTANTS = frozenset(
    ("starts", "ends", "start", "end", "closed_at", "as_of", "minute", "valid_from", "valid_to")
)
_DAYS = frozenset(("expiry", "day"))
_SCALARS = {float: pa.float64(), int: pa.int64(), str: pa.string(), bool: pa.bool_()}


def to_arrow(rows: Sequence[Row], columns: Sequence[str], said: Mapping[str, str]) -> bytes:
    """Rows as an Arrow IPC stream; `said` stands in the metadata of the schema."""
    table = table_of(rows, columns, said)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def to_parquet(rows: Sequence[Row], columns: Sequence[str], said: Mapping[str, str]) -> bytes:
    """Rows as a Parquet file; `said` stands in the metadata of the schema."""
    sink = io.BytesIO()
    parquet.write_table(table_of(rows, columns, said), sink, compression=PARQUET_CODEC)
    return sink.getvalue()


def table_of(rows: Sequence[Row], columns: Sequence[str], said: Mapping[str, str]) -> pa.Table:
    """Rows as a table."""
    names = column_names(rows, columns)
    arrays = [_array(name, [row.get(name) for row in rows]) for name in names]
    fields = [
        pa.field(name, array.type, metadata=unit_metadata(name))
        for name, array in zip(names, arrays, strict=True)
    ]
    return pa.table(arrays, schema=pa.schema(fields, metadata=dict(said)))


def word_of(name: str) -> str | None:
    """The JSON Schema type of a field of that name; None where nobody declared it."""
    return _WORDS.get(TYPES.get(name))


def is_instant(name: str) -> bool:
    """Whether a field of that name is an instant."""
    return name.startswith("ts_") or name in _INSTANTS


def _array(name: str, values: list[Any]) -> pa.Array:
    # A field of that name may be something else elsewhere: then it is as its values are.
    with contextlib.suppress(ValueError, TypeError, OverflowError, pa.ArrowException):
        if is_instant(name):
            return _instants(values)
        if name in _DAYS:
            return pa.array([_day(value) for value in values], pa.date32())
        if name in TYPES:
            return pa.array(values, TYPES[name])
    with contextlib.suppress(pa.ArrowException):
        return pa.array(values)
    # Of several types, which no column can have.
    return pa.array([None if v is None else msgspec.json.encode(v).decode() for v in values])


def _instants(values: list[Any]) -> pa.Array:
    """Instants in any form that answers have them in."""
    ns = [
        None if value is None else parse_instant(value if isinstance(value, str) else str(value))
        for value in values
    ]
    held = np.array([0 if value is None else value for value in ns], "datetime64[ns]")
    return pa.array(held, INSTANT, mask=np.array([value is None for value in ns], np.bool_))


def _day(value: Any) -> date | None:
    return None if value is None else date.fromisoformat(value)


def _declared(annotation: Any) -> Any:
    """The Arrow type of a field's annotation; None where there is none for it."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        kinds = [kind for kind in typing.get_args(annotation) if kind is not type(None)]
        return _declared(kinds[0]) if len(kinds) == 1 else None
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return pa.struct([pa.field(*pair) for pair in _fields(annotation).items()])
    return _SCALARS.get(annotation)


def _fields(kind: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    found = {name: _declared(hint) for name, hint in hints.items()}
    return {name: declared for name, declared in found.items() if declared is not None}


def _leg_types() -> dict[str, Any]:
    found = {
        column.name: pa.float64() if "f" in column.dtype else pa.int64() for column in LEG_COLUMNS
    }
    # Answers have the kind as a word.
    return found | {"kind": pa.string(), "symbol": pa.string()}


_WORDS = {
    pa.float64(): "number",
    pa.int64(): "integer",
    pa.string(): "string",
    pa.bool_(): "boolean",
}
TYPES: dict[str, Any] = (
    _fields(ChainHeader)
    | _fields(ChainAggregates)
    | _fields(MarketSnapshot)
    | _leg_types()
    | {"smile": _declared(Smile)}
    | dict.fromkeys(("open", "high", "low", "close", "moneyness", "value"), pa.float64())
    | dict.fromkeys(("missed", "last_size", "place", "seq", "expected", "present"), pa.int64())
    | dict.fromkeys(("epoch", "cause", "detail", "type", "provider"), pa.string())
)
