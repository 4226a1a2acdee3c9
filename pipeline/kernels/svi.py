"""Raw SVI curves: their values, their fit by weighted least squares, their butterfly arbitrage.

All in units of the money: x = k/s and y = w/s² with s = √w at the forward, so that every number is
near one for an expiry of an hour and of five years. A curve is five parameters,

    y(x) = level + right/2·(h + u) + left/2·(h - u),  u = x - middle,  h = √(u² + e^(2·breadth))

where left and right are the slopes of the wings. That is raw SVI, w = a + b·(rho·(k - m) +
√((k - m)² + sigma²)), with bounds in place of its inequalities: |rho| <= 1 is left, right >= 0, and
Lee's bound on the wings is left, right <= 2/s. Knows nothing of legs, quotes or statuses.
"""

import math

import numpy as np

from pipeline.kernels.compiling import Floats, kernel

LEVEL, LEFT, RIGHT, MIDDLE, BREADTH = 0, 1, 2, 3, 4
PARAMETERS = 5
LEAST_VARIANCE = 1e-6  # of that at the forward; a curve never touches zero

# What a chain says nothing of stays near a plain smile; in units of the points' own errors, so
# that forty of them outweigh it at once.
_PLAIN = (0.5, 0.5, 0.5, 0.0, 0.0)
_PLAIN_WEIGHT = (0.0, 1e-2, 1e-2, 1e-2, 1e-2)

_FIRST_DAMPING = 1e-3
_MOST_DAMPING = 1e8
_SETTLED = 1e-7  # of the cost; a smaller gain is not worth another step
_MARGIN = 1e-3  # of g, so that a curve under pressure ends on the good side


@kernel
def value(x: float, curve: Floats) -> float:
    """y of a curve at x."""
    u = x - curve[MIDDLE]
    breadth = math.exp(curve[BREADTH])
    h = math.sqrt(u * u + breadth * breadth)
    total: float = curve[LEVEL] + 0.5 * (curve[RIGHT] * (h + u) + curve[LEFT] * (h - u))
    return total


@kernel
def start(x: Floats, y: Floats, weights: Floats, low: Floats, high: Floats) -> Floats:
    """The best curve with middle and breadth on a coarse grid; level and wings follow linearly."""
    best = np.empty(PARAMETERS)
    curve = np.empty(PARAMETERS)
    least = np.inf
    for breadth in (0.2, 0.6, 1.5, 4.0):
        for middle in (-1.6, -0.8, 0.0, 0.8, 1.6):
            curve[MIDDLE] = min(max(middle, low[MIDDLE]), high[MIDDLE])
            curve[BREADTH] = min(max(math.log(breadth), low[BREADTH]), high[BREADTH])
            cost = _fit_linear(x, y, weights, curve, low, high)
            if cost < least:
                least = cost
                best[:] = curve
    return best


@kernel
def _fit_linear(
    x: Floats, y: Floats, weights: Floats, curve: Floats, low: Floats, high: Floats
) -> float:
    """Level and wings of a curve whose middle and breadth are given; the cost."""
    square = math.exp(2.0 * curve[BREADTH])
    s0 = sl = sr = sll = slr = srr = sy = sly = sry = syy = 0.0
    for i in range(x.size):
        u = x[i] - curve[MIDDLE]
        h = math.sqrt(u * u + square)
        left = 0.5 * (h - u)
        right = 0.5 * (h + u)
        w = weights[i]
        s0 += w
        sl += w * left
        sr += w * right
        sll += w * left * left
        slr += w * left * right
        srr += w * right * right
        sy += w * y[i]
        sly += w * left * y[i]
        sry += w * right * y[i]
        syy += w * y[i] * y[i]
    # Without the level, which is free: two unknowns between bounds.
    ll = sll - sl * sl / s0 + 1e-6 * s0
    rr = srr - sr * sr / s0 + 1e-6 * s0
    lr = slr - sl * sr / s0
    ly = sly - sl * sy / s0 + 0.5e-6 * s0
    ry = sry - sr * sy / s0 + 0.5e-6 * s0
    determinant = ll * rr - lr * lr
    left = (rr * ly - lr * ry) / determinant
    right = (ll * ry - lr * ly) / determinant
    if left < low[LEFT] or left > high[LEFT]:
        left = min(max(left, low[LEFT]), high[LEFT])
        right = (ry - lr * left) / rr
    if right < low[RIGHT] or right > high[RIGHT]:
        right = min(max(right, low[RIGHT]), high[RIGHT])
        left = min(max((ly - lr * right) / ll, low[LEFT]), high[LEFT])
    curve[LEFT] = left
    curve[RIGHT] = right
    curve[LEVEL] = max((sy - left * sl - right * sr) / s0, _least_level(curve))
    explained = left * (2.0 * ly - left * ll - right * lr)
    explained += right * (2.0 * ry - right * rr - left * lr)
    cost: float = syy - sy * sy / s0 - explained
    return cost


