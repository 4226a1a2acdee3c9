"""The normal distribution as the pricing kernels need it: density, Mills ratio and its difference.

The Mills ratio R(z) = N(-z)/n(z) varies slowly where N and n underflow, so prices of any size keep
their relative accuracy. Never prices anything itself.
"""

import math

from pipeline.kernels.compiling import inlined, kernel

ROOT_TWO_PI = 2.5066282746310005
INVERSE_ROOT_TWO_PI = 0.3989422804014327

# R on [0, 46] as a ratio of polynomials with positive coefficients, so that Horner's rule loses
# nothing; largest relative error 1.3e-18 in exact arithmetic. tests/support/fit_constants.py
# derives it. Beyond 46 five levels of the continued fraction are exact to rounding.
_MILLS_END = 46.0
_MILLS_TOP = (
    1.2533141373155003,
    2.085734199813668,
    1.719846607308839,
    0.9083482376858135,
    0.3371894442836131,
    0.09151844543572413,
    0.01837037010191889,
    0.0026965214320909116,
    0.0002781162209498191,
    1.83334781134935e-05,
    5.941196323233851e-07,
)
_MILLS_BOTTOM = (
    1.0,
    2.46205967677271,
    2.836678458793138,
    2.0230306627965393,
    0.9946570887620539,
    0.35500951753346865,
    0.09417830012782016,
    0.01864729807727711,
    0.002714854910338895,
    0.00027871034058019934,
    1.8333478113510445e-05,
    5.941196323233182e-07,
)
_SERIES_TERMS = 12  # of the difference's series; the last is below 1e-17 of the first
# The plain difference of two ratios is good to rounding once 2h is this share of R(y).
_SERIES_SHARE = 0.75


@kernel
def density(z: float) -> float:
    """n(z) = exp(-z²/2)/√(2π)."""
    return INVERSE_ROOT_TWO_PI * math.exp(-0.5 * z * z)


@kernel
def mills(z: float) -> float:
    """R(z) = N(-z)/n(z); infinite below -38."""
    if z < 0.0:
        return ROOT_TWO_PI * math.exp(0.5 * z * z) - _mills_positive(-z)
    return _mills_positive(z)


@kernel
def mills_difference(y: float, h: float) -> float:
    """R(y-h) - R(y+h) for y ≥ 0, h > 0, without the cancellation that small h would bring.

    The series in h runs over the moments M[n] = ∫ t^n exp(-yt - t²/2) dt, all positive, with
    M[0] = R, M[1] = 1 - yR and M[n+1] = n·M[n-1] - y·M[n].
    """
    ratio = _mills_positive(y)
    if 2.0 * h > _SERIES_SHARE * ratio:
        return mills(y - h) - _mills_positive(y + h)
    even = ratio
    odd = 1.0 - y * ratio
    total = odd
    coefficient = 1.0
    for term in range(1, _SERIES_TERMS):
        even = (2 * term - 1) * even - y * odd
        odd = 2 * term * odd - y * even
        coefficient *= h * h / (2 * term * (2 * term + 1))
        total += coefficient * odd
    return 2.0 * h * total


@kernel
def _mills_positive(z: float) -> float:
    if z > _MILLS_END:
        return 1.0 / (z + 1.0 / (z + 2.0 / (z + 3.0 / (z + 4.0 / (z + 5.0 / z)))))
    return mills_quotient(z)


@inlined
def mills_quotient(z: float) -> float:
    """R(z) for z from 0 to 46."""
    # Estrin's order: pairs of terms, then pairs of pairs, so that few steps wait for each other.
    t, b = _MILLS_TOP, _MILLS_BOTTOM
    z2 = z * z
    z4 = z2 * z2
    top = ((t[0] + t[1] * z) + (t[2] + t[3] * z) * z2) + (
        (t[4] + t[5] * z) + (t[6] + t[7] * z) * z2
    ) * z4
    bottom = ((b[0] + b[1] * z) + (b[2] + b[3] * z) * z2) + (
        (b[4] + b[5] * z) + (b[6] + b[7] * z) * z2
    ) * z4
    top += ((t[8] + t[9] * z) + t[10] * z2) * (z4 * z4)
    bottom += ((b[8] + b[9] * z) + (b[10] + b[11] * z) * z2) * (z4 * z4)
    return top / bottom
