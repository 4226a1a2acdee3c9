"""Rows in PostgreSQL's binary COPY format, from columns.

A row is a count of fields, then each field as its length and its bytes, most significant first; a
NULL is the length -1 and no bytes, so rows vary in length. The stream has a header and a trailer.
Columns come grouped by width, as matrices with a line for each column. Never knows a table.
"""

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from pipeline.kernels.compiling import kernel

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)  # signature, no flags, no extension
TRAILER = b"\xff\xff"
NULL_INTEGER = -(2**63)

# A NULL is written like a value and then written over, which saves the branch: this much room
# beyond the last row is touched at most.
_SLACK = 8
_ABSOLUTE = np.uint32(0x7FFFFFFF)
_INFINITE = np.uint32(0x7F800000)  # as float4 bits; above it, without the sign, is NaN


def room(rows: int, wides: int, integers: int, reals: int, shorts: int) -> int:
    """Bytes that a COPY of so many rows and columns needs at most."""
    row = 2 + wides * 12 + integers * 8 + reals * 8 + shorts * 6
    return len(HEADER) + rows * row + _SLACK


def encode(
    buffer: NDArray[np.uint8],
    wides: NDArray[np.int64],
    integers: NDArray[np.int64],
    reals: NDArray[np.float32],
    shorts: NDArray[np.int64],
) -> tuple[int, int]:
    """Write a whole binary COPY of n rows into a buffer that has `room` for it.

    A row has the columns of the int8, int4, float4 and int2 matrix in turn; each matrix is
    (columns, n). NULL_INTEGER and NaN become NULL. Gives the bytes written, and -1 or the first
    row that does not fit (an integer out of its range, an infinite float): what is written is
    then of no use.
    """
    start = len(HEADER)
    buffer[:start] = np.frombuffer(HEADER, np.uint8)
    end, misfit = _rows(buffer, start, wides, integers, reals.view(np.uint32), shorts)
    buffer[end : end + len(TRAILER)] = np.frombuffer(TRAILER, np.uint8)
    return int(end) + len(TRAILER), int(misfit)


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


_store: Any = intrinsic(_big_endian_store)


@kernel
def _rows(
    buffer: Any, start: int, wides: Any, integers: Any, reals: Any, shorts: Any
) -> tuple[int, int]:
    """Write all rows; the position behind them, and the first row that does not fit or -1."""
    position = start
    fields = wides.shape[0] + integers.shape[0] + reals.shape[0] + shorts.shape[0]
    for row in range(wides.shape[1]):
        fits = True
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
            fits &= is_null or integer == np.int64(np.int32(integer))
            _store(buffer, position, np.int32(-1 if is_null else 4))
            _store(buffer, position + 4, np.int32(integer))
            position += 4 if is_null else 8
        for column in range(reals.shape[0]):
            bits = reals[column, row]
            is_null = (bits & _ABSOLUTE) > _INFINITE
            fits &= (bits & _ABSOLUTE) != _INFINITE
            _store(buffer, position, np.int32(-1 if is_null else 4))
            _store(buffer, position + 4, bits)
            position += 4 if is_null else 8
        for column in range(shorts.shape[0]):
            _store(buffer, position, np.int32(2))
            _store(buffer, position + 4, np.int16(shorts[column, row]))
            position += 6
        if not fits:
            return position, row
    return position, -1
