"""Record batches as files, piece by piece: Arrow, Parquet, CSV, JSON, lines of it, MessagePack.

A file without its last piece is seen to be broken: Arrow lacks its end of stream, Parquet its
footer and JSON its brackets. Work of processor time alone; whoever calls may do it in a thread.
"""

import io
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import msgspec
import pyarrow as pa
from pyarrow import compute, csv, parquet

from api.rest.arrow import PARQUET_CODEC
from api.rest.compression import Compressor, compressor_of
from api.rest.formats import Format

LINES_AT_ONCE = 4_096  # rows as dicts are ten times as large as columns
_RFC3339 = "%Y-%m-%dT%H:%M:%SZ"
_NS_OF_US, _US_OF_MS = 1_000, 1_000
_encode = msgspec.json.Encoder().encode
_encode_lines = msgspec.json.Encoder().encode_lines
_pack = msgspec.msgpack.Encoder().encode


class FileWriter(Protocol):
    """Makes a file of record batches."""

    def write(self, batch: pa.RecordBatch) -> bytes:
        """What comes of the next batch."""

    def finish(self) -> bytes:
        """The end of the file."""


def writer_of(
    kind: Format,
    schema: pa.Schema,
    coding: str | None = None,
    *,
    form: str = "rfc3339",
    meta: Mapping[str, Any] | None = None,
) -> FileWriter:
    """A writer of a format; with a coding, of the file compressed.

    `form` is that of instants where they are text or integers, `meta` what JSON says of its rows.
    """
    if kind is Format.ARROW:
        return _Arrow(schema)
    if kind is Format.PARQUET:
        return _Parquet(schema)
    plain: FileWriter
    if kind is Format.CSV:
        plain = _Csv(schema, form)
    elif kind is Format.JSON:
        plain = _Json(form, meta or {})
    elif kind is Format.MSGPACK:
        plain = _Packed(form)
    else:
        plain = _Lines(form)
    return plain if coding is None else _Compressed(plain, compressor_of(coding))


class _Sink(io.RawIOBase):
    """Keeps what is written until it is taken."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._pieces.append(piece)
        self._size += len(piece)
        return len(piece)

    def tell(self) -> int:
        return self._size

    def take(self) -> bytes:
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken


class _Arrow:
    def __init__(self, schema: pa.Schema) -> None:
        self._sink = _Sink()
        self._writer = pa.ipc.new_stream(self._sink, schema)

    def write(self, batch: pa.RecordBatch) -> bytes:
        self._writer.write_batch(batch)
        return self._sink.take()

    def finish(self) -> bytes:
        self._writer.close()
        return self._sink.take()


class _Parquet:
    """A row group a batch. Words are text here: each group would repeat all of a dictionary."""

    def __init__(self, schema: pa.Schema) -> None:
        self._sink = _Sink()
        fields = [field.with_type(_plain(field.type)) for field in schema]
        self._schema = pa.schema(fields, metadata=schema.metadata)
        self._writer = parquet.ParquetWriter(self._sink, self._schema, compression=PARQUET_CODEC)

    def write(self, batch: pa.RecordBatch) -> bytes:
        columns = [column.cast(_plain(column.type)) for column in batch.columns]
        rows = pa.RecordBatch.from_arrays(columns, schema=self._schema)
        self._writer.write_batch(rows, row_group_size=max(1, rows.num_rows))
        return self._sink.take()

    def finish(self) -> bytes:
        self._writer.close()
        return self._sink.take()


class _Csv:
    def __init__(self, schema: pa.Schema, form: str) -> None:
        self._head = ",".join(schema.names).encode() + b"\n"
        self._options = csv.WriteOptions(include_header=False)
        self._form = form

    def write(self, batch: pa.RecordBatch) -> bytes:
        sink = io.BytesIO()
        sink.write(self._head)
        self._head = b""
        columns = [_told(column, self._form) for column in batch.columns]
        table = pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
        csv.write_csv(table, sink, self._options)
        return sink.getvalue()

    def finish(self) -> bytes:
        return self._head


class _Lines:
    def __init__(self, form: str) -> None:
        self._form = form

    def write(self, batch: pa.RecordBatch) -> bytes:
        return b"".join(map(_encode_lines, _rows(batch, self._form)))

    def finish(self) -> bytes:
        return b""


class _Json:
    """One object: `meta`, then `data`, which may be of any length, then `next`, which is null."""

    def __init__(self, form: str, meta: Mapping[str, Any]) -> None:
        self._form = form
        self._before = b'{"meta":' + _encode(meta) + b',"data":['

    def write(self, batch: pa.RecordBatch) -> bytes:
        pieces = []
        for rows in _rows(batch, self._form):
            pieces += [self._before, _encode(rows)[1:-1]]
            self._before = b","
        return b"".join(pieces)

    def finish(self) -> bytes:
        before = b"" if self._before == b"," else self._before
        return before + b'],"next":null}'


class _Packed:
    """A map a row, one after the other: an array begins with its length, which nobody knows."""

    def __init__(self, form: str) -> None:
        self._form = form

    def write(self, batch: pa.RecordBatch) -> bytes:
        return b"".join(_pack(row) for rows in _rows(batch, self._form) for row in rows)

    def finish(self) -> bytes:
        return b""


class _Compressed:
    def __init__(self, plain: FileWriter, compressor: Compressor) -> None:
        self._plain, self._compressor = plain, compressor

    def write(self, batch: pa.RecordBatch) -> bytes:
        return self._compressor.compress(self._plain.write(batch))

    def finish(self) -> bytes:
        return self._compressor.compress(self._plain.finish()) + self._compressor.flush()


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _rows(batch: pa.RecordBatch, form: str) -> Iterator[list[dict[str, Any]]]:
    """The rows as dicts, LINES_AT_ONCE at a time; none of a batch without any."""
    names = batch.schema.names
    for first in range(0, batch.num_rows, LINES_AT_ONCE):
        part = batch.slice(first, LINES_AT_ONCE)
        columns = [_day(_decimal(_told(column, form))).to_pylist() for column in part.columns]
        yield [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _told(column: pa.Array, form: str) -> pa.Array:
    """A column as text has it: instants in their form, words as text."""
    if not pa.types.is_timestamp(column.type):
        return column.cast(_plain(column.type))
    if form == "rfc3339":
        naive = column.cast(pa.timestamp(column.type.unit))  # what is UTC needs no zone's table
        return compute.strftime(naive, format=_RFC3339)
    us = column.cast(pa.int64())
    return compute.multiply(us, _NS_OF_US) if form == "ns" else compute.divide(us, _US_OF_MS)


def _day(column: pa.Array) -> pa.Array:
    """Days as text, which every encoder has."""
    return column.cast(pa.string()) if pa.types.is_date(column.type) else column


def _decimal(column: pa.Array) -> pa.Array:
    """Of a single the double that reads the same, not the one that is the same: 0.12."""
    if pa.types.is_float32(column.type):
        return column.cast(pa.string()).cast(pa.float64())
    return column
