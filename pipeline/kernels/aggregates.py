"""What is said of a chain as a whole: at the money, put-call ratios, open interest, max pain.

Never raises on data; what a chain does not tell is NaN, or `NULL_INTEGER` for a sum.
"""

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
from pipeline.kernels.implied import OK

NULL_INTEGER = -(2**63)  # as in pipeline.models: absent in an integer column

ATM_NONE = 0
ATM_INTERPOLATED = 1
ATM_NEAREST = 2


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


def summarise(
    strikes: ArrayLike,
    is_call: ArrayLike,
    open_interest: ArrayLike,
    volume: ArrayLike,
    iv: ArrayLike,
    status: NDArray[np.int8],
    forward: float,
) -> Summary:
    """The aggregates of legs that run by strike, ascending.

    Quantities in units, `NULL_INTEGER` where absent. `atm_strike` is the strike nearest the forward
    (the lower of two). `atm_iv` is interpolated in strike between the last strike at or below the
    forward and the first above it, each with the mean of its legs whose status is 0 (source
    `ATM_INTERPOLATED`); where only one of them has such a leg, that one's (`ATM_NEAREST`).
    Ratios are puts over calls. `max_pain` is the listed strike at which all contracts together
    would pay out least at expiry (the lowest of equals). ValueError where lengths differ.
    """
    strikes, iv = floats(strikes), floats(iv)
    is_call = booleans(is_call)
    open_interest, volume = integers(open_interest), integers(volume)
    columns = (is_call, open_interest, volume, iv, status)
    if any(column.size != strikes.size for column in columns):
        raise ValueError("the columns differ in length")
    at_money = _at_the_money(strikes, iv, status.view(np.int8), float(forward))
    totals = _totals(is_call, open_interest, volume)
    return Summary(
        *at_money,
        put_call_ratio_open_interest=_ratio(totals[1], totals[0]),
        put_call_ratio_volume=_ratio(totals[3], totals[2]),
        call_open_interest=totals[0],
        put_open_interest=totals[1],
        max_pain=_max_pain(strikes, is_call, open_interest),
    )


def _ratio(puts: int, calls: int) -> float:
    return puts / calls if puts >= 0 and calls > 0 else float("nan")


@kernel
def _at_the_money(
    strikes: Floats, iv: Floats, status: NDArray[np.int8], forward: float
) -> tuple[float, float, int]:
    nearest = np.nan
    for strike in strikes:
        if np.isnan(nearest) or abs(strike - forward) < abs(nearest - forward):
            nearest = strike
    if not 0.0 < forward < np.inf or np.isnan(nearest):
        return np.nan, np.nan, ATM_NONE
    below = -np.inf
    above = np.inf
    for strike in strikes:
        if below < strike <= forward:
            below = strike
        if forward < strike < above:
            above = strike
    iv_below = _mean_iv(strikes, iv, status, below)
    iv_above = _mean_iv(strikes, iv, status, above)
    if np.isnan(iv_below) and np.isnan(iv_above):
        return nearest, np.nan, ATM_NONE
    if np.isnan(iv_above):
        return nearest, iv_below, ATM_NEAREST
    if np.isnan(iv_below):
        return nearest, iv_above, ATM_NEAREST
    share = (forward - below) / (above - below)
    return nearest, iv_below + share * (iv_above - iv_below), ATM_INTERPOLATED


@kernel
def _mean_iv(strikes: Floats, iv: Floats, status: NDArray[np.int8], strike: float) -> float:
    total = 0.0
    count = 0
    for i in range(strikes.size):
        if strikes[i] == strike and status[i] == OK and iv[i] > 0.0:
            total += iv[i]
            count += 1
    return total / count if count > 0 else np.nan


@kernel
def _totals(
    is_call: Booleans, open_interest: Integers, volume: Integers
) -> tuple[int, int, int, int]:
    """Open interest of calls and of puts, volume of calls and of puts."""
    totals = np.full(4, NULL_INTEGER, np.int64)
    for i in range(is_call.size):
        side = 0 if is_call[i] else 1
        if open_interest[i] >= 0:
            totals[side] = max(totals[side], 0) + open_interest[i]
        if volume[i] >= 0:
            totals[2 + side] = max(totals[2 + side], 0) + volume[i]
    return totals[0], totals[1], totals[2], totals[3]


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
