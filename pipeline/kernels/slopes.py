"""The Greeks of a solved block, and what they need of a chain's forward, discount and years.

Formulas and units are those of `greeks`. Never solves for a volatility.
"""

import math

import numpy as np

from pipeline.kernels import block
from pipeline.kernels.block import SIZE
from pipeline.kernels.compiling import Floats, inlined, kernel
from pipeline.kernels.elementary import log_near_one
from pipeline.kernels.gaussian import INVERSE_ROOT_TWO_PI, mills_quotient
from pipeline.kernels.implied import bar
from pipeline.kernels.statuses import ILL_CONDITIONED

# A volatility that half a tick would move by more than this share of itself is ill-conditioned.
MOST_TICK_EFFECT = 0.1
_DAYS = 365.0

# The lines that hold the results once a block is finished.
_IV = block.RESULTS
_DELTA = block.RESULTS + SIZE
_GAMMA = block.RESULTS + 2 * SIZE
_THETA = block.RESULTS + 3 * SIZE
_VEGA = block.RESULTS + 4 * SIZE
_RHO = block.RESULTS + 5 * SIZE
STATUS = block.FIRST  # the final one
_WEIGHT = block.BY_SHARE
_TAIL = block.IS_UPPER
_ILL = np.float64(ILL_CONDITIONED)


@inlined
def fill(scratch: Floats, chain: tuple[float, float, float]) -> None:
    """A chain's forward, discount and years, and what follows from them, at every place."""
    barred, log_discount, by_forward, root, by_root = _derived(chain[0], chain[1], chain[2])
    for i in range(SIZE):
        scratch[block.FORWARD + i] = chain[0]
        scratch[block.DISCOUNT + i] = chain[1]
        scratch[block.YEARS + i] = chain[2]
        scratch[block.BARRED + i] = barred
        scratch[block.LOG_DISCOUNT + i] = log_discount
        scratch[block.BY_FORWARD + i] = by_forward
        scratch[block.ROOT_YEARS + i] = root
        scratch[block.BY_ROOT_YEARS + i] = by_root


@inlined
def derive(scratch: Floats) -> None:
    """What follows from forward, discount and years, where every leg has its own."""
    for i in range(SIZE):
        barred, log_discount, by_forward, root, by_root = _derived(
            scratch[block.FORWARD + i], scratch[block.DISCOUNT + i], scratch[block.YEARS + i]
        )
        scratch[block.BARRED + i] = barred
        scratch[block.LOG_DISCOUNT + i] = log_discount
        scratch[block.BY_FORWARD + i] = by_forward
        scratch[block.ROOT_YEARS + i] = root
        scratch[block.BY_ROOT_YEARS + i] = by_root


@inlined
def _derived(
    forward: float, discount: float, years: float
) -> tuple[float, float, float, float, float]:
    root = math.sqrt(years)
    barred = bar(forward, discount, years)
    return barred, log_near_one(discount), 1.0 / forward, root, 1.0 / root


@kernel
def finish(scratch: Floats, tick: float, has_greeks: bool) -> None:
    """Volatility, status and, if wanted, the Greeks of a block that is solved."""
    for i in range(SIZE):
        s, status = scratch[block.S + i], scratch[block.STATUS + i]
        low = min(scratch[block.FORWARD + i], scratch[block.STRIKE + i])
        peak = low * INVERSE_ROOT_TWO_PI * scratch[block.DENSITY + i]
        weight = scratch[block.DISCOUNT + i] * peak
        is_ill = (status == 0.0) & (0.5 * tick > MOST_TICK_EFFECT * (weight * s))
        # NaN where there is no volatility, and so in everything that it enters.
        s = s if status == 0.0 else np.nan
        scratch[STATUS + i] = _ILL if is_ill else status
        scratch[_IV + i] = s * scratch[block.BY_ROOT_YEARS + i]
        scratch[_WEIGHT + i] = weight if status == 0.0 else np.nan
        # Of the tail N(-|d1|) = F·n(d1)·R(|d1|)/F what is there before R.
        scratch[_TAIL + i] = peak * scratch[block.BY_FORWARD + i]
    if has_greeks:
        for i in range(SIZE):
            scratch[block.SECOND + i] = mills_quotient(abs(scratch[block.D1 + i]))
        _greeks(scratch)


@inlined
def _greeks(scratch: Floats) -> None:
    for i in range(SIZE):
        weight, by_forward = scratch[_WEIGHT + i], scratch[block.BY_FORWARD + i]
        tail = scratch[_TAIL + i] * scratch[block.SECOND + i]
        side = scratch[block.SIDE + i]
        chance = tail if side * scratch[block.D1 + i] < 0.0 else 1.0 - tail
        nothing = 0.0 * weight
        signed = side * scratch[block.DISCOUNT + i]
        scratch[_DELTA + i] = signed * chance + nothing
        scratch[_GAMMA + i] = weight * by_forward * by_forward * scratch[block.BY_S + i]
    for i in range(SIZE):
        weight, price = scratch[_WEIGHT + i], scratch[block.PRICE + i]
        by_root = scratch[block.BY_ROOT_YEARS + i]
        nothing = 0.0 * weight
        decay = scratch[block.LOG_DISCOUNT + i] * price + 0.5 * weight * scratch[block.S + i]
        scratch[_THETA + i] = decay * (by_root * by_root * (-1.0 / _DAYS))
        scratch[_VEGA + i] = 0.01 * weight * scratch[block.ROOT_YEARS + i]
        scratch[_RHO + i] = -0.01 * scratch[block.YEARS + i] * price + nothing
