"""Records of numbers, packed as msgpack by ourselves, as a matrix with a line for each field.

To take numbers out of objects one by one costs more than to decode them; packing all objects in
one call and reading the bytes here costs a quarter of it. A record is what an encoder writes of a
struct of at most 15 fields: short keys in the order of the fields, values float64, nil, or such a
struct inside.
Never reads msgpack that came from elsewhere.
"""

from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from pipeline.kernels.compiling import Floats, kernel

Places = NDArray[np.uint64]  # unsigned, which saves the check for an index from the end

_FLOAT = 0xCB
_NIL = 0xC0


class Layout(NamedTuple):
    """Where the fields of a record stand: bytes of each key, fields within it, and its line.

    A struct is a field with others `inside`, which follow it; its own line gets 1 where it is
    there. What is not there, or nil, is NaN.
    """

    key_bytes: Places
    inside: Places
    lines: Places


def layout(fields: list[tuple[str, int, int]]) -> Layout:
    """A layout from (key, fields inside, line) of each field, in the order of the bytes."""
    columns = np.array([(1 + len(key), inside, line) for key, inside, line in fields], np.uint64)
    return Layout(*(np.ascontiguousarray(column) for column in columns.T))


def read(
    packed: bytes | bytearray, layout: Layout, maps: int, each: int = 1
) -> tuple[Floats, Floats]:
    """Keys (maps) and matrix (lines, maps·each) of a map from numbers to maps of `each` records.

    The first field of the layout is a record, under its key in its map. Raises ValueError where
    the bytes are not of that layout.
    """
    keys, matrix = np.empty(maps), np.empty((int(layout.lines.max()) + 1, maps * each))
    # msgpack's head of a map has its length in four bits, two bytes or four.
    start = 1 if maps < 16 else 3 if maps < 65_536 else 5
    view = np.frombuffer(memoryview(packed).toreadonly(), np.uint8)
    if _read(view, start, *layout, keys, matrix) != len(packed):
        raise ValueError("the bytes are not of the layout")
    return keys, matrix


def _big_endian_float(_typing: Any, buffer: Any, position: Any) -> Any:
    """The float64 that starts at any position, most significant byte first, in one move."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        place = builder.gep(array.data, [arguments[1]])
        word = context.get_value_type(types.uint64)
        load = builder.load(builder.bitcast(place, word.as_pointer()))
        load.align = 1
        return builder.bitcast(builder.bswap(load), context.get_value_type(types.float64))

    return types.float64(buffer, position), generate


_load: Any = intrinsic(_big_endian_float)


@kernel
def _read(
    packed: NDArray[np.uint8],
    start: int,
    key_bytes: Places,
    inside: Places,
    lines: Places,
    keys: Floats,
    matrix: Floats,
) -> int:
    """Fill both outputs; the position behind the last record, or -1 where the layout is another."""
    one = np.uint64(1)
    eight = np.uint64(8)
    size = np.uint64(packed.size)
    fields = np.uint64(key_bytes.size)
    position = np.uint64(start)
    each = matrix.shape[1] // max(keys.size, 1)
    for record in range(matrix.shape[1]):
        if record % each == 0:
            if position + eight >= size or packed[position] != _FLOAT:
                return -1
            keys[record // each] = _load(packed, position + one)
            position += one + eight + one  # with the head of the map that it is the key of
        field = np.uint64(0)
        while field < fields:
            position += key_bytes[field]
            if position >= size:
                return -1
            head = packed[position]
            position += one
            if head == _FLOAT and position + eight <= size:
                matrix[lines[field], record] = _load(packed, position)
                position += eight
                field += one
            elif head == _NIL:
                last = field + inside[field]
                while field <= last:
                    matrix[lines[field], record] = np.nan
                    field += one
            elif inside[field] > 0:
                matrix[lines[field], record] = 1.0
                field += one
            else:
                return -1
    return int(position)
