"""Implied volatility of a block of legs: bounds, a seed, and one step of fourth order.

With x = |ln(F/K)|, s = iv·√years, y = x/s, h = s/2 and z = y - h, the undiscounted time value is
min(F, K)·n(z)·[R(y-h) - R(y+h)], R being the Mills ratio. The seed turns the Bachelier model
around, which has a formula of one variable, and corrects it for the lognormal model by a series
in s² and x²; it is right to 1e-5 near the money. One step on the logarithm of the price then
reaches the last digit. What is far from the money or wild is left to `wide`. Never raises on
data; every leg ends with a status.
"""

import math

import numpy as np

from pipeline.kernels import block, statuses
from pipeline.kernels.block import SIZE
from pipeline.kernels.bracketed import EPSILON, LEAST, MOST
from pipeline.kernels.compiling import Floats, inlined, kernel
from pipeline.kernels.elementary import exponential, log_of_centred, rough_log_above_one
from pipeline.kernels.gaussian import INVERSE_ROOT_TWO_PI, mills_quotient

# As the lines of a block hold them.
OK = float(statuses.OK)
_BELOW_INTRINSIC = float(statuses.BELOW_INTRINSIC)
_AT_INTRINSIC = float(statuses.AT_INTRINSIC)
_ABOVE_MAXIMUM = float(statuses.ABOVE_MAXIMUM)
_INVALID = float(statuses.INVALID)
_EXPIRED = float(statuses.EXPIRED)

# The fast path: strikes within this ratio of the forward, s up to this, and no smaller a share of
# min(F, K). There the eight terms of the series below are exact to rounding.
NEAR_RATIO = 2.125
NEAR_S = 0.42
LEAST_SHARE = 1e-100
# A step this small leaves an error of its fourth power, and its logarithm is that of a few terms.
_NEAR_STEP = 1e-4
_NEAR_MISS = 0.01

STAND_IN_SHARE = 0.01  # solved where there is nothing to solve, so that no lane is slow
LEAST_DISTANCE = 1e-150  # at the money, in the forward: keeps 0/0 out of the seed
# Inverse of the Bachelier price: with t = ln(1 + |F-K|/time value) and v = √(t+2), the distance
# is |F-K|/(σ√T) = t/(v·top(v)/bottom(v)), to 8e-6 for distances up to 40.
_SEED_TOP = (
    4.414522554413988,
    -2.497140699354252,
    2.2878357639909805,
    -0.9720289188609524,
    0.27164922932866215,
    0.010019736415460782,
)
_SEED_BOTTOM = (
    1.0,
    -1.352718528087181,
    2.873364216552024,
    -1.5135613297415942,
    0.38522046598471843,
    0.014155003197399438,
)


@inlined
def bar(forward: float, discount: float, years: float) -> float:
    """The status that keeps every price of a chain from having a volatility, or OK."""
    is_sane = ((forward >= LEAST) & (forward <= MOST)) & (
        (discount >= LEAST) & (discount <= MOST) & (years <= MOST)
    )
    status = OK if is_sane else _INVALID
    return _EXPIRED if years <= 0.0 else status


@inlined
def aim(
    forward: float, discount: float, strike: float, side: float, price: float, barred: float
) -> tuple[float, float, float]:
    """(status, what is above the intrinsic value, what is missing to the maximum), discounted."""
    excess = price - discount * max((forward - strike) * side, 0.0)
    ceiling = discount * (forward if side > 0.0 else strike)
    room = ceiling - price
    status = _ABOVE_MAXIMUM if room <= EPSILON * ceiling else OK
    status = _AT_INTRINSIC if excess <= EPSILON * price else status
    status = _BELOW_INTRINSIC if excess < -EPSILON * price else status
    is_sane = (strike >= LEAST) & (strike <= MOST) & (price >= 0.0) & (price < np.inf)
    status = status if is_sane else _INVALID
    return (barred if barred != OK else status), excess, room


