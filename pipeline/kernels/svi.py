"""Raw SVI curves: their values, their fit by weighted least squares, their butterfly arbitrage.

All in units of the money: x = k/s and y = w/s² with s = √w at the forward, so that every number is
near one for an expiry of an hour and of five years. A curve is five parameters,

    y(x) = level + right/2·(h + u) + left/2·(h - u),  u = x - middle,  h = √(u² + breadth²)

of which the last is held as ln(breadth); left and right are the slopes of the wings. That is raw
SVI, w = a + b·(rho·(k - m) + √((k - m)² + sigma²)), with bounds in place of its inequalities:
|rho| <= 1 is left, right >= 0, and Lee's bound on the wings is left, right <= 2/s. For a given
middle and breadth the other three follow linearly, so the search is in two dimensions (Zeliade
Systems, 2009), by Gauss-Newton on what they leave. Knows nothing of legs, quotes or statuses.
"""

import math

import numpy as np

from pipeline.kernels.compiling import Floats, kernel

LEVEL, LEFT, RIGHT, MIDDLE, BREADTH = 0, 1, 2, 3, 4
PARAMETERS = 5
LEAST_VARIANCE = 1e-6  # of that at the forward; a curve never touches zero

# What a chain says nothing of stays near a plain smile, as if one point in a hundred were on it.
_PLAIN = (1.0, 0.5, 0.5, 0.0, 0.0)
_PLAIN_WEIGHT = (0.0, 0.01, 0.01, 0.01, 0.01)

_STEPS = 20
_FIRST_DAMPING = 1e-3
_MOST_DAMPING = 1e6
_MARGIN = 1e-3  # of g, so that a curve under pressure ends on the good side

# Of the moments, those that change with middle and breadth; v = u/h, z = 1/h.
_H, _UH, _HY, _V, _UV, _VY, _Z, _ZZ, _ZV, _ZY = range(10)


@kernel
def value(x: float, curve: Floats, square: float) -> float:
    """y of a curve at x; square is the square of its breadth."""
    u = x - curve[MIDDLE]
    h = math.sqrt(u * u + square)
    total: float = curve[LEVEL] + 0.5 * (curve[RIGHT] * (h + u) + curve[LEFT] * (h - u))
    return total


@kernel
def start(points: Floats, count: int, low: Floats, high: Floats) -> Floats:
    """The best curve with middle and breadth on a coarse grid."""
    best = np.empty(PARAMETERS)
    curve = np.empty(PARAMETERS)
    system = np.empty((PARAMETERS, PARAMETERS + 1))
    fixed = _moments(points, count)
    least = np.inf
    for breadth in (-1.6, -0.5, 0.4, 1.4):
        for middle in (-1.6, -0.8, 0.0, 0.8, 1.6):
            curve[MIDDLE] = min(max(middle, low[MIDDLE]), high[MIDDLE])
            curve[BREADTH] = min(max(breadth, low[BREADTH]), high[BREADTH])
            cost = _assemble(points, count, fixed, curve, low, high, 0.0, system)
            if cost < least:
                least = cost
                _copy(curve, best)
    return best


@kernel
def descend(
    points: Floats,
    count: int,
    curve: Floats,
    low: Floats,
    high: Floats,
    settled: float,
    pressure: float,
    nodes: Floats,
    scale: float,
) -> int:
    """Levenberg and Marquardt's descent of `curve`, in place; the steps it took.

    Rows of points: x, y, weight. It ends when a step gains less than the share `settled` of the
    cost. `pressure` weighs the shortfall of Durrleman's g at the nodes, where it is above zero;
    scale is s. A step never leaves the bounds and never costs more.
    """
    systems = np.empty((2, PARAMETERS, PARAMETERS + 1))
    trial = np.empty(PARAMETERS)
    step = np.empty(PARAMETERS)
    fixed = _moments(points, count)
    first = LEVEL if pressure > 0.0 else MIDDLE
    held = 0
    damping = _FIRST_DAMPING
    cost = _assemble(points, count, fixed, curve, low, high, pressure, systems[0])
    cost += _press(nodes, curve, pressure, scale, systems[0])
    for turn in range(_STEPS):
        _solve(systems[held], curve, low, high, damping, first, step)
        for j in range(PARAMETERS):
            trial[j] = min(max(curve[j] + step[j], low[j]), high[j])
        trial[LEVEL] = max(trial[LEVEL], _least_level(trial))
        trial_cost = _assemble(points, count, fixed, trial, low, high, pressure, systems[1 - held])
        trial_cost += _press(nodes, trial, pressure, scale, systems[1 - held])
        if trial_cost < cost:
            gain = cost - trial_cost
            _copy(trial, curve)
            held = 1 - held
            cost = trial_cost
            damping *= 0.05
            if gain <= settled * cost:
                return turn + 1
        else:
            damping *= 10.0
            if not damping < _MOST_DAMPING:
                return turn + 1
    return _STEPS


