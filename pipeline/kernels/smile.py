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
_LEAST_MISS = 0.005  # of itself: no quote is surer of a volatility at the forward
_LAST_MISS = 0.1  # of itself: how well a volatility is known from a last price alone
_GROUPS = 24
_REACH = 4.685  # standard deviations beyond which a point has no say (Tukey's biweight)
_LEAST_SCALE = 0.25
_ROUNDS = 3
_NODES = 41
_TOLERANCE = 1e-4  # of g

_X, _Y, _WEIGHT, _ERROR = range(4)  # rows of points


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
    _measure(forward, strikes, out_iv_fit)
    points = np.zeros((4, strikes.size))
    count, rungs = _gather(years, out_iv_fit, is_call, iv, vega, spread, status, points)
    if rungs < LEAST_POINTS:
        out_iv_fit[:] = np.nan
        return nothing
    scale = math.sqrt(_nearest_variance(points, count))
    for i in range(count):
        points[_X, i] /= scale
        for row in range(_Y, 4):
            points[row, i] /= scale * scale
    low, high = _bounds(points[_X, 0], points[_X, count - 1], scale)
    curve = _robust(points, count, low, high, scale)
    return _report(years, points, count, curve, low, high, scale, out_iv_fit)


@kernel
def _measure(forward: float, strikes: Floats, out: Floats) -> None:
    """ln(strike/forward) of each leg, NaN where the strike is none; pairs share theirs."""
    for i in range(strikes.size):
        if i > 0 and strikes[i] == strikes[i - 1]:
            out[i] = out[i - 1]
        elif 0.0 < strikes[i] < np.inf:
            out[i] = math.log(strikes[i] / forward)


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
        if spread[i] >= 0.0:
            half = 0.005 * (spread[i] + TICK) / vega[i]
        else:
            half = 0.01 * TICK / vega[i] + _LAST_MISS * iv[i]
        least = _LEAST_MISS * iv[i] * most_vega / vega[i]
        points[_X, count] = moneyness[i]
        points[_Y, count] = iv[i] * iv[i] * years
        points[_ERROR, count] = 2.0 * iv[i] * years * math.sqrt((least**2 + half**2) / share)
        count += 1
        if moneyness[i] != last:
            rungs += 1
            last = moneyness[i]
    return count, rungs


@kernel
def _nearest_variance(points: Floats, count: int) -> float:
    """The median total variance of the five points nearest the forward."""
    nearest = 0
    for i in range(count):
        if abs(points[_X, i]) < abs(points[_X, nearest]):
            nearest = i
    first = min(max(nearest - 2, 0), count - 5)
    return points[_Y, first + _middle(points[_Y, first : first + 5])]


@kernel
def _bounds(first: float, last: float, scale: float) -> tuple[Floats, Floats]:
    """Between which each parameter may lie."""
    span = last - first
    steepest = 2.0 / scale
    low = np.array([-np.inf, 1e-6, 1e-6, min(first, 0.0) - 0.5 * span, math.log(0.02)])
    widest = math.log(max(span, 4.0))
    high = np.array([np.inf, steepest, steepest, max(last, 0.0) + 0.5 * span, widest])
    return low, high


@kernel
def _robust(points: Floats, count: int, low: Floats, high: Floats, scale: float) -> Floats:
    """The curve through the points, and into `weights` the say that each had in the end."""
    size = (count // _GROUPS) | 1
    groups = count // size
    middle = np.zeros((4, groups))
    for g in range(groups):
        first = g * size
        last = first + size if g < groups - 1 else count
        place = first + _middle(points[_Y, first:last])
        middle[_X, g] = points[_X, place]
        middle[_Y, g] = points[_Y, place]
        for i in range(first, last):
            middle[_WEIGHT, g] += 1.0 / (points[_ERROR, i] * points[_ERROR, i])
    none = np.empty(0)
    curve = svi.start(middle, groups, low, high)
    svi.descend(middle, groups, curve, low, high, 1e-3, 0.0, none, scale)
    for turn in range(_ROUNDS):
        _weigh(points, count, curve)
        settled = 1e-3 if turn < _ROUNDS - 1 else 1e-6
        svi.descend(points, count, curve, low, high, settled, 0.0, none, scale)
    return curve


@kernel
def _weigh(points: Floats, count: int, curve: Floats) -> None:
    """Tukey's biweight of each point's miss, over the square of its error."""
    misses = np.empty((2, count))
    square = math.exp(2.0 * curve[svi.BREADTH])
    for i in range(count):
        miss = abs(points[_Y, i] - svi.value(points[_X, i], curve, square)) / points[_ERROR, i]
        misses[0, i] = miss
        misses[1, i] = miss
    reach = _REACH * max(1.4826 * _median(misses[1]), _LEAST_SCALE)
    for i in range(count):
        share = misses[0, i] / reach
        say = max(1.0 - share * share, 0.0) / points[_ERROR, i]
        points[_WEIGHT, i] = say * say


@kernel
def _report(
    years: float,
    points: Floats,
    count: int,
    curve: Floats,
    low: Floats,
    high: Floats,
    scale: float,
    out_iv_fit: Floats,
) -> tuple[float, float, float, float, float, float, int, int]:
    miss, excess, kept = _misses(years, points, count, curve, scale)
    status = OK if excess <= POOR_MISS and kept >= 0.7 * count else POOR
    nodes = np.empty(_NODES)
    first, last = points[_X, 0], points[_X, count - 1]
    svi.place_nodes(first, last, curve, nodes)
    if svi.least_butterfly(nodes, curve, scale) < -_TOLERANCE:
        tamed = curve.copy()
        for pressure in (1e3, 1e5, 1e7):
            svi.descend(points, count, tamed, low, high, 1e-6, pressure, nodes, scale)
            svi.place_nodes(first, last, tamed, nodes)
        tamed_miss, tamed_excess, _ = _misses(years, points, count, tamed, scale)
        is_tame = svi.least_butterfly(nodes, tamed, scale) >= -_TOLERANCE
        if is_tame and (tamed_excess <= POOR_MISS or status == POOR):
            curve, miss = tamed, tamed_miss
        else:
            status = ARBITRAGE
    root = scale / math.sqrt(years)
    square = math.exp(2.0 * curve[svi.BREADTH])
    before = np.nan
    for i in range(out_iv_fit.size):
        here = out_iv_fit[i]
        if i > 0 and here == before:
            out_iv_fit[i] = out_iv_fit[i - 1]
        else:
            out_iv_fit[i] = root * math.sqrt(svi.value(here / scale, curve, square))
        before = here
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
    years: float, points: Floats, count: int, curve: Floats, scale: float
) -> tuple[float, float, int]:
    """Weighted RMS miss in vol points, the same in standard errors, and the points with a say."""
    total = say = squares = vol_squares = 0.0
    kept = 0
    square = math.exp(2.0 * curve[svi.BREADTH])
    for i in range(count):
        weight = points[_WEIGHT, i]
        if weight > 0.0:
            y, error = points[_Y, i], points[_ERROR, i]
            fitted = svi.value(points[_X, i], curve, square)
            squares += weight * (y - fitted) ** 2
            say += weight * error * error
            # The weights of volatilities are those of variances times (dw/dv)².
            weight *= y
            total += weight
            vol_squares += weight * (math.sqrt(fitted) - math.sqrt(y)) ** 2
            kept += 1
    return 100.0 * scale * math.sqrt(vol_squares / (total * years)), math.sqrt(squares / say), kept


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
