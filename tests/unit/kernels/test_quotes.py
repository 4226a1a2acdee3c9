import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels import quotes
from pipeline.models import GreeksSource, IvStatus, Kind, PriceSource

NAN = math.nan


def chosen(bid: float, ask: float, last: float) -> tuple[float, float, int, int]:
    """(price, spread, source, lack) of one leg."""
    found = quotes.choose(np.array([Kind.CALL], np.uint8), [bid], [ask], [last])
    return tuple(column[0] for column in found[:4])  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("bid", "ask", "last", "price", "source", "lack"),
    [
        pytest.param(4.0, 4.5, 9.0, 4.25, PriceSource.MID, 0, id="two-sided"),
        pytest.param(4.0, 4.0, 9.0, 4.0, PriceSource.MID, 0, id="locked"),
        pytest.param(4.0, 8.0, 9.0, 6.0, PriceSource.MID, 0, id="as wide as its bid"),
        pytest.param(4.0, 8.1, 9.0, 9.0, PriceSource.LAST, 0, id="wider than its bid"),
        pytest.param(0.05, 0.55, 9.0, 0.3, PriceSource.MID, 0, id="cheap and half a rupee wide"),
        pytest.param(0.05, 0.6, 9.0, 9.0, PriceSource.LAST, 0, id="cheap and wider"),
        pytest.param(5.0, 4.0, 9.0, 9.0, PriceSource.LAST, 0, id="crossed with a last"),
        pytest.param(5.0, 4.0, NAN, NAN, PriceSource.NONE, IvStatus.CROSSED, id="crossed"),
        pytest.param(5.0, 4.0, 0.0, NAN, PriceSource.NONE, IvStatus.CROSSED, id="crossed, zero"),
        pytest.param(NAN, 4.0, NAN, NAN, PriceSource.NONE, IvStatus.NO_PRICE, id="no bid"),
        pytest.param(0.0, 4.0, NAN, NAN, PriceSource.NONE, IvStatus.NO_PRICE, id="bid of zero"),
        pytest.param(1.0, math.inf, NAN, NAN, PriceSource.NONE, IvStatus.NO_PRICE, id="infinite"),
        pytest.param(NAN, NAN, -1.0, -1.0, PriceSource.LAST, 0, id="negative last"),
    ],
)
def test_price_of_a_leg(
    bid: float, ask: float, last: float, price: float, source: int, lack: int
) -> None:
    found, spread, from_where, lacks = chosen(bid, ask, last)
    assert found == pytest.approx(price, nan_ok=True)
    assert (from_where, lacks) == (source, lack)
    is_mid = source == PriceSource.MID
    assert spread == pytest.approx(ask - bid) if is_mid else math.isnan(spread)


anything = st.floats() | st.sampled_from([0.0, 0.05, 5.0, 5.1])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(anything, anything, anything, st.integers(0, 255)), max_size=20))
def test_exactly_the_legs_without_a_price_lack_one(
    rows: list[tuple[float, float, float, int]],
) -> None:
    bid, ask, last, kind = np.array(rows, np.float64).reshape(-1, 4).T
    found = quotes.choose(kind.astype(np.uint8), bid, ask, last)
    assert np.array_equal(np.isnan(found.price), found.lack != 0)
    assert np.array_equal(np.isnan(found.price), found.source == PriceSource.NONE)
    assert np.array_equal(np.isnan(found.spread), found.source != PriceSource.MID)
    assert np.array_equal(found.is_call, kind == Kind.CALL)


@pytest.mark.parametrize(
    ("lack", "kind", "years", "solved", "status"),
    [
        pytest.param(0, Kind.CALL, 0.1, IvStatus.OK, IvStatus.OK, id="solved"),
        pytest.param(
            0, Kind.PUT, 0.1, IvStatus.ILL_CONDITIONED, IvStatus.ILL_CONDITIONED, id="ill"
        ),
        pytest.param(0, Kind.PUT, 0.1, IvStatus.INVALID, IvStatus.INVALID, id="invalid"),
        pytest.param(8, Kind.PUT, 0.1, IvStatus.INVALID, IvStatus.NO_PRICE, id="no price"),
        pytest.param(9, Kind.PUT, 0.1, IvStatus.INVALID, IvStatus.CROSSED, id="crossed"),
        pytest.param(8, Kind.PUT, -0.1, IvStatus.EXPIRED, IvStatus.EXPIRED, id="expired first"),
        pytest.param(0, 2, 0.1, IvStatus.OK, IvStatus.INVALID, id="neither call nor put"),
        pytest.param(8, 2, 0.1, IvStatus.INVALID, IvStatus.NO_PRICE, id="neither, and no price"),
        pytest.param(0, 2, -0.1, IvStatus.EXPIRED, IvStatus.EXPIRED, id="neither, and expired"),
    ],
)
def test_status_says_what_a_leg_lacks(
    lack: int, kind: int, years: float, solved: int, status: int
) -> None:
    values, found = np.ones((7, 1)), np.array([solved], np.uint8)
    source = np.full(1, 99, np.uint8)
    one = np.array([lack], np.uint8), np.array([kind], np.uint8)
    quotes.settle(*one, years, values, found, source)
    assert found[0] == status
    is_ours = status <= IvStatus.ILL_CONDITIONED
    assert source[0] == (GreeksSource.COMPUTED if is_ours else GreeksSource.NONE)
    assert np.isnan(values).all() == (kind == 2 and years > 0.0)


def test_columns_that_differ_in_length_are_refused() -> None:
    with pytest.raises(ValueError, match="length"):
        quotes.choose(np.zeros(2, np.uint8), [1.0, 2.0], [1.0, 2.0], [1.0])
