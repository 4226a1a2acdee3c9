"""Aggregates of a chain against sums and searches written out plainly."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import models
from pipeline.kernels import aggregates
from pipeline.kernels.aggregates import NULL_INTEGER

STRIKES = np.repeat(np.array([90.0, 100.0, 110.0]), 2)
CALLS = np.tile([True, False], 3)


def summarise(**changes: Any) -> aggregates.Summary:
    fields = {
        "strikes": STRIKES,
        "is_call": CALLS,
        "open_interest": np.array([10, 40, 20, 30, 50, 20]),
        "volume": np.array([1, 2, 3, 4, 5, 6]),
        "iv": np.array([0.20, 0.22, 0.16, 0.18, 0.14, 0.14]),
        "status": np.zeros(6, np.int8),
        "forward": 104.0,
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
    assert found.max_pain == 100.0


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
    )
    assert math.isnan(found.atm_strike)
    assert math.isnan(found.max_pain)
    assert found.put_open_interest == NULL_INTEGER


def test_lengths_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        summarise(volume=np.zeros(2, np.int64))
