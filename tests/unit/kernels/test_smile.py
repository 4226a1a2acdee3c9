"""The smile: finds a known curve again, is moved by no bad leg, and says where it does not fit."""

import json
import math
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import clock, dhan_chain, enrich
from pipeline.kernels import descent, smile, svi
from pipeline.models import RequestContext
from tests.support import recordings, slow_smile, smiles
from workers.simulator import exchange
from workers.simulator import smile as simulated

FORWARD = 25_000.0
RECORDED = "dhan_v2_optionchain_NIFTY_exp20250130_at20250128T093332Z_LIVE.json"
VOGT = {"a": -0.0410, "b": 0.1331, "rho": 0.3060, "m": 0.3586, "sigma": 0.4153}  # g falls to -0.02

Curve = dict[str, float]


def curve_of(years: float, iv: float, **shape: float) -> Curve:
    """A raw SVI curve whose parts are given in deviations at the money."""
    s = iv * math.sqrt(years)
    found = {"level": 0.45, "slope": 0.5, "rho": -0.35, "middle": 0.1, "breadth": 0.9} | shape
    return {
        "a": found["level"] * s * s,
        "b": found["slope"] * s,
        "rho": found["rho"],
        "m": found["middle"] * s,
        "sigma": found["breadth"] * s,
    }


def ladder(years: float, iv: float, count: int = 121, reach: float = 4.0) -> Any:
    return FORWARD * np.exp(np.linspace(-reach, reach, count) * iv * math.sqrt(years))


def iv_on(curve: Curve, years: float) -> Any:
    return lambda k: np.sqrt(smiles.raw_svi(k, **curve) / years)


def legs_on(curve: Curve, years: float, strikes: Any, **quotes: float) -> dict[str, Any]:
    return smiles.legs(strikes, iv_on(curve, years), forward=FORWARD, years=years, **quotes)


def market(years: float = 7 / 365, iv: float = 0.13, **quotes: float) -> dict[str, Any]:
    """A chain of 121 strikes quoted to the tick round a skewed curve."""
    quoted = {"half_spread": 0.2, "tick": smiles.TICK} | quotes
    return legs_on(curve_of(years, iv), years, ladder(years, iv), **quoted)


def misses(legs: dict[str, Any], iv_fit: Any, curve: Curve) -> Any:
    """Vol points between the fit and the truth, within two deviations of the forward."""
    k = np.log(legs["strikes"] / legs["forward"])
    true_iv = iv_on(curve, legs["years"])(k)
    return 100 * np.abs(iv_fit - true_iv)[np.abs(k) < 2 * curve["sigma"] / 0.9]


EXPIRIES = [
    pytest.param(0.5 / 365, 0.10, id="half a day, calm"),
    pytest.param(0.5 / 365, 0.60, id="half a day, wild"),
    pytest.param(7 / 365, 0.13, id="a week"),
    pytest.param(45 / 365, 0.20, id="two months"),
    pytest.param(2.0, 0.18, id="two years"),
]


@pytest.mark.parametrize(("years", "iv"), EXPIRIES)
def test_exact_volatilities_give_their_curve_back(years: float, iv: float) -> None:
    curve = curve_of(years, iv)
    legs = legs_on(curve, years, ladder(years, iv))
    found, iv_fit = smiles.fitted(legs)
    assert found.status == smile.OK
    assert found.error < 1e-3
    assert [found.b, found.sigma] == pytest.approx([curve["b"], curve["sigma"]], rel=2e-3)
    assert found.rho == pytest.approx(curve["rho"], abs=1e-3)
    assert found.m == pytest.approx(curve["m"], abs=2e-3 * curve["sigma"])
    assert max(misses(legs, iv_fit, curve)) < 0.002 * iv / 0.13


@pytest.mark.parametrize(("years", "iv"), EXPIRIES)
def test_quotes_to_the_tick_give_it_within_a_twentieth_of_a_vol_point(
    years: float, iv: float
) -> None:
    legs = market(years, iv)
    found, iv_fit = smiles.fitted(legs)
    assert found.status == smile.OK
    assert max(misses(legs, iv_fit, curve_of(years, iv))) < 0.05 * max(iv / 0.13, 1.0)


