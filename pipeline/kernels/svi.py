"""Raw SVI curves of total variance: their values, and whether they hold butterfly arbitrage.

All in units of the money: x = k/s and y = w/s² with s = √w at the forward, so that every number is
near one for an expiry of an hour and of five years. A curve is five parameters,

    y(x) = level + right/2·(h + u) + left/2·(h - u),  u = x - middle,  h = √(u² + breadth²)

of which the last is held as ln(breadth); left and right are the slopes of the wings. That is raw
SVI, w = a + b·(rho·(k - m) + √((k - m)² + sigma²)), with bounds in place of its inequalities:
|rho| <= 1 is left, right >= 0, and Lee's bound on the wings is left, right <= 2/s.
Knows nothing of points, legs or statuses.
"""

import math

import numpy as np

from pipeline.kernels.compiling import Floats, kernel

LEVEL, LEFT, RIGHT, MIDDLE, BREADTH = 0, 1, 2, 3, 4
PARAMETERS = 5


@kernel
def value(x: float, curve: Floats, square: float) -> float:
    """y of a curve at x; square is the square of its breadth."""
    u = x - curve[MIDDLE]
    h = math.sqrt(u * u + square)
    total: float = curve[LEVEL] + 0.5 * (curve[RIGHT] * (h + u) + curve[LEFT] * (h - u))
    return total


@kernel
def butterfly(x: float, curve: Floats, scale: float, slope: Floats) -> float:
    """Durrleman's g at x, and into `slope` what it gains with each parameter; scale is s.

    Butterflies are free of arbitrage where g >= 0: with w' and w'' in k,
    g = (1 - k·w'/(2w))² - w'²/4·(1/w + 1/4) + w''/2 (Gatheral and Jacquier, 2014).
    """
    left, right = curve[LEFT], curve[RIGHT]
    square = math.exp(2.0 * curve[BREADTH])
    u = x - curve[MIDDLE]
    h = math.sqrt(u * u + square)
    tilt = u / h
    both = 0.5 * (left + right)
    y = curve[LEVEL] + 0.5 * (right * (h + u) + left * (h - u))
    rise = 0.5 * (right * (tilt + 1.0) + left * (tilt - 1.0))
    curl = square / (h * h * h)
    bend = both * curl
    lean = 1.0 - 0.5 * x * rise / y
    by_y = (lean * x * rise + 0.25 * rise * rise) / (y * y)
    by_rise = -lean * x / y - 0.5 * rise / y - 0.125 * scale * scale * rise
    slope[LEVEL] = by_y
    slope[LEFT] = 0.5 * (by_y * (h - u) + by_rise * (tilt - 1.0)) + 0.25 * curl
    slope[RIGHT] = 0.5 * (by_y * (h + u) + by_rise * (tilt + 1.0)) + 0.25 * curl
    slope[MIDDLE] = -by_y * rise - by_rise * bend + 1.5 * bend * tilt / h
    slope[BREADTH] = by_y * both * square / h - by_rise * bend * u
    slope[BREADTH] += bend * (1.0 - 1.5 * square / (h * h))
    g: float = lean * lean - 0.25 * rise * rise * (1.0 / y + 0.25 * scale * scale) + 0.5 * bend
    return g


@kernel
def least_butterfly(first: float, last: float, curve: Floats, scale: float, nodes: Floats) -> float:
    """The least g at some places between first and last, which it leaves in `nodes`.

    They stand closer together where the curve bends.
    """
    breadth = math.exp(curve[BREADTH])
    low = math.asinh((first - curve[MIDDLE]) / breadth)
    high = math.asinh((last - curve[MIDDLE]) / breadth)
    slope = np.empty(PARAMETERS)
    least = np.inf
    for i in range(nodes.size):
        nodes[i] = low + (high - low) * i / (nodes.size - 1)
        nodes[i] = curve[MIDDLE] + breadth * math.sinh(nodes[i])
        least = min(least, butterfly(nodes[i], curve, scale, slope))
    return least
