import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels import records


class Inner(msgspec.Struct):
    x: float | None = None
    y: float | None = None


class Outer(msgspec.Struct):
    first: float | None = None
    inner: Inner | None = None
    last: float | None = None


class Pair(msgspec.Struct):
    ab: Outer | None = None
    cd: Outer | None = None


# Lines: first, x, y, last, whether the inner is there, whether the record is there.
LAYOUT = records.layout(
    [("ab", 5, 5), ("first", 0, 0), ("inner", 2, 4), ("x", 0, 1), ("y", 0, 2), ("last", 0, 3)]
)

number = st.none() | st.floats(allow_nan=False)
inner = st.builds(Inner, number, number)
outer = st.builds(Outer, number, st.none() | inner, number)
pairs = st.lists(st.builds(Pair, st.none() | outer, st.none() | outer), max_size=40)


def packed(rows: list[Pair]) -> bytes:
    return msgspec.msgpack.encode({0.5 * place: row for place, row in enumerate(rows)})


def by_hand(rows: list[Pair]) -> np.ndarray:
    columns = []
    for one in [side for row in rows for side in (row.ab, row.cd)]:
        there, inside = one or Outer(), (one and one.inner) or Inner()
        is_inside = 1.0 if one and one.inner else None
        values = [there.first, inside.x, inside.y, there.last, is_inside, 1.0 if one else None]
        columns.append([math.nan if value is None else value for value in values])
    return np.array(columns, np.float64).reshape(-1, 6).T


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_matrix_is_what_one_would_copy_by_hand(rows: list[Pair]) -> None:
    keys, found = records.read(packed(rows), LAYOUT, len(rows), each=2)
    np.testing.assert_array_equal(found, by_hand(rows))
    assert keys.tolist() == [0.5 * place for place in range(len(rows))]


@pytest.mark.parametrize("count", [15, 16, 65_535, 65_536])
def test_number_of_records_may_need_any_head(count: int) -> None:
    rows = [Pair(cd=Outer(last=float(place))) for place in range(count)]
    _keys, found = records.read(packed(rows), LAYOUT, count, each=2)
    assert found[3, 1::2].tolist() == list(range(count))


def test_bytes_that_are_cut_or_of_another_layout_are_refused() -> None:
    whole = packed([Pair(Outer(1.0, Inner(2.0, 3.0), 4.0), Outer(1.0))])
    others = [{1.0: {"ab": {"first": 1}}}, {1: Pair(Outer(), Outer())}, [Pair(Outer(), Outer())]]
    wrong = [whole[:cut] for cut in range(len(whole))] + [whole + b"\0"]
    for bytes_given in wrong + [msgspec.msgpack.encode(other) for other in others]:
        with pytest.raises(ValueError, match="layout"):
            records.read(bytes_given, LAYOUT, 1, each=2)
