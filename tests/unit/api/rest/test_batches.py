"""Files of record batches: each format has the rows, and is seen to be broken without its end."""

import csv
import gzip
import io
import json
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from pyarrow import parquet

from api.rest.batches import LINES_AT_ONCE, writer_of
from api.rest.formats import Format

SCHEMA = pa.schema(
    [
        ("ts_ingest", pa.timestamp("us", "UTC")),
        ("symbol", pa.dictionary(pa.int32(), pa.string())),
        ("expiry", pa.date32()),
        ("iv", pa.float32()),
        ("volume", pa.int64()),
    ]
)
NS = 1_769_335_200_123_456_000
TOLD = [
    {
        "ts_ingest": "2026-01-25T10:00:00.123456Z",
        "symbol": 'a, "b"',
        "expiry": "2026-01-27",
        "iv": 0.12,
        "volume": 0,
    },
    dict.fromkeys(SCHEMA.names),
]
TEXTS = (Format.JSON, Format.MSGPACK, Format.CSV, Format.NDJSON)


def batch(pairs: int = 1) -> pa.RecordBatch:
    """Rows with a value everywhere, each followed by one with none at all."""
    values = [[NS // 1_000, None], ['a, "b"', None], ["2026-01-27", None], [0.12, None], [0, None]]
    plain = (pa.int64(), pa.string(), pa.string(), pa.float32(), pa.int64())
    arrays = [
        pa.array(each * pairs, kind).cast(field.type)
        for each, kind, field in zip(values, plain, SCHEMA, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def file_of(kind: Format, *batches: pa.RecordBatch, **options: Any) -> bytes:
    writer = writer_of(kind, SCHEMA, options.pop("coding", None), **options)
    return b"".join([*map(writer.write, batches), writer.finish()])


def rows_of(kind: Format, body: bytes, rows: int) -> Any:
    """The rows of a file of text."""
    if kind is Format.JSON:
        return json.loads(body)["data"]
    if kind is Format.MSGPACK:  # an array is the same behind its length
        return msgspec.msgpack.decode(b"\xdd" + rows.to_bytes(4, "big") + body)
    if kind is Format.NDJSON:
        return [json.loads(line) for line in body.splitlines()]
    return list(csv.DictReader(io.StringIO(body.decode())))


def in_csv(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    return [{name: "" if v is None else str(v) for name, v in row.items()} for row in rows]


@pytest.mark.parametrize("kind", TEXTS, ids=lambda kind: kind.suffix)
def test_rows_are_told_with_what_they_lack(kind: Format) -> None:
    found = rows_of(kind, file_of(kind, batch(), batch()), 4)
    wanted = TOLD * 2
    assert found == (in_csv(wanted) if kind is Format.CSV else wanted)


@pytest.mark.parametrize(("form", "instant"), [("ns", NS), ("ms", NS // 1_000_000)])
@pytest.mark.parametrize("kind", TEXTS, ids=lambda kind: kind.suffix)
def test_instants_are_integers_where_they_are_asked_for(
    kind: Format, form: str, instant: int
) -> None:
    found = [row["ts_ingest"] for row in rows_of(kind, file_of(kind, batch(), form=form), 2)]
    assert found == ([str(instant), ""] if kind is Format.CSV else [instant, None])


@pytest.mark.parametrize("kind", Format, ids=lambda kind: kind.suffix)
def test_file_of_nothing_is_whole(kind: Format) -> None:
    for body in (file_of(kind), file_of(kind, batch().slice(0, 0))):
        if kind is Format.ARROW:
            assert pa.ipc.open_stream(body).read_all().schema.names == SCHEMA.names
        elif kind is Format.PARQUET:
            assert parquet.read_table(io.BytesIO(body)).schema.names == SCHEMA.names
        elif kind is Format.CSV:
            assert body == b"ts_ingest,symbol,expiry,iv,volume\n"
        else:
            assert rows_of(kind, body, 0) == []


def test_columns_keep_their_types() -> None:
    table = pa.ipc.open_stream(file_of(Format.ARROW, batch())).read_all()
    assert table.schema.equals(SCHEMA)
    flat = parquet.read_table(io.BytesIO(file_of(Format.PARQUET, batch())))
    assert [field.type for field in flat.schema] == [
        pa.timestamp("us", "UTC"),
        pa.string(),
        pa.date32(),
        pa.float32(),
        pa.int64(),
    ]
    for each in (table, flat):
        assert [column.null_count for column in each.columns] == [1] * len(SCHEMA)


def test_json_says_what_its_rows_are_of() -> None:
    whole = json.loads(file_of(Format.JSON, batch(LINES_AT_ONCE), meta={"dataset": "ticks"}))
    assert whole == {"meta": {"dataset": "ticks"}, "data": TOLD * LINES_AT_ONCE, "next": None}


@pytest.mark.parametrize("kind", [Format.JSON, Format.PARQUET], ids=lambda kind: kind.suffix)
def test_file_without_its_end_is_seen_to_be_broken(kind: Format) -> None:
    body = writer_of(kind, SCHEMA).write(batch())
    with pytest.raises((ValueError, pa.ArrowInvalid)):
        json.loads(body) if kind is Format.JSON else parquet.read_table(io.BytesIO(body))


@pytest.mark.parametrize("kind", TEXTS, ids=lambda kind: kind.suffix)
def test_compressed_file_is_the_file(kind: Format) -> None:
    body = file_of(kind, batch(), batch(), coding="gzip")
    assert gzip.decompress(body) == file_of(kind, batch(), batch())
