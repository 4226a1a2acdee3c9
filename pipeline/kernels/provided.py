"""A provider's numbers of a chain as columns: what its zeros mean, and which lot they tell.

Never raises on data; absent is NaN in a column of floats and `NULL_INTEGER` in one of integers.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.kernels.compiling import Codes, Floats, Integers, kernel

NULL_INTEGER = -(2**63)  # as in pipeline.models: absent in an integer column
_TOO_LARGE = 2.0**63  # for an integer


@kernel
def clean(
    numbers: Floats,
    ladder: Floats,
    out_strikes: Floats,
    out_kinds: Codes,
    out_prices: Floats,
    out_quantities: Integers,
    out_computed: NDArray[np.float32],
) -> tuple[int, int, int]:
    """Columns of the legs that are there: how many, the common divisor of quantities, of how many.

    `numbers` has a line for each column of prices, of quantities and of what the provider
    computed, in turn, NaN where nothing was said, and a last one that is 1 where there is a leg;
    the legs are the call and the put of each strike of `ladder`. The outputs have room for all.
    A price is above zero, or absent. A quantity may be zero, but not the first, which is an
    identity. What the provider computed counts where the first price (the last) and the first of
    it (a volatility in percent, which becomes decimal) are neither absent nor zero: beside a
    contract that never traded it prints a placeholder. The divisor leaves out identities and the
    last quantity, which is of the session before and may be in another lot. `numbers` is closed up
    over legs that are not there. A ladder that is not of prices, ascending, has -1 legs.
    """
    prices, quantities = out_prices.shape[0], out_quantities.shape[0]
    first = prices + quantities
    below = 0.0
    for strike in ladder:
        if not below < strike < np.inf:
            return -1, 0, 0
        below = strike
    legs = 0
    for place in range(numbers.shape[1]):
        if numbers[-1, place] == 1.0:
            out_strikes[legs] = ladder[place // 2]
            out_kinds[legs] = 1 - place % 2
            if legs < place:
                numbers[:, legs] = numbers[:, place]
            legs += 1
    for line in range(prices):
        for leg in range(legs):
            price = numbers[line, leg]
            out_prices[line, leg] = price if 0.0 < price < np.inf else np.nan
    for line in range(quantities):
        least = 1.0 if line == 0 else 0.0
        for leg in range(legs):
            number = numbers[prices + line, leg]
            is_quantity = least <= number < _TOO_LARGE
            quantity = np.int64(number if is_quantity else 0.0)
            out_quantities[line, leg] = quantity if is_quantity else NULL_INTEGER
    last, iv = numbers[0], numbers[first]
    for line in range(out_computed.shape[0]):
        unit = 100.0 if line == 0 else 1.0
        for leg in range(legs):
            is_computed = abs(last[leg]) > 0.0 and abs(iv[leg]) > 0.0
            number = numbers[first + line, leg] / unit
            out_computed[line, leg] = number if is_computed else np.nan
    return legs, *_common_divisor(out_quantities[1:-1, :legs])


@kernel
def _common_divisor(quantities: Integers) -> tuple[int, int]:
    divisor = 0
    count = 0
    for line in range(quantities.shape[0]):
        for quantity in quantities[line]:
            if quantity > 0:
                count += 1
                rest = divisor
                divisor = quantity
                while rest != 0:
                    divisor, rest = rest, divisor % rest
    return divisor, count