@pytest.mark.parametrize("expiry", [0, 1, 4, 9], ids=lambda n: f"expiry {n}")
@pytest.mark.parametrize("underlying", exchange.UNDERLYINGS[:2], ids=lambda u: u.name)
def test_smile_of_the_simulated_market_is_found_again(
    underlying: exchange.Underlying, expiry: int
) -> None:
    now = clock.to_ns(datetime(2026, 1, 22, 12, tzinfo=clock.IST))
    expiries = exchange.expiries(underlying, now)
    chosen = expiries[min(expiry, len(expiries) - 1)]
    day = exchange.market_day(now)
    since_s = np.array([(now - exchange.day_start_ns(day)) / clock.SECOND_NS])
    future = simulated.forward(3, underlying, chosen, now)
    strikes = np.arange(0.8 * future // 100, 1.2 * future // 100) * 100.0
    truth = simulated.truth(3, underlying, chosen, day, since_s, strikes)
    years = float(truth.years[0])
    price = np.round(np.stack((truth.call, truth.put)).T.ravel() / 0.05) * 0.05
    legs = smiles.solved(
        *(future, years, np.repeat(strikes, 2), np.arange(price.size) % 2 == 0),
        price * math.exp(simulated.RATE * years),
        np.full(price.size, 0.1),
    )
    found, iv_fit = smiles.fitted(legs)
    assert found.status == smile.OK
    is_near = np.abs(np.log(strikes / future)) < 1.5 * 0.15 * math.sqrt(years)
    assert np.max(100 * np.abs(iv_fit[::2] - truth.iv)[is_near]) < 0.02


def recorded_legs() -> tuple[dict[str, Any], Any]:
    """Arguments of the fit for the recorded chain, and whether a leg is near the money."""
    folder = recordings.shared_dir()
    if folder is None:
        pytest.skip("no recordings beside the checkout")
    context = RequestContext(
        provider="dhan",
        underlying="NIFTY",
        expiry=date(2025, 1, 30),
        security_id=13,
        segment="IDX_I",
        path="/optionchain",
        status=200,
    )
    seen = clock.to_ns(datetime(2025, 1, 28, 9, 33, 32, tzinfo=UTC))
    body = (folder / "data" / "dhan" / RECORDED).read_bytes()
    assert json.loads(body)["status"] == "success"
    chain = enrich.enrich(dhan_chain.map_chain(body, context, seen), rate=0.065)
    assert chain.header.forward is not None
    columns = chain.legs
    is_quoted = columns["price_source"] == 1
    legs = {
        "forward": chain.header.forward,
        "years": chain.header.years,
        "strikes": columns["strike"],
        "is_call": columns["kind"] == 1,
        "iv": columns["iv"],
        "vega": columns["vega"],
        "spread": np.where(is_quoted, columns["ask"] - columns["bid"], np.nan),
        "status": columns["iv_status"].view(np.int8),
    }
    return legs, near_the_money(legs)


def near_the_money(legs: dict[str, Any]) -> Any:
    """Which legs are good, out of the money and within a deviation of the forward."""
    k = np.log(legs["strikes"] / legs["forward"])
    is_out = np.where(legs["is_call"], k >= 0, k <= 0)
    return (legs["status"] == 0) & is_out & (np.abs(k) < legs["iv"] * math.sqrt(legs["years"]))


def steep_legs() -> tuple[dict[str, Any], Any]:
    """Two days to expiry, and wings that rise faster than a raw SVI curve can follow."""
    years, iv = 2 / 365, 0.20
    s = iv * math.sqrt(years)

    def iv_of(k: Any) -> Any:
        z = k / s
        w = 1.0 - 0.15 * z + 0.1 * z**2 + 0.02 * np.maximum(np.abs(z) - 1.5, 0) ** 3
        return iv * np.sqrt(np.maximum(w, 0.2))

    strikes = np.arange(21_000.0, 28_050.0, 50.0)
    quotes = {"half_spread": 0.05, "tick": smiles.TICK}
    legs = smiles.legs(strikes, iv_of, forward=FORWARD, years=years, **quotes)
    return legs, near_the_money(legs)


@pytest.mark.parametrize("make", [recorded_legs, steep_legs], ids=["recorded", "synthetic"])
def test_wings_that_no_curve_follows_leave_the_money_alone(make: Any) -> None:
    legs, is_near = make()
    found, iv_fit = smiles.fitted(legs)
    assert found.status == smile.OK
    assert is_near.sum() >= 12
    assert 100 * np.sqrt(np.mean((iv_fit - legs["iv"])[is_near] ** 2)) < 0.1
    assert np.isfinite(iv_fit).all()
    k = np.log(legs["strikes"] / legs["forward"])
    assert min(slow_smile.g(np.linspace(min(k), max(k), 5_001), found)) > -1e-3


def test_the_search_ends_where_brute_force_does() -> None:
    years, iv = 30 / 365, 0.15
    legs = legs_on(curve_of(years, iv, level=0.2), years, ladder(years, iv, 61), half_spread=0.5)
    noise = np.random.default_rng(4).normal(size=legs["iv"].size)
    legs["iv"] = legs["iv"] * (1 + 0.003 * noise)
    known = slow_smile.points(legs)
    scale = iv * math.sqrt(years)
    points = np.zeros((4, known.k.size))
    points[0] = known.k / scale
    points[1] = known.iv**2 * years / scale**2
    points[2] = (scale**2 / (2 * known.iv * years * known.error)) ** 2
    low, high = np.array([-9e9, 1e-6, 1e-6, -9, -3]), np.array([9e9, 50, 50, 9, 3])
    curve = descent.start(points, known.k.size, low, high)
    descent.descend(points, known.k.size, curve, low, high, 1e-9, 0.0, np.empty(0), scale)
    fitted = [svi.value(x, curve, math.exp(2 * curve[svi.BREADTH])) for x in points[0]]
    reached = float(np.sum(points[2] * (points[1] - fitted) ** 2))
    least = slow_smile.least_cost(known, years)
    assert least * (1 - 1e-5) <= reached <= least * 1.001

    found, _ = smiles.fitted(legs)  # the biweight asks for a little else
    assert least <= slow_smile.cost(known, years, found) < 1.1 * least


def stale(legs: dict[str, Any], share: float, seed: int) -> dict[str, Any]:
    """The market with some quotes left behind when the forward was half a deviation elsewhere.

    They are one tick wide, as a quote that nobody looks after often is.
    """
    rng = np.random.default_rng(seed)
    is_stale = rng.random(legs["iv"].size) < share
    years, iv = legs["years"], 0.13
    moved = FORWARD * math.exp(rng.choice([-0.5, 0.5]) * iv * math.sqrt(years))
    price = smiles.price_of(
        legs
        | {
            "forward": moved,
            "iv": iv_on(curve_of(years, iv), years)(np.log(legs["strikes"] / moved)),
        }
    )
    price = np.maximum(np.round(price / smiles.TICK), 1.0) * smiles.TICK
    spread = np.full(price.size, smiles.TICK)
    left = smiles.solved(FORWARD, years, legs["strikes"], legs["is_call"], price, spread)
    mixed = {name: np.where(is_stale, left[name], legs[name]) for name in ("iv", "vega", "spread")}
    status = np.where(is_stale, left["status"], legs["status"]).astype(np.int8)
    return legs | mixed | {"status": status}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("years", [2 / 365, 30 / 365], ids=["two days", "a month"])
def test_a_tenth_of_stale_quotes_does_not_move_it(years: float, seed: int) -> None:
    legs = market(years)
    moved = stale(legs, 0.1, seed)
    assert 10 < np.sum(moved["spread"] != legs["spread"]) < 40
    found, iv_fit = smiles.fitted(moved)
    assert found.status == smile.OK
    assert max(misses(legs, iv_fit, curve_of(years, 0.13))) < 0.03


def test_the_other_kind_of_a_strike_tells_which_quotes_of_a_thin_chain_are_stale() -> None:
    years = 30 / 365
    curve = curve_of(years, 0.13)
    thin = legs_on(curve, years, ladder(years, 0.13, 25, 3.0), half_spread=0.2, tick=smiles.TICK)
    worst = []
    for seed in range(20):
        legs = stale(thin, 0.2, seed)
        worst.append(max(misses(legs, smiles.fitted(legs)[1], curve)))
    assert np.quantile(worst, 0.8) < 0.03


def test_stale_quotes_are_found_without_the_other_kind_of_their_strike() -> None:
    legs = market()
    moved = stale(legs, 0.1, seed=2)
    k = np.log(legs["strikes"] / FORWARD)
    is_out = np.where(legs["is_call"], k >= 0, k < 0)
    alone = {name: c[is_out] if np.ndim(c) else c for name, c in moved.items()}
    found, iv_fit = smiles.fitted(alone)
    assert found.points < is_out.sum()
    assert max(misses(alone, iv_fit, curve_of(7 / 365, 0.13))) < 0.05


def test_a_quote_wrong_and_tight_does_not_own_the_fit() -> None:
    legs = market(half_spread=1.0)
    clean = smiles.fitted(legs)[1]
    place = 2 * 66  # a call just above the forward
    for i in (place, place + 1):
        legs["iv"][i] += 0.02
        legs["spread"][i] = 0.0
    assert np.max(100 * np.abs(smiles.fitted(legs)[1] - clean)) < 0.03


def test_legs_with_a_last_price_alone_say_little() -> None:
    legs = market()
    clean = smiles.fitted(legs)[1]
    every_third = np.arange(legs["iv"].size) % 3 == 0
    legs["spread"][every_third] = np.nan
    legs["iv"][every_third] *= 1.02
    assert np.max(100 * np.abs(smiles.fitted(legs)[1] - clean)[80:-80]) < 0.03


def test_a_chain_of_last_prices_alone_has_a_smile() -> None:
    legs = market()
    legs["spread"][:] = np.nan
    found, iv_fit = smiles.fitted(legs)
    assert found.status == smile.OK
    assert max(misses(legs, iv_fit, curve_of(7 / 365, 0.13))) < 0.05


def test_a_mild_butterfly_is_bent_away() -> None:
    strikes = FORWARD * np.exp(np.linspace(-1.5, 1.5, 101))
    legs = legs_on(VOGT, 1.0, strikes)
    k = np.linspace(-1.5, 1.5, 5_001)
    found, iv_fit = smiles.fitted(legs)
    assert min(slow_smile.g(k, smile.SmileFit(**VOGT, error=0, points=0, status=0))) < -0.01
    assert found.status == smile.OK
    assert min(slow_smile.g(k, found)) > -1e-4
    near = np.abs(np.log(legs["strikes"] / FORWARD)) < 0.2
    assert (
        np.max(100 * np.abs(iv_fit - iv_on(VOGT, 1.0)(np.log(legs["strikes"] / FORWARD)))[near])
        < 0.1
    )


def test_quotes_that_hold_a_butterfly_are_flagged_and_followed() -> None:
    years, iv = 30 / 365, 0.15
    curve = curve_of(years, iv, level=0.114, slope=1.02, rho=-0.07, middle=0.8, breadth=0.12)
    legs = legs_on(curve, years, ladder(years, iv, reach=3.0))
    found, iv_fit = smiles.fitted(legs)
    k = np.log(ladder(years, iv, 2_001, reach=3.0) / FORWARD)
    assert min(slow_smile.g(k, found)) < -0.1
    assert found.status == smile.ARBITRAGE
    assert max(misses(legs, iv_fit, curve)) < 0.01


def test_volatilities_without_a_curve_are_poor() -> None:
    legs = market()
    noise = np.random.default_rng(1).normal(size=legs["iv"].size // 2)
    legs["iv"] = legs["iv"] * np.exp(0.1 * np.repeat(noise, 2))
    found, iv_fit = smiles.fitted(legs)
    assert found.status == smile.POOR
    assert found.error > 0.3
    assert np.isfinite(iv_fit).all()


def test_a_smile_that_is_not_one_line_but_two_is_poor() -> None:
    legs = market()
    strike = legs["strikes"]
    legs["iv"] = np.where(np.abs(strike - FORWARD) // 500 % 2 == 0, legs["iv"], legs["iv"] + 0.03)
    assert smiles.fitted(legs)[0].status == smile.POOR


def test_wide_quotes_excuse_what_tight_ones_do_not() -> None:
    legs = market()
    noise = np.random.default_rng(1).normal(size=legs["iv"].size // 2)
    legs["iv"] = legs["iv"] * np.exp(0.05 * np.repeat(noise, 2))
    assert smiles.fitted(legs)[0].status == smile.POOR
    assert smiles.fitted(legs, spread=np.full(legs["iv"].size, 15.0))[0].status == smile.OK


@pytest.mark.parametrize("iv", [0.1, 0.6])
def test_a_flat_smile_is_flat(iv: float) -> None:
    years = 30 / 365
    strikes = ladder(years, iv)
    legs = smiles.legs(strikes, lambda k: np.full(k.size, iv), forward=FORWARD, years=years)
    found, iv_fit = smiles.fitted(legs)
    assert found.status == smile.OK
    assert np.max(100 * np.abs(iv_fit - iv)) < 0.01


def test_a_smile_with_a_corner_keeps_it() -> None:
    years, iv = 7 / 365, 0.15
    curve = curve_of(years, iv, level=0.9, breadth=0.03, middle=0.3, rho=-0.2)
    legs = legs_on(curve, years, ladder(years, iv, 241))
    found, iv_fit = smiles.fitted(legs)
    assert found.status == smile.OK
    assert np.sqrt(np.mean(misses(legs, iv_fit, curve) ** 2)) < 0.05


@pytest.mark.parametrize("middle", [-0.3, 0.0, 0.3])
@pytest.mark.parametrize("breadth", [0.1, 0.3, 2.0])
def test_a_narrow_ladder_of_a_far_expiry_is_followed(middle: float, breadth: float) -> None:
    years, iv = 2.5, 0.4
    curve = curve_of(years, iv, middle=middle, breadth=breadth, rho=0.2, slope=0.8)
    legs = legs_on(curve, years, ladder(years, iv, 201, reach=0.5))
    found, iv_fit = smiles.fitted(legs)
    assert found.status == smile.OK
    true_iv = iv_on(curve, years)(np.log(legs["strikes"] / FORWARD))
    assert np.max(100 * np.abs(iv_fit - true_iv)) < 0.05


@pytest.mark.parametrize("is_call", [True, False], ids=["calls", "puts"])
def test_one_kind_alone_is_fitted_where_it_is_out_of_the_money(is_call: bool) -> None:
    legs = market()
    legs["status"] = np.where(legs["is_call"] == is_call, legs["status"], 8).astype(np.int8)
    found, iv_fit = smiles.fitted(legs)
    assert found.status == smile.OK
    assert np.isfinite(iv_fit).all()
    k = np.log(legs["strikes"] / FORWARD)
    side = (legs["status"] == 0) & (np.abs(k) < 0.03) & (k > 0 if is_call else k < 0)
    true_iv = iv_on(curve_of(7 / 365, 0.13), 7 / 365)(k)
    assert np.max(100 * np.abs(iv_fit - true_iv)[side]) < 0.05


def only(legs: dict[str, Any], strikes: int) -> dict[str, Any]:
    """The market with that many strikes round the forward solved, and the others not."""
    place = np.arange(legs["iv"].size) // 2
    is_kept = np.abs(place - 60) <= strikes // 2
    return legs | {"status": np.where(is_kept, legs["status"], 1).astype(np.int8)}


def test_five_strikes_are_enough_and_every_leg_has_its_fit() -> None:
    legs = only(market(), 5)
    found, iv_fit = smiles.fitted(legs)
    assert found.status == smile.OK
    assert 5 <= found.points <= 10
    assert np.isfinite(iv_fit).all()
    is_solved = legs["status"] == 0
    assert np.max(100 * np.abs(iv_fit - legs["iv"])[is_solved]) < 0.1


def assert_nothing(found: smile.SmileFit, iv_fit: Any) -> None:
    assert found.status == smile.NONE
    assert found.points == 0
    assert np.isnan(found[:6]).all()
    assert np.isnan(iv_fit).all()


def test_fewer_than_five_strikes_give_none() -> None:
    assert_nothing(*smiles.fitted(only(market(), 3)))


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["forward", "years"])
def test_without_forward_or_years_there_is_none(name: str, bad: float) -> None:
    assert_nothing(*smiles.fitted(market(), **{name: bad}))


def test_a_chain_without_legs_gives_none() -> None:
    legs = {name: c[:0] if np.ndim(c) else c for name, c in market().items()}
    assert_nothing(*smiles.fitted(legs))


def test_only_a_leg_without_a_strike_has_no_fit() -> None:
    legs = market()
    for i, strike in ((0, math.nan), (1, -5.0), (2, 0.0), (3, math.inf)):
        legs["strikes"][i] = strike
    found, iv_fit = smiles.fitted(legs)
    assert found.status == smile.OK
    assert np.isnan(iv_fit[:4]).all()
    assert np.isfinite(iv_fit[4:]).all()


def test_the_same_chain_gives_the_same_bytes_whatever_came_before() -> None:
    first, other = market(), stale(market(30 / 365), 0.2, seed=3)
    expected, iv_fit = smiles.fitted(first)
    smiles.fitted(other)
    spaced = {name: np.repeat(c, 2)[::2] if np.ndim(c) else c for name, c in first.items()}
    for column in first.values():
        if np.ndim(column):
            column.setflags(write=False)
    for legs in (first, spaced):
        again, iv_again = smiles.fitted(legs)
        assert np.array(again).tobytes() == np.array(expected).tobytes()
        assert iv_again.tobytes() == iv_fit.tobytes()


def test_butterfly_and_its_slopes_are_those_of_the_printed_formula() -> None:
    rng = np.random.default_rng(7)
    slope, ignored = np.empty(5), np.empty(5)
    for _ in range(50):
        curve = rng.uniform([0.2, 0.1, 0.1, -1, -1], [1, 1, 1, 1, 1])
        x, scale = rng.uniform(-3, 3), rng.uniform(0.01, 0.5)
        left, right = curve[svi.LEFT], curve[svi.RIGHT]
        raw = {
            "a": curve[svi.LEVEL] * scale**2,
            "b": (left + right) / 2 * scale,
            "rho": (right - left) / (right + left),
            "m": curve[svi.MIDDLE] * scale,
            "sigma": math.exp(curve[svi.BREADTH]) * scale,
        }
        printed = smile.SmileFit(**raw, error=0, points=0, status=0)
        expected = slow_smile.g(np.array([x * scale]), printed)[0]
        assert svi.butterfly(x, curve, scale, slope) == pytest.approx(expected, rel=1e-10)
        for i in range(5):
            step = np.zeros(5)
            step[i] = 1e-6
            above = svi.butterfly(x, curve + step, scale, ignored)
            below = svi.butterfly(x, curve - step, scale, ignored)
            assert slope[i] == pytest.approx((above - below) / 2e-6, rel=1e-5, abs=1e-6)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.floats(), st.sampled_from([90.0, 95.0, 100.0, 105.0, 110.0, 120.0])),
            st.booleans(),
            st.one_of(st.floats(), st.floats(0.05, 0.6)),
            st.one_of(st.floats(), st.floats(0.01, 10)),
            st.one_of(st.floats(), st.floats(0, 2)),
            st.sampled_from([0, 0, 0, 1, 8]),
        ),
        max_size=24,
    ),
    st.one_of(st.floats(), st.just(100.0)),
    st.one_of(st.floats(), st.floats(1e-4, 2)),
)
def test_any_legs_end_with_a_curve_or_with_none(
    rows: list[tuple[Any, ...]], forward: float, years: float
) -> None:
    columns = [np.array(c) for c in zip(*rows, strict=True)] if rows else [np.empty(0)] * 6
    iv_fit = np.empty(len(rows))
    status = columns[5].astype(np.int8)
    found = smile.fit(forward, years, *columns[:5], status, iv_fit)
    if found.status == smile.NONE:
        assert_nothing(found, iv_fit)
        return
    is_strike = (columns[0] > 0) & (columns[0] < math.inf)
    assert np.isfinite(found[:6]).all()
    assert (np.isfinite(iv_fit) == is_strike).all()
    assert found.b >= 0 < found.sigma
    assert abs(found.rho) < 1
    assert found.b * (1 + abs(found.rho)) <= 2 * (1 + 1e-12)
    depth = found.b * found.sigma * math.sqrt(1 - found.rho**2)
    assert found.a + depth >= -1e-12 * depth


def test_lengths_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        smiles.fitted(market(), spread=np.empty(3))
