"""Rows packed for COPY, value by value."""

import struct
from datetime import date
from typing import Any

import pytest

from pipeline.errors import RowsRejected
from pipeline.kernels.copyrows import HEADER, TRAILER
from pipeline.packing import RowPacker


@pytest.mark.parametrize(
    ("kind", "value", "field"),
    [
        ("timestamptz", 946_684_800_000_001_999, struct.pack(">iq", 8, 1)),
        ("timestamptz", 0, struct.pack(">iq", 8, -946_684_800_000_000)),
        ("date", date(1999, 12, 31), struct.pack(">ii", 4, -1)),
        ("bigint", -(2**63), struct.pack(">iq", 8, -(2**63))),
        ("integer", 7, struct.pack(">ii", 4, 7)),
        ("smallint", -7, struct.pack(">ih", 2, -7)),
        ("double precision", 0.1, struct.pack(">id", 8, 0.1)),
        ("text", "é", struct.pack(">i", 2) + "é".encode()),
        ("text", "", struct.pack(">i", 0)),
        ("bigint", None, struct.pack(">i", -1)),
    ],
)
def test_value_of_each_type_is_a_field(kind: str, value: Any, field: bytes) -> None:
    assert RowPacker([kind]).pack([(value,)]) == HEADER + struct.pack(">h", 1) + field + TRAILER


def test_rows_follow_each_other() -> None:
    packed = RowPacker(["smallint", "text"]).pack([(1, "a"), (None, "b")])
    rows = b"\0\2\0\0\0\2\0\1\0\0\0\1a" + b"\0\2\xff\xff\xff\xff\0\0\0\1b"
    assert packed == HEADER + rows + TRAILER


@pytest.mark.parametrize(
    ("kind", "value"), [("smallint", 40_000), ("integer", 2**31), ("text", "\ud800")]
)
def test_value_that_does_not_fit_is_rejected(kind: str, value: Any) -> None:
    with pytest.raises(RowsRejected, match="does not fit"):
        RowPacker([kind]).pack([(value,)])
