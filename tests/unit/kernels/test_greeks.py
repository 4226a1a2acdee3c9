"""Greeks against the slow twin, finite differences and the provider's own printed rows."""

import csv
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.kernels import black, greeks
from pipeline.models import IvStatus
from tests.support import recordings, slow_greeks

EPSILON = np.finfo(float).eps
GREEKS = ("delta", "gamma", "theta", "vega", "rho")
FORWARD, DISCOUNT, YEARS = 25_000.0, math.exp(-0.065 * 7 / 365), 7 / 365


def solve(
    prices: Any,
    strikes: Any,
    is_call: Any,
    *,
    forward: Any = FORWARD,
    discount: Any = DISCOUNT,
    years: Any = YEARS,
    tick: float = greeks.TICK,
) -> dict[str, Any]:
    n = np.size(prices)
    columns = {name: np.full(n, 123.0) for name in ("iv", *GREEKS)}
    status = np.full(n, 99, np.int8)
    greeks.solve(
        *(forward, discount, years, strikes, is_call, prices), *columns.values(), status, tick
    )
    return columns | {"status": status}


def price(strike: Any, is_call: Any, iv: Any, **changes: Any) -> Any:
    fields = {"forward": FORWARD, "discount": DISCOUNT, "years": YEARS} | changes
    out = np.empty(np.size(strike))
    black.price(*fields.values(), strike, is_call, iv, out)
    return out


def assert_close(found: dict[str, Any], twin: slow_greeks.Values, iv: float) -> None:
    """The Greeks of a leg are as good as its volatility lets them be."""
    condition = float(twin.condition)
    # exp(-z²/2) turns a relative error e of the volatility into z²·e.
    spread = 1 + float(abs(slow_greeks.context.log(twin.time_value / FORWARD)))
    allowed = 20 * EPSILON * (1 + condition) * spread
    assert abs(found["delta"][0] - float(twin.delta)) <= allowed * abs(float(twin.delta))
    assert abs(found["gamma"][0] / float(twin.gamma) - 1) <= allowed
    assert abs(found["vega"][0] / float(twin.vega) - 1) <= allowed
    assert found["rho"][0] == pytest.approx(float(twin.rho), rel=4 * EPSILON)
    # ln(discount) near zero keeps fewer digits: ε/(rate·years) of the rate's part.
    decay = float(twin.vega) * 50 * iv / YEARS / 365
    rate_part = abs(float(twin.theta) + decay)
    slack = allowed * decay + 4 * EPSILON * rate_part / abs(math.log(DISCOUNT))
    assert abs(found["theta"][0] - float(twin.theta)) <= slack


@pytest.mark.parametrize("is_call", [True, False], ids=["call", "put"])
@pytest.mark.parametrize("strike", [20_000.0, 23_500.0, 24_950.0, 25_000.0, 25_700.0, 33_000.0])
@pytest.mark.parametrize("iv", [0.09, 0.35, 1.8, 9.0])
def test_greeks_agree_with_the_slow_twin(strike: float, is_call: bool, iv: float) -> None:
    twin = slow_greeks.black76(FORWARD, DISCOUNT, YEARS, strike, is_call, iv)
    if float(twin.condition) > 1e9:
        assert solve(float(twin.price), [strike], [is_call])["status"][0] in (1, 2, 3)
        return
    found = solve(float(twin.price), [strike], [is_call])
    implied = slow_greeks.implied(
        FORWARD, DISCOUNT, YEARS, strike, is_call, float(twin.price), near=iv
    )
    truth = slow_greeks.black76(FORWARD, DISCOUNT, YEARS, strike, is_call, implied)
    assert found["status"][0] in (IvStatus.OK, IvStatus.ILL_CONDITIONED)
    assert_close(found, truth, iv)


