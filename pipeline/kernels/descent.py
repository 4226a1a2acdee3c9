"""The raw SVI curve through weighted points, by least squares under bounds.

For a given middle and breadth the other three parameters follow linearly, so the search is in two
dimensions (Zeliade Systems, 2009): Gauss and Newton's step on what the three leave, damped after
Levenberg and Marquardt. One pass over the points gives the sums that cost, slope and curvature
are made of. Points are the columns of an array with the rows x, y and weight (one over the square
of the error), in the units of `svi`. Knows nothing of legs or statuses.
"""

import math

import numpy as np

from pipeline.kernels.compiling import Floats, kernel
from pipeline.kernels.svi import (
    BREADTH,
    LEFT,
    LEVEL,
    MIDDLE,
    PARAMETERS,
    RIGHT,
    butterfly,
)

LEAST_VARIANCE = 1e-6  # of that at the forward; a curve never touches zero

# What the points say nothing of stays near a plain smile: as much as a tenth of a point is worth
# for the wings, and a hundredth for their middle and breadth.
_PLAIN = (1.0, 0.5, 0.5, 0.0, 0.0)
_PLAIN_WEIGHT = (0.0, 0.1, 0.1, 0.01, 0.01)

_STEPS = 20
_FIRST_DAMPING = 1e-3
_MOST_DAMPING = 1e6
_MARGIN = 1e-3  # of g, so that a curve under pressure ends on the good side

# Of the sums, those that change with middle and breadth; v = u/h, z = 1/h.
_H, _UH, _HY, _V, _UV, _VY, _Z, _ZZ, _ZV, _ZY = range(10)


@kernel
def start(points: Floats, count: int, low: Floats, high: Floats) -> Floats:
    """The best curve with middle and breadth on a coarse grid, as wide as the points at most."""
    best = np.array(_PLAIN)
    curve = np.array(_PLAIN)
    system = np.empty((PARAMETERS, PARAMETERS + 1))
    fixed = _fixed_sums(points, count)
    unit = min(0.25 * (points[0, count - 1] - points[0, 0]), 1.0)
    least = np.inf
    for breadth in (0.2, 0.6, 1.5, 4.0):
        for middle in (-1.6, -0.8, 0.0, 0.8, 1.6):
            curve[MIDDLE] = min(max(unit * middle, low[MIDDLE]), high[MIDDLE])
            curve[BREADTH] = min(max(math.log(unit * breadth), low[BREADTH]), high[BREADTH])
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
) -> None:
    """Improve `curve`, in place, until a step gains too little or there were 20.

    Too little is the share `settled` of the cost, or of one a point. `pressure` weighs how far
    Durrleman's g falls short of zero at the nodes; scale is s. low and high bound the parameters:
    no step leaves the bounds, and none costs more than it found.
    """
    systems = np.empty((2, PARAMETERS, PARAMETERS + 1))
    trial = np.empty(PARAMETERS)
    step = np.empty(PARAMETERS)
    fixed = _fixed_sums(points, count)
    first = LEVEL if pressure > 0.0 else MIDDLE
    held = 0
    damping = _FIRST_DAMPING
    cost = _assemble(points, count, fixed, curve, low, high, pressure, systems[0])
    cost += _press(nodes, curve, pressure, scale, systems[0])
    for _ in range(_STEPS):
        _solve(systems[held], curve, low, high, damping, first, step)
        for j in range(PARAMETERS):
            trial[j] = min(max(curve[j] + step[j], low[j]), high[j])
        trial[LEVEL] = max(trial[LEVEL], _least_level(trial))
        other = systems[1 - held]
        trial_cost = _assemble(points, count, fixed, trial, low, high, pressure, other)
        trial_cost += _press(nodes, trial, pressure, scale, other)
        if trial_cost < cost:
            gain = cost - trial_cost
            _copy(trial, curve)
            held = 1 - held
            cost = trial_cost
            damping *= 0.1
            if gain <= settled * min(cost, float(count)):
                return
        else:
            damping *= 10.0
            if not damping < _MOST_DAMPING:
                return


@kernel
def _copy(source: Floats, target: Floats) -> None:
    # A slice would be shorter here, and bring along two seconds of compiled error messages.
    for i in range(PARAMETERS):
        target[i] = source[i]


@kernel
def _fixed_sums(points: Floats, count: int) -> tuple[float, float, float, float, float, float]:
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
    """The weighted sums that change with middle and breadth."""
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
    linear in them. Fills the lower triangle.
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
    cost: float = yy - level * (y + miss) - p * (uy + u_miss) - q * (hy + h_miss)
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
    depth: float = math.exp(curve[BREADTH]) * math.sqrt(curve[LEFT] * curve[RIGHT])
    return LEAST_VARIANCE - depth


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

    The damping is of what earlier parameters leave, so that it does not drown the little that
    middle and breadth still decide. A parameter that pushes against its bound stays.
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
    """Add what g falls short of at the nodes to the normal equations; its cost."""
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
