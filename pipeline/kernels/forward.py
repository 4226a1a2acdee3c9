"""The forward that put-call parity implies for an expiry, found so that bad quotes do not move it.

Every strike with a two-sided quote on the call and the put says F = K + (C - P)/D, and cannot be
wrong by more than half its spreads. All strikes vote on where the forward is; those near it whose
own quotes agree give it. Never raises on data; where the quotes say nothing, the spot carried at
the rate stands in, and the source says so.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pipeline.kernels.compiling import Codes, Floats, codes, floats, kernel
from pipeline.kernels.medians import lower_median, weighted_median

NONE = 0
PARITY = 1
SINGLE_STRIKE = 2
SPOT_CARRY = 3

SPAN = 10  # twice as many strikes, and one, enter the fit
LEAST_PAIRS = 3  # fewer cannot outvote a bad one
LEAST_AGREEING = 2  # of them
_CALL, _PUT = 1, 0  # as in pipeline.models.Kind
_SPREAD_FLOOR = 0.05  # rupees; a locked quote is not infinitely sure
_TRIM = 3.0 * 1.4826  # of the median absolute miss: three standard deviations if normal
_TICK = 0.05  # rupees; misses up to a tick are never trimmed
_ROUNDS = 10
_VOTERS = 64  # strikes that are asked, evenly over the chain; more would not tell more
RATE_DOUBT = 0.03  # per year; the market's own rate is no further from the given one
_MOST_TILT = 0.5
_FARTHEST = 0.2  # of ln(F/carried spot); dividends and carry never reach it, a bad quote may


class ForwardFit(NamedTuple):
    """The forward of a chain; `source` is one of the codes above, residual in rupees."""

    forward: float
    discount: float
    pairs: int
    residual: float
    source: int


def parity_of_legs(
    strikes: ArrayLike,
    kind: ArrayLike,
    bid: ArrayLike,
    ask: ArrayLike,
    spot: float,
    years: float,
    rate: float,
    span: int = SPAN,
) -> ForwardFit:
    """(forward, discount, pairs, residual, source) of a chain.

    Arrays hold one element a leg, by strike ascending, NaN where there is no quote; `kind` is 1 for
    a call, 0 for a put, and any other has no say. Spot may be NaN; rate is continuous per year and
    fixes the discount exp(-rate·years).

    `PARITY`: weighted mean over the 2·span + 1 strikes nearest the forward whose quotes agree with
    the chain; weights 1/spread², none above that of the median spread. `pairs` counts the strikes
    that were kept, residual is the root of their weighted mean square miss in rupees, NaN for every
    other source. Where the rate is wrong, strikes imply the more or the less the higher they are;
    as much of that as a rate wrong by `RATE_DOUBT` explains is taken out.
    `SINGLE_STRIKE`: fewer than three pairs, or no two that agree; the one with the least |C - P|.
    `SPOT_CARRY`: no pair, or a forward more than a fifth away from the carried spot. `NONE`:
    forward NaN.
    ValueError where lengths differ.
    """
    strikes, kind, bid, ask = floats(strikes), codes(kind), floats(bid), floats(ask)
    if not strikes.size == kind.size == bid.size == ask.size:
        raise ValueError("strikes and quotes differ in length")
    return ForwardFit(
        *_parity(strikes, kind, bid, ask, float(spot), float(years), float(rate), span)
    )


@kernel
def _parity(
    strikes: Floats,
    kind: Codes,
    bid: Floats,
    ask: Floats,
    spot: float,
    years: float,
    rate: float,
    span: int,
) -> tuple[float, float, int, float, int]:
    discount = math.exp(-rate * years)
    if not (0.0 < years < np.inf and 0.0 < discount < np.inf):
        return np.nan, np.nan, 0, np.nan, NONE
    carried = spot / discount if 0.0 < spot < np.inf else np.nan
    rungs, implied, spreads = _pairs(strikes, kind, bid, ask, 1.0 / discount)
    if implied.size >= LEAST_PAIRS:
        tilt = _tilt(rungs, implied, years)
        pivot = rungs[np.argmin(np.abs(implied - rungs))]
        level = implied - tilt * (rungs - pivot)
        forward, pairs, residual = _fit(*_choose(rungs, level, spreads, span))
        forward = pivot + (forward - pivot) / (1.0 - tilt)
        if pairs >= LEAST_AGREEING:
            if _is_plausible(forward, carried):
                return forward, discount, pairs, residual, PARITY
            implied = implied[:0]
    if implied.size > 0:
        nearest = implied[np.argmin(np.abs(implied - rungs))]
        if _is_plausible(nearest, carried):
            return nearest, discount, 1, np.nan, SINGLE_STRIKE
    if carried > 0.0:
        return carried, discount, 0, np.nan, SPOT_CARRY
    return np.nan, discount, 0, np.nan, NONE


@kernel
def _is_plausible(forward: float, carried: float) -> bool:
    if not 0.0 < forward < np.inf:
        return False
    return math.isnan(carried) or abs(math.log(forward / carried)) <= _FARTHEST


@kernel
def _pairs(
    strikes: Floats, kind: Codes, bid: Floats, ask: Floats, growth: float
) -> tuple[Floats, Floats, Floats]:
    """The strikes with both quotes, the forward that each implies, and what that may be out by.

    The latter as a spread: both of the strike's, at expiry.
    """
    n = strikes.size
    rungs, implied, spreads = np.empty(n), np.empty(n), np.empty(n)
    count = 0
    call = put = -1
    for i in range(n):
        if i > 0 and strikes[i] != strikes[i - 1]:
            call = put = -1
        if not (0.0 < bid[i] <= ask[i] < np.inf and 0.0 < strikes[i] < np.inf):
            continue
        if kind[i] == _CALL:
            call = i
        elif kind[i] == _PUT:
            put = i
        if call < 0 or put < 0:
            continue
        call_less_put = 0.5 * (bid[call] + ask[call]) - 0.5 * (bid[put] + ask[put])
        spread = (ask[call] - bid[call] + ask[put] - bid[put]) * growth
        if spread < np.inf:
            rungs[count] = strikes[i]
            implied[count] = strikes[i] + call_less_put * growth
            spreads[count] = max(spread, _SPREAD_FLOOR)
            count += 1
        call = put = -1
    return rungs[:count], implied[:count], spreads[:count]


@kernel
def _tilt(rungs: Floats, implied: Floats, years: float) -> float:
    """How the implied forward grows with the strike, which it does where the rate is wrong.

    The median slope between strikes half a chain apart, within what a wrong rate can do.
    """
    half = implied.size // 2
    if half < LEAST_PAIRS:
        return 0.0
    step = (half + _VOTERS - 1) // _VOTERS
    rise = implied[half::step] - implied[: implied.size - half : step]
    slope = lower_median(rise / (rungs[half::step] - rungs[: rungs.size - half : step]))
    most = min(RATE_DOUBT * years, _MOST_TILT)
    return min(max(slope, -most), most)


@kernel
def _choose(rungs: Floats, implied: Floats, spreads: Floats, span: int) -> tuple[Floats, Floats]:
    """Implied forward and spread of the strikes nearest the forward that agree with the chain."""
    n = implied.size
    centre, doubt = _consensus(implied, spreads)
    most = 2 * span + 1
    chosen_implied, chosen_spreads = np.empty(most), np.empty(most)
    above = np.searchsorted(rungs, centre)
    below = above - 1
    count = 0
    while count < most and (below >= 0 or above < n):
        is_below = above >= n or (below >= 0 and centre - rungs[below] <= rungs[above] - centre)
        i = below if is_below else above
        if is_below:
            below -= 1
        else:
            above += 1
        if abs(implied[i] - centre) <= 0.5 * spreads[i] + doubt:
            chosen_implied[count] = implied[i]
            chosen_spreads[count] = spreads[i]
            count += 1
    return chosen_implied[:count], chosen_spreads[:count]


@kernel
def _consensus(implied: Floats, spreads: Floats) -> tuple[float, float]:
    """The place that the spreads of most strikes hold, and how far an honest one may be from it.

    Every strike has one vote however tight, so that a run of stale quotes round the money is
    outvoted by the rest of the chain. Of several such places the one in the middle.
    """
    step = (implied.size + _VOTERS - 1) // _VOTERS
    votes = implied[::step].copy()
    reach = 0.5 * spreads[::step] + _TICK
    lows, highs = votes - reach, votes + reach
    places = np.empty(votes.size)
    most = count = 0
    for i in range(votes.size):  # where most hold begins where one of them begins
        holding = 0
        for j in range(votes.size):
            holding += (lows[j] <= lows[i]) & (lows[i] <= highs[j])
        if holding > most:
            most, count = holding, 0
        if holding == most:
            places[count] = lows[i]
            count += 1
    for which in range(count):
        begin, end = places[which], np.inf
        for j in range(votes.size):
            if lows[j] <= begin <= highs[j]:
                end = min(end, highs[j])
        places[which] = 0.5 * (begin + end)
    centre = lower_median(places[:count])
    misses = np.abs(votes - centre)
    return centre, _TRIM * lower_median(misses[misses <= reach])


@kernel
def _fit(implied: Floats, spreads: Floats) -> tuple[float, int, float]:
    """(forward, pairs, residual) of the trimmed weighted fit.

    No pair weighs more than those of the median spread: a stale quote is often a tight one.
    """
    weights = _weights(spreads)
    centre = weighted_median(implied, weights)
    for _ in range(_ROUNDS):
        misses = np.abs(implied - centre)
        reach = max(_TRIM * weighted_median(misses, weights), _TICK)
        is_kept = misses <= reach
        if np.all(is_kept):
            break
        implied, spreads = implied[is_kept], spreads[is_kept]
        weights = _weights(spreads)
        centre = weighted_median(implied, weights)
    total = np.sum(weights)
    if not total > 0.0:
        return np.nan, 0, np.nan
    forward = centre + np.sum(weights * (implied - centre)) / total
    square = np.sum(weights * (implied - forward) ** 2)
    return forward, implied.size, math.sqrt(square / total)


@kernel
def _weights(spreads: Floats) -> Floats:
    return 1.0 / np.maximum(spreads, lower_median(spreads.copy())) ** 2
