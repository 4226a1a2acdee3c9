"""Implied volatility of a block of legs anywhere: far from the money, wild, near the maximum.

The step of `implied`, three times, with the Mills ratio on both sides of y, where it is safe to
subtract; a price nearer to its maximum than to its intrinsic value is solved for what is missing.
What is still open goes to `bracketed`, one leg after the other.
"""

import math

from pipeline.kernels import block, bracketed
from pipeline.kernels.block import SIZE
from pipeline.kernels.compiling import Floats, inlined, kernel
from pipeline.kernels.elementary import log_near_one, log_of_ratio
from pipeline.kernels.gaussian import INVERSE_ROOT_TWO_PI
from pipeline.kernels.implied import (
    LEAST_DISTANCE,
    LEAST_SHARE,
    OK,
    STAND_IN_SHARE,
    aim,
    exponentials,
    householder,
    mills_ratios,
    seed,
)

_STEPS = 3
_LAST_STEP = 1e-4  # one this small leaves an error of its fourth power
_LEAST_QUOTIENT = 1e-300  # what rounding left negative is far from done
_MILLS_END = 46.0  # as far as the quotient is known


@kernel
def solve_wide(scratch: Floats, count: int) -> None:
    """STATUS and the solution of a block anywhere, of which the first `count` legs matter."""
    _prepare(scratch)
    seed(scratch)
    _seed(scratch)
    for _ in range(_STEPS):
        _evaluate(scratch)
        _step(scratch)
    _solve_rest(scratch, count)
    for i in range(SIZE):
        s = scratch[block.S + i]
        by_s = 1.0 / s
        y, h = scratch[block.X + i] * by_s, 0.5 * s
        z = y - h
        scratch[block.BY_S + i] = by_s
        scratch[block.DENSITY + i] = -0.5 * z * z
        is_above = scratch[block.FORWARD + i] >= scratch[block.STRIKE + i]
        scratch[block.D1 + i] = y + h if is_above else -z
    exponentials(scratch, block.DENSITY)


@inlined
def _prepare(scratch: Floats) -> None:
    """What is to be reached at either end of the price range, and where the seed starts from."""
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
        is_upper = room < excess
        wanted = room if is_upper else excess
        is_usable = (status == OK) & (wanted > LEAST_SHARE * unit)
        by_wanted = 1.0 / (wanted if is_usable else STAND_IN_SHARE * unit)
        distance = max(high - low, high * LEAST_DISTANCE)
        by_share = unit * by_wanted
        scratch[block.STATUS + i] = status
        scratch[block.IS_UPPER + i] = 1.0 if is_upper else 0.0
        scratch[block.IS_USABLE + i] = 1.0 if is_usable else 0.0
        scratch[block.BY_SHARE + i] = by_share
        # For a price near its maximum the seed wants the logarithm of the share itself.
        scratch[block.FIRST + i] = by_share - 1.0 if is_upper else distance * discount * by_wanted
        scratch[block.X + i] = log_of_ratio(high, low)


@inlined
def _seed(scratch: Floats) -> None:
    """Bounds the seed, and makes another where what is missing to the maximum is wanted."""
    for i in range(SIZE):
        x = scratch[block.X + i]
        most = 0.7 + math.sqrt(0.5 + 2.0 * x)  # the share is above one half there
        # N(-z) is near exp(-z²/2 - 0.8z)/2; from z = h - y follows s. SECOND is -ln(share) there.
        z = math.sqrt(0.64 + 2.0 * scratch[block.SECOND + i]) - 0.8
        upper = z + math.sqrt(z * z + 2.0 * x)
        is_upper = scratch[block.IS_UPPER + i] != 0.0
        scratch[block.S + i] = upper if is_upper else min(scratch[block.S + i], most)


@inlined
def _evaluate(scratch: Floats) -> None:
    for i in range(SIZE):
        s = scratch[block.S + i]
        by_s = 1.0 / s
        y = scratch[block.X + i] * by_s
        z = y - 0.5 * s
        scratch[block.BY_S + i] = by_s
        scratch[block.Y + i] = y
        scratch[block.FIRST + i] = -0.5 * z * z
        scratch[block.SECOND + i] = abs(z)
        scratch[block.THIRD + i] = y + 0.5 * s
    exponentials(scratch, block.FIRST)
    mills_ratios(scratch, block.SECOND, block.SECOND)
    mills_ratios(scratch, block.THIRD, block.THIRD)


@inlined
def _step(scratch: Floats) -> None:
    for i in range(SIZE):
        s, y = scratch[block.S + i], scratch[block.Y + i]
        h = 0.5 * s
        density = INVERSE_ROOT_TWO_PI * scratch[block.FIRST + i]
        near, far = scratch[block.SECOND + i], scratch[block.THIRD + i]
        is_upper = scratch[block.IS_UPPER + i] != 0.0
        is_beyond = y < h  # z below zero: N(-z) is nearer to 1 than to 0
        both = density * (near + far)
        share = (1.0 - both) if is_beyond else density * (near - far)
        share = both if is_upper else share
        amplitude = -(near + far) if is_upper else share / density
        scratch[block.FIRST + i] = max(share * scratch[block.BY_SHARE + i], _LEAST_QUOTIENT)
        scratch[block.SECOND + i] = amplitude * scratch[block.BY_S + i]
    for i in range(SIZE):
        scratch[block.FIRST + i] = log_near_one(scratch[block.FIRST + i])
    for i in range(SIZE):
        s, y = scratch[block.S + i], scratch[block.Y + i]
        step = householder(scratch[block.FIRST + i], scratch[block.SECOND + i], y, 0.5 * s)
        is_done = (
            (scratch[block.IS_USABLE + i] != 0.0)
            & (abs(step) <= _LAST_STEP)
            & (y + 0.5 * s <= _MILLS_END)
        )
        step = min(max(step, -0.5), 1.0)
        scratch[block.S + i] = s + s * step
        scratch[block.IS_OPEN + i] = 0.0 if is_done | (scratch[block.STATUS + i] != OK) else 1.0


@inlined
def _solve_rest(scratch: Floats, count: int) -> None:
    """What the block left open, one leg after the other."""
    for i in range(count):
        if scratch[block.IS_OPEN + i] != 0.0:
            s, status = bracketed.solve_leg(
                scratch[block.FORWARD + i],
                scratch[block.DISCOUNT + i],
                scratch[block.YEARS + i],
                scratch[block.STRIKE + i],
                scratch[block.SIDE + i] > 0.0,
                scratch[block.PRICE + i],
            )
            scratch[block.STATUS + i] = status
            scratch[block.S + i] = s
