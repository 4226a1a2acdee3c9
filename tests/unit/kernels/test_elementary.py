"""The elementary functions of the block kernels, to the last digit."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.kernels import elementary
from pipeline.kernels.compiling import kernel
from tests.support.slow_greeks import context, relative

EPSILON = float(np.finfo(float).eps)


@kernel
def every(
    t: NDArray[np.float64], high: NDArray[np.float64], low: NDArray[np.float64]
) -> NDArray[np.float64]:
    out = np.empty((5, t.size))
    for i in range(t.size):
        out[0, i] = elementary.exponential(t[i])
        out[1, i] = elementary.log_of_centred((high[i] - low[i]) / (high[i] + low[i]))
        out[2, i] = elementary.log_of_ratio(high[i], low[i])
        out[3, i] = elementary.log_near_one(high[i] / low[i])
        out[4, i] = elementary.rough_log_above_one(high[i])
    return out


def test_exponential_is_right_to_a_rounding_or_two() -> None:
    t = np.concatenate([np.linspace(-708, 0, 400), -np.geomspace(1e-300, 1, 50)])
    found = every(t, np.ones(t.size), np.ones(t.size))[0]
    for value, result in zip(t, found, strict=True):
        assert relative(float(result), context.exp(value)) < 2 * EPSILON


@pytest.mark.parametrize("t", [-708.1, -800.0, -1e300, -np.inf, np.nan])
def test_exponential_of_what_a_double_cannot_hold_is_zero(t: float) -> None:
    assert every(np.array([t]), np.ones(1), np.ones(1))[0, 0] == 0.0


def test_logarithms_of_ratios_near_one_keep_their_relative_accuracy() -> None:
    low = np.full(300, 23_456.75)
    high = low * (1 + np.geomspace(3e-16, 1.12, 300))
    found = every(np.zeros(300), high, low)
    for a, b, near, ratio in zip(high, low, found[1], found[2], strict=True):
        truth = context.log(context.mpf(a) / context.mpf(b))
        if truth == 0:
            assert near == ratio == 0.0
            continue
        assert relative(float(near), truth) < 3 * EPSILON
        assert relative(float(ratio), truth) < 3 * EPSILON


def test_logarithms_of_any_ratio_are_right() -> None:
    rng = np.random.default_rng(4)
    low = 10 ** rng.uniform(-90, 90, 300)
    high = low * 10 ** rng.uniform(0, 100, 300)
    found = every(np.zeros(300), high, low)
    for i in range(300):
        truth = context.log(context.mpf(high[i]) / context.mpf(low[i]))
        assert relative(float(found[2, i]), truth) < 3 * EPSILON
        quotient = context.log(context.mpf(high[i] / low[i]))
        assert abs(float(found[3, i] - quotient)) < 3 * EPSILON * float(abs(quotient))
        rough = context.log1p(context.mpf(high[i]))
        assert relative(float(found[4, i]), rough) < 2e-6


def test_logarithm_of_a_value_just_below_one_keeps_its_relative_accuracy() -> None:
    low = np.ones(60)
    high = 1 - np.geomspace(1e-15, 0.29, 60)
    found = every(np.zeros(60), high, low)[3]
    for value, result in zip(high, found, strict=True):
        assert relative(float(result), context.log(context.mpf(value))) < 3 * EPSILON
