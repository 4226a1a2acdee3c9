"""Aggregates of a chain against sums and searches written out plainly."""

import math
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import models
from pipeline.kernels import aggregates, black, greeks
from pipeline.kernels.aggregates import NULL_INTEGER

STRIKES = np.repeat(np.array([90.0, 100.0, 110.0]), 2)
CALLS = np.tile([True, False], 3)
DISCOUNT = 0.5


def summarise(**changes: Any) -> aggregates.Summary:
    fields = {
        "strikes": STRIKES,
        "is_call": CALLS,
        "open_interest": np.array([10, 40, 20, 30, 50, 20]),
        "volume": np.array([1, 2, 3, 4, 5, 6]),
        "iv": np.array([0.20, 0.22, 0.16, 0.18, 0.14, 0.14]),
        "status": np.zeros(6, np.int8),
        "forward": 104.0,
        "delta": DISCOUNT * np.array([0.95, -0.05, 0.7, -0.3, 0.2, -0.8]),
        "gamma": np.array([0.01, 0.01, 0.05, 0.05, 0.03, 0.03]),
        "discount": DISCOUNT,
        "years": 0.04,
    }
    return aggregates.summarise(**(fields | changes))


def test_absent_means_the_same_as_in_the_models() -> None:
    assert NULL_INTEGER == models.NULL_INTEGER


def test_sums_and_ratios_are_puts_over_calls() -> None:
    found = summarise()
    assert (found.call_open_interest, found.put_open_interest) == (80, 90)
    assert found.put_call_ratio_open_interest == 90 / 80
    assert found.put_call_ratio_volume == 12 / 9


def test_absent_quantities_are_left_out_and_all_absent_is_none() -> None:
    some = np.array([10, NULL_INTEGER, NULL_INTEGER, 30, 50, 20])
    assert summarise(open_interest=some).put_open_interest == 50
    none = np.full(6, NULL_INTEGER)
    found = summarise(open_interest=none, volume=none)
    assert found.call_open_interest == NULL_INTEGER
    assert math.isnan(found.put_call_ratio_open_interest)
    assert math.isnan(found.put_call_ratio_volume)
    assert math.isnan(found.max_pain)


def test_no_call_volume_gives_no_ratio() -> None:
    assert math.isnan(summarise(volume=np.array([0, 2, 0, 4, 0, 6])).put_call_ratio_volume)
    assert summarise(volume=np.array([1, 0, 3, 0, 5, 0])).put_call_ratio_volume == 0.0


def test_volatility_at_the_money_is_interpolated_between_the_strikes_round_the_forward() -> None:
    found = summarise()
    assert found.atm_strike == 100.0
    assert found.atm_source == aggregates.ATM_INTERPOLATED
    assert found.atm_iv == pytest.approx(0.17 + 0.4 * (0.14 - 0.17), rel=1e-14)


@pytest.mark.parametrize(
    ("forward", "strike"), [(95.0, 90.0), (95.1, 100.0), (50.0, 90.0), (500.0, 110.0)]
)
def test_the_nearest_strike_is_at_the_money_and_the_lower_of_two(
    forward: float, strike: float
) -> None:
    assert summarise(forward=forward).atm_strike == strike


def test_where_one_neighbour_has_no_volatility_the_other_speaks() -> None:
    status = np.array([0, 0, 1, 8, 0, 0], np.int8)
    found = summarise(status=status)
    assert (found.atm_iv, found.atm_source) == (0.14, aggregates.ATM_NEAREST)
    assert summarise(forward=120.0).atm_iv == 0.14
    status = np.full(6, 8, np.int8)
    assert math.isnan(summarise(status=status).atm_iv)
    assert summarise(status=status).atm_strike == 100.0


@pytest.mark.parametrize("forward", [math.nan, math.inf, 0.0, -1.0])
def test_without_a_forward_nothing_is_at_the_money(forward: float) -> None:
    found = summarise(forward=forward)
    assert math.isnan(found.atm_strike)
    assert math.isnan(found.atm_iv)
    assert math.isnan(found.skew_25_delta)
    assert math.isnan(found.gamma_exposure)
    assert math.isnan(found.expected_move)
    assert found.max_pain == 100.0


