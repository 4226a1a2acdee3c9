"""The smile of an expiry: one curve through the volatilities of its legs.

A raw SVI curve in total variance, fitted to the legs out of the money, each weighed by how well
its quote knows the volatility; legs that disagree with their strike's other leg, or with all the
rest, lose their say. A curve that would hold butterfly arbitrage is bent until it does not. Every
call starts cold and takes the same steps, so the same chain always gives the same bits. Never
raises on data.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.kernels import svi
from pipeline.kernels.compiling import Booleans, Floats, booleans, floats, kernel
from pipeline.kernels.descent import descend, start
from pipeline.kernels.medians import median_place, upper_median
from pipeline.kernels.points import ERROR, WEIGHT, X, Y, gather, measure, rescale, standard_errors

NONE = 0
OK = 1
POOR = 2
ARBITRAGE = 3

MOST_MISS = 2.0  # standard errors; a weighted mean square miss beyond is poor
FAR_MISS = 4.0  # standard errors; a leg that is off by more is not fitted
MOST_FAR = 0.1  # of the legs
TOLERANCE = 1e-4  # of g, below zero

_GROUPS = 24  # at least, of neighbours whose medians start the search, where there are enough legs
_REACH = 4.685 * 1.4826  # median misses beyond which a leg has no say (Tukey's biweight)
_LEAST_REACH = 2.0  # standard errors
_NARROWINGS = 8
_ROUNDS = 3
_NODES = 41


class SmileFit(NamedTuple):
    """Raw SVI of an expiry over k = ln(strike/forward), and how well it fits.

    error is the root of the weighted mean square miss in vol points, points the legs that had a
    say in it, status one of the codes above; with `NONE` the parameters and error are NaN.
    """

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
    """The smile of n legs that run by strike, ascending; its volatility at each into `out_iv_fit`.

    iv decimal per year, vega in rupees per vol point, spread = ask - bid in rupees or NaN where
    the price is no mid; status as `IvStatus`, int8 or uint8. Fitted are legs with status 0 out of
    the money, and both kinds within half a deviation of the forward. `NONE`: fewer than five such
    strikes, or a forward or years that are none; every iv_fit is NaN. `POOR`: the miss is above
    twice what quotes and curve allow, or one leg in ten is off by four times that.
    `ARBITRAGE`: g < 0 somewhere between the lowest and the highest strike, because a curve without
    would be poor. ValueError where lengths differ.
    """
    strikes, is_call, iv = floats(strikes), booleans(is_call), floats(iv)
    vega, spread = floats(vega), floats(spread)
    columns = (is_call, iv, vega, spread, status, out_iv_fit)
    if any(column.size != strikes.size for column in columns):
        raise ValueError("the columns differ in length")
    codes = status.view(np.int8) if status.flags.carray else status.astype(np.int8)
    found = _fit(
        *(float(forward), float(years), strikes, is_call, iv, vega, spread),
        *(codes, out_iv_fit),
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
    points = np.empty((4, strikes.size))
    count = 0
    scale = np.nan
    if 0.0 < forward < np.inf and 0.0 < years < np.inf:
        measure(forward, strikes, out_iv_fit)
        errors = standard_errors(out_iv_fit, iv, vega, spread, status)
        count = gather(years, out_iv_fit, is_call, iv, errors, points)
        scale = rescale(points, count)
    if scale > 0.0:
        low, high = _bounds(points, count, scale)
        curve = _robust(points, count, low, high, scale)
        found = _report(years, points, count, curve, low, high, scale, out_iv_fit)
        if found[7] != NONE:
            return found
    for i in range(out_iv_fit.size):
        out_iv_fit[i] = np.nan
    return np.nan, np.nan, np.nan, np.nan, np.nan, np.nan, 0, NONE


@kernel
def _bounds(points: Floats, count: int, scale: float) -> tuple[Floats, Floats]:
    """Between which each parameter may lie."""
    first, last = min(points[X, 0], 0.0), max(points[X, count - 1], 0.0)
    span = last - first
    steepest = 2.0 / scale
    low = np.array((-np.inf, 1e-6, 1e-6, first - 0.5 * span, math.log(0.02)))
    high = np.array((np.inf, steepest, steepest, last + 0.5 * span, math.log(2.0 * span + 8.0)))
    return low, high


@kernel
def _robust(points: Floats, count: int, low: Floats, high: Floats, scale: float) -> Floats:
    """The curve through the points, and into their weights the say that each had in the end.

    The search starts from medians of neighbours, with a reach that narrows while misses are found
    beyond it, so that a few wild legs never draw it to themselves.
    """
    size = (count // _GROUPS) | 1
    groups = count // size
    middle = np.zeros((4, groups))
    for g in range(groups):
        first = g * size
        last = first + size if g < groups - 1 else count
        place = median_place(points[Y], first, last - first)
        middle[X, g] = points[X, place]
        middle[Y, g] = points[Y, place]
        for i in range(first, last):
            middle[WEIGHT, g] += 1.0 / (points[ERROR, i] * points[ERROR, i])
        middle[ERROR, g] = 1.0 / math.sqrt(middle[WEIGHT, g])
    nodes = np.empty(0)
    curve = start(middle, groups, low, high)
    share = 1.0
    for _ in range(_NARROWINGS):
        descend(middle, groups, curve, low, high, 1e-3, 0.0, nodes, scale)
        share *= 0.5
        if not _weigh(middle, groups, curve, share):
            break
    for turn in range(_ROUNDS):
        _weigh(points, count, curve, 0.0)
        settled = 1e-3 if turn < _ROUNDS - 1 else 1e-6
        descend(points, count, curve, low, high, settled, 0.0, nodes, scale)
    return curve


@kernel
def _weigh(points: Floats, count: int, curve: Floats, share: float) -> bool:
    """Weights from errors and from Tukey's biweight of the misses.

    Its reach is at least that share of the greatest miss; whether this is what decided it.
    """
    misses = np.empty(count)
    ordered = np.empty(count)
    square = math.exp(2.0 * curve[svi.BREADTH])
    greatest = 0.0
    for i in range(count):
        miss = abs(points[Y, i] - svi.value(points[X, i], curve, square)) / points[ERROR, i]
        misses[i] = ordered[i] = miss
        greatest = max(greatest, miss)
    reach = max(_REACH * upper_median(ordered), _LEAST_REACH)
    is_wide = share * greatest > reach
    if is_wide:
        reach = share * greatest
    for i in range(count):
        part = misses[i] / reach
        say = max(1.0 - part * part, 0.0) / points[ERROR, i]
        points[WEIGHT, i] = say * say
    return is_wide


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
    """The curve without arbitrage if that is no worse, its volatilities, and what is said of it."""
    error, kept, status = _judge(years, points, count, curve, scale)
    first = last = points[X, 0]
    for k in out_iv_fit:
        if not math.isnan(k):
            first, last = min(first, k / scale), max(last, k / scale)
    nodes = np.empty(_NODES)
    if svi.least_butterfly(first, last, curve, scale, nodes) < -TOLERANCE:
        tame = curve.copy()
        least = -np.inf
        for pressure in (1e4, 1e6, 1e8):
            if least < -TOLERANCE:
                descend(points, count, tame, low, high, 1e-4, pressure, nodes, scale)
                least = svi.least_butterfly(first, last, tame, scale, nodes)
        tame_error, _, tame_status = _judge(years, points, count, tame, scale)
        if least >= -TOLERANCE and tame_status <= status:
            curve, error = tame, tame_error
        else:
            status = ARBITRAGE
    root = scale / math.sqrt(years)
    square = math.exp(2.0 * curve[svi.BREADTH])
    before = np.nan
    for i in range(out_iv_fit.size):
        k = out_iv_fit[i]
        if k == before:
            out_iv_fit[i] = out_iv_fit[i - 1]
        else:
            out_iv_fit[i] = root * math.sqrt(svi.value(k / scale, curve, square))
        before = k
    left, right = curve[svi.LEFT], curve[svi.RIGHT]
    a, b = curve[svi.LEVEL] * scale * scale, 0.5 * (left + right) * scale
    m, sigma = curve[svi.MIDDLE] * scale, math.exp(curve[svi.BREADTH]) * scale
    if not (abs(a) + b + abs(m) + sigma + error < np.inf and sigma > 0.0):
        status = NONE
    return a, b, (right - left) / (left + right), m, sigma, error, kept, status


@kernel
def _judge(
    years: float, points: Floats, count: int, curve: Floats, scale: float
) -> tuple[float, int, int]:
    """Weighted RMS miss in vol points, how many points had a say, and OK or POOR."""
    square = math.exp(2.0 * curve[svi.BREADTH])
    weights = vol_squares = 0.0
    says = squares = 0.0
    kept = far = 0
    for i in range(count):
        y, error, weight = points[Y, i], points[ERROR, i], points[WEIGHT, i]
        fitted = svi.value(points[X, i], curve, square)
        miss = (y - fitted) / error
        if abs(miss) > FAR_MISS:
            far += 1
        if weight > 0.0:
            kept += 1
            says += weight * error * error
            squares += weight * error * error * miss * miss
            # The weights of volatilities are those of variances times (dw/dv)².
            weights += weight * y
            vol_squares += weight * y * (math.sqrt(fitted) - math.sqrt(y)) ** 2
    error = 100.0 * scale * math.sqrt(vol_squares / (weights * years))
    is_close = squares <= MOST_MISS * MOST_MISS * says and far <= MOST_FAR * count
    return error, kept, OK if is_close else POOR
