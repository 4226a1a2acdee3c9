"""Reproducible chance: every number is a pure function of a seed and of what it is for.

Nothing here has a state that advances, so that two pollers, or the same simulator started again,
see the same market at the same market time.
"""

import zlib
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]

_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_TO_UNIT = 2.0**-53


def key(seed: int, *parts: object) -> int:
    """A 32-bit key for one purpose, from the seed and the parts that name it."""
    return zlib.crc32(repr((seed, *parts)).encode())


def uniform(purpose: int, first: Integers, second: Integers) -> Floats:
    """Numbers in [0, 1), one for each pair (first, second) under a key."""
    state = first.astype(np.uint64) * _GOLDEN
    state = _mixed(state + np.uint64(purpose))
    state = _mixed(state ^ (second.astype(np.uint64) * _MIX_2))
    return (state >> np.uint64(11)).astype(np.float64) * _TO_UNIT


def generator(seed: int, *parts: object) -> np.random.Generator:
    """A counter-based generator for one purpose; the same parts give the same numbers."""
    return np.random.Generator(np.random.Philox(key=key(seed, *parts)))


def _mixed(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = (state ^ (state >> np.uint64(30))) * _MIX_1
    state = (state ^ (state >> np.uint64(27))) * _MIX_2
    return state ^ (state >> np.uint64(31))