@inlined
def _prepare_near(scratch: Floats) -> None:
    """What is to be reached, and the ratio that the seed starts from."""
    for i in range(SIZE):
        forward, strike = scratch[block.FORWARD + i], scratch[block.STRIKE + i]
        discount = scratch[block.DISCOUNT + i]
        status, excess, room = aim(
            forward,
            discount,
            strike,
            scratch[block.SIDE + i],
            scratch[block.PRICE + i],
            scratch[block.BARRED + i],
        )
        low, high = min(forward, strike), max(forward, strike)
        unit = discount * low
        is_near = ((status == OK) & (excess <= room)) & (
            (excess > LEAST_SHARE * unit) & (high <= NEAR_RATIO * low)
        )
        by_excess = 1.0 / (excess if is_near else STAND_IN_SHARE * unit)
        distance = max(high - low, high * LEAST_DISTANCE)
        scratch[block.STATUS + i] = status
        scratch[block.IS_OPEN + i] = 0.0 if is_near else 1.0
        scratch[block.BY_SHARE + i] = unit * by_excess
        scratch[block.FIRST + i] = distance * discount * by_excess
        scratch[block.SECOND + i] = distance / (high + low)


@inlined
def seed(scratch: Floats) -> None:
    """S from X and the ratio in FIRST."""
    for i in range(SIZE):
        scratch[block.SECOND + i] = rough_log_above_one(scratch[block.FIRST + i])
    for i in range(SIZE):
        t = scratch[block.SECOND + i]
        v = math.sqrt(t + 2.0)
        v2 = v * v
        v4 = v2 * v2
        p, q = _SEED_TOP, _SEED_BOTTOM
        top = ((p[0] + p[1] * v) + (p[2] + p[3] * v) * v2) + (p[4] + p[5] * v) * v4
        bottom = ((q[0] + q[1] * v) + (q[2] + q[3] * v) * v2) + (q[4] + q[5] * v) * v4
        scratch[block.FIRST + i] = v * top
        scratch[block.THIRD + i] = t * bottom
    for i in range(SIZE):
        x = max(scratch[block.X + i], LEAST_DISTANCE)
        s = x * scratch[block.FIRST + i] / scratch[block.THIRD + i]
        q = s * s
        # The first coefficient is ln(sinh(x/2)/(x/2))/x².
        first = 1.0 / 24.0 + x * x * (-1.0 / 2880.0 + x * x * (1.0 / 181440.0))
        scratch[block.S + i] = s * (1.0 + q * (first + q * (7.0 / 1920.0 + q * (127.0 / 322560.0))))


@inlined
def exponentials(scratch: Floats, line: int) -> None:
    """e to each value of a line, in its place."""
    for i in range(SIZE):
        scratch[line + i] = exponential(scratch[line + i])


@inlined
def mills_ratios(scratch: Floats, line: int, target: int) -> None:
    """R of each value of a line, none of them negative."""
    for i in range(SIZE):
        scratch[target + i] = mills_quotient(scratch[line + i])


@kernel
def solve_near(scratch: Floats) -> None:
    """STATUS and the solution of the block; IS_OPEN where only `wide` can tell."""
    _prepare_near(scratch)
    for i in range(SIZE):
        scratch[block.X + i] = log_of_centred(scratch[block.SECOND + i])
    seed(scratch)
    for i in range(SIZE):
        s = scratch[block.S + i]
        by_s = 1.0 / s
        y = scratch[block.X + i] * by_s
        z = y - 0.5 * s
        scratch[block.BY_S + i] = by_s
        scratch[block.Y + i] = y
        scratch[block.DENSITY + i] = -0.5 * z * z
    exponentials(scratch, block.DENSITY)
    mills_ratios(scratch, block.Y, block.SECOND)
    _difference_by_moments(scratch)
    _step_near(scratch)
    _settle_near(scratch)


