"""Kernels compile once before the first test, so that no test's time holds a compilation."""

import numpy as np
import pytest

from pipeline import enrich
from pipeline.kernels import black


@pytest.fixture(scope="session", autouse=True)
def compiled_kernels() -> None:
    enrich.warmup()
    black.price(1.0, 1.0, 1.0, [1.0], [True], [0.1], np.empty(1))
