"""Implied volatility of one leg: bounds, a seed, and a bracketed fourth-order iteration.

Solves ln(price share) for s = iv·√years: for the time value where it is the smaller part of its
maximum, for what is missing to the maximum where that is smaller, so that neither end of the
price range loses accuracy. Never raises on data; every leg ends with a status.
"""

import math

import numpy as np

from pipeline.kernels.black import log_distance
from pipeline.kernels.compiling import kernel
from pipeline.kernels.gaussian import ROOT_TWO_PI, mills, mills_difference
from pipeline.kernels.statuses import (
    ABOVE_MAXIMUM,
    AT_INTRINSIC,
    BELOW_INTRINSIC,
    EXPIRED,
    INVALID,
    NOT_CONVERGED,
    OK,
)

EPSILON = 2.220446049250313e-16
# Forward, strike and discount outside this range are no market's; inside it nothing overflows.
LEAST = 1e-100
MOST = 1e100
# Inverse of the Bachelier price: with t = ln(1 + x/share) and v = √(t+1), y = t/v·top(v)/bottom(v)
# to 2.8e-5 for y up to 46. tests/support/fit_constants.py derives it.
_SEED_TOP = (
    0.030492896142238594,
    0.26849606492561645,
    0.12623077331906443,
    -0.09312776042261234,
    0.05752502880756819,
)
_SEED_BOTTOM = (
    1.0,
    -0.23211882371141976,
    0.22953426868673465,
    -0.06139086413622219,
    0.040627544677910236,
)
_TINY_SHARE = 1e-280  # below it the share is scaled up, to stay clear of subnormal numbers
_LIFT = 2.0**900
_LOG_LIFT = 623.8324625039508
_TINY_VOLATILITY = 1e-300  # only at the money; it cannot be told from none
_UPPER_SPAN = 45.0  # no price that differs from its maximum needs h - y beyond this
_CLOSE = 1e-4  # a step this small leaves an error of its fourth power
_MOST_STEPS = 200  # bisection alone would need fewer; five are the rule


@kernel
def solve_leg(
    forward: float, discount: float, years: float, strike: float, is_call: bool, price: float
) -> tuple[float, int]:
    """(s = iv·√years, status) of a leg; s is NaN unless the status is OK.

    A price within one rounding of its discounted intrinsic value is AT_INTRINSIC; one at, above or
    within one rounding of what volatility can reach is ABOVE_MAXIMUM.
    """
    if years <= 0.0:
        return np.nan, EXPIRED
    if not (
        LEAST <= forward <= MOST
        and LEAST <= strike <= MOST
        and LEAST <= discount <= MOST
        and years <= MOST
        and 0.0 <= price < np.inf
    ):
        return np.nan, INVALID
    intrinsic = max(forward - strike if is_call else strike - forward, 0.0)
    excess = price - discount * intrinsic
    if excess <= EPSILON * price:
        return np.nan, BELOW_INTRINSIC if excess < -EPSILON * price else AT_INTRINSIC
    ceiling = discount * (forward if is_call else strike)
    room = ceiling - price
    if room <= EPSILON * ceiling:
        return np.nan, ABOVE_MAXIMUM
    x = log_distance(forward, strike)
    unit = discount * min(forward, strike)
    if room < excess:
        return _solve_upper(x, room / unit)
    return _solve_lower(x, excess, unit)


@kernel
def _solve_lower(x: float, excess: float, unit: float) -> tuple[float, int]:
    share = excess / unit
    lift = 0.0
    if share < _TINY_SHARE and x > 0.0:
        share = excess * _LIFT / unit
        lift = _LOG_LIFT
    most = 0.7 + math.sqrt(0.5 + 2.0 * x)  # where the share is above one half
    seed = min(_seed_lower(x, excess / unit, math.log(share) - lift), most)
    if seed < _TINY_VOLATILITY:
        return np.nan, AT_INTRINSIC
    return _iterate(x, share, lift, False, seed, 0.0, most)


@kernel
def _solve_upper(x: float, share: float) -> tuple[float, int]:
    # N(-z) is near exp(-z²/2 - 0.8z)/2; from z = h - y follows s.
    z = math.sqrt(0.64 - 2.0 * math.log(share)) - 0.8
    seed = z + math.sqrt(z * z + 2.0 * x)
    most = _UPPER_SPAN + math.sqrt(_UPPER_SPAN * _UPPER_SPAN + 2.0 * x)
    return _iterate(x, share, 0.0, True, seed, math.sqrt(2.0 * x), most)


@kernel
def _seed_lower(x: float, share: float, log_share: float) -> float:
    scaled = share * math.exp(-0.5 * x)
    if x == 0.0 or x < 1e10 * scaled:
        ratio = x / scaled if x > 0.0 else 0.0
        t = math.log1p(ratio)
        base = scaled if ratio < 1e-8 else x / t
    else:
        t = math.log(x) + 0.5 * x - log_share
        base = x / t
    v = math.sqrt(t + 1.0)
    top = _SEED_TOP[4]
    bottom = _SEED_BOTTOM[4]
    for power in range(3, -1, -1):
        top = top * v + _SEED_TOP[power]
        bottom = bottom * v + _SEED_BOTTOM[power]
    return base * v * bottom / top


@kernel
def _iterate(
    x: float, share: float, lift: float, is_upper: bool, seed: float, least: float, most: float
) -> tuple[float, int]:
    """Householder's fourth-order step on the logarithm of the share, kept inside a bracket."""
    s = seed
    scale = share * ROOT_TWO_PI
    for _ in range(_MOST_STEPS):
        y = x / s
        h = 0.5 * s
        z = y - h
        # The share is n(z)·amplitude; the share missing to the maximum enters with a minus sign.
        amplitude = -(mills(-z) + mills(y + h)) if is_upper else mills_difference(y, h)
        miss = math.log(abs(amplitude) / scale) + lift - 0.5 * z * z
        is_low = (miss > 0.0) if is_upper else (miss < 0.0)
        if is_low:
            least = s
        else:
            most = s
        # Newton's step and the ratios of the higher derivatives to the first, in units of s.
        newton = -miss * amplitude / s
        slope = s / amplitude
        second = y * y - h * h - slope
        third = second * second - (3.0 * y * y + h * h) - second * slope
        step = (
            newton
            * (1.0 + 0.5 * second * newton)
            / (1.0 + newton * (second + third * newton / 6.0))
        )
        if abs(step) <= _CLOSE:
            return s + s * step, OK
        s += s * step
        if not least < s < most:
            s = 0.5 * (least + most)
            if most - least <= 4.0 * EPSILON * s:
                return s, OK
    return np.nan, NOT_CONVERGED
