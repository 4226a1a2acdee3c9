"""Black-76: the price of an option on a forward.

Works with the out-of-the-money side: its undiscounted value is the time value of both the call and
the put. Measured in the lesser of forward and strike it depends only on x = |ln(F/K)| and
s = iv·√years:

    time value / min(F, K) = n(z)·[R(y-h) - R(y+h)],  y = x/s, h = s/2, z = y - h

where R is the Mills ratio. Never solves for anything.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from pipeline.kernels.compiling import Booleans, Floats, booleans, floats, kernel
from pipeline.kernels.gaussian import density, mills, mills_difference

_FAR = 1e8  # beyond this ratio a logarithm of each side is as good as one of their ratio
_NOTHING_Z = 39.0  # where n(z) underflows
# Where the share is nearer to 1 than to 0 its distance from 1 is what can be computed well.
_UPPER_Z = -0.6745


@kernel
def log_distance(forward: float, strike: float) -> float:
    """|ln(forward/strike)|, to full relative accuracy near the money."""
    low = min(forward, strike)
    high = max(forward, strike)
    if high > _FAR * low:
        return math.log(high) - math.log(low)
    return math.log1p((high - low) / low)


@kernel
def time_value_share(x: float, s: float) -> float:
    """The undiscounted time value as a share of min(forward, strike), within [0, 1]."""
    if s <= 0.0:
        return 0.0
    y = x / s
    h = 0.5 * s
    z = y - h
    if z > _NOTHING_Z:
        return 0.0
    if z > _UPPER_Z:
        return density(z) * mills_difference(y, h)
    return 1.0 - density(z) * (mills(-z) + mills(y + h))


@kernel
def leg_price(
    forward: float, discount: float, years: float, strike: float, is_call: bool, iv: float
) -> float:
    """The discounted price of one leg; NaN for arguments that have none."""
    sane = forward > 0.0 and strike > 0.0 and discount > 0.0 and years >= 0.0 and iv >= 0.0
    if not (sane and math.isfinite(forward + strike + discount + years + iv)):
        return np.nan
    intrinsic = max(forward - strike if is_call else strike - forward, 0.0)
    share = time_value_share(log_distance(forward, strike), iv * math.sqrt(years))
    return discount * (intrinsic + min(forward, strike) * share)


@kernel
def _price_legs(
    forward: Floats,
    discount: Floats,
    years: Floats,
    strikes: Floats,
    is_call: Booleans,
    iv: Floats,
    out: Floats,
) -> None:
    forward_step = 1 if forward.size > 1 else 0
    discount_step = 1 if discount.size > 1 else 0
    years_step = 1 if years.size > 1 else 0
    for i in range(strikes.size):
        out[i] = leg_price(
            forward[i * forward_step],
            discount[i * discount_step],
            years[i * years_step],
            strikes[i],
            is_call[i],
            iv[i],
        )


def price(
    forward: ArrayLike,
    discount: ArrayLike,
    years: ArrayLike,
    strikes: ArrayLike,
    is_call: ArrayLike,
    iv: ArrayLike,
    out: Floats,
) -> None:
    """Black-76 prices into `out`, in the currency of the forward.

    Arrays of length n; forward, discount and years may be scalars. iv is decimal per year. A leg
    whose arguments have no price (NaN, infinite, not positive, years or iv below zero) gets NaN.
    Raises ValueError where lengths differ.
    """
    forward, discount, years = floats(forward), floats(discount), floats(years)
    strikes, is_call, iv = floats(strikes), booleans(is_call), floats(iv)
    if not strikes.size == is_call.size == iv.size == out.size:
        raise ValueError("strikes, is_call, iv and out differ in length")
    if any(shared.size not in (1, strikes.size) for shared in (forward, discount, years)):
        raise ValueError("forward, discount and years want one element, or one for each leg")
    _price_legs(forward, discount, years, strikes, is_call, iv, out)
