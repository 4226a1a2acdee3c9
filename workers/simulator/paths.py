"""How the simulated market moves: spot, level of volatility and basis along a market day.

Every path is a pure function of seed, name and market day. Day starts follow a stationary
autoregression, so that no market drifts away in months of running; between two starts runs a
Brownian bridge with a few jumps that fade. A handful of days are kept, never more.
"""

import math
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from workers.simulator import randomness
from workers.simulator.exchange import DAY_S, Underlying

Floats: TypeAlias = NDArray[np.float64]

_SESSION_YEAR_S = 252 * 22_500  # seconds of session in a year
_VOLATILITY = 0.13  # per year of session time, at any hour
_STEP_SD = _VOLATILITY / math.sqrt(_SESSION_YEAR_S)  # of log spot, per second
_PERSISTENCE = 0.97  # of a day's start in the next one
_START_SD = 0.0075  # of log spot, per day
_MEMORY_DAYS = 256  # 0.97^256 is 4e-4: older days do not matter
_SETTLING_DAYS = 5
_JUMPS = 3.0  # a day, on average
_JUMP_SD = 0.0015
_JUMP_FADES_S = 900.0
_LAST_JUMP_S = 75_000  # so that it has faded when the day turns
_LEVEL_STEP_S = 60
_LEVEL_SD = 0.06  # of the logarithm of the volatility's own level
_SPOT_TO_LEVEL = 3.5  # a fall of 1 % lifts volatility by 3.5 % of itself
_BASIS_SD = 0.0002  # of the forward


@lru_cache(maxsize=16)
def spot_path(seed: int, underlying: Underlying, day: int) -> Floats:
    """Spot in rupees at each second of a market day: 86,401 values, the next day's first too."""
    market = _log_path(seed, "market", day)
    own = _log_path(seed, underlying.name, day)
    path: Floats = underlying.base * np.exp(
        underlying.market_share * market + underlying.own_share * own
    )
    path.flags.writeable = False
    return path


@lru_cache(maxsize=64)
def settled_spot(seed: int, underlying: Underlying, day: int) -> float:
    """Where spot stood lately, in rupees: the mean of the starts of that day and the four before.

    People's open positions follow the market with such a delay.
    """
    starts = [
        underlying.market_share * _day_start(seed, "market", one, _START_SD)
        + underlying.own_share * _day_start(seed, underlying.name, one, _START_SD)
        for one in range(day - _SETTLING_DAYS + 1, day + 1)
    ]
    return underlying.base * math.exp(sum(starts) / len(starts))


@lru_cache(maxsize=16)
def level_path(seed: int, underlying: Underlying, day: int) -> Floats:
    """The factor on the underlying's volatility at each minute of a market day, 1,441 values."""
    log_spot = np.log(spot_path(seed, underlying, day)[::_LEVEL_STEP_S])
    slow = np.linspace(log_spot[0], log_spot[-1], len(log_spot))
    own = _bridge(seed, "level", underlying, day, _LEVEL_SD)
    path: Floats = np.exp(own - _SPOT_TO_LEVEL * (log_spot - slow))
    path.flags.writeable = False
    return path


@lru_cache(maxsize=16)
def basis_path(seed: int, underlying: Underlying, day: int) -> Floats:
    """The noise of the forward over its carry, as a fraction, at each minute; 1,441 values."""
    path = _bridge(seed, "basis", underlying, day, _BASIS_SD)
    path.flags.writeable = False
    return path


def at_seconds(path: Floats, since_s: Floats, step_s: int = 1) -> Floats:
    """A path's values, linear in between; `since_s` are seconds since the day began."""
    position = since_s / step_s
    left = np.clip(position.astype(np.int64), 0, len(path) - 2)
    base = path[left]
    values: Floats = base + (path[left + 1] - base) * (position - left)
    return values


@lru_cache(maxsize=4)
def _log_path(seed: int, name: str, day: int) -> Floats:
    first, last = (_day_start(seed, name, one, _START_SD) for one in (day, day + 1))
    random = randomness.generator(seed, "path", name, day)
    walk = np.empty(DAY_S + 1)
    walk[0] = 0.0
    np.cumsum(random.standard_normal(DAY_S), out=walk[1:])
    walk *= _STEP_SD
    seconds = np.arange(DAY_S + 1, dtype=np.float64)
    walk += first + (last - first - walk[-1]) * (seconds / DAY_S)
    for _ in range(random.poisson(_JUMPS)):
        at = int(random.integers(_LAST_JUMP_S))
        size = random.normal(0.0, _JUMP_SD)
        walk[at:] += size * np.exp((at - seconds[at:]) / _JUMP_FADES_S)
    return walk


def _day_start(seed: int, name: str, day: int, sd: float) -> float:
    """A stationary autoregression, written as the sum of its latest shocks."""
    days = np.arange(day, day - _MEMORY_DAYS, -1)
    shocks = _normal(randomness.key(seed, "start", name), days)
    return float(sd * np.sum(shocks * _PERSISTENCE ** np.arange(_MEMORY_DAYS)))


def _bridge(seed: int, what: str, underlying: Underlying, day: int, sd: float) -> Floats:
    """A slow path with about that standard deviation, on a grid of minutes."""
    own_sd = sd * math.sqrt(1.0 - _PERSISTENCE**2)
    name = f"{what} {underlying.name}"
    first, last = (_day_start(seed, name, one, own_sd) for one in (day, day + 1))
    count = DAY_S // _LEVEL_STEP_S
    walk = np.zeros(count + 1)
    random = randomness.generator(seed, what, underlying.name, day)
    np.cumsum(random.standard_normal(count), out=walk[1:])
    walk *= sd / math.sqrt(count)
    walk += first + (last - first - walk[-1]) * np.linspace(0.0, 1.0, count + 1)
    return walk


def _normal(purpose: int, days: NDArray[np.int64]) -> Floats:
    """Standard normal numbers by Box and Muller, one a day."""
    radius = np.sqrt(-2.0 * np.log1p(-randomness.uniform(purpose, days, np.zeros_like(days))))
    values: Floats = radius * np.cos(
        2.0 * math.pi * randomness.uniform(purpose, days, np.ones_like(days))
    )
    return values