def test_skew_is_put_less_call_at_an_undiscounted_delta_of_a_quarter() -> None:
    # The put lies between deltas -0.05 (iv 0.22) and -0.30 (0.18), four fifths of the way; the
    # call between the put of 100 (as a call 0.70, iv 0.18) and 0.20 (0.14), nine tenths.
    put = 0.22 + 0.8 * (0.18 - 0.22)
    call = 0.18 + 0.9 * (0.14 - 0.18)
    assert summarise().skew_25_delta == pytest.approx(put - call, rel=1e-13)


@pytest.mark.parametrize("place", [1, 4], ids=["put", "call"])
def test_skew_wants_both_sides_bracketed_by_legs_with_status_ok(place: int) -> None:
    status = np.zeros(6, np.int8)
    status[place] = 1
    assert math.isnan(summarise(status=status).skew_25_delta)
    in_the_money = np.array([1, 0, 1, 0, 0, 1], np.int8)
    assert summarise(status=in_the_money).skew_25_delta == summarise().skew_25_delta


def test_of_several_crossings_skew_takes_those_nearest_the_forward() -> None:
    """Far from the forward a stale quote makes delta cross a quarter once more, on each side."""
    strikes = np.arange(80.0, 130.0, 5.0)
    is_call = strikes > 103.0
    delta = np.array([-0.05, -0.30, -0.10, -0.20, -0.40, 0.40, 0.20, 0.10, 0.30, 0.05])
    iv = np.array([0.30, 0.60, 0.26, 0.20, 0.16, 0.14, 0.10, 0.13, 0.50, 0.15])
    n = strikes.size
    found = summarise(
        strikes=strikes,
        is_call=is_call,
        open_interest=np.zeros(n, np.int64),
        volume=np.zeros(n, np.int64),
        iv=iv,
        status=np.zeros(n, np.int8),
        forward=103.0,
        delta=DISCOUNT * delta,
        gamma=np.zeros(n),
    )
    assert found.skew_25_delta == pytest.approx(0.19 - 0.11, rel=1e-13)


def test_skew_of_a_market_of_a_known_smile_is_that_of_the_smile() -> None:
    """Volatility falls by 1.5 points for 1 % of strike; the twin solves for the strikes itself."""
    forward_, discount, years = 25_037.4, 0.99, 9 / 365
    normal = NormalDist()

    def smile(strike: float) -> float:
        return 0.13 - 1.5 * math.log(strike / forward_)

    def volatility_at(call_delta: float) -> float:
        low, high = 0.97 * forward_, 1.03 * forward_
        for _ in range(60):
            middle = 0.5 * (low + high)
            deviation = smile(middle) * math.sqrt(years)
            d1 = math.log(forward_ / middle) / deviation + 0.5 * deviation
            low, high = (middle, high) if normal.cdf(d1) > call_delta else (low, middle)
        return smile(low)

    strikes = np.repeat(np.arange(24_000.0, 26_050.0, 50.0), 2)
    is_call = np.arange(strikes.size) % 2 == 0
    iv = np.array([smile(strike) for strike in strikes])
    prices = np.empty(strikes.size)
    black.price(forward_, discount, years, strikes, is_call, iv, prices)
    out = [np.empty(strikes.size) for _ in range(6)]
    status = np.empty(strikes.size, np.int8)
    greeks.solve(forward_, discount, years, strikes, is_call, prices, *out, status)
    quantity = np.where(is_call, 300, 200)
    found = aggregates.summarise(
        *(strikes, is_call, quantity, quantity, out[0], status, forward_),
        *(out[1], out[2], discount, years),
    )
    expected = volatility_at(0.75) - volatility_at(0.25)
    assert expected > 0.02
    assert found.skew_25_delta == pytest.approx(expected, rel=2e-3)
    exposure = sum(
        gamma * (300 if call else -200) * forward_**2 / 100
        for gamma, call in zip(out[2].tolist(), is_call.tolist(), strict=True)
    )
    assert found.gamma_exposure == pytest.approx(exposure, rel=1e-12)
    assert found.expected_move == pytest.approx(forward_ * found.atm_iv * math.sqrt(years))


