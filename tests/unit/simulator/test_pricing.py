"""The provider's own IV and Greeks, against its published digits."""

import json
import math

import numpy as np
import pytest

from tests.support.recordings import shared_dir
from workers.simulator import pricing

SPOT, YEARS = 23092.19921875, 476056.44 / (365 * 86_400)


def greeks_of(
    strike: float, is_call: bool, price: float, spot: float = SPOT, years: float = YEARS
) -> pricing.ProviderGreeks:
    spots, strikes, left, prices = (np.array([one]) for one in (spot, strike, years, price))
    guess = np.array([0.2])
    return pricing.provider_greeks(spots, strikes, left, prices, np.array([is_call]), guess)


@pytest.mark.parametrize(
    ("strike", "is_call", "last", "iv_percent", "greeks"),
    [
        (23100, True, 173.5, 14.11004510844025, ["0.53039", "-17.75888", "0.00099", "11.28596"]),
        (23100, False, 159.4, 15.256751905649308, ["-0.47135", "-12.60457", "0.00092", "11.28962"]),
        (22500, False, 19.3, 16.646840366294196, ["-0.08783", "-6.27373", "0.00034", "4.52441"]),
        (23800, True, 9.7, 14.571162276177388, ["0.05557", "-4.55625", "0.00027", "3.18191"]),
    ],
    ids=["23100 CE", "23100 PE", "22500 PE", "23800 CE"],
)
def test_published_vectors_are_met_to_the_last_printed_digit(
    strike: float, is_call: bool, last: float, iv_percent: float, greeks: list[str]
) -> None:
    found = greeks_of(strike, is_call, last)
    # The instant of computation is known to about 0.2 s of 5.5 days.
    assert float(found.iv[0]) * 100 == pytest.approx(iv_percent, rel=1e-6)
    printed = [f"{float(one[0]):.5f}" for one in found[1:]]
    assert printed == greeks


@pytest.mark.parametrize(
    ("strike", "is_call", "price"),
    [
        pytest.param(22000.0, True, 1000.0, id="call below intrinsic"),
        pytest.param(24000.0, False, 500.0, id="put below intrinsic"),
        pytest.param(22000.0, True, 0.0, id="untraded call in the money"),
        pytest.param(24000.0, False, 0.0, id="untraded put in the money"),
    ],
)
def test_no_time_value_means_zero_iv_and_greeks(strike: float, is_call: bool, price: float) -> None:
    found = greeks_of(strike, is_call, price)
    assert [float(one[0]) for one in found] == [0.0] * 5
    assert math.copysign(1.0, float(found.theta[0])) == 1.0


@pytest.mark.parametrize(("strike", "is_call"), [(26000.0, True), (19000.0, False)])
def test_untraded_leg_out_of_the_money_has_a_placeholder_iv_and_theta_minus_zero(
    strike: float, is_call: bool
) -> None:
    found = greeks_of(strike, is_call, 0.0)
    forward = SPOT * math.exp(0.10 * YEARS)
    expected = abs(math.log(forward / strike)) / (31.62 * math.sqrt(YEARS))
    assert float(found.iv[0]) == pytest.approx(expected, rel=1e-3)
    assert [f"{float(one[0]):.5f}" for one in found[1:]] == [
        *("0.00000", "-0.00000", "0.00000", "0.00000")
    ]


def test_placeholder_iv_agrees_with_every_untraded_leg_of_a_recorded_chain() -> None:
    shared = shared_dir()
    if shared is None:
        pytest.skip("no recorded chains beside the checkout")
    name = "dhan_v2_optionchain_NIFTY_exp20250130_at20250125T084310Z_closed.json"
    data = json.loads((shared / "data/dhan" / name).read_bytes())["data"]
    checked = 0
    for strike, sides in data["oc"].items():
        for kind, leg in sides.items():
            if leg["last_price"] == 0 and leg["implied_volatility"] > 0:
                found = greeks_of(float(strike), kind == "ce", 0.0, data["last_price"])
                assert float(found.iv[0]) * 100 == pytest.approx(
                    leg["implied_volatility"], rel=2.5e-3
                )
                checked += 1
    assert checked == 140


def test_iv_gives_back_the_price_it_came_from() -> None:
    strike = np.arange(18_000.0, 28_001.0, 250.0)
    count = len(strike)
    spot, years = np.full(count, 23_000.0), np.full(count, 9.0 / 365.0)
    iv = np.linspace(0.35, 0.6, count)
    forward = spot * np.exp(0.10 * years)
    cheap = pricing.out_of_the_money(forward, strike, iv * np.sqrt(years)) * np.exp(-0.10 * years)
    is_call = strike >= forward
    found = pricing.implied_volatility(spot, strike, years, cheap, is_call, np.full(count, 0.2))
    assert np.all(cheap > 1e-9)
    np.testing.assert_allclose(found, iv, rtol=1e-9)


def test_normal_cdf_is_exact_in_both_tails() -> None:
    found = pricing.normal_cdf(np.array([-30.0, -5.0, 0.0, 5.0]))
    np.testing.assert_allclose(
        found, [4.906713927148187e-198, 2.866515718791939e-07, 0.5, 0.9999997133484281], rtol=1e-12
    )
