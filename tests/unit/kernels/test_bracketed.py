"""Implied volatility of one leg: as good as the price allows, else a status."""

import csv
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels import black, bracketed, statuses
from pipeline.models import IvStatus
from tests.support import recordings, slow_greeks

EPSILON = np.finfo(float).eps
# Rounding of the price and of five operations on it: what any solver in doubles must concede.
FLOOR = 4 * EPSILON


class Leg(NamedTuple):
    forward: float
    discount: float
    years: float
    strike: float
    is_call: bool


def price_of(leg: Leg, iv: float) -> float:
    out = np.empty(1)
    black.price(*leg[:3], [leg.strike], [leg.is_call], [iv], out)
    return float(out[0])


def solve(leg: Leg, price: float) -> tuple[float, int]:
    s, status = bracketed.solve_leg(*leg, price)
    return s / math.sqrt(leg.years) if leg.years > 0 else math.nan, status


def test_status_numbers_are_those_of_the_models() -> None:
    assert {status.name: status.value for status in IvStatus} == {
        name: getattr(statuses, name) for name in IvStatus.__members__
    }


def twin_cases() -> Iterator[Any]:
    rng = np.random.default_rng(20260127)
    for number in range(60):
        forward = float(10 ** rng.uniform(0, 5))
        years = float(10 ** rng.uniform(-5, 0.5))
        iv = float(10 ** rng.uniform(-1.5, 1))
        distance = rng.normal() * 3 * iv * math.sqrt(years)
        leg = Leg(
            forward,
            math.exp(-0.065 * years),
            years,
            float(forward * math.exp(distance)),
            bool(rng.random() < 0.5),
        )
        yield pytest.param(leg, iv, id=f"random-{number}")
    for strike in (21_250.0, 24_950.0, 25_000.0, 25_300.0, 28_750.0):
        for days in (0.25, 7, 90):
            for iv in (0.08, 0.3, 1.5):
                leg = Leg(25_000.0, 0.999, days / 365, strike, strike >= 25_000)
                yield pytest.param(leg, iv, id=f"{strike:g}-{days:g}d-{iv:g}")


@pytest.mark.parametrize(("leg", "iv"), list(twin_cases()))
def test_volatility_agrees_with_the_slow_twin(leg: Leg, iv: float) -> None:
    price = float(slow_greeks.black76(*leg, iv).price)
    condition = float(slow_greeks.black76(*leg, iv).condition)
    if condition * EPSILON > 1e-3 or price < 1e-300:
        assert solve(leg, price)[1] in (statuses.OK, statuses.AT_INTRINSIC)
        return
    found, status = solve(leg, price)
    truth = slow_greeks.implied(*leg, price, near=iv)
    assert status == statuses.OK
    assert slow_greeks.relative(found, truth) < FLOOR * (1 + condition)
    if condition < 1e4:
        assert slow_greeks.relative(found, truth) < 1e-10


def test_volatility_of_every_reference_price_is_at_the_rounding_floor() -> None:
    folder = recordings.shared_dir()
    if folder is None or not (folder / "data/greeks/reference.csv").exists():
        pytest.skip("no reference prices beside the checkout; the twin cases stand in")
    compared = 0
    with (folder / "data/greeks/reference.csv").open() as lines:
        for row in csv.DictReader(lines):
            years = float(row["T_years"])
            leg = Leg(
                float(row["F_double"]),
                math.exp(-float(row["r_cc"]) * years),
                years,
                float(row["K"]),
                row["flag"] == "c",
            )
            found, status = solve(leg, float(row["b76_price"]))
            truth = float(row["b76_iv_of_double_price"])
            if math.isnan(truth):  # rounding left no time value in the price
                assert status == statuses.AT_INTRINSIC, row["id"]
                continue
            condition = float(row["b76_cond_price_over_sigma_vega"])
            if status == statuses.AT_INTRINSIC:  # a last digit of time value is no time value
                assert condition * EPSILON > 0.01, row["id"]
                continue
            assert status == statuses.OK, row["id"]
            assert abs(found / truth - 1) <= FLOOR * (1 + condition), row["id"]
            if condition < 1e4:
                assert abs(found / truth - 1) <= 1e-10, row["id"]
            compared += 1
    assert compared > 2_500


@pytest.mark.parametrize("exponent", [-20, -100, -200, -290, -300])
def test_the_smallest_prices_still_tell_their_volatility(exponent: int) -> None:
    leg = Leg(25_000.0, 0.998, 30 / 365, 27_500.0, True)
    price = 10.0**exponent
    found, status = solve(leg, price)
    assert status == statuses.OK
    assert slow_greeks.relative(found, slow_greeks.implied(*leg, price, near=found)) < 1e-15


@pytest.mark.parametrize("missing", [0.5, 0.1, 1e-3, 1e-6, 1e-9])
def test_prices_near_the_maximum_still_tell_their_volatility(missing: float) -> None:
    leg = Leg(100.0, 0.98, 0.5, 130.0, True)
    price = 98.0 * (1 - missing)
    found, status = solve(leg, price)
    truth = slow_greeks.implied(*leg, price, near=found)
    assert status == statuses.OK
    condition = float(slow_greeks.black76(*leg, truth).condition)
    assert slow_greeks.relative(found, truth) < FLOOR * (1 + condition)