def test_greeks_of_every_reference_leg() -> None:
    folder = recordings.shared_dir()
    if folder is None or not (folder / "data/greeks/reference.csv").exists():
        pytest.skip("no reference values beside the checkout; the twin cases stand in")
    columns = ("delta_dV_dF", "gamma_d2V_dF2", "theta_per_year_F_fixed", "vega_per_1.00_vol")
    units = (1.0, 1.0, 365.0, 100.0, 100.0)
    compared = 0
    with (folder / "data/greeks/reference.csv").open() as lines:
        for row in csv.DictReader(lines):
            condition = float(row["b76_cond_price_over_sigma_vega"])
            if not condition < 1e3 or float(row["b76_price"]) < 1e-300:
                continue
            years = float(row["T_years"])
            found = solve(
                [float(row["b76_price"])],
                [float(row["K"])],
                [row["flag"] == "c"],
                forward=float(row["F_double"]),
                discount=math.exp(-float(row["r_cc"]) * years),
                years=years,
            )
            for name, column, unit in zip(GREEKS, (*columns, "rho_F_fixed"), units, strict=True):
                truth = float(row[f"b76_{column}"]) / unit
                assert found[name][0] == pytest.approx(truth, rel=3e-10, abs=1e-300), (
                    row["id"],
                    name,
                )
            compared += 1
    assert compared > 1_500


@settings(max_examples=25, deadline=None)
@given(
    distance=st.floats(-3, 3),
    iv=st.floats(0.05, 2.0),
    years=st.floats(0.001, 1.0),
    is_call=st.booleans(),
)
def test_greeks_are_the_slopes_of_the_price(
    distance: float, iv: float, years: float, is_call: bool
) -> None:
    deviation = iv * math.sqrt(years)
    strike = FORWARD * math.exp(distance * deviation)
    start = {"forward": FORWARD, "years": years, "iv": iv, "rate": 0.065}

    def value(**changes: Any) -> Any:
        at = start | changes
        discount = slow_greeks.context.exp(-slow_greeks.context.mpf(at["rate"]) * at["years"])
        return slow_greeks.black76(
            at["forward"], discount, at["years"], strike, is_call, at["iv"]
        ).price

    def slope(name: str) -> float:
        step = start[name] * 1e-6 * (deviation if name == "forward" else 1)
        up, down = start[name] + step, start[name] - step
        return float((value(**{name: up}) - value(**{name: down})) / (up - down))

    discount = math.exp(-0.065 * years)
    found = solve([float(value())], [strike], [is_call], discount=discount, years=years)
    step = FORWARD * deviation * 1e-4
    bend = value(forward=FORWARD + step) - 2 * value() + value(forward=FORWARD - step)
    assert found["delta"][0] == pytest.approx(slope("forward"), rel=1e-7)
    assert found["gamma"][0] == pytest.approx(float(bend) / step**2, rel=1e-6)
    assert found["vega"][0] == pytest.approx(slope("iv") / 100, rel=1e-7)
    assert found["rho"][0] == pytest.approx(slope("rate") / 100, rel=1e-7)
    assert found["theta"][0] == pytest.approx(-slope("years") / 365, rel=1e-6, abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.floats()] * 5, st.booleans()),
        min_size=1,
        max_size=8,
    )
)
def test_a_value_stands_exactly_where_the_status_says_so(legs: list[tuple[Any, ...]]) -> None:
    prices, strikes, forward, discount, years, kinds = (
        list(column) for column in zip(*legs, strict=True)
    )
    found = solve(prices, strikes, kinds, forward=forward, discount=discount, years=years)
    has_value = found["status"] <= IvStatus.ILL_CONDITIONED
    assert np.array_equal(np.isfinite(found["iv"]), has_value)
    for name in GREEKS:
        assert np.isnan(found[name][~has_value]).all()
    assert set(found["status"].tolist()) <= set(IvStatus) - {7, 8, 9}


def test_call_and_put_share_gamma_and_vega_and_differ_by_the_discount_in_delta() -> None:
    strikes = np.linspace(24_000, 26_000, 21)
    call, put = (
        solve(price(strikes, kind, np.full(21, 0.15)), strikes, kind)
        for kind in (np.ones(21, bool), np.zeros(21, bool))
    )
    assert call["gamma"] == pytest.approx(put["gamma"], rel=1e-9)
    assert call["vega"] == pytest.approx(put["vega"], rel=1e-9)
    assert call["delta"] - put["delta"] == pytest.approx(np.full(21, DISCOUNT), rel=1e-12)


