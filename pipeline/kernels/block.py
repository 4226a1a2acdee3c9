"""The scratch in which a block of legs is solved: one line of numbers for each quantity.

Short loops over one array that stays in the first cache run several legs at once and keep many
of them in flight; a single long loop would wait for itself. A block always has all its places
computed, those without a leg on harmless values, so that a leg's digits never depend on its
neighbours or on how many there are. Never solves anything.
"""

import math

import numpy as np

from pipeline.kernels.compiling import Booleans, Floats, inlined
from pipeline.kernels.elementary import log_near_one

SIZE = 64  # legs

# Where each line starts. What came in, and what follows from forward, discount and years alone:
FORWARD = 0 * SIZE
DISCOUNT = 1 * SIZE
YEARS = 2 * SIZE
STRIKE = 3 * SIZE
SIDE = 4 * SIZE  # 1 for a call, -1 for a put
PRICE = 5 * SIZE
LOG_DISCOUNT = 6 * SIZE
BY_FORWARD = 7 * SIZE  # 1/forward
ROOT_YEARS = 8 * SIZE
BY_ROOT_YEARS = 9 * SIZE  # 1/√years
# The solution: x = |ln(forward/strike)|, s = iv·√years, y = x/s.
X = 10 * SIZE
S = 11 * SIZE
BY_S = 12 * SIZE
Y = 13 * SIZE
BY_SHARE = 14 * SIZE  # min(forward, strike) over what is to be reached
STATUS = 15 * SIZE
IS_UPPER = 16 * SIZE  # 1 where what is missing to the maximum is to be reached
IS_USABLE = 17 * SIZE  # 1 where what is to be reached is neither nothing nor next to nothing
IS_OPEN = 18 * SIZE  # 1 where there is a volatility and no answer yet
# Whatever passes from one loop to the next.
FIRST = 19 * SIZE
SECOND = 20 * SIZE
THIRD = 21 * SIZE
# The results, in the order of the outputs.
RESULTS = 22 * SIZE
LINES = 28

_HARMLESS_SHARE = 0.1  # of the discounted forward: an option at the money with s near 0.25


@inlined
def fill(scratch: Floats, forward: float, discount: float, years: float) -> None:
    """Every place with these terms and a harmless leg."""
    for i in range(SIZE):
        scratch[FORWARD + i] = forward
        scratch[DISCOUNT + i] = discount
        scratch[YEARS + i] = years
    _make_harmless(scratch, 0)


@inlined
def load_terms(
    scratch: Floats, terms: tuple[Floats, Floats, Floats], start: int, count: int
) -> bool:
    """Forward, discount and years, where not empty; whether any differs from the last block's."""
    first = np.uint64(start)  # an index without a sign needs no test for counting from the end
    is_new = False
    for number in range(3):
        values = terms[number]
        line = FORWARD + number * SIZE
        if values.size > 0:
            for i in range(count):
                value = values[first + np.uint64(i)]
                is_new |= value != scratch[line + i]
                scratch[line + i] = value
    return is_new


@inlined
def load_legs(
    scratch: Floats,
    strikes: Floats,
    is_call: Booleans,
    prices: Floats,
    start: int,
    count: int,
) -> None:
    """Strike, side and price of `count` legs; the places behind them become harmless."""
    first = np.uint64(start)
    for i in range(count):
        scratch[STRIKE + i] = strikes[first + np.uint64(i)]
    for i in range(count):
        scratch[PRICE + i] = prices[first + np.uint64(i)]
    for i in range(count):
        scratch[SIDE + i] = 1.0 if is_call[first + np.uint64(i)] else -1.0
    _make_harmless(scratch, count)


@inlined
def derive_terms(scratch: Floats) -> None:
    """What the Greeks need of forward, discount and years."""
    for i in range(SIZE):
        scratch[LOG_DISCOUNT + i] = log_near_one(scratch[DISCOUNT + i])
    for i in range(SIZE):
        root = math.sqrt(scratch[YEARS + i])
        scratch[ROOT_YEARS + i] = root
        scratch[BY_ROOT_YEARS + i] = 1.0 / root
        scratch[BY_FORWARD + i] = 1.0 / scratch[FORWARD + i]


@inlined
def has_open_legs(scratch: Floats) -> bool:
    """Whether any leg has no answer yet."""
    is_any = False
    for i in range(SIZE):
        is_any |= scratch[IS_OPEN + i] != 0.0
    return is_any


@inlined
def move_leg(scratch: Floats, place: int, target: Floats, other: int) -> None:
    """What came in and its terms, from one block to a place of another."""
    for line in range(0, X, SIZE):
        target[line + other] = scratch[line + place]


@inlined
def _make_harmless(scratch: Floats, first: int) -> None:
    """An option at the money, whatever the terms, behind the legs of the last block."""
    for i in range(first, SIZE):
        scratch[STRIKE + i] = scratch[FORWARD + i]
        scratch[SIDE + i] = 1.0
        scratch[PRICE + i] = _HARMLESS_SHARE * scratch[FORWARD + i] * scratch[DISCOUNT + i]
