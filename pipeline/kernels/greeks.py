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

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.kernels import block, slopes
from pipeline.kernels.block import SIZE
from pipeline.kernels.compiling import (
    Booleans,
    Floats,
    Integers,
    booleans,
    floats,
    inlined,
    kernel,
)
from pipeline.kernels.implied import solve_near
from pipeline.kernels.slopes import derive, fill, finish
from pipeline.kernels.wide import solve_wide

TICK = 0.05  # rupees; the step of option prices on NSE and BSE
_DAYS = 365.0

_COMPAT_RATE = 0.10
_COMPAT_DIGITS = 5
_COMPAT_UNTRADED_D1 = np.sqrt(1000.0)  # where the provider's solver stops on a price of zero

Outs = tuple[Floats, Floats, Floats, Floats, Floats, Floats]


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
    outs = (out_iv, out_delta, out_gamma, out_theta, out_vega, out_rho)
    _solve(forward, discount, years, strikes, is_call, prices, tick, True, outs, out_status)


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
    outs = (out_iv,) * 6
    _solve(forward, discount, years, strikes, is_call, prices, tick, False, outs, out_status)


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


def _solve(
    forward: ArrayLike,
    discount: ArrayLike,
    years: ArrayLike,
    strikes: ArrayLike,
    is_call: ArrayLike,
    prices: ArrayLike,
    tick: float,
    has_greeks: bool,
    outs: Outs,
    out_status: NDArray[np.int8],
) -> None:
    # What a chain's caller passes is most often what the compiled form takes; asking each array
    # would take a fifth of the time of a chain. Any other type is a TypeError, since no second
    # form may be compiled.
    if isinstance(forward, float) and _solve_chain.overloads:
        terms: Any = (forward, discount, years)
        legs: Any = (strikes, is_call, prices, tick, has_greeks, outs, out_status)
        try:
            return _refuse(_solve_chain(*terms, *legs))
        except TypeError:
            pass
    legs = (floats(strikes), booleans(is_call), floats(prices))
    legs += (tick, has_greeks, outs, out_status.view(np.int8))
    n = legs[0].size
    terms = [floats(term) for term in (forward, discount, years)]
    if all(term.size == 1 for term in terms):
        scalars: Any = [float(term[0]) for term in terms]
        _refuse(_solve_chain(*scalars, *legs))
        _solve_chain.disable_compile()
        return None
    if any(term.size not in (1, n) for term in terms):
        raise ValueError("forward, discount and years want one element, or one for each leg")
    full: Any = [term if term.size == n else np.full(n, term[0]) for term in terms]
    return _refuse(_solve_legs(*full, *legs))


def _refuse(has_misfit: bool) -> None:
    if has_misfit:
        raise ValueError("strikes, is_call, prices and the outputs differ in length")


@kernel
def _solve_chain(
    forward: float,
    discount: float,
    years: float,
    strikes: Floats,
    is_call: Booleans,
    prices: Floats,
    tick: float,
    has_greeks: bool,
    outs: Outs,
    out_status: NDArray[np.int8],
) -> bool:
    """Whether lengths differ; the legs of one chain."""
    nothing = strikes[:0]
    return _solve_blocks(
        (forward, discount, years),
        (nothing, nothing, nothing),
        strikes,
        is_call,
        prices,
        tick,
        has_greeks,
        outs,
        out_status,
    )


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
    outs: Outs,
    out_status: NDArray[np.int8],
) -> bool:
    """Whether lengths differ; legs of any chains."""
    return _solve_blocks(
        (1.0, 1.0, 1.0),
        (forward, discount, years),
        strikes,
        is_call,
        prices,
        tick,
        has_greeks,
        outs,
        out_status,
    )


@kernel
def _solve_blocks(
    chain: tuple[float, float, float],
    terms: tuple[Floats, Floats, Floats],
    strikes: Floats,
    is_call: Booleans,
    prices: Floats,
    tick: float,
    has_greeks: bool,
    outs: Outs,
    out_status: NDArray[np.int8],
) -> bool:
    """Whether lengths differ. Terms go before the chain's, unless they are empty."""
    n = strikes.size
    outputs = len(outs) if has_greeks else 1
    if not n == is_call.size == prices.size == out_status.size:
        return True
    for number in range(outputs):
        if outs[number].size != n:
            return True
    scratch = np.empty(block.LINES * SIZE)
    places = np.empty(SIZE, np.int64)
    waiting = 0
    fill(scratch, chain)
    for start in range(0, n, SIZE):
        count = min(SIZE, n - start)
        block.load_legs(scratch, strikes, is_call, prices, start, count)
        if block.load_terms(scratch, terms, start, count):
            derive(scratch)
        solve_near(scratch)
        finish(scratch, tick, has_greeks)
        _store(scratch, outs, outputs, out_status, start, count)
        is_last = start + count == n
        if block.has_open_legs(scratch) or (is_last and waiting > 0):
            for i in range(count):
                if scratch[block.IS_OPEN + i] != 0.0:
                    places[waiting] = start + i
                    waiting += 1
                if waiting == SIZE or (waiting > 0 and is_last and i == count - 1):
                    far = np.empty(block.LINES * SIZE)
                    fill(far, chain)
                    block.gather(far, terms, strikes, is_call, prices, places, waiting)
                    if terms[0].size > 0:
                        derive(far)
                    _solve_far(far, places, waiting, tick, outs, outputs, out_status)
                    waiting = 0
    return False


@inlined
def _store(
    scratch: Floats,
    outs: Outs,
    outputs: int,
    out_status: NDArray[np.int8],
    start: int,
    count: int,
) -> None:
    first = np.uint64(start)
    for number in range(outputs):
        out, line = outs[number], block.RESULTS + number * SIZE
        for i in range(count):
            out[first + np.uint64(i)] = scratch[line + i]
    for i in range(count):
        out_status[first + np.uint64(i)] = np.int8(scratch[slopes.STATUS + i])


@kernel
def _solve_far(
    far: Floats,
    places: Integers,
    count: int,
    tick: float,
    outs: Outs,
    outputs: int,
    out_status: NDArray[np.int8],
) -> None:
    """Legs that one step did not solve, put back where they came from."""
    solve_wide(far, count)
    finish(far, tick, outputs > 1)
    for i in range(count):
        out_status[places[i]] = np.int8(far[slopes.STATUS + i])
    for number in range(outputs):
        out, line = outs[number], block.RESULTS + number * SIZE
        for i in range(count):
            out[places[i]] = far[line + i]