@kernel
def _copy(source: Floats, target: Floats) -> None:
    # A slice would be shorter here, and bring along two seconds of compiled error messages.
    for i in range(PARAMETERS):
        target[i] = source[i]


@kernel
def _moments(points: Floats, count: int) -> tuple[float, float, float, float, float, float]:
    """Weighted sums of 1, x, x², y, xy and y²."""
    s = sx = sxx = sy = sxy = syy = 0.0
    for i in range(count):
        x, y, w = points[0, i], points[1, i], points[2, i]
        s += w
        sx += w * x
        sxx += w * x * x
        sy += w * y
        sxy += w * x * y
        syy += w * y * y
    return s, sx, sxx, sy, sxy, syy


@kernel
def _sum(points: Floats, count: int, middle: float, square: float, sums: Floats) -> None:
    """The moments that change with middle and breadth."""
    s_h = s_uh = s_hy = s_v = s_uv = s_vy = s_z = s_zz = s_zv = s_zy = 0.0
    for i in range(count):
        u, y, w = points[0, i] - middle, points[1, i], points[2, i]
        h = math.sqrt(u * u + square)
        z = 1.0 / h
        wh, wz = w * h, w * z
        wv = wz * u
        s_h += wh
        s_uh += wh * u
        s_hy += wh * y
        s_v += wv
        s_uv += wv * u
        s_vy += wv * y
        s_z += wz
        s_zz += wz * z
        s_zv += wv * z
        s_zy += wz * y
    sums[_H], sums[_UH], sums[_HY] = s_h, s_uh, s_hy
    sums[_V], sums[_UV], sums[_VY] = s_v, s_uv, s_vy
    sums[_Z], sums[_ZZ], sums[_ZV], sums[_ZY] = s_z, s_zz, s_zv, s_zy


@kernel
def _assemble(
    points: Floats,
    count: int,
    fixed: tuple[float, float, float, float, float, float],
    curve: Floats,
    low: Floats,
    high: Floats,
    pressure: float,
    system: Floats,
) -> float:
    """Normal equations of a Gauss-Newton step, the right side in the last column; the cost.

    First sets the linear parameters of the curve to their best; not under pressure, for g is not
    linear in them.
    """
    s, sx, sxx, y, sxy, yy = fixed
    middle = curve[MIDDLE]
    square = math.exp(2.0 * curve[BREADTH])
    sums = np.empty(10)
    _sum(points, count, middle, square, sums)
    h, uh, hy = sums[_H], sums[_UH], sums[_HY]
    v, uv, vy = sums[_V], sums[_UV], sums[_VY]
    z, zz, zv, zy = sums[_Z], sums[_ZZ], sums[_ZV], sums[_ZY]
    u = sx - middle * s
    uu = sxx - middle * (sx + u)
    uy = sxy - middle * y
    hh = uu + square * s
    system[LEVEL, LEVEL] = s
    system[LEFT, LEVEL] = 0.5 * (h - u)
    system[RIGHT, LEVEL] = 0.5 * (h + u)
    system[LEFT, LEFT] = 0.25 * (hh + uu) - 0.5 * uh
    system[RIGHT, LEFT] = 0.25 * square * s
    system[RIGHT, RIGHT] = 0.25 * (hh + uu) + 0.5 * uh
    if pressure <= 0.0:
        _project(system, y, 0.5 * (hy - uy), 0.5 * (hy + uy), low, high, curve)
    level = curve[LEVEL]
    p, q = 0.5 * (curve[RIGHT] - curve[LEFT]), 0.5 * (curve[RIGHT] + curve[LEFT])
    bend = q * square
    u_m, h_m = -p * u - q * uv, -p * h - q * u
    system[MIDDLE, LEVEL] = -p * s - q * v
    system[MIDDLE, LEFT] = 0.5 * (h_m - u_m)
    system[MIDDLE, RIGHT] = 0.5 * (h_m + u_m)
    system[MIDDLE, MIDDLE] = p * p * s + 2.0 * p * q * v + q * q * (s - square * zz)
    system[BREADTH, LEVEL] = bend * z
    system[BREADTH, LEFT] = 0.5 * bend * (s - v)
    system[BREADTH, RIGHT] = 0.5 * bend * (s + v)
    system[BREADTH, MIDDLE] = -bend * (p * z + q * zv)
    system[BREADTH, BREADTH] = bend * bend * zz
    miss = y - level * s - p * u - q * h
    u_miss = uy - level * u - p * uu - q * uh
    h_miss = hy - level * h - p * uh - q * hh
    system[LEVEL, PARAMETERS] = miss
    system[LEFT, PARAMETERS] = 0.5 * (h_miss - u_miss)
    system[RIGHT, PARAMETERS] = 0.5 * (h_miss + u_miss)
    system[MIDDLE, PARAMETERS] = -p * miss - q * (vy - level * v - p * uv - q * u)
    system[BREADTH, PARAMETERS] = bend * (zy - level * z - p * v - q * s)
    cost = yy - level * (y + miss) - p * (uy + u_miss) - q * (hy + h_miss)
    for i in range(PARAMETERS):
        pull = _PLAIN[i] - curve[i]
        system[i, i] += _PLAIN_WEIGHT[i]
        system[i, PARAMETERS] += _PLAIN_WEIGHT[i] * pull
        cost += _PLAIN_WEIGHT[i] * pull * pull
    return cost