def test_gamma_exposure_is_calls_less_puts_for_one_percent_of_the_forward() -> None:
    interest = 0.01 * (10 - 40) + 0.05 * (20 - 30) + 0.03 * (50 - 20)
    assert summarise().gamma_exposure == pytest.approx(interest * 104.0**2 / 100, rel=1e-13)


def test_legs_without_gamma_or_open_interest_are_left_out_of_gamma_exposure() -> None:
    gamma = np.array([0.01, math.nan, math.nan, 0.05, 0.03, 0.03])
    some = np.array([10, 40, 20, 30, NULL_INTEGER, 20])
    interest = 0.01 * 10 - 0.05 * 30 - 0.03 * 20
    found = summarise(gamma=gamma, open_interest=some)
    assert found.gamma_exposure == pytest.approx(interest * 104.0**2 / 100, rel=1e-13)
    assert math.isnan(summarise(gamma=np.full(6, math.nan)).gamma_exposure)
    assert math.isnan(summarise(open_interest=np.full(6, NULL_INTEGER)).gamma_exposure)
    assert summarise(open_interest=np.zeros(6, np.int64)).gamma_exposure == 0.0


@pytest.mark.parametrize("years", [0.0, -0.1, math.nan])
def test_an_expired_chain_has_no_expected_move(years: float) -> None:
    assert math.isnan(summarise(years=years).expected_move)


def test_the_expected_move_is_one_standard_deviation_at_the_money() -> None:
    found = summarise()
    assert found.expected_move == pytest.approx(104.0 * found.atm_iv * 0.2, rel=1e-14)


def slow_max_pain(strikes: list[float], calls: list[bool], interest: list[int]) -> float:
    def payout(settlement: float) -> float:
        return sum(
            quantity * max(settlement - strike if is_call else strike - settlement, 0.0)
            for strike, is_call, quantity in zip(strikes, calls, interest, strict=True)
            if quantity > 0
        )

    if not any(quantity > 0 for quantity in interest):
        return math.nan
    return min(sorted(set(strikes)), key=payout)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 12), st.booleans(), st.integers(-1, 5_000) | st.just(NULL_INTEGER)
        ),
        max_size=24,
    )
)
def test_max_pain_is_where_holders_get_least(legs: list[tuple[int, bool, int]]) -> None:
    legs.sort(key=lambda leg: (leg[0], not leg[1]))
    strikes = [50.0 * leg[0] for leg in legs]
    calls, interest = [leg[1] for leg in legs], [leg[2] for leg in legs]
    n = len(legs)
    found = summarise(
        strikes=strikes,
        is_call=calls,
        open_interest=np.array(interest, np.int64),
        volume=np.zeros(n, np.int64),
        iv=np.full(n, np.nan),
        status=np.full(n, 8, np.int8),
        delta=np.full(n, np.nan),
        gamma=np.full(n, np.nan),
    ).max_pain
    assert found == pytest.approx(slow_max_pain(strikes, calls, interest), nan_ok=True)


def test_an_empty_chain_tells_nothing() -> None:
    none = np.empty(0)
    found = summarise(
        strikes=none,
        is_call=none,
        open_interest=none,
        volume=none,
        iv=none,
        status=np.empty(0, "i1"),
        delta=none,
        gamma=none,
    )
    assert math.isnan(found.atm_strike)
    assert math.isnan(found.max_pain)
    assert math.isnan(found.skew_25_delta)
    assert math.isnan(found.gamma_exposure)
    assert math.isnan(found.expected_move)
    assert found.put_open_interest == NULL_INTEGER


def test_lengths_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        summarise(volume=np.zeros(2, np.int64))
