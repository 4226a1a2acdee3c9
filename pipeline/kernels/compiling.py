"""How kernels are compiled and called: one set of options, one array type for each argument.

Compilation waits for the first call, so that importing a kernel costs nothing; bringing every
argument to one type keeps a kernel at one compiled form. Never computes anything.

Numba believes a cached kernel as long as the kernel's own file is unchanged, though the machine
code holds the kernels of other files that it calls. So the cache lies in a folder named after the
text of all of them.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numba import config, njit
from numpy.typing import ArrayLike, NDArray

_config: Any = config  # its settings are set at run time, unknown to a type checker


def _cache_folder() -> Path:
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for source in sorted(here.glob("*.py")):
        digest.update(source.read_bytes())
    base = Path(_config.CACHE_DIR or here / "__pycache__")
    return base / f"kernels-{digest.hexdigest()[:16]}"


_config.CACHE_DIR = str(_cache_folder())

# Contracted multiply-adds, reciprocals and unsigned zeros; NaN and infinity keep their meaning,
# because a status depends on them.
kernel = njit(cache=True, error_model="numpy", fastmath={"contract", "arcp", "nsz"})

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]
Integers = NDArray[np.int64]


def floats(values: ArrayLike) -> Floats:
    """A one-dimensional, contiguous, aligned, writable float64 array; copied only where needed."""
    return _plain(np.asarray(values, np.float64))


def booleans(values: ArrayLike) -> Booleans:
    """As `floats`, of bool."""
    return _plain(np.asarray(values, np.bool_))


def integers(values: ArrayLike) -> Integers:
    """As `floats`, of int64."""
    return _plain(np.asarray(values, np.int64))


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim == 1 and array.flags.carray:
        return array
    return np.array(array, order="C").reshape(-1)
