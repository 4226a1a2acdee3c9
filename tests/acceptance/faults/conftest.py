"""One rig for all faults: engines, two processors, two storages, realtime, trimmer and a feeder."""

import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from stockify.bench.faults import RATE
from stockify.bench.faults.rig import Rig, running


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def rig() -> AsyncIterator[Rig]:
    """A pipeline at work; each test feeds it, breaks it and counts."""
    with tempfile.TemporaryDirectory(prefix="stockify-faults-") as directory:
        async with running(Path(directory), RATE) as made:
            yield made
