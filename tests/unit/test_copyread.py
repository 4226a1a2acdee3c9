"""The binary COPY decoder against a slow twin that follows the format's description."""

import itertools
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.columns import ColumnReader, values
from pipeline.errors import DecodeError
from pipeline.kernels.copyread import Field
from pipeline.kernels.copyrows import HEADER, TRAILER

LETTERS = {
    "boolean": "B",
    "smallint": "h",
    "integer": "i",
    "date": "i",
    "bigint": "q",
    "timestamptz": "q",
    "real": "f",
    "double precision": "d",
}
Rows = list[tuple[Any, ...]]
# The first example may wait for the compiler.
OFTEN = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def values_of(kind: str) -> st.SearchStrategy[Any]:
    if kind == "text":
        return st.text(max_size=8)
    if kind in ("real", "double precision"):
        return st.floats(width=32 if kind == "real" else 64, allow_nan=False)
    letter = LETTERS[kind]
    size = 8 * struct.calcsize(letter)
    if letter.isupper():
        return st.integers(0, 2**size - 1)
    return st.integers(-(2 ** (size - 1)), 2 ** (size - 1) - 1)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], Rows]:
    types = draw(st.lists(st.sampled_from([*LETTERS, "text"]), min_size=1, max_size=6))
    row = st.tuples(*(st.none() | values_of(kind) for kind in types))
    return types, draw(st.lists(row, max_size=6))


def slow_copy(types: list[str], rows: Rows) -> bytes:
    """Field by field, as the chapter on COPY describes it."""
    out = [b"PGCOPY\n\377\r\n\0", struct.pack("!ii", 0, 0)]
    for row in rows:
        out.append(struct.pack("!h", len(row)))
        for kind, value in zip(types, row, strict=True):
            if value is None:
                out.append(struct.pack("!i", -1))
                continue
            field = value.encode() if kind == "text" else struct.pack(f"!{LETTERS[kind]}", value)
            out += [struct.pack("!i", len(field)), field]
    return b"".join([*out, struct.pack("!h", -1)])


def column(field: Field, kind: str) -> list[Any]:
    if field.offsets is None:
        found = values(field, kind).tolist()
    else:
        ends = field.offsets.tolist()
        text = field.values.tobytes()
        found = [text[start:end].decode() for start, end in itertools.pairwise(ends)]
    return [None if null else one for one, null in zip(found, field.is_null, strict=True)]


def taken(reader: ColumnReader, types: list[str]) -> Rows:
    rows, fields = reader.take()
    columns = [column(field, kind) for field, kind in zip(fields, types, strict=True)]
    assert {len(one) for one in columns} == {rows}
    return list(zip(*columns, strict=True))


@OFTEN
@given(tables())
def test_columns_hold_what_the_slow_twin_wrote(table: tuple[list[str], Rows]) -> None:
    types, rows = table
    reader = ColumnReader(types)
    reader.feed(slow_copy(types, rows))
    assert taken(reader, types) == rows
    reader.finish()


@OFTEN
@given(tables(), st.data())
def test_any_cut_gives_the_same_rows(table: tuple[list[str], Rows], data: st.DataObject) -> None:
    types, rows = table
    sent = slow_copy(types, rows)
    cut = data.draw(st.integers(len(HEADER), len(sent)))
    reader = ColumnReader(types)
    reader.feed(sent[:cut])
    found = taken(reader, types)
    reader.feed(sent[cut:])
    found += taken(reader, types)
    assert found == rows
    reader.finish()


def test_header_may_be_extended() -> None:
    reader = ColumnReader(["integer"])
    extended = HEADER[:15] + struct.pack("!i", 3) + b"abc"
    reader.feed(extended + slow_copy(["integer"], [(7,)])[len(HEADER) :])
    assert taken(reader, ["integer"]) == [(7,)]


def test_copy_without_its_end_is_not_finished() -> None:
    reader = ColumnReader(["integer"])
    reader.feed(slow_copy(["integer"], [(7,)])[: -len(TRAILER)])
    assert taken(reader, ["integer"]) == [(7,)]
    with pytest.raises(DecodeError, match="broke off"):
        reader.finish()


@pytest.mark.parametrize(
    "row",
    [
        struct.pack("!hiiii", 2, 4, 1, 4, 1),
        struct.pack("!hiq", 1, 8, 1),
        struct.pack("!hi", 1, -2),
        struct.pack("!h", -2),
    ],
    ids=["another number of fields", "another width", "a length below NULL", "no number of fields"],
)
def test_bytes_of_another_table_are_refused(row: bytes) -> None:
    reader = ColumnReader(["integer"])
    reader.feed(HEADER + row + bytes(32))
    with pytest.raises(DecodeError, match="no COPY of these columns"):
        reader.take()


def test_text_of_a_negative_length_is_refused() -> None:
    reader = ColumnReader(["text"])
    reader.feed(HEADER + struct.pack("!hi", 1, -9))
    with pytest.raises(DecodeError, match="no COPY of these columns"):
        reader.take()


@pytest.mark.parametrize("data", [b"", HEADER[:12], b"\0" * 30], ids=["nothing", "half", "foreign"])
def test_what_does_not_begin_as_a_copy_is_refused(data: bytes) -> None:
    reader = ColumnReader(["integer"])
    reader.feed(data)
    with pytest.raises(DecodeError, match="does not begin"):
        reader.take()


def test_nothing_taken_yet_is_held() -> None:
    reader = ColumnReader(["text"])
    reader.feed(HEADER)
    assert reader.held_bytes == len(HEADER)
    assert taken(reader, ["text"]) == []
    reader.feed(struct.pack("!hi", 1, 5) + b"ab")
    assert taken(reader, ["text"]) == []
    assert reader.held_bytes == 8
    reader.feed(b"cde")
    assert taken(reader, ["text"]) == [("abcde",)]
    assert np.frombuffer(b"", np.uint8).size == reader.held_bytes
