"""Implied volatility and the five Greeks of every leg of a chain, each leg with a status.

`solve` is Black-76 on the forward. `compat` repeats the provider's own arithmetic (spot, r = 10 %)
and exists only to validate against it; nothing that is stored comes from there.

With P = min(F, K)·n(z), z = |ln(F/K)|/s - s/2 and s = iv·√T (so that P = F·n(d1) = K·n(d2)):

    delta  D·N(d1), for puts -D·N(-d1)          dV/dF
    gamma  D·P/(F²·s)                           d²V/dF²
    vega   D·P·√T/100                           for one vol point
    theta  (r·V - D·P·s/(2T))/365, r = -ln(D)/T for one calendar day, forward fixed
    rho    -T·V/100                             for one percentage point, forward fixed
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.kernels.black import log_distance
from pipeline.kernels.compiling import Booleans, Floats, booleans, floats, kernel
from pipeline.kernels.gaussian import density, mills
from pipeline.kernels.implied import ILL_CONDITIONED, OK, solve_leg

TICK = 0.05  # rupees; the step of option prices on NSE and BSE
# A volatility that half a tick would move by more than this share of itself is ill-conditioned.
MOST_TICK_EFFECT = 0.1
_DAYS = 365.0

_COMPAT_RATE = 0.10
_COMPAT_DIGITS = 5
_COMPAT_UNTRADED_D1 = math.sqrt(1000.0)  # where the provider's solver stops on a price of zero


def solve(
    forward: ArrayLike,
    discount: ArrayLike,
    years: ArrayLike,
    strikes: ArrayLike,
    is_call: ArrayLike,
    prices: ArrayLike,
    out_iv: Floats,
    out_delta: Floats,
    out_gamma: Floats,
    out_theta: Floats,
    out_vega: Floats,
    out_rho: Floats,
    out_status: NDArray[np.int8],
    tick: float = TICK,
) -> None:
    """Implied volatility, Greeks and status of n legs, into the `out` arrays of length n.

    forward, discount and years are scalars or one element a leg; years of 365 days, prices in the
    forward's currency, iv decimal per year, Greeks in the units above. Status as `IvStatus`: 0 ok,
    1 ill_conditioned, else 2 to 7 with NaN in every output. ill_conditioned means that half a tick
    of price would move iv by more than a tenth of itself, to first order: tick/2 > iv·(dV/div)/10;
    the values are given all the same. `out_status` is int8 or uint8. Never raises on data;
    ValueError where lengths differ.
    """
    forward, discount, years = floats(forward), floats(discount), floats(years)
    strikes, is_call, prices = floats(strikes), booleans(is_call), floats(prices)
    outs = (out_iv, out_delta, out_gamma, out_theta, out_vega, out_rho)
    n = strikes.size
    if any(array.size != n for array in (is_call, prices, out_status, *outs)):
        raise ValueError("strikes, is_call, prices and the outputs differ in length")
    if any(array.size not in (1, n) for array in (forward, discount, years)):
        raise ValueError("forward, discount and years want one element, or one for each leg")
    _solve_legs(
        forward,
        discount,
        years,
        strikes,
        is_call,
        prices,
        tick,
        out_iv,
        out_delta,
        out_gamma,
        out_theta,
        out_vega,
        out_rho,
        out_status.view(np.int8),
    )


def compat(
    spot: ArrayLike, years: ArrayLike, strike: ArrayLike, is_call: ArrayLike, last: ArrayLike
) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """(iv in percent, delta, theta, gamma, vega) by the provider's own convention.

    Black-Scholes on spot at r = 10 %, theta per calendar day, vega per vol point, the Greeks
    rounded to five decimals. All zero where `last` is at or below the discounted intrinsic value;
    an out-of-the-money leg that never traded (last 0) has the provider's placeholder volatility.
    Arguments broadcast; `years` is by the provider's clock. For validation only.
    """
    spot, years, strike, last, is_call = np.broadcast_arrays(
        *(np.asarray(values, np.float64) for values in (spot, years, strike, last)),
        np.asarray(is_call, np.bool_),
    )
    discount = np.exp(-_COMPAT_RATE * years)
    iv, delta, gamma, theta, vega, rho = (np.zeros(spot.shape) for _ in range(6))
    solve(
        np.ravel(spot / discount),
        np.ravel(discount),
        np.ravel(years),
        np.ravel(strike),
        np.ravel(is_call),
        np.ravel(last),
        iv.reshape(-1),
        delta.reshape(-1),
        gamma.reshape(-1),
        theta.reshape(-1),
        vega.reshape(-1),
        rho.reshape(-1),
        np.zeros(spot.size, np.int8),
    )
    # From forward to spot: delta is the same N(d1); gamma gains 1/D²; theta loses what the
    # forward's own drift would earn.
    gamma = gamma / discount**2
    theta = theta - _COMPAT_RATE * delta * spot / discount / _DAYS
    delta = delta / discount
    sign = np.where(is_call, 1.0, -1.0)
    is_out = sign * (spot - strike * discount) < 0.0
    is_untraded = (last == 0.0) & is_out
    distance = np.abs(np.log(spot / discount / strike))
    placeholder = distance / (_COMPAT_UNTRADED_D1 * np.sqrt(years))
    is_zero = (last <= np.maximum(sign * (spot - strike * discount), 0.0)) | is_untraded
    iv = np.where(is_untraded, placeholder, np.where(is_zero, 0.0, iv))
    zero_theta = np.where(is_untraded, -0.0, 0.0)
    return (
        100.0 * iv,
        _printed(np.where(is_zero, 0.0, delta)),
        _printed(np.where(is_zero, zero_theta, theta)),
        _printed(np.where(is_zero, 0.0, gamma)),
        _printed(np.where(is_zero, 0.0, vega)),
    )


def _printed(values: Floats) -> Floats:
    return np.round(values, _COMPAT_DIGITS)


@kernel
def upper_tail_pair(
    forward: float, strike: float, x: float, s: float, peak: float
) -> tuple[float, float]:
    """(N(d1), N(-d1)), the smaller of the two without cancellation; `peak` is n(z)."""
    y = x / s
    h = 0.5 * s
    if forward >= strike:  # d1 = y + h, and n(d1) = n(z)·K/F
        small = peak * (strike / forward) * mills(y + h)
        return 1.0 - small, small
    z = y - h  # d1 = -z
    if z >= 0.0:
        small = peak * mills(z)
        return small, 1.0 - small
    small = peak * mills(-z)
    return 1.0 - small, small


@kernel
def _solve_legs(
    forward: Floats,
    discount: Floats,
    years: Floats,
    strikes: Floats,
    is_call: Booleans,
    prices: Floats,
    tick: float,
    out_iv: Floats,
    out_delta: Floats,
    out_gamma: Floats,
    out_theta: Floats,
    out_vega: Floats,
    out_rho: Floats,
    out_status: NDArray[np.int8],
) -> None:
    forward_step = 1 if forward.size > 1 else 0
    discount_step = 1 if discount.size > 1 else 0
    years_step = 1 if years.size > 1 else 0
    for i in range(strikes.size):
        f = forward[i * forward_step]
        d = discount[i * discount_step]
        t = years[i * years_step]
        k = strikes[i]
        s, status = solve_leg(f, d, t, k, is_call[i], prices[i])
        if status != OK:
            out_status[i] = status
            out_iv[i] = out_delta[i] = out_gamma[i] = np.nan
            out_theta[i] = out_vega[i] = out_rho[i] = np.nan
            continue
        x = log_distance(f, k)
        root = math.sqrt(t)
        peak = density(x / s - 0.5 * s)
        weight = d * min(f, k) * peak
        above, below = upper_tail_pair(f, k, x, s, peak)
        out_iv[i] = s / root
        out_delta[i] = d * above if is_call[i] else -d * below
        out_gamma[i] = weight / (f * f * s)
        out_theta[i] = (-math.log(d) * prices[i] - 0.5 * weight * s) / (t * _DAYS)
        out_vega[i] = 0.01 * weight * root
        out_rho[i] = -0.01 * t * prices[i]
        is_ill = 0.5 * tick > MOST_TICK_EFFECT * s * weight
        out_status[i] = ILL_CONDITIONED if is_ill else OK
