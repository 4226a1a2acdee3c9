"""Implied volatility of many legs at once: every region, every status, in any company."""

import csv
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels import black, greeks, statuses
from tests.support import recordings, slow_greeks
from tests.unit.kernels.test_bracketed import BOUND_CASES, FLOOR, LEG, Leg

Columns = dict[str, Any]


def solve(legs: list[Leg], prices: Any) -> tuple[Any, Any]:
    """(iv, status) of legs solved together."""
    forward, discount, years, strikes, is_call = (
        list(column) for column in zip(*legs, strict=True)
    )
    iv, status = np.full(len(legs), 123.0), np.full(len(legs), 99, np.int8)
    greeks.volatilities(forward, discount, years, strikes, is_call, prices, iv, status)
    return iv, status


def test_every_reference_price_is_solved_to_the_rounding_floor() -> None:
    folder = recordings.shared_dir()
    if folder is None or not (folder / "data/greeks/reference.csv").exists():
        pytest.skip("no reference prices beside the checkout; the twin cases stand in")
    with (folder / "data/greeks/reference.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    legs = [
        Leg(
            float(row["F_double"]),
            math.exp(-float(row["r_cc"]) * float(row["T_years"])),
            float(row["T_years"]),
            float(row["K"]),
            row["flag"] == "c",
        )
        for row in rows
    ]
    iv, status = solve(legs, [float(row["b76_price"]) for row in rows])
    truth = np.array([float(row["b76_iv_of_double_price"]) for row in rows])
    condition = np.array([float(row["b76_cond_price_over_sigma_vega"]) for row in rows])
    has_value = status <= statuses.ILL_CONDITIONED
    # Where rounding left no time value, or a last digit of it, there is no volatility.
    without = ~has_value
    assert (status[without] == statuses.AT_INTRINSIC).all()
    assert (np.isnan(truth) | (condition * FLOOR > 0.04))[without].all()
    allowed = FLOOR * (1 + condition[has_value])
    assert (np.abs(iv[has_value] / truth[has_value] - 1) <= allowed).all()
    assert has_value.sum() > 2_500


def random_legs(count: int) -> tuple[list[Leg], Any]:
    """Legs of every region, side by side: near, far, short, long, quiet and wild."""
    rng = np.random.default_rng(20260127)
    legs, volatilities = [], []
    for _ in range(count):
        years = float(10 ** rng.uniform(-5, 1))
        iv = float(10 ** rng.uniform(-2, 1))
        forward = float(10 ** rng.uniform(0, 5))
        distance = rng.normal() * 10 ** rng.uniform(-2, 0.7) * iv * math.sqrt(years)
        strike = float(forward * math.exp(max(min(distance, 30.0), -30.0)))
        is_call = strike >= forward if rng.random() < 0.8 else strike < forward
        legs.append(Leg(forward, math.exp(-0.065 * years), years, strike, bool(is_call)))
        volatilities.append(iv)
    return legs, np.array(volatilities)


def test_random_legs_of_every_region_agree_with_the_slow_twin() -> None:
    legs, volatilities = random_legs(400)
    twins = [slow_greeks.black76(*leg, iv) for leg, iv in zip(legs, volatilities, strict=True)]
    prices = [float(twin.price) for twin in twins]
    iv, status = solve(legs, prices)
    compared = 0
    for leg, price, twin, sigma, found, code in zip(
        legs, prices, twins, volatilities, iv, status, strict=True
    ):
        if not float(twin.condition) * FLOOR < 1e-3 or price < 1e-300:
            continue
        assert code in (statuses.OK, statuses.ILL_CONDITIONED)
        truth = slow_greeks.implied(*leg, price, near=float(sigma))
        assert slow_greeks.relative(float(found), truth) <= FLOOR * (1 + float(twin.condition))
        compared += 1
    assert compared > 250


