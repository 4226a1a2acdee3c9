"""A few rows of mixed columns in PostgreSQL's binary COPY format.

For tables with few rows; many are the work of `pipeline/kernels/copyrows.py`. Opens nothing.
"""

import struct
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from typing import Any

from pipeline.errors import RowsRejected
from pipeline.kernels.copyrows import HEADER, TRAILER

EPOCH_US = 946_684_800_000_000  # 2000-01-01 UTC, where Postgres counts from, in µs since 1970
_EPOCH_DAY = date(2000, 1, 1).toordinal()
_NULL = b"\xff\xff\xff\xff"

_count = struct.Struct(">h").pack
_length = struct.Struct(">i").pack
_int2 = struct.Struct(">ih").pack
_int4 = struct.Struct(">ii").pack
_int8 = struct.Struct(">iq").pack
_float8 = struct.Struct(">id").pack


def _text(value: str) -> bytes:
    data = value.encode()
    return _length(len(data)) + data


# How a value of each column type is written: an instant is int ns since 1970.
_WRITERS: dict[str, Callable[[Any], bytes]] = {
    "timestamptz": lambda value: _int8(8, value // 1_000 - EPOCH_US),
    "date": lambda value: _int4(4, value.toordinal() - _EPOCH_DAY),
    "bigint": lambda value: _int8(8, value),
    "integer": lambda value: _int4(4, value),
    "smallint": lambda value: _int2(2, value),
    "double precision": lambda value: _float8(8, value),
    "text": _text,
}


class RowPacker:
    """Packs rows whose columns have those types, as SQL names them; None is NULL."""

    def __init__(self, types: Sequence[str]) -> None:
        self._writers = [_WRITERS[name] for name in types]
        self._head = _count(len(types))

    def pack(self, rows: Iterable[Sequence[Any]]) -> bytes:
        """A whole COPY of the rows. Raises RowsRejected where a value does not fit its column."""
        parts = [HEADER]
        try:
            for row in rows:
                parts.append(self._head)
                parts += [
                    _NULL if value is None else write(value)
                    for write, value in zip(self._writers, row, strict=True)
                ]
        except (struct.error, UnicodeEncodeError) as error:
            raise RowsRejected(f"a value does not fit its column: {error}") from error
        parts.append(TRAILER)
        return b"".join(parts)
