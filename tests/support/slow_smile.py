"""The slow, obvious twin of the smile kernels: errors leg by leg, the optimum by brute force."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Points(NamedTuple):
    """What a chain says of its smile: k, volatility and the latter's standard error."""

    k: Floats
    iv: Floats
    error: Floats


def points(legs: dict[str, Any]) -> Points:
    """The points of legs whose strikes' two kinds agree, by the rules that docs/smile.md gives."""
    is_ok = legs["status"] == 0
    most_vega = max(legs["vega"][is_ok])
    found = []
    for strike, is_call, iv, vega, spread, status in zip(
        *(legs[name] for name in ("strikes", "is_call", "iv", "vega", "spread", "status")),
        strict=True,
    ):
        if status != 0:
            continue
        k = math.log(strike / legs["forward"])
        deviations = k / (iv * math.sqrt(legs["years"]))
        share = min(1.0, max(0.0, 0.5 + (deviations if is_call else -deviations)))
        quoted = (spread + 0.05) / 2 / vega / 100
        error = max(quoted, 0.005 * iv * most_vega / vega)
        if share > 0:
            found.append((k, iv, error / math.sqrt(share)))
    return Points(*np.array(found).T)


def least_cost(known: Points, years: float, rounds: int = 7) -> float:
    """Weighted sum of squares of the best curve without bounds, in total variance.

    A grid over m and sigma that closes in on its best place; the rest is linear.
    """
    w = known.iv**2 * years
    weight = 1 / (2 * known.iv * years * known.error)
    middle, reach = 0.0, float(np.max(np.abs(known.k)))
    log_sigma, log_reach = math.log(reach / 3), 3.0
    best = math.inf
    for _ in range(rounds):
        places = [
            (m, s)
            for m in np.linspace(middle - reach, middle + reach, 25)
            for s in np.linspace(log_sigma - log_reach, log_sigma + log_reach, 25)
        ]
        for m, s in places:
            u = known.k - m
            design = np.stack((np.ones_like(u), u, np.hypot(u, math.exp(s)))) * weight
            solution = np.linalg.lstsq(design.T, w * weight)[0]
            cost = float(np.sum((w * weight - solution @ design) ** 2))
            if cost < best:
                best, middle, log_sigma = cost, float(m), float(s)
        reach, log_reach = reach / 4, log_reach / 4
    return best


def cost(known: Points, years: float, curve: Any) -> float:
    """The same sum for a curve with the attributes a, b, rho, m and sigma."""
    w = known.iv**2 * years
    u = known.k - curve.m
    fitted = curve.a + curve.b * (curve.rho * u + np.hypot(u, curve.sigma))
    return float(np.sum(((w - fitted) / (2 * known.iv * years * known.error)) ** 2))


def g(k: Floats, curve: Any) -> Floats:
    """Durrleman's function of a raw SVI curve, as it is printed: no butterfly pays where g >= 0."""
    u = k - curve.m
    h = np.hypot(u, curve.sigma)
    w = curve.a + curve.b * (curve.rho * u + h)
    first = curve.b * (curve.rho + u / h)
    second = curve.b * curve.sigma**2 / h**3
    found: Floats = (1 - k * first / (2 * w)) ** 2 - first**2 / 4 * (1 / w + 1 / 4) + second / 2
    return found