def test_a_leg_is_ill_conditioned_when_half_a_tick_moves_its_volatility_by_a_tenth() -> None:
    strikes = np.arange(20_000.0, 25_050.0, 50.0)
    calls = np.ones(strikes.size, bool)
    found = solve(price(strikes, calls, np.full(strikes.size, 0.14)), strikes, calls)
    moved = 0.025 / (100 * found["vega"]) / found["iv"]
    said = found["status"] == IvStatus.ILL_CONDITIONED
    has_value = np.isfinite(found["iv"])
    assert np.array_equal(said[has_value], (moved > 0.1)[has_value])
    assert said.any()
    assert (found["status"][-10:] == IvStatus.OK).all()
    fine = solve(price(strikes, calls, np.full(strikes.size, 0.14)), strikes, calls, tick=0.0)
    assert (fine["status"] != IvStatus.ILL_CONDITIONED).all()
    assert fine["iv"].tobytes() == found["iv"].tobytes()


def test_a_leg_solves_to_the_same_bytes_alone_and_among_others() -> None:
    strikes = np.repeat(np.arange(22_000.0, 28_050.0, 50.0), 2)
    calls = np.arange(strikes.size) % 2 == 0
    prices = np.round(price(strikes, calls, np.full(strikes.size, 0.16)) / 0.05) * 0.05
    whole = solve(prices, strikes, calls)
    for i in range(strikes.size):
        alone = solve(prices[i : i + 1], strikes[i : i + 1], calls[i : i + 1])
        for name, column in whole.items():
            assert column[i : i + 1].tobytes() == alone[name].tobytes()


def test_read_only_and_unaligned_inputs_are_accepted() -> None:
    raw = b"\0" + np.array([300.0, 200.0]).tobytes()
    prices = np.frombuffer(raw, np.float64, offset=1)
    found = solve(prices, np.array([25_000.0, 25_100.0]), [True, True])
    assert (found["status"] == 0).all()


def test_lengths_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="differ in length"):
        solve([1.0, 2.0], [1.0], [True])
    with pytest.raises(ValueError, match="one element"):
        solve([1.0, 2.0], [1.0, 1.0], [True, True], years=[1.0, 2.0, 3.0])


COMPAT_SPOT = 23_092.19921875
COMPAT_YEARS = 476_056.44 / (365 * 86_400)
# Strike, call or put, last, and the provider's iv in percent, delta, theta, gamma and vega.
COMPAT_ROWS = [
    (23_100, True, 173.5, 14.11004510844025, 0.53039, -17.75888, 0.00099, 11.28596),
    (23_100, False, 159.4, 15.256751905649308, -0.47135, -12.60457, 0.00092, 11.28962),
    (22_500, False, 19.3, 16.646840366294196, -0.08783, -6.27373, 0.00034, 4.52441),
    (23_800, True, 9.7, 14.571162276177388, 0.05557, -4.55625, 0.00027, 3.18191),
]


@pytest.mark.parametrize("row", COMPAT_ROWS, ids=[f"{row[0]}-{row[1]}" for row in COMPAT_ROWS])
def test_compat_repeats_the_providers_row(row: tuple[Any, ...]) -> None:
    iv, *values = greeks.compat(COMPAT_SPOT, COMPAT_YEARS, *row[:3])
    assert float(iv) == pytest.approx(row[3], rel=1e-6)
    assert [float(value) for value in values] == list(row[4:])


def test_compat_of_arrays_is_compat_of_each() -> None:
    strikes, kinds, lasts = (np.array([row[i] for row in COMPAT_ROWS]) for i in range(3))
    whole = greeks.compat(COMPAT_SPOT, COMPAT_YEARS, strikes, kinds, lasts)
    assert [column.shape for column in whole] == [(4,)] * 5
    for i, row in enumerate(COMPAT_ROWS):
        alone = greeks.compat(COMPAT_SPOT, COMPAT_YEARS, *row[:3])
        assert [column[i] for column in whole] == [float(value) for value in alone]


def test_compat_zeroes_what_the_provider_zeroes() -> None:
    below_intrinsic = greeks.compat(COMPAT_SPOT, COMPAT_YEARS, 20_000.0, True, 3_000.0)
    never_traded_inside = greeks.compat(COMPAT_SPOT, COMPAT_YEARS, 20_000.0, True, 0.0)
    for values in (below_intrinsic, never_traded_inside):
        assert [float(value) for value in values] == [0.0] * 5
    iv, delta, theta, gamma, vega = greeks.compat(COMPAT_SPOT, COMPAT_YEARS, 30_000.0, True, 0.0)
    assert float(iv) > 0
    assert [float(delta), float(gamma), float(vega)] == [0.0] * 3
    assert float(theta) == 0.0
    assert math.copysign(1, float(theta)) == -1.0
