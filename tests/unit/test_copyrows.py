"""The binary COPY encoder against a slow twin that follows the format's description."""

import math
import struct
from typing import Any

import numpy as np
import pytest

from pipeline.kernels import copyrows
from pipeline.kernels.copyrows import NULL_INTEGER, Bounds, Columns

LIMIT = (2.0 - 2.0**-24) * 2.0**127  # rounds to the infinite float4
ANYTHING = Bounds(
    np.full(2, -(2**63) + 1),
    np.full(5, -(2**31)),
    np.zeros(12, np.bool_),
    np.zeros(5, np.bool_),
    np.full(4, 2**15 - 1, np.int16),
)


def float4(value: float) -> bytes | None:
    return None if math.isnan(value) else struct.pack("!f", float(np.float32(value)))


def slow_rows(columns: Columns) -> bytes:
    """Field by field, as the chapter on COPY describes it."""
    out = [b"PGCOPY\n\377\r\n\0", struct.pack("!ii", 0, 0)]
    for row in range(columns.wides.shape[1]):
        fields: list[bytes | None] = []
        for matrix, letter in ((columns.wides, "q"), (columns.integers, "i")):
            fields += [
                None if value == NULL_INTEGER else struct.pack(f"!{letter}", value)
                for value in matrix[:, row].tolist()
            ]
        fields += [float4(value) for value in columns.doubles[:, row].tolist()]
        fields += [float4(value) for value in columns.singles[:, row].tolist()]
        fields += [struct.pack("!h", value) for value in columns.shorts[:, row].tolist()]
        out.append(struct.pack("!h", len(fields)))
        for field in fields:
            out.append(struct.pack("!i", -1) if field is None else struct.pack("!i", len(field)))
            out.append(field or b"")
    return b"".join([*out, struct.pack("!h", -1)])


def columns_of(rows: int, seed: int = 1, *, null_share: float = 0.3) -> Columns:
    chosen = np.random.default_rng(seed)
    columns = Columns(
        wides=chosen.integers(-(2**63) + 1, 2**63 - 1, (2, rows)),
        integers=chosen.integers(-(2**31), 2**31, (5, rows)),
        doubles=chosen.standard_normal((12, rows)) * 1e5,
        singles=chosen.standard_normal((5, rows)).astype(np.float32),
        shorts=chosen.integers(0, 2**15, (4, rows)).astype(np.int16),
    )
    for matrix, null in zip(columns[:4], (NULL_INTEGER, NULL_INTEGER, np.nan, np.nan), strict=True):
        matrix[chosen.random(matrix.shape) < null_share] = null
    return columns


def encoded(
    columns: Columns, bounds: Bounds = ANYTHING, left_out: tuple[int, ...] = ()
) -> tuple[bytes, list[int]]:
    rows = columns.wides.shape[1]
    misfits = np.zeros(rows, np.bool_)
    misfits[list(left_out)] = True
    buffer = np.full(copyrows.room(rows, columns), 0xAA, np.uint8)
    length = copyrows.encode(buffer, columns, bounds, misfits)
    return buffer[:length].tobytes(), np.flatnonzero(misfits).tolist()


def without(columns: Columns, *rows: int) -> Columns:
    return Columns(*(np.delete(matrix, rows, axis=1) for matrix in columns))


@pytest.mark.parametrize("null_share", [0.0, 0.3, 1.0], ids=["full", "mixed", "empty"])
@pytest.mark.parametrize("rows", [0, 1, 777])
def test_bytes_equal_those_of_the_slow_twin(rows: int, null_share: float) -> None:
    columns = columns_of(rows, null_share=null_share)
    assert encoded(columns) == (slow_rows(columns), [])


def test_room_is_enough_for_rows_without_a_null() -> None:
    columns = columns_of(9, null_share=0.0)
    assert len(encoded(columns)[0]) <= copyrows.room(9, columns)


def test_rows_asked_to_be_left_out_are() -> None:
    columns = columns_of(10)
    assert encoded(columns, left_out=(0, 4, 9)) == (slow_rows(without(columns, 0, 4, 9)), [0, 4, 9])


@pytest.mark.parametrize(
    ("matrix", "line", "value"),
    [
        ("integers", 3, 2**31),
        ("integers", 3, -(2**31) - 1),
        ("integers", 0, 2**62),
        ("integers", 4, NULL_INTEGER + 1),
        ("doubles", 11, np.inf),
        ("doubles", 0, -np.inf),
        ("doubles", 5, LIMIT),
        ("singles", 4, np.float32(-np.inf)),
        ("shorts", 2, -1),
    ],
)
def test_row_with_a_value_beyond_its_type_is_left_out_and_told(
    matrix: str, line: int, value: Any
) -> None:
    columns = columns_of(10)
    getattr(columns, matrix)[line, 7] = value
    assert encoded(columns) == (slow_rows(without(columns, 7)), [7])


@pytest.mark.parametrize(
    ("bound", "matrix", "good", "bad"),
    [
        ("least_wides", "wides", 5, 4),
        ("least_integers", "integers", 5, 4),
        ("most_shorts", "shorts", 9, 10),
        ("positive_doubles", "doubles", 2.0**-149, 2.0**-150),
        ("positive_doubles", "doubles", 1e-300 + 1e-30, 0.0),
        ("positive_singles", "singles", np.float32(1e-42), np.float32(-0.0)),
    ],
)
def test_row_beyond_a_bound_is_left_out_and_told(
    bound: str, matrix: str, good: Any, bad: Any
) -> None:
    columns = columns_of(10, null_share=0.0)
    bounds = Bounds(*(part.copy() for part in ANYTHING))
    getattr(bounds, bound)[1] = {"least": 5, "most_": 9, "posit": True}[bound[:5]]
    getattr(columns, matrix)[1] = good
    getattr(columns, matrix)[1, 3] = bad
    assert encoded(columns, bounds) == (slow_rows(without(columns, 3)), [3])


def test_null_is_within_every_bound() -> None:
    columns = columns_of(4, null_share=1.0)
    bounds = Bounds(
        np.full(2, 9), np.full(5, 9), np.ones(12, np.bool_), np.ones(5, np.bool_), ANYTHING[4]
    )
    assert encoded(columns, bounds) == (slow_rows(columns), [])


def test_least_and_greatest_values_fit() -> None:
    columns = columns_of(2)
    columns.integers[0] = (-(2**31), 2**31 - 1)
    columns.doubles[0] = (np.nextafter(LIMIT, 0), -np.nextafter(LIMIT, 0))
    assert encoded(columns) == (slow_rows(columns), [])


def test_negative_zero_and_subnormals_keep_their_bits() -> None:
    columns = columns_of(2)
    columns.doubles[0] = (-0.0, 1e-42)
    columns.singles[0] = (-0.0, np.float32(1e-42))
    assert encoded(columns)[0] == slow_rows(columns)
