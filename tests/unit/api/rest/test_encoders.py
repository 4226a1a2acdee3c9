"""Rows come out of each format as they went in: values, absent ones, types, and none at all."""

import csv
import io
import json
from datetime import UTC, date, datetime
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from pyarrow import parquet

from api.rest.arrow import TYPES, to_arrow, to_parquet
from api.rest.encoders import to_csv, to_lines, to_msgpack
from api.rest.formats import Format
from pipeline.frames import ROW_FIELDS

ROWS: list[dict[str, Any]] = [
    {
        "ts_ingest": "2026-01-25T10:00:00.000001Z",
        "expiry": "2026-01-27",
        "symbol": 'NIFTY-20260127-25000-CE,"',
        "last": 90.5,
        "volume": 2**53 + 1,
        "iv": None,
        "smile": {"a": 0.1, "b": 0.2},
        "is_expired": True,
    },
    {
        "ts_ingest": None,
        "expiry": None,
        "symbol": None,
        "last": 90,
        "volume": None,
        "iv": None,
        "smile": None,
        "is_expired": False,
    },
]
ENCODED = msgspec.json.encode(ROWS)
META = {"stockify.meta": '{"rows":2}'}


def opened(kind: Format, data: bytes) -> pa.Table:
    if kind is Format.ARROW:
        return pa.ipc.open_stream(data).read_all()
    return parquet.read_table(io.BytesIO(data))


def written(kind: Format, rows: list[dict[str, Any]], columns: tuple[str, ...] = ()) -> pa.Table:
    write = to_arrow if kind is Format.ARROW else to_parquet
    return opened(kind, write(rows, columns, META))


def test_lines_are_the_elements() -> None:
    assert [json.loads(line) for line in to_lines(ENCODED).splitlines()] == ROWS
    assert to_lines(b"[]") == b""
    assert to_lines(b'{"a":null}') == b'{"a":null}\n'


def test_msgpack_is_the_json() -> None:
    body = msgspec.json.encode({"data": ROWS, "meta": {"nan": float("nan")}})
    assert msgspec.msgpack.decode(to_msgpack(body)) == {"data": ROWS, "meta": {"nan": None}}


def test_csv_has_a_head_and_a_row_each() -> None:
    head, first, second = csv.reader(io.StringIO(to_csv(ROWS, ()).decode()))
    assert head == list(ROWS[0])
    told = dict(zip(head, first, strict=True))
    assert told["symbol"] == ROWS[0]["symbol"]
    assert (told["last"], told["volume"], told["iv"]) == ("90.5", str(2**53 + 1), "")
    assert json.loads(told["smile"]) == ROWS[0]["smile"]
    assert (told["is_expired"], second[-1]) == ("true", "false")


def test_csv_of_nothing_is_its_head() -> None:
    assert to_csv([], ("ts_ingest", "last")) == b"ts_ingest,last\n"


def test_csv_has_the_columns_of_every_row() -> None:
    assert to_csv([{"a": 1}, {"b": 2}], ()) == b"a,b\n1,\n,2\n"


@pytest.mark.parametrize("kind", [Format.ARROW, Format.PARQUET])
def test_table_is_typed_and_has_the_values(kind: Format) -> None:
    table = written(kind, ROWS)
    assert table.schema.field("ts_ingest").type == pa.timestamp("ns", "UTC")
    assert table.schema.field("expiry").type == pa.date32()
    assert table["ts_ingest"].cast(pa.int64()).to_pylist() == [1_769_335_200_000_001_000, None]
    assert table["expiry"].to_pylist() == [date(2026, 1, 27), None]
    assert table["volume"].to_pylist() == [2**53 + 1, None]
    assert table["last"].to_pylist() == [90.5, 90.0]
    assert table.schema.field("iv").type == pa.float64()
    assert table["iv"].null_count == 2
    assert table["smile"][0].as_py()["b"] == 0.2
    assert table["smile"][1].as_py() is None
    assert table["is_expired"].to_pylist() == [True, False]
    assert table.schema.metadata[b"stockify.meta"] == b'{"rows":2}'


@pytest.mark.parametrize("kind", [Format.ARROW, Format.PARQUET])
@pytest.mark.parametrize(
    "instant",
    ["2026-01-25T10:00:00Z", 1_769_335_200_000_000_000, 1_769_335_200_000],
    ids=["rfc3339", "ns", "ms"],
)
def test_instant_is_the_same_in_every_form(kind: Format, instant: Any) -> None:
    column = written(kind, [{"ts_event": instant}])["ts_event"]
    wanted = int(datetime(2026, 1, 25, 10, tzinfo=UTC).timestamp()) * 10**9
    assert column.cast(pa.int64()).to_pylist() == [wanted]


@pytest.mark.parametrize("kind", [Format.ARROW, Format.PARQUET])
def test_schema_is_the_same_with_and_without_rows(kind: Format) -> None:
    names = ("ts_ingest", "expiry", *ROW_FIELDS, "smile")
    empty = written(kind, [], names)
    nulls = written(kind, [dict.fromkeys(names)])
    assert empty.num_rows == 0
    assert empty.schema.equals(nulls.schema)
    assert set(ROW_FIELDS) <= set(TYPES)


@pytest.mark.parametrize("kind", [Format.ARROW, Format.PARQUET])
def test_field_that_is_something_else_here_keeps_its_values(kind: Format) -> None:
    table = written(kind, [{"starts": "soon", "last": "none", "mixed": 1}, {"mixed": "a"}])
    assert table["starts"].to_pylist() == ["soon", None]
    assert table["last"].to_pylist() == ["none", None]
    assert table["mixed"].to_pylist() == ["1", '"a"']
