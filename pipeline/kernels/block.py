"""The scratch in which a block of legs is solved: one line of numbers for each quantity.

Short loops over one array that stays in the first cache run several legs at once and keep many
of them in flight; a single long loop would wait for itself. A block always has all its places
computed, those without a leg on harmless values, so that a leg's digits never depend on its
neighbours or on how many there are. Never solves anything.
"""

import numpy as np

from pipeline.kernels.compiling import Booleans, Floats, Integers, inlined

# Legs; all lines together fit the first cache. Two blocks hold the 200 legs of a usual chain.
SIZE = 104

# Where each line starts. What came in, and what follows from forward, discount and years alone:
FORWARD = 0 * SIZE
DISCOUNT = 1 * SIZE
YEARS = 2 * SIZE
STRIKE = 3 * SIZE
SIDE = 4 * SIZE  # 1 for a call, -1 for a put
PRICE = 5 * SIZE
BARRED = 6 * SIZE  # the status that keeps every price from having a volatility, or OK
LOG_DISCOUNT = 7 * SIZE
BY_FORWARD = 8 * SIZE  # 1/forward
ROOT_YEARS = 9 * SIZE
BY_ROOT_YEARS = 10 * SIZE  # 1/√years
# The solution: x = |ln(forward/strike)|, s = iv·√years, y = x/s, exp(-z²/2) with z = y - s/2.
STATUS = 11 * SIZE
X = 12 * SIZE
S = 13 * SIZE
BY_S = 14 * SIZE
Y = 15 * SIZE
DENSITY = 16 * SIZE
D1 = 17 * SIZE
# On the way there: min(forward, strike) over what is to be reached; flags are 0 or 1.
BY_SHARE = 18 * SIZE
IS_UPPER = 19 * SIZE  # what is missing to the maximum is to be reached
IS_USABLE = 20 * SIZE  # what is to be reached is neither nothing nor next to nothing
IS_OPEN = 21 * SIZE  # there is a volatility, and no answer yet
# Whatever passes from one loop to the next.
FIRST = 22 * SIZE
SECOND = 23 * SIZE
THIRD = 24 * SIZE
# The results, in the order of the outputs.
RESULTS = 25 * SIZE
LINES = 31

_HARMLESS_SHARE = 0.1  # of the discounted forward: an option at the money with s near 0.25


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
def has_open_legs(scratch: Floats) -> bool:
    """Whether any leg has no answer yet."""
    is_any = False
    for i in range(SIZE):
        is_any |= scratch[IS_OPEN + i] != 0.0
    return is_any


@inlined
def gather(
    scratch: Floats,
    terms: tuple[Floats, Floats, Floats],
    strikes: Floats,
    is_call: Booleans,
    prices: Floats,
    places: Integers,
    count: int,
) -> None:
    """Legs from wherever they stand; the places behind them become harmless."""
    for number in range(3):
        values, line = terms[number], FORWARD + number * SIZE
        if values.size > 0:
            for i in range(count):
                scratch[line + i] = values[places[i]]
            for i in range(count, SIZE):
                scratch[line + i] = 1.0
    for i in range(count):
        scratch[STRIKE + i] = strikes[places[i]]
        scratch[SIDE + i] = 1.0 if is_call[places[i]] else -1.0
        scratch[PRICE + i] = prices[places[i]]
    _make_harmless(scratch, count)


@inlined
def _make_harmless(scratch: Floats, first: int) -> None:
    """An option at the money, whatever the terms, behind the legs of the last block."""
    for i in range(first, SIZE):
        scratch[STRIKE + i] = scratch[FORWARD + i]
        scratch[SIDE + i] = 1.0
        scratch[PRICE + i] = _HARMLESS_SHARE * scratch[FORWARD + i] * scratch[DISCOUNT + i]
