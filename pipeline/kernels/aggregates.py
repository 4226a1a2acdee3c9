"""What is said of a chain as a whole: at the money, skew, gamma exposure, ratios, max pain.

All of it in one kernel call. Never raises on data; what a chain does not tell is NaN, or
`NULL_INTEGER` for a sum.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.kernels.compiling import (
    Booleans,
    Floats,
    Integers,
    booleans,
    floats,
    integers,
    kernel,
)
from pipeline.kernels.statuses import OK

NULL_INTEGER = -(2**63)  # as in pipeline.models: absent in an integer column

ATM_NONE = 0
ATM_INTERPOLATED = 1
ATM_NEAREST = 2

SKEW_DELTA = 0.25


class Summary(NamedTuple):
    """The aggregates of one chain; `atm_source` says how `atm_iv` was found."""

    atm_strike: float
    atm_iv: float
    atm_source: int
    put_call_ratio_open_interest: float
    put_call_ratio_volume: float
    call_open_interest: int
    put_open_interest: int
    max_pain: float
    skew_25_delta: float
    gamma_exposure: float
    expected_move: float


def summarise(
    strikes: ArrayLike,
    is_call: ArrayLike,
    open_interest: ArrayLike,
    volume: ArrayLike,
    iv: ArrayLike,
    status: NDArray[np.int8],
    forward: float,
    delta: ArrayLike,
    gamma: ArrayLike,
    discount: float,
    years: float,
) -> Summary:
    """The aggregates of legs that run by strike, ascending.

    Quantities in units, `NULL_INTEGER` where absent; delta and gamma on the forward, discounted, as
    `greeks.solve` gives them. `atm_strike` is the strike nearest the forward (the lower of two).
    `atm_iv` is interpolated in strike between the last strike at or below the forward and the first
    above it, each with the mean of its legs whose status is 0 (source `ATM_INTERPOLATED`); where
    only one of them has such a leg, that one's (`ATM_NEAREST`). Ratios are puts over calls.
    `max_pain` is the listed strike at which all contracts together would pay out least at expiry
    (the lowest of equals).

    `skew_25_delta` is the iv of the put less that of the call at an undiscounted delta of a quarter
    (|delta|/discount). The iv of a strike is that of its out-of-the-money leg, the put at or below
    the forward and the call above it, where its status is 0; between two neighbouring strikes it is
    linear in delta, the put's being the call's less one. Of several crossings those nearest the
    forward count; NaN where no two strikes bracket either side.
    `gamma_exposure` is the sum of gamma·open_interest·forward²/100 over calls less that over puts,
    rupees of delta for 1 % of the forward. Gamma stays discounted: that is the number of futures,
    which settle daily, that a hedger trades. Every leg with a gamma and an open interest counts.
    `expected_move` is forward·atm_iv·√years, rupees. ValueError where lengths differ.
    """
    strikes, iv = floats(strikes), floats(iv)
    delta, gamma = floats(delta), floats(gamma)
    is_call = booleans(is_call)
    open_interest, volume = integers(open_interest), integers(volume)
    n = strikes.size
    if not (
        n == is_call.size == open_interest.size == volume.size == iv.size
        and n == status.size == delta.size == gamma.size
    ):
        raise ValueError("the columns differ in length")
    return Summary(
        *_summarise(
            *(strikes, is_call, open_interest, volume, iv, status.view(np.int8), delta, gamma),
            *(float(forward), float(discount), float(years)),
        )
    )


@kernel
def _summarise(
    strikes: Floats,
    is_call: Booleans,
    open_interest: Integers,
    volume: Integers,
    iv: Floats,
    status: NDArray[np.int8],
    delta: Floats,
    gamma: Floats,
    forward: float,
    discount: float,
    years: float,
) -> tuple[float, float, int, float, float, int, int, float, float, float, float]:
    atm_strike, atm_iv, atm_source = np.nan, np.nan, ATM_NONE
    skew = exposure = expected_move = np.nan
    if 0.0 < forward < np.inf:
        atm_strike, atm_iv, atm_source = _at_the_money(strikes, iv, status, forward)
        skew = _skew(strikes, is_call, iv, status, delta, forward, 1.0 / discount)
        exposure = _gamma_exposure(is_call, open_interest, gamma) * forward * forward / 100.0
    if 0.0 < years < np.inf:
        expected_move = forward * atm_iv * math.sqrt(years)
    call_interest, put_interest = _totals(is_call, open_interest)
    call_volume, put_volume = _totals(is_call, volume)
    return (
        atm_strike,
        atm_iv,
        atm_source,
        _ratio(put_interest, call_interest),
        _ratio(put_volume, call_volume),
        call_interest,
        put_interest,
        _max_pain(strikes, is_call, open_interest),
        skew,
        exposure,
        expected_move,
    )


@kernel
def _at_the_money(
    strikes: Floats, iv: Floats, status: NDArray[np.int8], forward: float
) -> tuple[float, float, int]:
    below, above = -np.inf, np.inf
    iv_below = iv_above = 0.0
    count_below = count_above = 0
    for i in range(strikes.size):
        strike = strikes[i]
        if below < strike <= forward:
            below, iv_below, count_below = strike, 0.0, 0
        elif forward < strike < above:
            above, iv_above, count_above = strike, 0.0, 0
        if status[i] != OK or not iv[i] > 0.0:
            continue
        if strike == below:
            iv_below += iv[i]
            count_below += 1
        elif strike == above:
            iv_above += iv[i]
            count_above += 1
    if below == -np.inf and above == np.inf:
        return np.nan, np.nan, ATM_NONE
    nearest = below if forward - below <= above - forward else above
    if count_below > 0 and count_above > 0:
        at_forward = _between(below, iv_below / count_below, above, iv_above / count_above, forward)
        return nearest, at_forward, ATM_INTERPOLATED
    if count_below > 0:
        return nearest, iv_below / count_below, ATM_NEAREST
    if count_above > 0:
        return nearest, iv_above / count_above, ATM_NEAREST
    return nearest, np.nan, ATM_NONE


@kernel
def _skew(
    strikes: Floats,
    is_call: Booleans,
    iv: Floats,
    status: NDArray[np.int8],
    delta: Floats,
    forward: float,
    growth: float,
) -> float:
    """From the lowest strike up: deltas as of calls, so that they fall from one to nothing."""
    put_iv = call_iv = np.nan
    last_delta = last_iv = np.nan
    for i in range(strikes.size):
        is_in_the_money = is_call[i] == (strikes[i] <= forward)
        if is_in_the_money or status[i] != OK or not iv[i] > 0.0:
            continue
        here = delta[i] * growth + (0.0 if is_call[i] else 1.0)
        if last_delta > 1.0 - SKEW_DELTA >= here:
            put_iv = _between(last_delta, last_iv, here, iv[i], 1.0 - SKEW_DELTA)
        if last_delta >= SKEW_DELTA > here and np.isnan(call_iv):
            call_iv = _between(last_delta, last_iv, here, iv[i], SKEW_DELTA)
        last_delta, last_iv = here, iv[i]
    return put_iv - call_iv


@kernel
def _gamma_exposure(is_call: Booleans, open_interest: Integers, gamma: Floats) -> float:
    exposure = 0.0
    is_told = False
    for i in range(is_call.size):
        if open_interest[i] >= 0 and np.isfinite(gamma[i]):
            exposure += gamma[i] * (open_interest[i] if is_call[i] else -open_interest[i])
            is_told = True
    return exposure if is_told else np.nan


@kernel
def _totals(is_call: Booleans, quantity: Integers) -> tuple[int, int]:
    """The sum over calls and that over puts; `NULL_INTEGER` where all are absent."""
    calls = puts = 0
    any_call = any_put = False
    for i in range(is_call.size):
        if quantity[i] >= 0:
            if is_call[i]:
                calls += quantity[i]
                any_call = True
            else:
                puts += quantity[i]
                any_put = True
    return calls if any_call else NULL_INTEGER, puts if any_put else NULL_INTEGER


@kernel
def _ratio(puts: int, calls: int) -> float:
    return puts / calls if puts >= 0 and calls > 0 else np.nan


@kernel
def _between(x0: float, y0: float, x1: float, y1: float, x: float) -> float:
    return y0 + (x - x0) / (x1 - x0) * (y1 - y0)


@kernel
def _max_pain(strikes: Floats, is_call: Booleans, open_interest: Integers) -> float:
    """One pass: going from a strike to the next, calls below it pay more and puts above it less."""
    calls_below = 0.0
    puts_above = 0.0
    payout = 0.0
    previous = np.nan
    best = np.nan
    least = 0.0
    any_open = False
    for i in range(strikes.size):
        if open_interest[i] > 0 and not np.isnan(strikes[i]):
            any_open = True
            if not is_call[i]:
                puts_above += open_interest[i]
    for i in range(strikes.size):
        strike = strikes[i]
        if np.isnan(strike):
            continue
        if np.isnan(previous):
            best = previous = strike
        if strike > previous:
            payout += (calls_below - puts_above) * (strike - previous)
            previous = strike
            if payout < least:
                least = payout
                best = strike
        if open_interest[i] > 0:
            if is_call[i]:
                calls_below += open_interest[i]
            else:
                puts_above -= open_interest[i]
    return best if any_open else np.nan
