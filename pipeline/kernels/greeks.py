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

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.kernels import block
from pipeline.kernels.block import SIZE
from pipeline.kernels.compiling import Booleans, Floats, Integers, booleans, floats, kernel
from pipeline.kernels.gaussian import INVERSE_ROOT_TWO_PI
from pipeline.kernels.implied import (
    exponentials,
    mills_ratios,
    solve_near,
    solve_rest,
    solve_wide,
)
from pipeline.kernels.statuses import ILL_CONDITIONED

TICK = 0.05  # rupees; the step of option prices on NSE and BSE
# A volatility that half a tick would move by more than this share of itself is ill-conditioned.
MOST_TICK_EFFECT = 0.1
_DAYS = 365.0

_COMPAT_RATE = 0.10
_COMPAT_DIGITS = 5
_COMPAT_UNTRADED_D1 = np.sqrt(1000.0)  # where the provider's solver stops on a price of zero

# The lines that hold the results once a block is finished.
_IV = block.FIRST
_DELTA = block.SECOND
_GAMMA = block.THIRD
_THETA = block.X
_VEGA = block.Y
_RHO = block.BY_SHARE
_STATUS = block.IS_UPPER
_ILL = np.float64(ILL_CONDITIONED)

_FITS = 0
_LENGTHS_DIFFER = 1
_TERMS_DIFFER = 2
_MISFITS = {
    _LENGTHS_DIFFER: "strikes, is_call, prices and the outputs differ in length",
    _TERMS_DIFFER: "forward, discount and years want one element, or one for each leg",
}


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
    found = _solve_legs(
        *(floats(forward), floats(discount), floats(years)),
        floats(strikes),
        booleans(is_call),
        floats(prices),
        tick,
        True,
        *(out_iv, out_delta, out_gamma, out_theta, out_vega, out_rho),
        out_status.view(np.int8),
    )
    if found != _FITS:
        raise ValueError(_MISFITS[found])


def volatilities(
    forward: ArrayLike,
    discount: ArrayLike,
    years: ArrayLike,
    strikes: ArrayLike,
    is_call: ArrayLike,
    prices: ArrayLike,
    out_iv: Floats,
    out_status: NDArray[np.int8],
    tick: float = TICK,
) -> None:
    """As `solve`, without the Greeks."""
    found = _solve_legs(
        *(floats(forward), floats(discount), floats(years)),
        floats(strikes),
        booleans(is_call),
        floats(prices),
        tick,
        False,
        *(out_iv, out_iv, out_iv, out_iv, out_iv, out_iv),
        out_status.view(np.int8),
    )
    if found != _FITS:
        raise ValueError(_MISFITS[found])


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
def _solve_legs(
    forward: Floats,
    discount: Floats,
    years: Floats,
    strikes: Floats,
    is_call: Booleans,
    prices: Floats,
    tick: float,
    has_greeks: bool,
    out_iv: Floats,
    out_delta: Floats,
    out_gamma: Floats,
    out_theta: Floats,
    out_vega: Floats,
    out_rho: Floats,
    out_status: NDArray[np.int8],
) -> int:
    """What is wrong with the lengths, or FITS; the block's legs first, the far ones behind."""
    n = strikes.size
    if not (n == is_call.size == prices.size == out_status.size == out_iv.size):
        return _LENGTHS_DIFFER
    if has_greeks and not (
        n == out_delta.size == out_gamma.size == out_theta.size == out_vega.size == out_rho.size
    ):
        return _LENGTHS_DIFFER
    for size in (forward.size, discount.size, years.size):
        if size not in (1, n):
            return _TERMS_DIFFER
    scratch = np.empty(block.LINES * SIZE)
    far = np.empty(block.LINES * SIZE)
    places = np.empty(SIZE, np.int64)
    waiting = 0
    block.fill(scratch, forward[0], discount[0], years[0])
    block.fill(far, 1.0, 1.0, 1.0)
    block.derive_terms(scratch)
    for start in range(0, n, SIZE):
        count = min(SIZE, n - start)
        block.load_legs(scratch, strikes, is_call, prices, start, count)
        if block.load_terms(scratch, forward, discount, years, start, count):
            block.derive_terms(scratch)
        solve_near(scratch)
        _finish(scratch, tick)
        block.store_line(scratch, _IV, out_iv, start, count)
        block.store_status(scratch, _STATUS, out_status, start, count)
        if has_greeks:
            block.store_line(scratch, _DELTA, out_delta, start, count)
            block.store_line(scratch, _GAMMA, out_gamma, start, count)
            block.store_line(scratch, _THETA, out_theta, start, count)
            block.store_line(scratch, _VEGA, out_vega, start, count)
            block.store_line(scratch, _RHO, out_rho, start, count)
        for i in range(count):
            if scratch[block.IS_OPEN + i] != 0.0 and scratch[block.STATUS + i] == 0.0:
                block.move_leg(scratch, i, far, waiting)
                places[waiting] = start + i
                waiting += 1
            if waiting == SIZE or (waiting > 0 and start + i == n - 1):
                _solve_far(
                    far,
                    places,
                    waiting,
                    tick,
                    has_greeks,
                    *(out_iv, out_delta, out_gamma, out_theta, out_vega, out_rho),
                    out_status,
                )
                waiting = 0
    return _FITS


