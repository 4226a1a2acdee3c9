"""The binary COPY encoder against a slow twin that follows the format's description."""

import math
import struct

import numpy as np
import pytest

from pipeline.kernels import copyrows
from pipeline.kernels.copyrows import NULL_INTEGER

Matrices = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def slow_rows(
    wides: np.ndarray, integers: np.ndarray, reals: np.ndarray, shorts: np.ndarray
) -> bytes:
    """Field by field, as the chapter on COPY describes it."""
    out = [b"PGCOPY\n\377\r\n\0", struct.pack("!ii", 0, 0)]
    for row in range(wides.shape[1]):
        fields: list[bytes | None] = []
        for column in wides:
            value = int(column[row])
            fields.append(None if value == NULL_INTEGER else struct.pack("!q", value))
        for column in integers:
            value = int(column[row])
            fields.append(None if value == NULL_INTEGER else struct.pack("!i", value))
        for column in reals:
            real = float(column[row])
            fields.append(None if math.isnan(real) else struct.pack("!f", real))
        fields += [struct.pack("!h", int(column[row])) for column in shorts]
        out.append(struct.pack("!h", len(fields)))
        for field in fields:
            out.append(struct.pack("!i", -1) if field is None else struct.pack("!i", len(field)))
            out.append(field or b"")
    return b"".join([*out, struct.pack("!h", -1)])


def matrices(rows: int, seed: int = 1, *, null_share: float = 0.3) -> Matrices:
    chosen = np.random.default_rng(seed)
    wides = chosen.integers(-(2**63) + 1, 2**63 - 1, (2, rows))
    integers = chosen.integers(-(2**31), 2**31, (5, rows))
    reals = chosen.standard_normal((17, rows)).astype(np.float32) * np.float32(1e5)
    shorts = chosen.integers(-(2**15), 2**15, (4, rows))
    wides[chosen.random(wides.shape) < null_share] = NULL_INTEGER
    integers[chosen.random(integers.shape) < null_share] = NULL_INTEGER
    reals[chosen.random(reals.shape) < null_share] = np.nan
    return wides, integers, reals, shorts


def encoded(given: Matrices) -> tuple[bytes, int]:
    room = copyrows.room(given[0].shape[1], *(len(matrix) for matrix in given))
    buffer = np.full(room, 0xAA, np.uint8)
    length, misfit = copyrows.encode(buffer, *given)
    return buffer[:length].tobytes(), misfit


@pytest.mark.parametrize("null_share", [0.0, 0.3, 1.0], ids=["full", "mixed", "empty"])
@pytest.mark.parametrize("rows", [0, 1, 777])
def test_bytes_equal_those_of_the_slow_twin(rows: int, null_share: float) -> None:
    given = matrices(rows, null_share=null_share)
    assert encoded(given) == (slow_rows(*given), -1)


def test_room_is_enough_for_rows_without_a_null() -> None:
    given = matrices(9, null_share=0.0)
    room = copyrows.room(9, *(len(matrix) for matrix in given))
    assert len(encoded(given)[0]) <= room


@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 2**62, NULL_INTEGER + 1])
def test_integer_beyond_int4_is_told_by_its_row(value: int) -> None:
    given = matrices(10)
    given[1][3, 7] = value
    assert encoded(given)[1] == 7


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_float_is_told_by_its_row(value: float) -> None:
    given = matrices(10)
    given[2][16, 4] = value
    assert encoded(given)[1] == 4


def test_least_and_greatest_int4_fit() -> None:
    given = matrices(2)
    given[1][0] = (-(2**31), 2**31 - 1)
    assert encoded(given) == (slow_rows(*given), -1)


def test_negative_zero_and_subnormals_keep_their_bits() -> None:
    given = matrices(2)
    given[2][0] = (-0.0, np.float32(1e-42))
    assert encoded(given)[0] == slow_rows(*given)
