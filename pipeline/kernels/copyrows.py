"""Rows in PostgreSQL's binary COPY format, from columns.

A row is a count of fields, then each field as its length and its bytes, most significant first; a
NULL is the length -1 and no bytes, so rows vary in length. The stream has a header and a trailer.
Columns come grouped by width, as matrices with a line for each column. Never knows a table.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from pipeline.kernels.compiling import inlined, kernel

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # signature, no flags, no extension
TRAILER = b"\xff\xff"
NULL_INTEGER = -(2**63)

# A NULL is written like a value and then written over, which saves the branch: this much room
# beyond the last row is touched at most.
_SLACK = 8
_MOST_INTEGER = 2**31 - 1
# Up to here a value rounds to the float4 zero, and from there on to the infinite one.
_ZERO_FLOAT4, _INFINITE_FLOAT4 = 2.0**-150, (2.0 - 2.0**-24) * 2.0**127


class Columns(NamedTuple):
    """The columns of n rows, in the order in which a row has them: one matrix (columns, n) of each.

    int8 and int4 columns come as int64, in which NULL_INTEGER is NULL; float4 columns as float64
    and then as float32, in which NaN is; int2 columns have no NULL.
    """

    wides: NDArray[np.int64]
    integers: NDArray[np.int64]
    doubles: NDArray[np.float64]
    singles: NDArray[np.float32]
    shorts: NDArray[np.int16]


class Bounds(NamedTuple):
    """What a value must be to fit, beside what its type can hold: by column, as in `Columns`.

    `positive` columns of floats hold what is above zero, once it is a float4.
    """

    least_wides: NDArray[np.int64]
    least_integers: NDArray[np.int64]
    positive_doubles: NDArray[np.bool_]
    positive_singles: NDArray[np.bool_]
    most_shorts: NDArray[np.int16]


def room(rows: int, columns: Columns) -> int:
    """Bytes that a COPY of so many rows of such columns needs at most."""
    row = 2 + len(columns.wides) * 12 + len(columns.integers) * 8 + len(columns.shorts) * 6
    row += (len(columns.doubles) + len(columns.singles)) * 8
    return len(HEADER) + rows * row + _SLACK


def encode(
    buffer: NDArray[np.uint8], columns: Columns, bounds: Bounds, misfits: NDArray[np.bool_]
) -> int:
    """Write a whole binary COPY of n rows into a buffer that has `room` for it; gives its length.

    `misfits` (n) says on entry which rows to leave out, and in the end which were: those too that
    hold an integer out of its range, an infinite float, or what `bounds` rules out.
    """
    start = len(HEADER)
    buffer[:start] = np.frombuffer(HEADER, np.uint8)
    _mark(*columns, *bounds, misfits)
    end = int(_rows(buffer, start, *columns, misfits))
    buffer[end : end + len(TRAILER)] = np.frombuffer(TRAILER, np.uint8)
    return end + len(TRAILER)


def _big_endian_store(_typing: Any, buffer: Any, position: Any, value: Any) -> Any:
    """Store an integer of any width at any position, most significant byte first, in one move."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.gep(array.data, [arguments[1]])
        swapped = builder.bswap(arguments[2])
        store = builder.store(swapped, builder.bitcast(place, swapped.type.as_pointer()))
        store.align = 1
        return context.get_dummy_value()

    return types.void(buffer, position, value), generate


def _float4_bits(_typing: Any, value: Any) -> Any:
    """The bits of a value as float4."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(types.uint32))

    return types.uint32(types.float32), generate


_store: Any = intrinsic(_big_endian_store)
_bits: Any = intrinsic(_float4_bits)


@inlined
def _real(buffer: Any, position: int, value: Any) -> int:
    """Write a float4 as a field, NaN as NULL; gives how long it is."""
    is_null = np.isnan(value)
    _store(buffer, position, np.int32(-1 if is_null else 4))
    _store(buffer, position + 4, _bits(value))
    return 4 if is_null else 8


@kernel
def _mark(
    wides: Any,
    integers: Any,
    doubles: Any,
    singles: Any,
    shorts: Any,
    least_wides: Any,
    least_integers: Any,
    positive_doubles: Any,
    positive_singles: Any,
    most_shorts: Any,
    misfits: Any,
) -> None:
    """Mark the rows that do not fit; column by column, which the compiler turns into wide steps."""
    for column in range(wides.shape[0]):
        least = least_wides[column]
        for row in range(len(misfits)):
            wide = wides[column, row]
            misfits[row] |= (wide < least) & (wide != NULL_INTEGER)
    for column in range(integers.shape[0]):
        least = least_integers[column]
        for row in range(len(misfits)):
            integer = integers[column, row]
            is_out = (integer < least) | (integer > _MOST_INTEGER)
            misfits[row] |= is_out & (integer != NULL_INTEGER)
    for column in range(doubles.shape[0]):
        low = _ZERO_FLOAT4 if positive_doubles[column] else -_INFINITE_FLOAT4
        for row in range(len(misfits)):
            double = doubles[column, row]
            misfits[row] |= (double <= low) | (double >= _INFINITE_FLOAT4)
    for column in range(singles.shape[0]):
        low = 0.0 if positive_singles[column] else -np.inf
        for row in range(len(misfits)):
            single = singles[column, row]
            misfits[row] |= (single <= np.float32(low)) | (single >= np.float32(np.inf))
    for column in range(shorts.shape[0]):
        most = most_shorts[column]
        for row in range(len(misfits)):
            short = shorts[column, row]
            misfits[row] |= (short < 0) | (short > most)


@kernel
def _rows(
    buffer: Any,
    start: int,
    wides: Any,
    integers: Any,
    doubles: Any,
    singles: Any,
    shorts: Any,
    misfits: Any,
) -> int:
    """Write all rows that fit; the position behind them."""
    position = start
    fields = len(wides) + len(integers) + len(doubles) + len(singles) + len(shorts)
    for row in range(len(misfits)):
        if misfits[row]:
            continue
        _store(buffer, position, np.int16(fields))
        position += 2
        for column in range(wides.shape[0]):
            wide = wides[column, row]
            is_null = wide == NULL_INTEGER
            _store(buffer, position, np.int32(-1 if is_null else 8))
            _store(buffer, position + 4, wide)
            position += 4 if is_null else 12
        for column in range(integers.shape[0]):
            integer = integers[column, row]
            is_null = integer == NULL_INTEGER
            _store(buffer, position, np.int32(-1 if is_null else 4))
            _store(buffer, position + 4, np.int32(integer))
            position += 4 if is_null else 8
        for column in range(doubles.shape[0]):
            position += _real(buffer, position, np.float32(doubles[column, row]))
        for column in range(singles.shape[0]):
            position += _real(buffer, position, singles[column, row])
        for column in range(shorts.shape[0]):
            _store(buffer, position, np.int32(2))
            _store(buffer, position + 4, shorts[column, row])
            position += 6
    return position
