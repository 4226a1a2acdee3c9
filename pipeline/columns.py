"""What a binary COPY sends, as columns: buffers of any cut go in, whole rows come out.

Types are named as SQL names them. Never talks to a server, and knows no table.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DecodeError
from pipeline.kernels import copyread
from pipeline.kernels.copyread import VARIABLE, Field
from pipeline.kernels.copyrows import HEADER

_DTYPES: dict[str, str] = {
    "timestamptz": "i8",
    "date": "i4",
    "bigint": "i8",
    "integer": "i4",
    "smallint": "i2",
    "double precision": "f8",
    "real": "f4",
    "boolean": "u1",
}
_TEXT = "text"
_SIGNATURE = HEADER[:11]
_FLAGS = 4  # bytes, and as many that say how long the header's extension is


class ColumnReader:
    """Rows of columns of those types, from what COPY sends bit by bit."""

    def __init__(self, types: Sequence[str]) -> None:
        widths = [VARIABLE if name == _TEXT else np.dtype(_DTYPES[name]).itemsize for name in types]
        self._widths = np.array(widths, np.int64)
        self._data = bytearray()
        self._has_begun = False
        self._has_ended = False

    @property
    def held_bytes(self) -> int:
        """How much was fed and not taken yet."""
        return len(self._data)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Add what the server sent next."""
        self._data += data

    def take(self) -> tuple[int, list[Field]]:
        """The number of whole rows fed since the last call, and their columns.

        An instant is µs and a date days, both since 2000-01-01. Raises DecodeError where the bytes
        are no COPY of such columns.
        """
        start = self._begin()
        data = np.frombuffer(self._data, np.uint8)
        extent = copyread.measure(data, start, self._widths)
        if extent.status == copyread.MALFORMED:
            raise DecodeError("what the server sent is no COPY of these columns")
        fields = copyread.decode(data, start, self._widths, extent)
        self._has_ended = extent.status == copyread.ENDED
        self._data = self._data[extent.end :]  # anew, as arrays may still look at the old one
        return extent.rows, fields

    def finish(self) -> None:
        """Raise DecodeError unless all was taken and the end was seen."""
        if not self._has_ended:
            raise DecodeError("the COPY broke off before its end")

    def _begin(self) -> int:
        """Where the first row is: behind the header, the first time."""
        if self._has_begun:
            return 0
        fixed = len(_SIGNATURE) + 2 * _FLAGS
        if len(self._data) < fixed or self._data[: len(_SIGNATURE)] != _SIGNATURE:
            raise DecodeError("what the server sent does not begin as a binary COPY does")
        self._has_begun = True
        extension = int.from_bytes(self._data[fixed - _FLAGS : fixed])
        return fixed + extension


def values(field: Field, type_name: str) -> NDArray[Any]:
    """The values of a column of fixed width, in its dtype."""
    return field.values.view(_DTYPES[type_name])
