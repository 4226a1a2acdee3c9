"""Exponential and logarithm without branches, so that a compiler can run several legs at once.

Each is a polynomial on a reduced argument with the exponent put together from bits; their largest
relative errors in exact arithmetic stand beside the constants, which
tests/support/fit_constants.py derives. Polynomials are put together in Estrin's order (pairs of
terms, then pairs of pairs), which leaves few steps that wait for each other. Never checks an
argument.
"""

import numpy as np

from pipeline.kernels.compiling import inlined

LN_TWO = 0.6931471805599453
LEAST_EXPONENT = -708.0  # beyond it a double loses digits

_LOG2_E = 1.4426950408889634
_LN_TWO_HIGH = 0.6931471803691238  # ends in zeros: its products with small integers are exact
_LN_TWO_LOW = 1.9082149292705877e-10
_ROUNDING = 6755399441055744.0  # 1.5·2^52: adding it leaves the nearest integer in the last bits
_INTEGER = 4503599627370496.0  # 2^52, whose last bits hold an integer added to it
_INTEGER_BITS = np.int64(0x4330000000000000)
_ROOT_HALF_BITS = np.int64(0x3FE6A09E667F3BCD)
_EXPONENT_BITS = np.int64(0x7FF)
_BIAS = np.int64(1023)
_MANTISSA = np.int64(52)

# e^r for |r| ≤ ln(2)/2, 3e-18.
_EXP = (
    1.0,
    1.0,
    0.5000000000000018,
    0.1666666666666617,
    0.04166666666649277,
    0.008333333333559291,
    0.0013888888951222996,
    0.00019841269432655526,
    2.480148652298178e-05,
    2.7557622531497865e-06,
    2.7632292612543653e-07,
    2.4994310446191514e-08,
)
# atanh(u)/u in u², for u up to 0.36, 7e-18.
_ATANH = (
    1.0,
    0.33333333333331955,
    0.20000000000422136,
    0.14285714235367744,
    0.11111114184342814,
    0.09090799972492516,
    0.07694712523119743,
    0.06632865056724588,
    0.06183899973605981,
    0.036324857469108,
    0.09447324367965114,
)
# ln(1+u)/u for u between √½ - 1 and √2 - 1, 1e-6: enough for a seed.
_ROUGH_LOG = (
    1.0000009762979098,
    -0.500011082488137,
    0.3331448546328744,
    -0.24909953847167932,
    0.2049698249228609,
    -0.18665996570159565,
    0.11891092295484625,
)


@inlined
def exponential(t: float) -> float:
    """e^t for t up to 700; zero below -708."""
    within = max(t, LEAST_EXPONENT)
    shifted = within * _LOG2_E + _ROUNDING
    halvings = shifted - _ROUNDING
    r = (within - halvings * _LN_TWO_HIGH) - halvings * _LN_TWO_LOW
    c = _EXP
    r2 = r * r
    r4 = r2 * r2
    low = (c[1] + c[2] * r) + (c[3] + c[4] * r) * r2
    middle = (c[5] + c[6] * r) + (c[7] + c[8] * r) * r2
    high = (c[9] + c[10] * r) + c[11] * r2
    p = c[0] + r * (low + (middle + high * r4) * r4)
    scale = (np.float64(shifted).view(np.int64) + _BIAS) << _MANTISSA
    power = p * np.int64(scale).view(np.float64)
    return power if t >= LEAST_EXPONENT else 0.0


@inlined
def log_of_centred(u: float) -> float:
    """ln((1+u)/(1-u)) to full relative accuracy for u from 0 to 0.36.

    With u = (high - low)/(high + low) that is ln(high/low).
    """
    return 2.0 * u * _atanh_over(u * u)


@inlined
def log_of_ratio(high: float, low: float) -> float:
    """ln(high/low) to full relative accuracy, for normal numbers low ≤ high."""
    # Where high ≤ 2·low the difference below is exact, and no power of two enters.
    powers = _exponent(high) - _exponent(low) if high > 2.0 * low else np.int64(0)
    scaled = low * np.int64((powers + _BIAS) << _MANTISSA).view(np.float64)
    u = (high - scaled) / (high + scaled)
    return _as_float(powers) * LN_TWO + 2.0 * u * _atanh_over(u * u)


@inlined
def log_near_one(value: float) -> float:
    """ln(value) to full relative accuracy near 1, for normal value."""
    bits = np.float64(value).view(np.int64) - _ROOT_HALF_BITS
    powers = bits >> _MANTISSA
    scaled = value * np.int64((_BIAS - powers) << _MANTISSA).view(np.float64)
    u = (scaled - 1.0) / (scaled + 1.0)
    return _signed_float(powers) * LN_TWO + 2.0 * u * _atanh_over(u * u)


@inlined
def rough_log_above_one(w: float) -> float:
    """ln(1+w) to a relative 1e-6, for w ≥ 0."""
    bits = np.float64(w + 1.0).view(np.int64) - _ROOT_HALF_BITS
    powers = bits >> _MANTISSA
    scale = np.int64((_BIAS - powers) << _MANTISSA).view(np.float64)
    u = w * scale + (scale - 1.0)
    c = _ROUGH_LOG
    u2 = u * u
    p = ((c[0] + c[1] * u) + (c[2] + c[3] * u) * u2) + ((c[4] + c[5] * u) + c[6] * u2) * (u2 * u2)
    return _as_float(powers) * LN_TWO + u * p


@inlined
def _atanh_over(square: float) -> float:
    c = _ATANH
    g2 = square * square
    g4 = g2 * g2
    low = (c[1] + c[2] * square) + (c[3] + c[4] * square) * g2
    high = (c[5] + c[6] * square) + (c[7] + c[8] * square) * g2
    return c[0] + square * (low + (high + (c[9] + c[10] * square) * g4) * g4)


@inlined
def _exponent(value: float) -> np.int64:
    exponent: np.int64 = np.float64(value).view(np.int64) >> _MANTISSA
    return exponent


@inlined
def _as_float(integer: np.int64) -> float:
    """A small integer that is not negative, without a conversion that AVX2 does not have."""
    shifted: float = np.int64((integer & _EXPONENT_BITS) | _INTEGER_BITS).view(np.float64)
    return shifted - _INTEGER


@inlined
def _signed_float(integer: np.int64) -> float:
    return _as_float(integer + _BIAS) - 1023.0
