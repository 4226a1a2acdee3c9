"""The parity forward: exact on clean quotes, unmoved by bad ones, honest about its source."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels import black, forward

TRUE_FORWARD, RATE, YEARS, SPOT = 25_037.4, 0.065, 9 / 365, 25_000.0
STRIKES = np.arange(23_500.0, 26_550.0, 50.0)
TICK = 0.05
SIDES = ("bid", "ask")

Quotes = dict[str, Any]


def quotes(half_spread: float = 0.4, noise: float = 0.0, seed: int = 1) -> Quotes:
    """Two-sided quotes round Black-76 prices of one volatility, to the tick."""
    rng = np.random.default_rng(seed)
    discount = math.exp(-RATE * YEARS)
    made: Quotes = {"strikes": STRIKES}
    for side, is_call in (("call", True), ("put", False)):
        mid = np.empty(STRIKES.size)
        kinds = np.full(STRIKES.size, is_call)
        black.price(TRUE_FORWARD, discount, YEARS, STRIKES, kinds, np.full(61, 0.13), mid)
        mid = np.maximum(mid + noise * rng.normal(size=mid.size), 2 * half_spread)
        widths = half_spread * rng.integers(1, 4, mid.size)
        made[f"{side}_bid"] = np.maximum(np.round((mid - widths) / TICK) * TICK, TICK)
        made[f"{side}_ask"] = np.round((mid + widths) / TICK) * TICK
    return made


def fit(made: Quotes, **changes: Any) -> forward.ForwardFit:
    """The forward of a ladder: each strike's call, then its put."""
    sides = [
        np.column_stack([made[f"{side}_{name}"] for side in ("call", "put")]) for name in SIDES
    ]
    strikes = np.repeat(made["strikes"], 2)
    kind = np.arange(strikes.size, dtype=np.uint8) % 2 ^ 1
    terms: Quotes = {"spot": SPOT, "years": YEARS, "rate": RATE} | changes
    return forward.parity_of_legs(strikes, kind, *(side.ravel() for side in sides), **terms)


def test_clean_quotes_give_the_forward_to_a_tick() -> None:
    found = fit(quotes())
    assert found.source == forward.PARITY
    assert found.forward == pytest.approx(TRUE_FORWARD, abs=TICK)
    assert found.discount == math.exp(-RATE * YEARS)
    assert 15 <= found.pairs <= 21
    assert 0 < found.residual < 0.1


def test_the_forward_comes_from_the_strikes_round_it() -> None:
    made = quotes()
    far = STRIKES - TRUE_FORWARD > 11 * 50
    for name in ("put_bid", "put_ask"):
        made[name] = np.where(far, made[name] + 40, made[name])
    assert fit(made).forward == pytest.approx(fit(quotes()).forward, abs=0.01)


@pytest.mark.parametrize("shift", [-300.0, -20.0, 20.0, 300.0])
@pytest.mark.parametrize("bad", [1, 3, 5])
def test_stale_tight_quotes_do_not_move_the_forward(bad: int, shift: float) -> None:
    made = quotes(noise=0.2)
    clean = fit(made).forward
    for i in range(28, 28 + bad):  # at the money, where the fit looks
        mid = max(made["call_ask"][i] + shift, 1.0)
        made["call_bid"][i], made["call_ask"][i] = mid, mid + TICK
        made["put_bid"][i], made["put_ask"][i] = made["put_ask"][i] - TICK, made["put_ask"][i]
    found = fit(made)
    assert found.source == forward.PARITY
    assert abs(found.forward - clean) < 0.5


@pytest.mark.parametrize("kind", ["crossed", "one-sided", "nan", "negative", "infinite"])
def test_quotes_that_are_none_are_left_out(kind: str) -> None:
    made = quotes()
    i = 31
    if kind == "crossed":
        made["call_bid"][i], made["call_ask"][i] = made["call_ask"][i] + 50, made["call_bid"][i]
    else:
        value = {"one-sided": 0.0, "nan": math.nan, "negative": -1.0, "infinite": -math.inf}
        made["call_bid"][i] = value[kind]
    without = {name: np.delete(column, i) for name, column in made.items() if name != "strikes"}
    assert fit(made).forward == pytest.approx(
        fit(without | {"strikes": np.delete(STRIKES, i)}).forward, abs=TICK
    )
    assert fit(made).pairs == 21


def test_strikes_of_other_kinds_have_no_say() -> None:
    strikes, bid = np.repeat(STRIKES, 2), np.full(2 * STRIKES.size, 10.0)
    found = forward.parity_of_legs(strikes, np.full(strikes.size, 7), bid, bid, SPOT, YEARS, RATE)
    assert found.source == forward.SPOT_CARRY


