"""How kernels are compiled and called: one set of options, one array type for each argument.

Compilation waits for the first call, so that importing a kernel costs nothing; bringing every
argument to one type keeps a kernel at one compiled form. Never computes anything.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

# Contracted multiply-adds, reciprocals and unsigned zeros; NaN and infinity keep their meaning,
# because a status depends on them.
_ARITHMETIC = {"contract", "arcp", "nsz"}
kernel = njit(cache=True, error_model="numpy", fastmath=_ARITHMETIC)
# A part of a kernel that must not be called: a call passes more than such a part computes, and
# stands in the way of running several legs at once.
inlined = njit(forceinline=True, error_model="numpy", fastmath=_ARITHMETIC)

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]
Integers = NDArray[np.int64]
Codes = NDArray[np.uint8]


_FLOAT = np.dtype(np.float64)
_BOOLEAN = np.dtype(np.bool_)


def floats(values: ArrayLike) -> Floats:
    """A one-dimensional, contiguous, aligned, writable float64 array; copied only where needed."""
    if type(values) is np.ndarray and values.dtype is _FLOAT:
        return _plain(values)
    return _plain(np.asarray(values, np.float64))


def booleans(values: ArrayLike) -> Booleans:
    """As `floats`, of bool."""
    if type(values) is np.ndarray and values.dtype is _BOOLEAN:
        return _plain(values)
    return _plain(np.asarray(values, np.bool_))


def integers(values: ArrayLike) -> Integers:
    """As `floats`, of int64."""
    return _plain(np.asarray(values, np.int64))


def codes(values: ArrayLike) -> Codes:
    """As `floats`, of uint8."""
    return _plain(np.asarray(values, np.uint8))


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim == 1 and array.flags.carray:
        return array
    return np.array(array, order="C").reshape(-1)
