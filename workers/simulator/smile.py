"""The truth behind the simulated prices: forward and volatility smile of an expiry at an instant.

Pure. Prices are Black-76 on the forward given here, with a smile of the SSVI family (Gatheral and
Jacquier, 2014) inside its bound, so that no butterfly and no negative time value can be bought.
A test may ask for the forward that put-call parity must find again.
"""

from datetime import date
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.clock import SECOND_NS, YEAR_S, expiry_ns
from workers.simulator import paths, pricing
from workers.simulator.exchange import Underlying, day_start_ns, market_day

Floats: TypeAlias = NDArray[np.float64]

RATE = 0.065  # continuous, per year; discounts the options
_DIVIDENDS = 0.012  # per year, off the carry
_SKEW = -0.25
_WINGS = 1.1  # _WINGS² · (1 + |_SKEW|) must stay below 4
_FAR_LIFT, _FAR_YEARS = 0.10, 0.35  # volatility rises by a tenth towards far expiries
_NEAR_LIFT, _NEAR_YEARS = 0.18, 2.0 / 365.0  # and in the last days of an expiry
_LEAST_YEARS = 1.0 / YEAR_S


class Truth(NamedTuple):
    """The market as it truly is, for one or many instants; prices are discounted, in rupees."""

    spot: Floats
    forward: Floats
    years: Floats
    iv: Floats
    call: Floats
    put: Floats


def forward(seed: int, underlying: Underlying, expiry: date, ts_ns: int) -> float:
    """The true forward of an expiry at an instant, in rupees."""
    day = market_day(ts_ns)
    since_s = np.array([(ts_ns - day_start_ns(day)) / SECOND_NS])
    spot = paths.at_seconds(paths.spot_path(seed, underlying, day), since_s)
    return float(_forward(seed, underlying, day, since_s, spot, years(expiry, day, since_s))[0])


def truth(
    seed: int, underlying: Underlying, expiry: date, day: int, since_s: Floats, strike: Floats
) -> Truth:
    """Both options of each strike at `since_s` seconds into a market day (broadcast)."""
    spot = paths.at_seconds(paths.spot_path(seed, underlying, day), since_s)
    level = paths.at_seconds(paths.level_path(seed, underlying, day), since_s, 60)
    left = years(expiry, day, since_s)
    term = 1.0 + _FAR_LIFT * (1.0 - np.exp(-left / _FAR_YEARS))
    term += _NEAR_LIFT * np.exp(-left / _NEAR_YEARS)
    at_money = underlying.iv * level * term * np.sqrt(left)
    future = _forward(seed, underlying, day, since_s, spot, left)
    deviation = _deviation(np.log(strike / future), at_money)
    future, deviation, strike = np.broadcast_arrays(future, deviation, strike)
    discount = np.exp(-RATE * left)
    cheap = discount * pricing.out_of_the_money(future, strike, deviation)
    intrinsic = discount * (future - strike)
    call = cheap + np.maximum(intrinsic, 0.0)
    put = cheap + np.maximum(-intrinsic, 0.0)
    return Truth(spot, future, left, deviation / np.sqrt(left), call, put)


def years(expiry: date, day: int, since_s: Floats) -> Floats:
    """Years to 15:30 IST of the expiry, never below one second."""
    left_s = (expiry_ns(expiry) - day_start_ns(day)) / SECOND_NS - since_s
    return np.maximum(left_s / YEAR_S, _LEAST_YEARS)


def _forward(
    seed: int, underlying: Underlying, day: int, since_s: Floats, spot: Floats, left: Floats
) -> Floats:
    noise = paths.at_seconds(paths.basis_path(seed, underlying, day), since_s, 60)
    # The basis of an expiry vanishes as it settles: full size from three weeks on.
    future: Floats = spot * np.exp((RATE - _DIVIDENDS) * left)
    future = future * (1.0 + noise * np.minimum(np.sqrt(left * 365.0 / 21.0), 1.0))
    return future


def _deviation(log_moneyness: Floats, at_money: Floats) -> Floats:
    """σ√T of each strike; `at_money` is that at the forward."""
    scaled = _WINGS * log_moneyness / at_money
    wings = np.sqrt((scaled + _SKEW) ** 2 + (1.0 - _SKEW**2))
    deviation: Floats = at_money * np.sqrt(0.5 * (1.0 + _SKEW * scaled + wings))
    return deviation
