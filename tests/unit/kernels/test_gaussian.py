"""The Mills ratio and its difference against 60 digits."""

import math

import numpy as np
import pytest

from pipeline.kernels import gaussian
from tests.support import slow_greeks

EPSILON = np.finfo(float).eps


@pytest.mark.parametrize(
    ("start", "end"), [(-0.7, 0.0), (0.0, 2.0), (2.0, 10.0), (10.0, 46.0), (46.0, 120.0)]
)
def test_mills_ratio_is_good_to_the_last_digits(start: float, end: float) -> None:
    worst = max(
        slow_greeks.relative(gaussian.mills(float(z)), slow_greeks.mills(float(z)))
        for z in np.linspace(start, end, 41)
    )
    assert worst < 3 * EPSILON


def test_mills_ratio_does_not_jump_where_the_forms_meet() -> None:
    below, above = (gaussian.mills(math.nextafter(46.0, to)) for to in (0.0, 100.0))
    assert below == pytest.approx(above, rel=3 * EPSILON)
    assert gaussian.mills(math.inf) == 0.0
    assert math.isnan(gaussian.mills(math.nan))


@pytest.mark.parametrize("y", [0.0, 0.3, 1.0, 4.0, 12.0, 38.0])
@pytest.mark.parametrize("h", [1e-9, 1e-4, 0.01, 0.2, 0.47, 0.67])
def test_mills_difference_does_not_cancel(y: float, h: float) -> None:
    truth = slow_greeks.mills_difference(y, h)
    # What counts is the error in volatility: that of the difference, in units of 2h.
    miss = abs(gaussian.mills_difference(y, h) - truth) / (2 * h)
    assert float(miss) < 4 * EPSILON
