"""The forward that put-call parity implies for an expiry, found so that bad quotes do not move it.

Every strike with a two-sided quote on the call and the put says F = K + (C - P)/D. Stale and
mistyped quotes are found by median and trimmed before the weighted fit. Never raises on data;
where the quotes say nothing, the spot carried at the rate stands in, and the source says so.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pipeline.kernels.compiling import Booleans, Floats, Integers, floats, kernel

NONE = 0
PARITY = 1
SINGLE_STRIKE = 2
SPOT_CARRY = 3

SPAN = 10  # strikes on each side of the centre that enter the fit
LEAST_PAIRS = 3  # fewer cannot outvote a bad one
_SPREAD_FLOOR = 0.05  # rupees; a locked quote is not infinitely sure
_TRIM = 3.0 * 1.4826  # of the median absolute miss: three standard deviations if normal
_TRIM_FLOOR = 0.05  # rupees; misses up to a tick are never trimmed
_ROUNDS = 10
_FARTHEST = 0.2  # of ln(F/carried spot); dividends and carry never reach it, a bad quote may


class ForwardFit(NamedTuple):
    """The forward of a chain; `source` is one of the codes above, residual in rupees."""

    forward: float
    discount: float
    pairs: int
    residual: float
    source: int


def parity(
    strikes: ArrayLike,
    call_bid: ArrayLike,
    call_ask: ArrayLike,
    put_bid: ArrayLike,
    put_ask: ArrayLike,
    spot: float,
    years: float,
    rate: float,
    span: int = SPAN,
) -> ForwardFit:
    """(forward, discount, pairs, residual, source) of a chain.

    Arrays hold one element a strike, ascending, NaN where there is no quote; spot may be NaN; rate
    is continuous per year and fixes the discount exp(-rate·years). `PARITY`: weighted mean over up
    to `span` strikes each side of the forward, weights 1/spread², `pairs` the strikes that were
    kept, residual the root of their weighted mean square miss in rupees. `SINGLE_STRIKE`: fewer
    than three pairs; the one with the least |C - P|. `SPOT_CARRY`: no pair, or a forward more than
    a fifth away from the carried spot. `NONE`: forward NaN. The residual is NaN but for `PARITY`.
    """
    strikes = floats(strikes)
    call_bid, call_ask = floats(call_bid), floats(call_ask)
    put_bid, put_ask = floats(put_bid), floats(put_ask)
    if any(quote.size != strikes.size for quote in (call_bid, call_ask, put_bid, put_ask)):
        raise ValueError("strikes and quotes differ in length")
    found = _parity(
        *(strikes, call_bid, call_ask, put_bid, put_ask),
        *(float(spot), float(years), float(rate), int(span)),
    )
    return ForwardFit(*found)


@kernel
def _parity(
    strikes: Floats,
    call_bid: Floats,
    call_ask: Floats,
    put_bid: Floats,
    put_ask: Floats,
    spot: float,
    years: float,
    rate: float,
    span: int,
) -> tuple[float, float, int, float, int]:
    discount = math.exp(-rate * years)
    if not (0.0 < years < np.inf and 0.0 < discount < np.inf):
        return np.nan, np.nan, 0, np.nan, NONE
    carried = spot / discount if 0.0 < spot < np.inf else np.nan
    implied, spreads, places = _pairs(strikes, call_bid, call_ask, put_bid, put_ask, discount)
    if implied.size > 0:
        forward, pairs, residual = _fit(strikes, implied, spreads, places, span)
        if pairs >= LEAST_PAIRS and _is_plausible(forward, carried):
            return forward, discount, pairs, residual, PARITY
        nearest = np.argmin(np.abs(implied - strikes[places]))
        if pairs < LEAST_PAIRS and _is_plausible(implied[nearest], carried):
            return implied[nearest], discount, 1, np.nan, SINGLE_STRIKE
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
    strikes: Floats,
    call_bid: Floats,
    call_ask: Floats,
    put_bid: Floats,
    put_ask: Floats,
    discount: float,
) -> tuple[Floats, Floats, Integers]:
    """The forward, the spread and the place in the ladder of every strike with both quotes."""
    implied = np.empty(strikes.size)
    spreads = np.empty(strikes.size)
    places = np.empty(strikes.size, np.int64)
    count = 0
    for i in range(strikes.size):
        is_quoted = (
            0.0 < strikes[i] < np.inf
            and 0.0 < call_bid[i] <= call_ask[i] < np.inf
            and 0.0 < put_bid[i] <= put_ask[i] < np.inf
        )
        if is_quoted:
            call_less_put = 0.5 * (call_bid[i] + call_ask[i]) - 0.5 * (put_bid[i] + put_ask[i])
            implied[count] = strikes[i] + call_less_put / discount
            spread = call_ask[i] - call_bid[i] + put_ask[i] - put_bid[i]
            spreads[count] = max(spread, _SPREAD_FLOOR)
            places[count] = i
            count += 1
    return implied[:count], spreads[:count], places[:count]


@kernel
def _fit(
    strikes: Floats, implied: Floats, spreads: Floats, places: Integers, span: int
) -> tuple[float, int, float]:
    """(forward, pairs, residual) of the trimmed weighted fit round the robust centre.

    Medians weigh no pair above those of the median spread: a stale quote is often a tight one.
    """
    kept = np.ones(implied.size, np.bool_)
    centre = _weighted_median(implied, _vote(spreads, kept))
    middle = _nearest(strikes, centre)
    for i in range(implied.size):
        kept[i] = abs(places[i] - middle) <= span
    for _ in range(_ROUNDS):
        votes = _vote(spreads, kept)
        centre = _weighted_median(implied, votes)
        misses = np.abs(implied - centre)
        reach = max(_TRIM * _weighted_median(misses, votes), _TRIM_FLOOR)
        changed = False
        for i in range(implied.size):
            if kept[i] and misses[i] > reach:
                kept[i] = False
                changed = True
        if not changed:
            break
    total = 0.0
    shift = 0.0
    for i in range(implied.size):
        if kept[i]:
            weight = 1.0 / (spreads[i] * spreads[i])
            total += weight
            shift += weight * (implied[i] - centre)
    if total == 0.0:
        return np.nan, 0, np.nan
    forward = centre + shift / total
    square = 0.0
    for i in range(implied.size):
        if kept[i]:
            square += (implied[i] - forward) ** 2 / (spreads[i] * spreads[i])
    return forward, int(np.sum(kept)), math.sqrt(square / total)


@kernel
def _nearest(strikes: Floats, value: float) -> int:
    best = 0
    distance = np.inf
    for i in range(strikes.size):
        if abs(strikes[i] - value) < distance:
            distance = abs(strikes[i] - value)
            best = i
    return best


@kernel
def _vote(spreads: Floats, kept: Booleans) -> Floats:
    """Weights for a median: 1/spread² capped at the median spread; zero for what is not kept."""
    usual = _weighted_median(spreads, kept.astype(np.float64))
    votes = np.zeros(spreads.size)
    for i in range(spreads.size):
        if kept[i]:
            spread = max(spreads[i], usual)
            votes[i] = 1.0 / (spread * spread)
    return votes


@kernel
def _weighted_median(values: Floats, weights: Floats) -> float:
    """The value at which half of the weight is reached; NaN without weight."""
    n = values.size
    order = np.empty(n, np.int64)
    total = 0.0
    for i in range(n):  # insertion: the arrays are short and nearly in order
        j = i
        while j > 0 and values[order[j - 1]] > values[i]:
            order[j] = order[j - 1]
            j -= 1
        order[j] = i
        total += weights[i]
    reached = 0.0
    for i in range(n):
        reached += weights[order[i]]
        if reached >= 0.5 * total and total > 0.0:
            median: float = values[order[i]]
            return median
    return np.nan
