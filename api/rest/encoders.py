"""Encoded rows and objects in other encodings: CSV, lines of JSON, MessagePack.

They start from the JSON of an answer, so that a value is the same in each. Absent is null, in CSV
an empty cell; what has parts of its own is JSON within its cell.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

Row = dict[str, Any]
_encode = msgspec.json.Encoder().encode
_decode_raws = msgspec.json.Decoder(list[msgspec.Raw]).decode


def to_msgpack(body: bytes) -> bytes:
    """A whole JSON body as MessagePack."""
    return msgspec.msgpack.encode(msgspec.json.decode(body))


def to_lines(data: bytes) -> bytes:
    """A JSON array as a line for each element; anything else is one line."""
    elements: Sequence[Any] = _decode_raws(data) if data.startswith(b"[") else [data]
    return b"".join(b"%b\n" % element for element in elements)


def to_csv(rows: Sequence[Row], columns: Iterable[str]) -> bytes:
    """Rows with a head; every column that a row has is there, those that are named first."""
    names = column_names(rows, columns)
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_cell(row.get(name)) for name in names] for row in rows)
    return sink.getvalue().encode()


def column_names(rows: Sequence[Row], columns: Iterable[str]) -> list[str]:
    """The names in the order in which they are first seen; `columns` where there are no rows."""
    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row))
    return list(names) or list(columns)


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return _encode(value).decode()
    return value
