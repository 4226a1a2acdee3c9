"""Kernels compile once before the first test, so that no test's time holds a compilation."""

import pytest

from pipeline import enrich


@pytest.fixture(scope="session", autouse=True)
def compiled_kernels() -> None:
    enrich.warmup()