@kernel
def _project(
    system: Floats,
    y: float,
    left_y: float,
    right_y: float,
    low: Floats,
    high: Floats,
    curve: Floats,
) -> None:
    """The best level and wings of a curve whose middle and breadth are given."""
    s, left_s, right_s = system[LEVEL, LEVEL], system[LEFT, LEVEL], system[RIGHT, LEVEL]
    # Without the level, which is free: two unknowns between bounds.
    ll = system[LEFT, LEFT] - left_s * left_s / s + _PLAIN_WEIGHT[LEFT]
    rr = system[RIGHT, RIGHT] - right_s * right_s / s + _PLAIN_WEIGHT[RIGHT]
    lr = system[RIGHT, LEFT] - left_s * right_s / s
    ly = left_y - left_s * y / s + _PLAIN_WEIGHT[LEFT] * _PLAIN[LEFT]
    ry = right_y - right_s * y / s + _PLAIN_WEIGHT[RIGHT] * _PLAIN[RIGHT]
    determinant = ll * rr - lr * lr
    left = (rr * ly - lr * ry) / determinant
    right = (ll * ry - lr * ly) / determinant
    if left < low[LEFT] or left > high[LEFT]:
        left = min(max(left, low[LEFT]), high[LEFT])
        right = (ry - lr * left) / rr
    if right < low[RIGHT] or right > high[RIGHT]:
        right = min(max(right, low[RIGHT]), high[RIGHT])
        left = min(max((ly - lr * right) / ll, low[LEFT]), high[LEFT])
    curve[LEFT], curve[RIGHT] = left, right
    curve[LEVEL] = max((y - left * left_s - right * right_s) / s, _least_level(curve))


@kernel
def _least_level(curve: Floats) -> float:
    """The level below which the curve would fall under the least variance."""
    return LEAST_VARIANCE - math.exp(curve[BREADTH]) * math.sqrt(curve[LEFT] * curve[RIGHT])


@kernel
def _solve(
    system: Floats,
    curve: Floats,
    low: Floats,
    high: Floats,
    damping: float,
    first: int,
    step: Floats,
) -> None:
    """The step, by Cholesky, damped from the parameter `first` on.

    A parameter that pushes against its bound stays. Reads the lower triangle.
    """
    root = np.zeros((PARAMETERS, PARAMETERS))
    for i in range(PARAMETERS):
        push = system[i, PARAMETERS]
        if (curve[i] <= low[i] and push < 0.0) or (curve[i] >= high[i] and push > 0.0):
            step[i] = 0.0  # and its row of the root stays empty
            continue
        pivot = system[i, i]
        for j in range(i):
            if root[j, j] > 0.0:
                entry = system[i, j]
                for q in range(j):
                    entry -= root[i, q] * root[j, q]
                root[i, j] = entry / root[j, j]
                push -= root[i, j] * step[j]
        for q in range(min(first, i)):
            pivot -= root[i, q] * root[i, q]
        pivot = max(pivot, 1e-15 * system[i, i]) * (1.0 + damping)
        for q in range(first, i):
            pivot -= root[i, q] * root[i, q]
        root[i, i] = math.sqrt(max(pivot, 1e-15 * system[i, i]))
        step[i] = push / root[i, i] if root[i, i] > 0.0 else 0.0
    for i in range(PARAMETERS - 1, -1, -1):
        if root[i, i] > 0.0:
            for q in range(i + 1, PARAMETERS):
                step[i] -= root[q, i] * step[q]
            step[i] /= root[i, i]


@kernel
def _press(nodes: Floats, curve: Floats, pressure: float, scale: float, system: Floats) -> float:
    """Add the shortfall of g at the nodes to the normal equations; its cost."""
    if pressure <= 0.0:
        return 0.0
    slope = np.empty(PARAMETERS)
    cost = 0.0
    for x in nodes:
        short = _MARGIN - butterfly(x, curve, scale, slope)
        if short > 0.0:
            cost += pressure * short * short
            for i in range(PARAMETERS):
                for j in range(i + 1):
                    system[i, j] += pressure * slope[i] * slope[j]
                system[i, PARAMETERS] += pressure * slope[i] * short
    return cost


@kernel
def butterfly(x: float, curve: Floats, scale: float, slope: Floats) -> float:
    """Durrleman's g at x, and into `slope` what it gains with each parameter.

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
