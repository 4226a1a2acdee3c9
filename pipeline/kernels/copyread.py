"""Columns from rows in PostgreSQL's binary COPY format; `copyrows` is the way there.

Rows vary in length, so a first pass says where the last whole one ends and how much its texts
weigh, and a second one fills columns of exactly that size. What is no such row is told, never
guessed at. Knows no table.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from pipeline.kernels.compiling import inlined, kernel

VARIABLE = -1  # the width of a column of texts or bytes

# What ended the first pass: the data's end, the trailer, or something that no COPY sends.
MORE, ENDED, MALFORMED = 0, 1, 2

_NULL_LENGTH = -1
_ALIGNMENT = 8

Bytes = NDArray[np.uint8]


class Extent(NamedTuple):
    """What whole rows a piece of a COPY holds: their number, and where they end.

    `status` says what stands there: MORE, ENDED or MALFORMED; `sizes` is the weight of each
    column of variable width.
    """

    rows: int
    end: int
    status: int
    sizes: NDArray[np.int64]


class Field(NamedTuple):
    """A column: values in the machine's order, one width after the other, zeros where NULL.

    Of variable width, `values` are the texts one after another and `offsets` (rows + 1) says where
    each begins. `is_null` tells a NULL from a zero and from an empty text.
    """

    values: Bytes
    offsets: NDArray[np.int32] | None
    is_null: NDArray[np.bool_]


def measure(data: Bytes, start: int, widths: NDArray[np.int64]) -> Extent:
    """The whole rows of `data` from `start` on, which have fields of those widths in bytes.

    A width is 1, 2, 4, 8 or VARIABLE. `start` is a row's: behind the header, or an earlier `end`.
    """
    sizes = np.zeros(len(widths), np.int64)
    rows, end, status = _measure(data, start, widths, sizes)
    return Extent(int(rows), int(end), int(status), sizes)


def decode(data: Bytes, start: int, widths: NDArray[np.int64], extent: Extent) -> list[Field]:
    """The columns of the rows that `measure` found in the same data."""
    rows = extent.rows
    is_variable = widths == VARIABLE
    # A column of variable width has its offsets among the others', four bytes each.
    lengths = np.where(is_variable, 4 * (rows + 1), widths * rows)
    bases = _bases(lengths)
    text_bases = _bases(extent.sizes)
    fixed = np.zeros(int(bases[-1]), np.uint8)
    texts = np.empty(int(text_bases[-1]), np.uint8)
    is_null = np.zeros((len(widths), rows), np.bool_)
    _decode(data, start, widths, rows, fixed, bases, texts, text_bases, is_null)
    fields = []
    for column, variable in enumerate(is_variable.tolist()):
        values = fixed[bases[column] : bases[column] + lengths[column]]
        if not variable:
            fields.append(Field(values, None, is_null[column]))
            continue
        first = text_bases[column]
        text = texts[first : first + extent.sizes[column]]
        fields.append(Field(text, values.view(np.int32), is_null[column]))
    return fields


def _bases(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each of several parts of a buffer begins, aligned, and the end of the last."""
    padded = -(-lengths // _ALIGNMENT) * _ALIGNMENT
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(padded)))


def _big_endian_load(_typing: Any, data: Any, position: Any, zero: Any) -> Any:
    """The integer at any position, most significant byte first, as wide as `zero`, in one move."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        kind = context.get_value_type(signature.args[2])
        place = builder.bitcast(builder.gep(array.data, [arguments[1]]), kind.as_pointer())
        load = builder.load(place)
        load.align = 1
        return builder.bswap(load)

    return zero(data, position, zero), generate


def _native_store(_typing: Any, buffer: Any, position: Any, value: Any) -> Any:
    """Store an integer at any position in the machine's order, in one move."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.gep(array.data, [arguments[1]])
        store = builder.store(arguments[2], builder.bitcast(place, arguments[2].type.as_pointer()))
        store.align = 1
        return context.get_dummy_value()

    return types.void(buffer, position, value), generate


_load: Any = intrinsic(_big_endian_load)
_store: Any = intrinsic(_native_store)


@inlined
def _copy(data: Any, position: int, width: int, target: Any, place: int) -> None:
    """One value of fixed width, turned into the machine's order."""
    if width == 4:
        _store(target, place, _load(data, position, np.int32(0)))
    elif width == 8:
        _store(target, place, _load(data, position, np.int64(0)))
    elif width == 2:
        _store(target, place, _load(data, position, np.int16(0)))
    else:
        target[place] = data[position]


@kernel
def _measure(data: Any, start: int, widths: Any, sizes: Any) -> Any:
    """Rows, the position behind the last whole one, and what stands there."""
    rows, end = 0, start
    size, columns = len(data), len(widths)
    row_sizes = np.zeros(columns, np.int64)
    while True:
        position: Any = end
        if position + 2 > size:
            return rows, end, MORE
        fields = _load(data, position, np.int16(0))
        position += 2
        if fields == -1:
            return rows, end, ENDED
        if fields != columns:
            return rows, end, MALFORMED
        for column in range(columns):
            if position + 4 > size:
                return rows, end, MORE
            length: Any = np.int64(_load(data, position, np.int32(0)))
            position += 4
            row_sizes[column] = 0
            if length == _NULL_LENGTH:
                continue
            if length < 0 or (widths[column] != VARIABLE and length != widths[column]):
                return rows, end, MALFORMED
            if widths[column] == VARIABLE:
                row_sizes[column] = length
            position += length
        if position > size:
            return rows, end, MORE
        for column in range(columns):
            sizes[column] += row_sizes[column]
        rows += 1
        end = position


@kernel
def _decode(
    data: Any,
    start: int,
    widths: Any,
    rows: int,
    fixed: Any,
    bases: Any,
    texts: Any,
    text_bases: Any,
    is_null: Any,
) -> None:
    """Fill the columns with rows whose form is known to be right."""
    position: Any = start
    columns = len(widths)
    ends = np.zeros(columns, np.int32)
    for row in range(rows):
        position += 2
        for column in range(columns):
            length: Any = np.int64(_load(data, position, np.int32(0)))
            position += 4
            width = widths[column]
            if length == _NULL_LENGTH:
                is_null[column, row] = True
                length = 0
            elif width != VARIABLE:
                _copy(data, position, width, fixed, bases[column] + row * width)
            else:
                first = text_bases[column] + ends[column]
                for n in range(length):
                    texts[first + n] = data[position + n]
                ends[column] += length
            if width == VARIABLE:
                _store(fixed, bases[column] + 4 * (row + 1), np.int32(ends[column]))
            position += length