LEG = Leg(25_000.0, 0.998, 7 / 365, 24_000.0, True)
BOUND_CASES = [
    ("expired", LEG._replace(years=0.0), 1_000.0, statuses.EXPIRED),
    ("long-expired", LEG._replace(years=-1.0), math.nan, statuses.EXPIRED),
    ("nan-price", LEG, math.nan, statuses.INVALID),
    ("negative-price", LEG, -0.05, statuses.INVALID),
    ("infinite-price", LEG, math.inf, statuses.INVALID),
    ("nan-years", LEG._replace(years=math.nan), 1_000.0, statuses.INVALID),
    ("infinite-years", LEG._replace(years=math.inf), 1_000.0, statuses.INVALID),
    ("nan-forward", LEG._replace(forward=math.nan), 1_000.0, statuses.INVALID),
    ("zero-forward", LEG._replace(forward=0.0), 1_000.0, statuses.INVALID),
    ("negative-strike", LEG._replace(strike=-1.0), 1_000.0, statuses.INVALID),
    ("infinite-strike", LEG._replace(strike=math.inf), 1_000.0, statuses.INVALID),
    ("nan-discount", LEG._replace(discount=math.nan), 1_000.0, statuses.INVALID),
    ("below-intrinsic", LEG, 997.9, statuses.BELOW_INTRINSIC),
    ("at-intrinsic", LEG, 998.0, statuses.AT_INTRINSIC),
    ("a-digit-below", LEG, math.nextafter(998.0, 0.0), statuses.AT_INTRINSIC),
    ("above-intrinsic", LEG, 998.0 + 1e-9, statuses.OK),
    ("at-the-money-next-to-nothing", LEG._replace(strike=25_000.0), 1e-290, statuses.OK),
    ("at-the-money-nothing", LEG._replace(strike=25_000.0), 1e-310, statuses.AT_INTRINSIC),
    ("worthless", LEG._replace(is_call=False), 0.0, statuses.AT_INTRINSIC),
    ("smallest", LEG._replace(is_call=False), 5e-324, statuses.OK),
    ("call-at-forward", LEG, 0.998 * 25_000.0, statuses.ABOVE_MAXIMUM),
    ("call-above-forward", LEG, 25_000.0, statuses.ABOVE_MAXIMUM),
    ("put-at-strike", LEG._replace(is_call=False), 0.998 * 24_000.0, statuses.ABOVE_MAXIMUM),
    ("put-below-strike", LEG._replace(is_call=False), 0.998 * 23_999.0, statuses.OK),
]


@pytest.mark.parametrize(
    ("leg", "price", "status"),
    [case[1:] for case in BOUND_CASES],
    ids=[case[0] for case in BOUND_CASES],
)
def test_status_at_each_bound(leg: Leg, price: float, status: int) -> None:
    found = bracketed.solve_leg(*leg, price)
    assert found[1] == status
    assert math.isnan(found[0]) == (status != statuses.OK)


legs = st.builds(
    lambda forward, distance, years, rate, is_call: Leg(
        forward, math.exp(-rate * years), years, forward * math.exp(distance), is_call
    ),
    st.floats(1.0, 1e5),
    st.floats(-3, 3) | st.floats(-0.01, 0.01),
    st.floats(1e-6, 5),
    st.floats(-0.05, 0.15),
    st.booleans(),
)


@settings(max_examples=40, deadline=None)
@given(leg=legs, iv=st.floats(0.01, 20))
def test_volatility_of_a_price_gives_the_volatility_back(leg: Leg, iv: float) -> None:
    found, status = solve(leg, price_of(leg, iv))
    condition = float(slow_greeks.black76(*leg, iv).condition)
    if not condition * EPSILON < 1e-3 or price_of(leg, iv) < 1e-290:
        assert status != statuses.NOT_CONVERGED
        return
    assert status == statuses.OK
    # Pricing rounds s once and more, worth ε/κ in price and so ε in volatility, and κε besides.
    assert abs(found / iv - 1) < 3 * FLOOR * (1 + condition)


@settings(max_examples=40, deadline=None)
@given(leg=legs, place=st.floats(0, 1), rise=st.floats(1e-9, 1))
def test_volatility_rises_with_the_price(leg: Leg, place: float, rise: float) -> None:
    sign = 1 if leg.is_call else -1
    floor = leg.discount * max(sign * (leg.forward - leg.strike), 0.0)
    span = leg.discount * min(leg.forward, leg.strike)
    prices = [floor + span * share for share in (place, place + (1 - place) * rise)]
    (low, low_status), (high, high_status) = (solve(leg, price) for price in prices)
    assert statuses.NOT_CONVERGED not in (low_status, high_status)
    if low_status == high_status == statuses.OK:
        assert high >= low * (1 - 8 * EPSILON)


@settings(max_examples=150, deadline=None)
@given(st.tuples(st.floats(), st.floats(), st.floats(), st.floats(), st.booleans(), st.floats()))
def test_any_data_ends_with_a_status(data: tuple[float, float, float, float, bool, float]) -> None:
    s, status = bracketed.solve_leg(*data)
    assert status in set(IvStatus) - {IvStatus.NOT_CONVERGED}
    assert math.isnan(s) == (status != statuses.OK)


def test_a_hundred_thousand_random_prices_all_converge() -> None:
    rng = np.random.default_rng(7)
    failed = 0
    for _ in range(20):
        distance = rng.normal(size=5_000) * 10 ** rng.uniform(-9, 1, 5_000)
        distance[::10] = 0.0
        share = np.where(
            rng.random(5_000) < 0.5,
            10 ** rng.uniform(-320, 0, 5_000),
            1 - 10 ** rng.uniform(-16, 0, 5_000),
        )
        for x, u in zip(distance.tolist(), share.tolist(), strict=True):
            strike = 100 * math.exp(x)
            price = max(100 - strike, 0.0) + min(100.0, strike) * u
            failed += bracketed.solve_leg(100.0, 1.0, 1.0, strike, True, price)[1] == 7
    assert failed == 0
