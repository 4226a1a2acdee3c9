"""Black-76 prices: against the slow twin, and what must hold between them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels import black
from tests.support import slow_greeks

EPSILON = np.finfo(float).eps
FORWARD, DISCOUNT, YEARS = 25_000.0, 0.998, 7 / 365


def price(
    strike: float, is_call: bool, iv: float, forward: float = FORWARD, years: float = YEARS
) -> float:
    out = np.empty(1)
    black.price(forward, DISCOUNT, years, [strike], [is_call], [iv], out)
    return float(out[0])


@pytest.mark.parametrize("is_call", [True, False], ids=["call", "put"])
@pytest.mark.parametrize("strike", [12_000.0, 20_000.0, 24_900.0, 25_000.0, 25_050.0, 33_000.0])
@pytest.mark.parametrize("iv", [0.03, 0.12, 0.8, 4.0, 30.0])
def test_price_agrees_with_the_slow_twin(strike: float, is_call: bool, iv: float) -> None:
    truth = slow_greeks.black76(FORWARD, DISCOUNT, YEARS, strike, is_call, iv)
    if truth.price < 1e-300:
        assert price(strike, is_call, iv) < 1e-300
        return
    # Rounding s = iv·√years alone costs ε/κ.
    allowed = 4 * EPSILON * (1 + 1 / float(truth.condition))
    assert slow_greeks.relative(price(strike, is_call, iv), truth.price) < allowed


@settings(max_examples=50, deadline=None)
@given(
    strike=st.floats(5_000, 100_000),
    iv=st.floats(0.001, 10),
    years=st.floats(1e-6, 3),
)
def test_call_less_put_is_the_discounted_forward_less_strike(
    strike: float, iv: float, years: float
) -> None:
    call, put = (price(strike, is_call, iv, years=years) for is_call in (True, False))
    parity = DISCOUNT * (FORWARD - strike)
    assert call - put == pytest.approx(parity, abs=4 * EPSILON * max(call, put, FORWARD))


@settings(max_examples=50, deadline=None)
@given(
    strike=st.floats(5_000, 100_000),
    iv=st.floats(0.01, 5),
    rise=st.floats(1e-3, 1),
    is_call=st.booleans(),
)
def test_price_never_falls_as_volatility_rises(
    strike: float, iv: float, rise: float, is_call: bool
) -> None:
    low, high = (price(strike, is_call, v, years=0.1) for v in (iv, iv * (1 + rise)))
    assert high >= low
    assert high <= DISCOUNT * (FORWARD if is_call else strike)


def test_without_volatility_or_time_the_price_is_intrinsic() -> None:
    assert price(24_000.0, True, 0.0) == DISCOUNT * 1_000.0
    assert price(26_000.0, True, 0.0) == 0.0
    assert price(26_000.0, False, 0.2, years=0.0) == DISCOUNT * 1_000.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -1.0])
@pytest.mark.parametrize("place", range(5))
def test_arguments_without_a_price_give_nan(place: int, bad: float) -> None:
    arguments = [FORWARD, DISCOUNT, YEARS, 25_000.0, 0.12]
    arguments[place] = bad
    forward, discount, years, strike, iv = arguments
    out = np.zeros(1)
    black.price(forward, discount, years, [strike], [True], [iv], out)
    assert math.isnan(out[0])


def test_scalars_and_arrays_price_alike() -> None:
    strikes = np.linspace(20_000, 30_000, 21)
    kinds, iv = np.arange(21) % 2 == 0, np.linspace(0.1, 0.4, 21)
    one, many = np.empty(21), np.empty(21)
    black.price(FORWARD, DISCOUNT, YEARS, strikes, kinds, iv, one)
    repeated = (np.full(21, value) for value in (FORWARD, DISCOUNT, YEARS))
    black.price(*repeated, strikes, kinds, iv, many)
    assert one.tobytes() == many.tobytes()


def test_lengths_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        black.price(FORWARD, DISCOUNT, YEARS, [1.0, 2.0], [True], [0.1], np.empty(2))
    with pytest.raises(ValueError, match="one element"):
        black.price([1.0, 2.0, 3.0], 1.0, 1.0, [1.0, 2.0], [True, True], [0.1, 0.1], np.empty(2))
