"""From quotes to prices: which price a leg is solved from, and what is said where it has none.

A quote is sane while neither side is missing, they are not crossed, and it is not so wide that its
middle is nobody's price. Never raises on data.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pipeline.kernels.compiling import Booleans, Codes, Floats, floats, kernel
from pipeline.kernels.statuses import CROSSED, EXPIRED, ILL_CONDITIONED, INVALID, NO_PRICE

# As in pipeline.models: the kind, and whose price and Greeks they are.
CALL = 1
MID, LAST = 1, 2
COMPUTED = 1

# A quote is sane while its spread is below its bid, or below this many rupees for cheap options.
WIDE_SPREAD = 0.5


class Prices(NamedTuple):
    """The price of each leg (NaN for none), its source, and the spread where it is a mid.

    `lack` is 0 for a leg with a price, else the status that says why it has none.
    """

    price: Floats
    spread: Floats
    source: Codes
    lack: Codes
    is_call: Booleans


def choose(kinds: Codes, bid: ArrayLike, ask: ArrayLike, last: ArrayLike) -> Prices:
    """Prices of n legs: the mid of a sane quote, else the last.

    A crossed quote without a last lacks a price as CROSSED, any other as NO_PRICE. Prices in
    rupees, NaN where absent; ValueError where lengths differ.
    """
    bid, ask, last = floats(bid), floats(ask), floats(last)
    n = kinds.size
    if not n == bid.size == ask.size == last.size:
        raise ValueError("the columns differ in length")
    price, spread = np.empty((2, n))
    source, lack = np.empty((2, n), np.uint8)
    chosen = Prices(price, spread, source, lack, np.empty(n, np.bool_))
    _choose(kinds, bid, ask, last, *chosen)
    return chosen


def settle(
    lack: Codes, kinds: Codes, years: float, values: Floats, status: Codes, out_source: Codes
) -> None:
    """Give legs that could not be solved their true status, and say whose Greeks they have.

    `values` is (columns, n), `status` as the solver left it; both are corrected: a leg of no kind
    is INVALID and has no values, one without a price says what it lacks, an expired one EXPIRED.
    """
    _settle(lack, kinds, float(years), values, status, out_source)


@kernel
def _choose(
    kinds: Codes,
    bid: Floats,
    ask: Floats,
    last: Floats,
    out_price: Floats,
    out_spread: Floats,
    out_source: Codes,
    out_lack: Codes,
    out_is_call: Booleans,
) -> None:
    # `&` for `and`: quotes come and go from leg to leg, so that branches would be guessed wrong.
    for i in range(kinds.size):
        spread = ask[i] - bid[i]
        is_quoted = (bid[i] > 0.0) & (bid[i] < np.inf) & (ask[i] > 0.0) & (ask[i] < np.inf)
        is_sane = is_quoted & (spread >= 0.0) & (spread <= max(bid[i], WIDE_SPREAD))
        has_last = abs(last[i]) > 0.0
        fallback = last[i] if has_last else np.nan
        out_price[i] = 0.5 * bid[i] + 0.5 * ask[i] if is_sane else fallback
        out_spread[i] = spread if is_sane else np.nan
        other = LAST if has_last else 0
        out_source[i] = MID if is_sane else other
        lack = CROSSED if is_quoted & (spread < 0.0) else NO_PRICE
        out_lack[i] = 0 if is_sane | has_last else lack
        out_is_call[i] = kinds[i] == CALL


@kernel
def _settle(
    lack: Codes, kinds: Codes, years: float, values: Floats, status: Codes, out_source: Codes
) -> None:
    for i in range(status.size):
        if kinds[i] > CALL and years > 0.0:
            status[i] = INVALID
            values[:, i] = np.nan
        out_source[i] = COMPUTED if status[i] <= ILL_CONDITIONED else 0
        if lack[i] != 0 and status[i] != EXPIRED:
            status[i] = lack[i]