@kernel
def _least_level(curve: Floats) -> float:
    """The level below which the curve would fall under the least variance."""
    return LEAST_VARIANCE - math.exp(curve[BREADTH]) * math.sqrt(curve[LEFT] * curve[RIGHT])


@kernel
def descend(
    x: Floats,
    y: Floats,
    weights: Floats,
    curve: Floats,
    low: Floats,
    high: Floats,
    steps: int,
    pressure: float,
    nodes: Floats,
    scale: float,
) -> float:
    """Levenberg and Marquardt's descent of `curve`, in place; the cost it ends with.

    `pressure` weighs the shortfall of Durrleman's g at the nodes, where it is above zero; scale is
    s. A step never leaves the bounds and never costs more.
    """
    system = np.zeros((2, PARAMETERS, PARAMETERS + 1))
    trial = np.empty(PARAMETERS)
    step = np.empty(PARAMETERS)
    held = 0
    damping = _FIRST_DAMPING
    cost = _assemble(x, y, weights, curve, pressure, nodes, scale, system[held])
    for _ in range(steps):
        _solve(system[held], curve, low, high, damping, step)
        for j in range(PARAMETERS):
            trial[j] = min(max(curve[j] + step[j], low[j]), high[j])
        trial[LEVEL] = max(trial[LEVEL], _least_level(trial))
        trial_cost = _assemble(x, y, weights, trial, pressure, nodes, scale, system[1 - held])
        if trial_cost < cost:
            gain = cost - trial_cost
            curve[:] = trial
            held = 1 - held
            cost = trial_cost
            damping *= 0.1
            if gain <= _SETTLED * cost:
                break
        else:
            damping *= 10.0
            if not damping < _MOST_DAMPING:
                break
    return cost


@kernel
def _assemble(
    x: Floats,
    y: Floats,
    weights: Floats,
    curve: Floats,
    pressure: float,
    nodes: Floats,
    scale: float,
    system: Floats,
) -> float:
    """Normal equations of a Gauss-Newton step, the right side in the last column; the cost."""
    level, left, right, middle = curve[LEVEL], curve[LEFT], curve[RIGHT], curve[MIDDLE]
    square = math.exp(2.0 * curve[BREADTH])
    bend = 0.5 * (left + right) * square
    h_left, h_right = 0.5 * left, 0.5 * right
    a00 = a01 = a02 = a03 = a04 = b0 = 0.0
    a11 = a12 = a13 = a14 = b1 = 0.0
    a22 = a23 = a24 = b2 = 0.0
    a33 = a34 = b3 = a44 = b4 = cost = 0.0
    for i in range(x.size):
        u = x[i] - middle
        h = math.sqrt(u * u + square)
        inverse = 1.0 / h
        tilt = u * inverse
        j1 = 0.5 * (h - u)
        j2 = 0.5 * (h + u)
        j3 = h_left * (1.0 - tilt) - h_right * (1.0 + tilt)
        j4 = bend * inverse
        miss = y[i] - (level + left * j1 + right * j2)
        w = weights[i]
        cost += w * miss * miss
        w1, w2, w3, w4 = w * j1, w * j2, w * j3, w * j4
        a00 += w
        a01 += w1
        a02 += w2
        a03 += w3
        a04 += w4
        b0 += w * miss
        a11 += w1 * j1
        a12 += w1 * j2
        a13 += w1 * j3
        a14 += w1 * j4
        b1 += w1 * miss
        a22 += w2 * j2
        a23 += w2 * j3
        a24 += w2 * j4
        b2 += w2 * miss
        a33 += w3 * j3
        a34 += w3 * j4
        b3 += w3 * miss
        a44 += w4 * j4
        b4 += w4 * miss
    rows = (
        (a00, a01, a02, a03, a04, b0),
        (a01, a11, a12, a13, a14, b1),
        (a02, a12, a22, a23, a24, b2),
        (a03, a13, a23, a33, a34, b3),
        (a04, a14, a24, a34, a44, b4),
    )
    for i in range(PARAMETERS):
        for j in range(PARAMETERS + 1):
            system[i, j] = rows[i][j]
        pull = _PLAIN[i] - curve[i]
        system[i, i] += _PLAIN_WEIGHT[i]
        system[i, PARAMETERS] += _PLAIN_WEIGHT[i] * pull
        cost += _PLAIN_WEIGHT[i] * pull * pull
    if pressure > 0.0:
        cost += _press(nodes, curve, pressure, scale, system)
    return cost