@pytest.mark.parametrize("company", [0, 1, 63, 64, 65, 200], ids=lambda n: f"{n}-others")
def test_the_status_at_each_bound_is_the_same_in_any_company(company: int) -> None:
    others, volatilities = random_legs(max(company, 1))
    prices = [
        float(slow_greeks.black76(*leg, iv).price)
        for leg, iv in zip(others[:company], volatilities, strict=False)
    ]
    legs = [*others[:company], *(case[1] for case in BOUND_CASES)]
    _, status = solve(legs, [*prices, *(case[2] for case in BOUND_CASES)])
    found = status[company:].tolist()
    # Half a tick is worth more than the smallest of these prices.
    found = [statuses.OK if code == statuses.ILL_CONDITIONED else code for code in found]
    assert found == [case[3] for case in BOUND_CASES]


def test_the_slow_path_solves_what_the_fast_ones_leave() -> None:
    legs = [LEG._replace(is_call=False, strike=strike) for strike in (24_000.0, 20_000.0)] * 70
    prices = np.geomspace(1e-300, 1e-90, len(legs))
    iv, status = solve(legs, prices)
    assert (status == statuses.ILL_CONDITIONED).all()
    for leg, price, found in zip(legs[::20], prices[::20], iv[::20], strict=True):
        truth = slow_greeks.implied(*leg, float(price), near=float(found))
        assert slow_greeks.relative(float(found), truth) < 1e-15


def test_legs_of_every_path_solve_to_the_same_bytes_alone_and_in_any_order() -> None:
    legs, volatilities = random_legs(300)
    prices = np.empty(len(legs))
    for i, (leg, iv) in enumerate(zip(legs, volatilities, strict=True)):
        black.price(*leg[:3], [leg.strike], [leg.is_call], [iv], prices[i : i + 1])
    together = solve(legs, prices)
    order = np.random.default_rng(3).permutation(len(legs))
    shuffled = solve([legs[i] for i in order], prices[order])
    for whole, mixed in zip(together, shuffled, strict=True):
        assert whole[order].tobytes() == mixed.tobytes()
    for i in range(0, len(legs), 7):
        alone = solve([legs[i]], prices[i : i + 1])
        assert [column.tobytes() for column in alone] == [
            column[i : i + 1].tobytes() for column in together
        ]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0.3, 3), st.floats(0.01, 9), st.floats(1e-5, 5), st.booleans()),
        min_size=1,
        max_size=80,
    )
)
def test_volatility_of_a_price_gives_the_volatility_back(
    drawn: list[tuple[float, float, float, bool]],
) -> None:
    ratio, sigma, years, is_call = (np.array(column) for column in zip(*drawn, strict=True))
    strikes = 100 * ratio
    prices = np.empty(len(drawn))
    black.price(100.0, 0.97, years, strikes, is_call, sigma, prices)
    iv, status = np.empty(len(drawn)), np.empty(len(drawn), np.int8)
    greeks.volatilities(100.0, 0.97, years, strikes, is_call, prices, iv, status)
    assert statuses.NOT_CONVERGED not in status
    for i in np.flatnonzero(status <= statuses.ILL_CONDITIONED):
        leg = (100.0, 0.97, float(years[i]), float(strikes[i]), bool(is_call[i]))
        condition = float(slow_greeks.black76(*leg, float(sigma[i])).condition)
        if condition * FLOOR < 1e-3 and prices[i] > 1e-290:
            assert abs(iv[i] / sigma[i] - 1) < 3 * FLOOR * (1 + condition)


@settings(max_examples=40, deadline=None)
@given(ratio=st.floats(0.3, 3), years=st.floats(1e-4, 5), is_call=st.booleans())
def test_volatility_rises_with_the_price_across_the_paths(
    ratio: float, years: float, is_call: bool
) -> None:
    leg = Leg(100.0, 0.97, years, 100 * ratio, is_call)
    floor = leg.discount * max((100 - leg.strike) * (1 if is_call else -1), 0.0)
    shares = np.concatenate([np.geomspace(1e-9, 0.5, 60), 1 - np.geomspace(0.49, 1e-9, 60)])
    iv, status = solve([leg] * 120, floor + leg.discount * min(100.0, leg.strike) * shares)
    solved = iv[status <= statuses.ILL_CONDITIONED]
    assert len(solved) > 80
    assert (np.diff(solved) > 0).all()
