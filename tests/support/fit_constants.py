"""Derives the fitted constants of the kernels; run as a module it prints them.

All are ratios of polynomials, some with 1 below, found by repeated linear least squares on the
relative error, the weights moved towards the largest misses (Lawson) until it is nearly even.
"""

from collections.abc import Callable
from typing import Any

from mpmath import mp

DIGITS = 110
END = 46  # Mills ratios and standardised distances up to here
POINTS = 160


class Fit:
    """top(u)/bottom(u) for the values wanted at the points u; bottom starts with 1."""

    def __init__(self, points: list[Any], wanted: list[Any], top: int, bottom: int) -> None:
        self.points, self.wanted = points, wanted
        self.degrees = (top, bottom)
        self.error = mp.inf
        self.top: list[Any] = []
        self.bottom: list[Any] = []
        self._run(rounds=25)

    def _run(self, rounds: int) -> None:
        weights = [mp.mpf(1)] * len(self.points)
        previous = [mp.mpf(1)] * len(self.points)
        for number in range(rounds):
            top, bottom = self._least_squares(weights, previous)
            previous = [mp.polyval(bottom[::-1], u) for u in self.points]
            values = [mp.polyval(top[::-1], u) for u in self.points]
            misses = [
                abs(value / divisor / want - 1)
                for value, divisor, want in zip(values, previous, self.wanted, strict=True)
            ]
            if max(misses) < self.error:
                self.error, self.top, self.bottom = max(misses), top, bottom
            if number >= 2:  # the linearisation has settled
                weights = [weight * miss for weight, miss in zip(weights, misses, strict=True)]
                mean = sum(weights) / len(weights)
                weights = [weight / mean for weight in weights]

    def _least_squares(self, weights: list[Any], previous: list[Any]) -> tuple[Any, Any]:
        top, bottom = self.degrees
        matrix = mp.matrix(len(self.points), top + 1 + bottom)
        right = mp.matrix(len(self.points), 1)
        for row, u in enumerate(self.points):
            scale = mp.sqrt(weights[row]) / (self.wanted[row] * previous[row])
            right[row] = scale * self.wanted[row]
            for power in range(top + 1):
                matrix[row, power] = scale * u**power
            for power in range(1, bottom + 1):
                matrix[row, top + power] = -scale * self.wanted[row] * u**power
        found = mp.lu_solve(matrix.T * matrix, matrix.T * right)
        return list(found[: top + 1]), [mp.mpf(1), *found[top + 1 :]]


def mills(z: Any) -> Any:
    return mp.sqrt(mp.pi / 2) * mp.exp(z * z / 2) * mp.erfc(z / mp.sqrt(2))


def fit_mills() -> Fit:
    """R(z) on [0, END], points by Chebyshev in z/(z+4)."""
    end = mp.mpf(END) / (END + 4)
    shares = [end * (1 - mp.cos(mp.pi * (i + mp.mpf(1) / 2) / POINTS)) / 2 for i in range(POINTS)]
    points = [4 * share / (1 - share) for share in shares]
    return Fit(points, [mills(z) for z in points], 10, 11)


def bachelier(end: int) -> tuple[list[Any], list[Any]]:
    """(y, t): distances, and t = ln(1 + x/share) for a Bachelier price at each."""
    distances = [end * ((i + mp.mpf(1) / 2) / POINTS) ** 2 for i in range(POINTS)]
    return distances, [mp.log(1 + y / (mp.npdf(y) * (1 - y * mills(y)))) for y in distances]


def fit_seed() -> Fit:
    """y·v/t in v = √(t+1): the seed of one leg."""
    distances, logs = bachelier(END)
    points = [mp.sqrt(t + 1) for t in logs]
    wanted = [y / t * v for y, t, v in zip(distances, logs, points, strict=True)]
    return Fit(points, wanted, 4, 4)


def fit_block_seed() -> Fit:
    """t/(y·v) in v = √(t+2): the seed of a block."""
    distances, logs = bachelier(40)
    points = [mp.sqrt(t + 2) for t in logs]
    wanted = [t / y / v for y, t, v in zip(distances, logs, points, strict=True)]
    return Fit(points, wanted, 5, 5)


def chebyshev(low: Any, high: Any, count: int = 100) -> list[Any]:
    """Points between two ends, dense near both."""
    return [
        (low + high) / 2 + (high - low) / 2 * mp.cos(mp.pi * (i + mp.mpf(1) / 2) / count)
        for i in range(count)
    ]


def fit_exponential() -> Fit:
    points = chebyshev(-mp.log(2) / 2, mp.log(2) / 2)
    return Fit(points, [mp.exp(r) for r in points], 11, 0)


def fit_atanh() -> Fit:
    """atanh(u)/u in u², for ratios up to 2.125."""
    points = chebyshev(mp.mpf(0), (mp.mpf("1.125") / mp.mpf("3.125")) ** 2)
    return Fit(points, [mp.atanh(mp.sqrt(g)) / mp.sqrt(g) for g in points], 10, 0)


def fit_rough_log() -> Fit:
    points = chebyshev(mp.sqrt(mp.mpf(1) / 2) - 1, mp.sqrt(mp.mpf(2)) - 1)
    return Fit(points, [mp.log1p(u) / u for u in points], 6, 0)


def main(show: Callable[[str], None] = print) -> None:
    mp.dps = DIGITS
    for name, fit in (
        ("Mills ratio", fit_mills()),
        ("seed of a leg", fit_seed()),
        ("seed of a block", fit_block_seed()),
        ("exponential", fit_exponential()),
        ("atanh", fit_atanh()),
        ("rough logarithm", fit_rough_log()),
    ):
        show(f"{name}: largest relative error {mp.nstr(fit.error, 3)}")
        show(f"  top    {[float(value) for value in fit.top]}")
        show(f"  bottom {[float(value) for value in fit.bottom]}")


if __name__ == "__main__":
    main()