@kernel
def _press(nodes: Floats, curve: Floats, pressure: float, scale: float, system: Floats) -> float:
    """Add the shortfall of g at the nodes to the normal equations; its cost."""
    slope = np.empty(PARAMETERS)
    cost = 0.0
    for x in nodes:
        short = _MARGIN - butterfly(x, curve, scale, slope)
        if short > 0.0:
            cost += pressure * short * short
            for i in range(PARAMETERS):
                for j in range(PARAMETERS):
                    system[i, j] += pressure * slope[i] * slope[j]
                system[i, PARAMETERS] += pressure * slope[i] * short
    return cost


@kernel
def butterfly(x: float, curve: Floats, scale: float, slope: Floats) -> float:
    """Durrleman's g at x, and into `slope` what it gains with each parameter.

    Butterflies are free of arbitrage where g >= 0: with w' and w'' in k,
    g = (1 - k·w'/(2w))² - w'²/4·(1/w + 1/4) + w''/2 (Gatheral and Jacquier 2014).
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
    lean = 1.0 - x * rise / (2.0 * y)
    by_y = (lean * x * rise + 0.25 * rise * rise) / (y * y)
    by_rise = -lean * x / y - 0.5 * rise / y - scale * scale * rise / 8.0
    slope[LEVEL] = by_y
    slope[LEFT] = by_y * 0.5 * (h - u) + by_rise * 0.5 * (tilt - 1.0) + 0.25 * curl
    slope[RIGHT] = by_y * 0.5 * (h + u) + by_rise * 0.5 * (tilt + 1.0) + 0.25 * curl
    slope[MIDDLE] = -by_y * rise - by_rise * bend + 1.5 * bend * tilt / h
    slope[BREADTH] = (
        by_y * both * square / h - by_rise * bend * u + bend * (1.0 - 1.5 * square / (h * h))
    )
    flat = 0.25 * rise * rise / y + scale * scale * rise * rise / 16.0
    g: float = lean * lean - flat + 0.5 * bend
    return g


@kernel
def place_nodes(first: float, last: float, curve: Floats, nodes: Floats) -> None:
    """Places between first and last, closer together where the curve bends."""
    breadth = math.exp(curve[BREADTH])
    low = math.asinh((first - curve[MIDDLE]) / breadth)
    high = math.asinh((last - curve[MIDDLE]) / breadth)
    for i in range(nodes.size):
        share = i / (nodes.size - 1)
        nodes[i] = curve[MIDDLE] + breadth * math.sinh(low + share * (high - low))


@kernel
def least_butterfly(nodes: Floats, curve: Floats, scale: float) -> float:
    """The least g over the nodes."""
    slope = np.empty(PARAMETERS)
    least = np.inf
    for x in nodes:
        least = min(least, butterfly(x, curve, scale, slope))
    return least


@kernel
def _solve(
    system: Floats, curve: Floats, low: Floats, high: Floats, damping: float, step: Floats
) -> None:
    """The damped step, by Cholesky; parameters that push against their bounds stay."""
    root = np.zeros((PARAMETERS, PARAMETERS))
    for i in range(PARAMETERS):
        push = system[i, PARAMETERS]
        if (curve[i] <= low[i] and push < 0.0) or (curve[i] >= high[i] and push > 0.0):
            step[i] = 0.0  # and its row of the root stays empty
            continue
        total = push
        for j in range(i):
            if root[j, j] > 0.0:
                entry = system[i, j]
                for q in range(j):
                    entry -= root[i, q] * root[j, q]
                root[i, j] = entry / root[j, j]
                total -= root[i, j] * step[j]
        pivot = system[i, i] * (1.0 + damping)
        for q in range(i):
            pivot -= root[i, q] * root[i, q]
        root[i, i] = math.sqrt(max(pivot, 1e-14 * system[i, i]))
        step[i] = total / root[i, i] if root[i, i] > 0.0 else 0.0
    for i in range(PARAMETERS - 1, -1, -1):
        if root[i, i] > 0.0:
            for q in range(i + 1, PARAMETERS):
                step[i] -= root[q, i] * step[q]
            step[i] /= root[i, i]
