"""What the legs of a chain say of its smile: points of total variance, each with its error.

The standard error of a volatility is half its spread and half a tick, over vega. But it is not
less than a share of the volatility at the highest vega, and than as many rupees elsewhere: a curve
of five parameters follows no chain closer, and the far wings, where a rupee is ten vol points,
shall not draw it from the money. Never fits anything.
"""

import math

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.compiling import Booleans, Floats, kernel
from pipeline.kernels.greeks import TICK
from pipeline.kernels.medians import median_place
from pipeline.kernels.statuses import OK

LEAST_STRIKES = 5  # as many as a curve has parameters
X, Y, WEIGHT, ERROR = range(4)  # rows of points

_LEAST_ERROR = 0.005  # of the volatility
_LAST_ERROR = 0.05  # of the volatility, for a last price alone: nobody knows how old it is
_BLEND = 0.5  # deviations from the forward within which both kinds of a strike share its say


@kernel
def measure(forward: float, strikes: Floats, out: Floats) -> None:
    """ln(strike/forward) of each leg, NaN where the strike is none; pairs share theirs."""
    for i in range(strikes.size):
        if i > 0 and strikes[i] == strikes[i - 1]:
            out[i] = out[i - 1]
        elif 0.0 < strikes[i] < np.inf:
            out[i] = math.log(strikes[i] / forward)
        else:
            out[i] = np.nan


@kernel
def standard_errors(
    moneyness: Floats, iv: Floats, vega: Floats, spread: Floats, status: NDArray[np.int8]
) -> Floats:
    """The standard error of each volatility; NaN where the leg says nothing.

    The other kind at a strike has the same volatility; where it does not, one of the two is stale,
    and what they differ by is the error of both.
    """
    n = iv.size
    known = np.empty(n)
    most_vega = 0.0
    for i in range(n):
        known[i] = np.nan
        usable = status[i] == OK and 1e-6 < iv[i] < 1e3 and 0.0 < vega[i] < np.inf
        if usable and abs(moneyness[i]) < np.inf:
            most_vega = max(most_vega, vega[i])
            if spread[i] >= 0.0:
                known[i] = 0.005 * (spread[i] + TICK) / vega[i]
            else:
                known[i] = 0.005 * TICK / vega[i] + _LAST_ERROR * iv[i]
    errors = np.empty(n)
    for i in range(n):
        errors[i] = known[i]
        if known[i] < np.inf:
            errors[i] = max(known[i], _LEAST_ERROR * iv[i] * most_vega / vega[i])
            for j in (i - 1, i + 1):
                if 0 <= j < n and moneyness[j] == moneyness[i]:
                    gap = abs(iv[j] - iv[i]) - 2.0 * (known[i] + known[j])
                    if gap > 0.0:
                        errors[i] = math.sqrt(errors[i] * errors[i] + gap * gap)
    return errors


@kernel
def gather(
    years: float,
    moneyness: Floats,
    is_call: Booleans,
    iv: Floats,
    errors: Floats,
    points: Floats,
) -> int:
    """k, total variance and its standard error of each point; how many points."""
    root = math.sqrt(years)
    count = 0
    for i in range(iv.size):
        if not errors[i] < np.inf:
            continue
        share = 0.5 + 0.5 * moneyness[i] / (iv[i] * root * _BLEND)
        share = min(share if is_call[i] else 1.0 - share, 1.0)
        if share > 0.0:
            points[X, count] = moneyness[i]
            points[Y, count] = iv[i] * iv[i] * years
            points[ERROR, count] = 2.0 * iv[i] * years * errors[i] / math.sqrt(share)
            count += 1
    return count


@kernel
def rescale(points: Floats, count: int) -> float:
    """Brings the points to the units of `svi`; s, or NaN where there are too few strikes.

    s² is the median total variance of the five points nearest the forward.
    """
    rungs = 0
    nearest = 0
    for i in range(count):
        if i == 0 or points[X, i] != points[X, i - 1]:
            rungs += 1
        if abs(points[X, i]) < abs(points[X, nearest]):
            nearest = i
    if rungs < LEAST_STRIKES:
        return np.nan
    few = min(count, 5)
    square = points[Y, median_place(points[Y], min(max(nearest - 2, 0), count - few), few)]
    scale = math.sqrt(square)
    for i in range(count):
        points[X, i] /= scale
        points[Y, i] /= square
        points[ERROR, i] /= square
    return scale
