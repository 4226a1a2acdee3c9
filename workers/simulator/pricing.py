"""Option formulas of the simulated exchange: Black-76 for its prices, and the provider's Greeks.

Written for this package alone and built on `math.erfc`, so that it can check what the numba
kernels give. Arrays in, arrays out; years of 365 days, volatility as a decimal per year.
"""

import math
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Flags: TypeAlias = NDArray[np.bool_]

PROVIDER_RATE = 0.10  # continuous, per year; what the provider's own Greeks are computed with
# |d1| of the volatility that the provider prints for a leg that never traded
UNTRADED_D1 = math.sqrt(1000.0)
_VOLATILITY_BOUNDS = (1e-4, 50.0)
_TOLERANCE = 1e-12
_MAX_STEPS = 60
_ROOT_TWO = math.sqrt(2.0)
_ROOT_TWO_PI = math.sqrt(2.0 * math.pi)


class ProviderGreeks(NamedTuple):
    """What the provider prints: IV as a decimal, theta per calendar day, vega per vol point."""

    iv: Floats
    delta: Floats
    theta: Floats
    gamma: Floats
    vega: Floats


def normal_cdf(x: Floats) -> Floats:
    """The standard normal distribution function, exact to a few ulp in the lower tail too."""
    scaled = (x / -_ROOT_TWO).ravel().tolist()
    doubled = np.fromiter(map(math.erfc, scaled), np.float64, len(scaled))
    return 0.5 * doubled.reshape(x.shape)


def out_of_the_money(forward: Floats, strike: Floats, deviation: Floats) -> Floats:
    """Undiscounted Black-76 value of the out-of-the-money option; deviation is σ√T.

    Put-call parity gives the other one: add |forward − strike|.
    """
    sign = np.where(strike >= forward, 1.0, -1.0)
    d1 = np.log(forward / strike) / deviation + 0.5 * deviation
    both = normal_cdf(np.stack((sign * d1, sign * (d1 - deviation))))
    value: Floats = np.maximum(sign * (forward * both[0] - strike * both[1]), 0.0)
    return value


def implied_volatility(
    spot: Floats, strike: Floats, years: Floats, price: Floats, is_call: Flags, guess: Floats
) -> Floats:
    """The provider's IV, decimal per year: Black-Scholes on spot at its 10 %, to the last bit.

    0 where the price is at or below the discounted intrinsic value.
    """
    discounted = strike * np.exp(-PROVIDER_RATE * years)
    intrinsic = np.where(is_call, spot - discounted, discounted - spot)
    time_value = price - np.maximum(intrinsic, 0.0)
    solvable = (price > 0.0) & (price > intrinsic) & (time_value > 0.0)
    iv = np.zeros_like(price)
    if solvable.any():
        forward = spot[solvable] * np.exp(PROVIDER_RATE * years[solvable])
        target = time_value[solvable] * np.exp(PROVIDER_RATE * years[solvable])
        root = np.sqrt(years[solvable])
        start = guess[solvable] * root
        iv[solvable] = _solve_deviation(forward, strike[solvable], target, start) / root
    return iv


def provider_greeks(
    spot: Floats, strike: Floats, years: Floats, price: Floats, is_call: Flags, guess: Floats
) -> ProviderGreeks:
    """IV and Greeks as the provider computes them for each leg, its zero rules included.

    A leg that never traded (price 0) has a placeholder IV when it is out of the money, and none
    when it is in the money.
    """
    iv = implied_volatility(spot, strike, years, price, is_call, guess)
    log_moneyness = np.log(spot / strike) + PROVIDER_RATE * years
    is_placeholder = (price == 0.0) & (is_call == (log_moneyness < 0.0))
    placeholder = np.abs(log_moneyness) / (UNTRADED_D1 * np.sqrt(years))
    iv = np.where(is_placeholder, placeholder, iv)
    has_iv = iv > 0.0
    greeks = [np.where(has_iv, one, 0.0) for one in _greeks(spot, strike, years, iv, is_call)]
    return ProviderGreeks(iv, *greeks)


def _greeks(
    spot: Floats, strike: Floats, years: Floats, iv: Floats, is_call: Flags
) -> tuple[Floats, Floats, Floats, Floats]:
    root = np.sqrt(years)
    deviation = np.where(iv > 0.0, iv, 1.0) * root
    drift = PROVIDER_RATE * years
    d1 = (np.log(spot / strike) + drift) / deviation + 0.5 * deviation
    d2 = d1 - deviation
    density = np.exp(-0.5 * d1 * d1) / _ROOT_TWO_PI
    sign = np.where(is_call, 1.0, -1.0)
    cdf = normal_cdf(np.stack((d1, sign * d2)))
    delta = np.where(is_call, cdf[0], cdf[0] - 1.0)
    carry = sign * PROVIDER_RATE * strike * np.exp(-drift) * cdf[1]
    theta = (-spot * density * iv / (2.0 * root) - carry) / 365.0
    gamma = density / (spot * deviation)
    return delta, theta, gamma, spot * density * root / 100.0


def _solve_deviation(forward: Floats, strike: Floats, target: Floats, start: Floats) -> Floats:
    """σ√T at which the out-of-the-money option is worth `target`.

    Newton on the logarithm of the price: it is concave in σ, so that after one step the iteration
    climbs to the root from below and cannot run away. Each element stops by itself, so that its
    digits do not depend on what is solved beside it.
    """
    deviation = np.clip(start, *_VOLATILITY_BOUNDS)
    is_settled = np.zeros(deviation.shape, np.bool_)
    for _ in range(_MAX_STEPS):
        value = out_of_the_money(forward, strike, deviation)
        d1 = np.log(forward / strike) / deviation + 0.5 * deviation
        vega = forward * np.exp(-0.5 * d1 * d1) / _ROOT_TWO_PI
        is_usable = (value > 0.0) & (vega > 0.0)
        ratio = np.where(is_usable, value / target, 1.0)
        step = -np.log(ratio) * value / np.where(is_usable, vega, 1.0)
        moved = np.where(is_usable, deviation + step, deviation * 2.0)
        moved = np.clip(moved, deviation / 4.0, deviation * 4.0)
        moved = np.where(is_settled, deviation, moved)
        is_settled = np.abs(moved - deviation) <= _TOLERANCE * moved
        deviation = moved
        if is_settled.all():
            break
    return deviation