@inlined
def _difference_by_moments(scratch: Floats) -> None:
    """R(y-h) - R(y+h) into THIRD, from R(y) in SECOND, without the cancellation of small h.

    The series is 2·Σ h^n·M[n]/n! over odd n, M[n] = ∫ t^n exp(-yt - t²/2) dt, with M[1] = 1 - yR,
    M[3] = (y²+3)·M[1] - 1 and M[n+2] = (y²+2n+1)·M[n] - n(n-1)·M[n-2].
    """
    for i in range(SIZE):
        h = 0.5 * scratch[block.S + i]
        half_x = 0.5 * scratch[block.X + i]
        hh = h * h
        h4 = hh * hh
        rise = 4.0 * hh
        factor = half_x * half_x + 3.0 * hh
        m1 = h * (1.0 - scratch[block.Y + i] * scratch[block.SECOND + i])
        m3 = factor * m1 - hh * h
        total = m1 + m3 * (1.0 / 6.0)
        factor += rise
        m5 = factor * m3 - h4 * 6.0 * m1
        total += m5 * (1.0 / 120.0)
        factor += rise
        m7 = factor * m5 - h4 * 20.0 * m3
        total += m7 * (1.0 / 5040.0)
        factor += rise
        m9 = factor * m7 - h4 * 42.0 * m5
        total += m9 * (1.0 / 362880.0)
        factor += rise
        m11 = factor * m9 - h4 * 72.0 * m7
        total += m11 * (1.0 / 39916800.0)
        factor += rise
        m13 = factor * m11 - h4 * 110.0 * m9
        total += m13 * (1.0 / 6227020800.0)
        factor += rise
        m15 = factor * m13 - h4 * 156.0 * m11
        total += m15 * (1.0 / 1307674368000.0)
        scratch[block.THIRD + i] = 2.0 * total


@inlined
def _step_near(scratch: Floats) -> None:
    """The relative change of s into FIRST."""
    for i in range(SIZE):
        s, y = scratch[block.S + i], scratch[block.Y + i]
        amplitude = scratch[block.THIRD + i]
        share = INVERSE_ROOT_TWO_PI * scratch[block.DENSITY + i] * amplitude
        e = share * scratch[block.BY_SHARE + i] - 1.0
        # ln(1 + e) by its series.
        ee = e * e
        series = (1.0 / 3.0 - 0.25 * e) + (0.2 - e * (1.0 / 6.0)) * ee
        miss = e * ((1.0 - 0.5 * e) + series * ee)
        step = householder(miss, amplitude * scratch[block.BY_S + i], y, 0.5 * s)
        is_done = ((scratch[block.IS_OPEN + i] == 0.0) & (s <= NEAR_S)) & (
            (abs(e) <= _NEAR_MISS) & (abs(step) <= _NEAR_STEP)
        )
        is_over = is_done | (scratch[block.STATUS + i] != OK)
        scratch[block.IS_OPEN + i] = 0.0 if is_over else 1.0
        scratch[block.FIRST + i] = step


@inlined
def _settle_near(scratch: Floats) -> None:
    """The solution after the step, the density by the few terms that so small a step leaves."""
    for i in range(SIZE):
        s, by_s, y = scratch[block.S + i], scratch[block.BY_S + i], scratch[block.Y + i]
        step = scratch[block.FIRST + i]
        before = y - 0.5 * s
        s += s * step
        by_s *= 1.0 - step * (1.0 - step * (1.0 - step))
        y, h = scratch[block.X + i] * by_s, 0.5 * s
        z = y - h
        e = 0.5 * (before - z) * (before + z)
        ee = e * e
        series = (0.5 + e * (1.0 / 6.0)) + (1.0 / 24.0 + e * (1.0 / 120.0)) * ee
        scratch[block.S + i] = s
        scratch[block.BY_S + i] = by_s
        scratch[block.DENSITY + i] *= 1.0 + (e + ee * (series + ee * ee * (1.0 / 720.0)))
        is_above = scratch[block.FORWARD + i] >= scratch[block.STRIKE + i]
        scratch[block.D1 + i] = y + h if is_above else -z


@inlined
def householder(miss: float, slope: float, y: float, h: float) -> float:
    """The relative change of s by Householder's step of fourth order on the logarithm of a share.

    `miss` is that logarithm less the wanted one; `slope` is amplitude/s, negative where the share
    is what is missing to the maximum.
    """
    yy, hh = y * y, h * h
    newton = -miss * slope
    bend = miss * (1.0 - slope * (yy - hh))
    twist = bend * (bend + miss) - newton * newton * (3.0 * yy + hh)
    return newton * (1.0 + 0.5 * bend) / (1.0 + bend + twist * (1.0 / 6.0))