@pytest.mark.parametrize("bad", [6, 18])
def test_a_run_of_stale_strikes_at_the_money_is_outvoted_by_the_chain(bad: int) -> None:
    """Calls and puts of a run were quoted together when the spot was elsewhere: they agree."""
    made = quotes(noise=0.2)
    elsewhere = TRUE_FORWARD * 1.01
    for i in range(31 - bad // 2, 31 + bad // 2):
        carried = math.exp(-RATE * YEARS) * (elsewhere - STRIKES[i])
        put = max(200.0 - carried / 2, 5.0)
        made["put_bid"][i], made["put_ask"][i] = put, put + TICK
        made["call_bid"][i], made["call_ask"][i] = put + carried, put + carried + TICK
    found = fit(made)
    assert (found.source, found.pairs) == (forward.PARITY, 21)
    assert abs(found.forward - TRUE_FORWARD) < 0.5


@pytest.mark.parametrize("years", [9 / 365, 1.0, 4.0])
@pytest.mark.parametrize("wrong", [-0.02, 0.02])
def test_a_rate_that_is_not_the_markets_does_not_tilt_the_forward(
    wrong: float, years: float
) -> None:
    """The ladder reaches twice as far above the forward as below, so that a tilt would show."""
    discount = math.exp(-RATE * years)
    worth = discount * (TRUE_FORWARD - STRIKES)
    strikes = STRIKES[10:]
    put = np.maximum(-worth, 0.0) + 900.0
    made: Quotes = {
        "strikes": strikes,
        "put_bid": put[10:] - 0.5,
        "put_ask": put[10:] + 0.5,
        "call_bid": (put + worth)[10:] - 0.5,
        "call_ask": (put + worth)[10:] + 0.5,
    }
    spot = TRUE_FORWARD * discount
    found = fit(made, spot=spot, years=years, rate=RATE + wrong)
    assert found.source == forward.PARITY
    assert found.forward == pytest.approx(TRUE_FORWARD, abs=0.05)


def test_tight_pairs_weigh_more_than_wide_ones() -> None:
    made: Quotes = {
        "strikes": np.array([99.0, 100.0, 101.0]),
        "call_bid": np.array([4.0, 3.0, 2.0]),
        "put_bid": np.array([3.0, 3.0, 3.02]),
    }
    made["call_ask"] = made["call_bid"] + np.array([0.1, 0.1, 0.2])
    made["put_ask"] = made["put_bid"] + np.array([0.1, 0.1, 0.2])
    found = fit(made, spot=100.0, rate=0.0)
    # 100, 100 and 99.98 with weights 4 : 4 : 1.
    assert found.forward == pytest.approx(100 - 0.02 / 9, abs=1e-12)
    assert found.residual == pytest.approx(math.sqrt(0.02**2 * 8 / 81), rel=1e-9)
    assert found.pairs == 3


def only(made: Quotes, places: list[int]) -> Quotes:
    kept = np.isin(np.arange(STRIKES.size), places)
    return {
        name: column if name == "strikes" else np.where(kept, column, np.nan)
        for name, column in made.items()
    }


def test_one_or_two_pairs_give_the_forward_of_a_single_strike() -> None:
    made = quotes()
    found = fit(only(made, [20, 31]))
    assert found.source == forward.SINGLE_STRIKE
    assert found.pairs == 1
    assert math.isnan(found.residual)
    call_less_put = sum(
        sign * 0.5 * (made[f"{side}_bid"][31] + made[f"{side}_ask"][31])
        for side, sign in (("call", 1), ("put", -1))
    )
    assert found.forward == pytest.approx(STRIKES[31] + call_less_put / found.discount, rel=1e-14)


def test_without_pairs_the_spot_is_carried() -> None:
    found = fit(only(quotes(), []))
    assert found.source == forward.SPOT_CARRY
    assert found.forward == pytest.approx(SPOT * math.exp(RATE * YEARS), rel=1e-14)
    assert found.pairs == 0
    assert math.isnan(found.residual)


def test_a_forward_far_from_the_spot_is_not_believed() -> None:
    assert fit(quotes(), spot=2_500.0).source == forward.SPOT_CARRY
    assert fit(quotes(), spot=math.nan).source == forward.PARITY


def test_without_pairs_and_spot_there_is_none() -> None:
    found = fit(only(quotes(), []), spot=math.nan)
    assert found.source == forward.NONE
    assert math.isnan(found.forward)
    assert found.discount == math.exp(-RATE * YEARS)


@pytest.mark.parametrize("years", [0.0, -0.1, math.nan, math.inf])
def test_an_expired_chain_has_no_forward(years: float) -> None:
    found = fit(quotes(), years=years)
    assert found.source == forward.NONE
    assert math.isnan(found.forward)
    assert math.isnan(found.discount)


def test_no_strikes_at_all_are_no_error() -> None:
    empty = {name: np.empty(0) for name in quotes()}
    assert fit(empty).source == forward.SPOT_CARRY
    assert fit(empty, spot=math.nan).source == forward.NONE


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(*[st.floats()] * 5), max_size=12),
    st.floats(),
    st.floats(),
    st.floats(-1, 1),
)
def test_any_quotes_end_with_a_source(
    rows: list[tuple[float, ...]], spot: float, years: float, rate: float
) -> None:
    columns = [list(column) for column in zip(*rows, strict=True)] if rows else [[]] * 5
    names = ("strikes", "call_bid", "call_ask", "put_bid", "put_ask")
    made = {name: np.array(column) for name, column in zip(names, columns, strict=True)}
    found = fit(made, spot=spot, years=years, rate=rate)
    has_forward = math.isfinite(found.forward) and found.forward > 0
    assert has_forward == (found.source != forward.NONE)
    assert (found.source == forward.PARITY) == math.isfinite(found.residual)


def test_lengths_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        forward.parity_of_legs(STRIKES, [1], STRIKES, STRIKES, SPOT, YEARS, RATE)