@kernel
def _solve_far(
    far: Floats,
    places: Integers,
    count: int,
    tick: float,
    has_greeks: bool,
    out_iv: Floats,
    out_delta: Floats,
    out_gamma: Floats,
    out_theta: Floats,
    out_vega: Floats,
    out_rho: Floats,
    out_status: NDArray[np.int8],
) -> None:
    """Legs that one step did not solve, put back where they came from."""
    solve_wide(far)
    solve_rest(far, count)
    _finish(far, tick)
    for i in range(count):
        place = places[i]
        out_iv[place] = far[_IV + i]
        out_status[place] = np.int8(far[_STATUS + i])
        if has_greeks:
            out_delta[place] = far[_DELTA + i]
            out_gamma[place] = far[_GAMMA + i]
            out_theta[place] = far[_THETA + i]
            out_vega[place] = far[_VEGA + i]
            out_rho[place] = far[_RHO + i]


@kernel
def _finish(scratch: Floats, tick: float) -> None:
    """Volatility, Greeks and status of a block whose S and BY_S are there."""
    for i in range(SIZE):
        s = scratch[block.S + i]
        y = scratch[block.X + i] * scratch[block.BY_S + i]
        z = y - 0.5 * s
        d1 = (y + 0.5 * s) if scratch[block.FORWARD + i] >= scratch[block.STRIKE + i] else -z
        scratch[block.FIRST + i] = -0.5 * z * z
        scratch[block.Y + i] = abs(d1)
        scratch[block.THIRD + i] = d1 * scratch[block.SIDE + i]
    exponentials(scratch, block.FIRST)
    mills_ratios(scratch, block.Y, block.SECOND)
    for i in range(SIZE):
        s = scratch[block.S + i]
        forward, strike = scratch[block.FORWARD + i], scratch[block.STRIKE + i]
        discount, price = scratch[block.DISCOUNT + i], scratch[block.PRICE + i]
        years, side = scratch[block.YEARS + i], scratch[block.SIDE + i]
        by_forward, by_root = scratch[block.BY_FORWARD + i], scratch[block.BY_ROOT_YEARS + i]
        peak = min(forward, strike) * INVERSE_ROOT_TWO_PI * scratch[block.FIRST + i]
        weight = discount * peak
        # N(-|d1|), the smaller of the two tails, is F·n(d1)·R(|d1|)/F.
        tail = peak * by_forward * scratch[block.SECOND + i]
        chance = tail if scratch[block.THIRD + i] < 0.0 else 1.0 - tail
        weight_s = weight * s
        status = scratch[block.STATUS + i]
        is_ill = (status == 0.0) & (0.5 * tick > MOST_TICK_EFFECT * weight_s)
        nothing = 0.0 if status == 0.0 else np.nan
        scratch[_STATUS + i] = _ILL if is_ill else status
        scratch[_IV + i] = s * by_root + nothing
        scratch[_DELTA + i] = side * discount * chance + nothing
        scratch[_GAMMA + i] = weight * by_forward * by_forward * scratch[block.BY_S + i] + nothing
        scratch[_VEGA + i] = 0.01 * weight * scratch[block.ROOT_YEARS + i] + nothing
        decay = -(scratch[block.LOG_DISCOUNT + i] * price + 0.5 * weight_s)
        scratch[_THETA + i] = decay * (by_root * by_root * (1.0 / _DAYS)) + nothing
        scratch[_RHO + i] = -0.01 * years * price + nothing
