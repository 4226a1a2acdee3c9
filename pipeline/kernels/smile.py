"""The smile of an expiry: one curve through the volatilities of its legs.

A raw SVI curve in total variance, fitted from the legs out of the money, each weighed by how well
its quote knows the volatility; quotes far off the others lose their say. Every call starts cold
and takes the same steps, so the same chain always gives the same bits. Never raises on data.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.kernels import svi
from pipeline.kernels.compiling import Booleans, Floats, booleans, floats, kernel
from pipeline.kernels.greeks import TICK
from pipeline.kernels.implied import OK as SOLVED

NONE = 0
OK = 1
POOR = 2
ARBITRAGE = 3

LEAST_POINTS = 5  # strikes; as many as the curve has parameters
POOR_MISS = 3.0  # times what the quotes themselves allow

_BLEND = 0.5  # deviations from the forward within which both kinds of a strike share its say
_LEAST_MISS = 0.1  # vol points at the forward that no quote is surer than, wider in the wings
_LAST_MISS = 0.1  # of itself: how well a volatility is known from a last price alone
_GROUPS = 24
_REACH = 4.685  # standard deviations beyond which a point has no say (Tukey's biweight)
_LEAST_SCALE = 0.25
_ROUNDS = 3
_NODES = 41
_TOLERANCE = 1e-4  # of g


class SmileFit(NamedTuple):
    """Raw SVI of an expiry in k = ln(strike/forward); error in vol points, status as above."""

    a: float
    b: float
    rho: float
    m: float
    sigma: float
    error: float
    points: int
    status: int


def fit(
    forward: float,
    years: float,
    strikes: ArrayLike,
    is_call: ArrayLike,
    iv: ArrayLike,
    vega: ArrayLike,
    spread: ArrayLike,
    status: NDArray[np.int8],
    out_iv_fit: Floats,
) -> SmileFit:
    """The smile of legs that run by strike, ascending; its volatility at each into `out_iv_fit`.

    iv decimal per year, vega in rupees per vol point, spread = ask - bid in rupees or NaN where
    the price is no quote's. Only legs out of the money (near the forward, both kinds) whose status
    is 0 are fitted. ValueError where lengths differ.
    """
    strikes, is_call, iv = floats(strikes), booleans(is_call), floats(iv)
    vega, spread = floats(vega), floats(spread)
    columns = (is_call, iv, vega, spread, status, out_iv_fit)
    if any(column.size != strikes.size for column in columns):
        raise ValueError("the columns differ in length")
    found = _fit(
        *(float(forward), float(years), strikes, is_call, iv, vega, spread),
        *(status.view(np.int8), out_iv_fit),
    )
    return SmileFit(*found)


@kernel
def _fit(
    forward: float,
    years: float,
    strikes: Floats,
    is_call: Booleans,
    iv: Floats,
    vega: Floats,
    spread: Floats,
    status: NDArray[np.int8],
    out_iv_fit: Floats,
) -> tuple[float, float, float, float, float, float, int, int]:
    nothing = (np.nan, np.nan, np.nan, np.nan, np.nan, np.nan, 0, NONE)
    out_iv_fit[:] = np.nan
    if not (0.0 < forward < np.inf and 0.0 < years < np.inf):
        return nothing
    n = strikes.size
    moneyness = np.empty(n)
    _measure(forward, strikes, moneyness)
    points = np.empty((4, n))
    count, rungs = _gather(years, moneyness, is_call, iv, vega, spread, status, points)
    if rungs < LEAST_POINTS:
        return nothing
    k, w, error = points[0, :count], points[1, :count], points[2, :count]
    scale = math.sqrt(_nearest_variance(k, w))
    x = k
    y = w
    weights = points[3, :count]
    for i in range(count):
        x[i] /= scale
        y[i] /= scale * scale
        error[i] /= scale * scale
    low, high = _bounds(x, scale)
    curve = _robust(x, y, error, weights, low, high, scale)
    return _report(years, moneyness, iv, x, y, error, weights, curve, low, high, scale, out_iv_fit)


@kernel
def _measure(forward: float, strikes: Floats, moneyness: Floats) -> None:
    """ln(strike/forward) of each leg, NaN where the strike is none; pairs share theirs."""
    for i in range(strikes.size):
        if i > 0 and strikes[i] == strikes[i - 1]:
            moneyness[i] = moneyness[i - 1]
        elif 0.0 < strikes[i] < np.inf:
            moneyness[i] = math.log(strikes[i] / forward)
        else:
            moneyness[i] = np.nan


@kernel
def _gather(
    years: float,
    moneyness: Floats,
    is_call: Booleans,
    iv: Floats,
    vega: Floats,
    spread: Floats,
    status: NDArray[np.int8],
    points: Floats,
) -> tuple[int, int]:
    """k, total variance and its standard error of each point; how many, on how many strikes."""
    root = math.sqrt(years)
    most_vega = 0.0
    for i in range(iv.size):
        if status[i] == SOLVED and vega[i] < np.inf:
            most_vega = max(most_vega, vega[i])
    count = 0
    rungs = 0
    last = np.nan
    for i in range(iv.size):
        usable = status[i] == SOLVED and 1e-6 < iv[i] < 1e3 and 0.0 < vega[i] < np.inf
        if not (usable and abs(moneyness[i]) < np.inf):
            continue
        share = 0.5 + 0.5 * moneyness[i] / (iv[i] * root * _BLEND)
        share = min(share if is_call[i] else 1.0 - share, 1.0)
        if not share > 0.0:
            continue
        wing = _LEAST_MISS * math.sqrt(most_vega / vega[i])
        if spread[i] >= 0.0:
            half = 0.5 * (spread[i] + TICK) / vega[i]
        else:
            half = TICK / vega[i] + 100.0 * _LAST_MISS * iv[i]
        miss = 0.01 * math.sqrt((wing * wing + half * half) / share)
        points[0, count] = moneyness[i]
        points[1, count] = iv[i] * iv[i] * years
        points[2, count] = 2.0 * iv[i] * years * miss
        count += 1
        if moneyness[i] != last:
            rungs += 1
            last = moneyness[i]
    return count, rungs


@kernel
def _nearest_variance(k: Floats, w: Floats) -> float:
    """The median total variance of the five points nearest the forward."""
    nearest = 0
    for i in range(k.size):
        if abs(k[i]) < abs(k[nearest]):
            nearest = i
    first = min(max(nearest - 2, 0), k.size - 5)
    return _median(w[first : first + 5].copy())


@kernel
def _bounds(x: Floats, scale: float) -> tuple[Floats, Floats]:
    """Between which each parameter may lie."""
    first, last = np.min(x), np.max(x)
    span = last - first
    steepest = 2.0 / scale
    low = np.array([-np.inf, 1e-6, 1e-6, min(first, 0.0) - 0.5 * span, math.log(0.02)])
    widest = math.log(max(span, 4.0))
    high = np.array([np.inf, steepest, steepest, max(last, 0.0) + 0.5 * span, widest])
    return low, high


@kernel
def _robust(
    x: Floats, y: Floats, error: Floats, weights: Floats, low: Floats, high: Floats, scale: float
) -> Floats:
    """The curve through the points, and into `weights` the say that each had in the end."""
    size = (x.size // _GROUPS) | 1
    groups = x.size // size
    middle = np.empty((3, groups))
    for g in range(groups):
        first = g * size
        last = first + size if g < groups - 1 else x.size
        place = first + _middle(y[first:last])
        middle[0, g] = x[place]
        middle[1, g] = y[place]
        middle[2, g] = 0.0
        for i in range(first, last):
            middle[2, g] += 1.0 / (error[i] * error[i])
    none = np.empty(0)
    curve = svi.start(middle[0], middle[1], middle[2], low, high)
    svi.descend(middle[0], middle[1], middle[2], curve, low, high, 12, 0.0, none, scale)
    for turn in range(_ROUNDS):
        _weigh(x, y, error, curve, weights)
        steps = 6 if turn < _ROUNDS - 1 else 20
        svi.descend(x, y, weights, curve, low, high, steps, 0.0, none, scale)
    return curve


@kernel
def _weigh(x: Floats, y: Floats, error: Floats, curve: Floats, weights: Floats) -> None:
    """Tukey's biweight of each point's miss, over the square of its error."""
    misses = np.empty(x.size)
    for i in range(x.size):
        misses[i] = abs(y[i] - svi.value(x[i], curve)) / error[i]
    reach = _REACH * max(1.4826 * _median(misses.copy()), _LEAST_SCALE)
    for i in range(x.size):
        share = misses[i] / reach
        say = max(1.0 - share * share, 0.0)
        weights[i] = say * say / (error[i] * error[i])


@kernel
def _report(
    years: float,
    moneyness: Floats,
    iv: Floats,
    x: Floats,
    y: Floats,
    error: Floats,
    weights: Floats,
    curve: Floats,
    low: Floats,
    high: Floats,
    scale: float,
    out_iv_fit: Floats,
) -> tuple[float, float, float, float, float, float, int, int]:
    miss, excess, kept = _misses(years, x, y, error, weights, curve, scale)
    status = OK if excess <= POOR_MISS and kept >= 0.7 * x.size else POOR
    nodes = np.empty(_NODES)
    svi.place_nodes(x[0], x[-1], curve, nodes)
    if svi.least_butterfly(nodes, curve, scale) < -_TOLERANCE:
        tamed = curve.copy()
        for pressure in (1e3, 1e5, 1e7):
            svi.descend(x, y, weights, tamed, low, high, 10, pressure, nodes, scale)
            svi.place_nodes(x[0], x[-1], tamed, nodes)
        tamed_miss, tamed_excess, _ = _misses(years, x, y, error, weights, tamed, scale)
        is_tame = svi.least_butterfly(nodes, tamed, scale) >= -_TOLERANCE
        if is_tame and (tamed_excess <= POOR_MISS or status == POOR):
            curve, miss = tamed, tamed_miss
        else:
            status = ARBITRAGE
    last = np.nan
    for i in range(moneyness.size):
        if i > 0 and moneyness[i] == moneyness[i - 1]:
            out_iv_fit[i] = last
        else:
            last = math.sqrt(svi.value(moneyness[i] / scale, curve) / years) * scale
            out_iv_fit[i] = last
    left, right = curve[svi.LEFT], curve[svi.RIGHT]
    both = left + right
    return (
        curve[svi.LEVEL] * scale * scale,
        0.5 * both * scale,
        (right - left) / both,
        curve[svi.MIDDLE] * scale,
        math.exp(curve[svi.BREADTH]) * scale,
        miss,
        kept,
        status,
    )


@kernel
def _misses(
    years: float,
    x: Floats,
    y: Floats,
    error: Floats,
    weights: Floats,
    curve: Floats,
    scale: float,
) -> tuple[float, float, int]:
    """Weighted RMS miss in vol points, the same in standard errors, and the points with a say."""
    total = 0.0
    square = 0.0
    squares = 0.0
    say = 0.0
    kept = 0
    for i in range(x.size):
        if weights[i] > 0.0:
            fitted = svi.value(x[i], curve)
            miss = 100.0 * scale * (math.sqrt(fitted) - math.sqrt(y[i])) / math.sqrt(years)
            kept += 1
            # The weights of volatilities are those of variances times (dw/dv)².
            weight = weights[i] * y[i]
            total += weight
            square += weight * miss * miss
            squares += weights[i] * (y[i] - fitted) ** 2
            say += weights[i] * error[i] * error[i]
    return math.sqrt(square / total), math.sqrt(squares / say), kept


@kernel
def _middle(values: Floats) -> int:
    """The place of the median of a few values."""
    n = values.size
    order = np.empty(n, np.int64)
    for i in range(n):
        j = i
        while j > 0 and values[order[j - 1]] > values[i]:
            order[j] = order[j - 1]
            j -= 1
        order[j] = i
    place: int = order[n // 2]
    return place


@kernel
def _median(values: Floats) -> float:
    """The middle value, by quickselect; reorders what it is given."""
    first, last, wanted = 0, values.size - 1, values.size // 2
    while first < last:
        pivot = values[(first + last) // 2]
        i, j = first, last
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if wanted <= j:
            last = j
        elif wanted >= i:
            first = i
        else:
            break
    middle: float = values[wanted]
    return middle
