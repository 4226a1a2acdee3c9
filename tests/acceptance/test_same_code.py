"""Code compiled anew gives the same bytes; code for another vector width agrees to rounding.

Each process here compiles every kernel, which takes it the better part of a minute.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pytest

from pipeline import frames
from pipeline.models import EnrichedChain, IvStatus
from stockify import warm
from tests.support import frames_of
from workers import processor

DEADLINE_S = 250.0  # below the limit of a test
HAS_AVX512 = "avx512f" in warm.processor_flags().split()
EPSILON = 2.0**-52
ROUNDINGS = {"iv": 8.0} | dict.fromkeys(("delta", "gamma", "theta", "vega", "rho"), 64.0)
AVX2 = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": ""}


class Derivation(NamedTuple):
    """A process at work and the file into which it writes its frames."""

    process: "subprocess.Popen[bytes]"
    file: Path

    def frames(self) -> list[bytes]:
        assert self.process.wait(DEADLINE_S) == 0
        found: list[bytes] = msgspec.msgpack.decode(self.file.read_bytes(), type=list[bytes])
        return found


@pytest.fixture(scope="module")
def here() -> list[bytes]:
    processor.warmup()
    return [frames_of.frame_of(entry) for entry in frames_of.entries()]


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Derivation]]:
    """Processes that derive the same entries with code of their own, both at once."""
    variables: dict[str, Mapping[str, str]] = {"anew": {}}
    if HAS_AVX512:
        variables["avx2"] = AVX2
    found = {name: started(tmp_path_factory.mktemp(name), own) for name, own in variables.items()}
    try:
        yield found
    finally:
        for one in found.values():
            one.process.kill()
            one.process.wait()


def started(folder: Path, variables: Mapping[str, str]) -> Derivation:
    process = subprocess.Popen(
        (sys.executable, "-m", "tests.support.frames_of", str(folder / "frames")),
        env=os.environ | variables | {"NUMBA_CACHE_DIR": str(folder / "numba")},
        cwd=Path(__file__).resolve().parents[2],
    )
    return Derivation(process, folder / "frames")


def test_code_compiled_in_another_process_gives_the_same_bytes(
    here: list[bytes], elsewhere: dict[str, Derivation]
) -> None:
    assert elsewhere["anew"].frames() == here


@pytest.mark.skipif(not HAS_AVX512, reason="no AVX-512 here, so there is but one kind of code")
def test_code_without_avx512_agrees_to_rounding(
    here: list[bytes], elsewhere: dict[str, Derivation]
) -> None:
    for one, other in zip(here, elsewhere["avx2"].frames(), strict=True):
        assert_agree(frames.decode_frame(one), frames.decode_frame(other))


def assert_agree(one: EnrichedChain, other: EnrichedChain) -> None:
    """Statuses are equal; numbers differ by a few roundings times how ill they are conditioned.

    A volatility hangs on the price by price/(iv·dV/div) and on the forward by F·delta/(iv·dV/div).
    A smile is where a search ended, and a search is not conditioned like a formula.
    """
    head, legs = one.header, one.legs
    assert head.forward is not None
    assert other.header.forward == pytest.approx(head.forward, rel=8 * EPSILON)
    assert other.header.discount == head.discount
    assert other.header.forward_source == head.forward_source
    for name in ("iv_status", "price_source", "greeks_source"):
        assert np.array_equal(legs[name], other.legs[name]), name
    solved = legs["iv_status"] <= IvStatus.ILL_CONDITIONED
    assert solved.sum() > 50
    price = np.abs(legs["rho"][solved]) * 100.0 / head.years
    moves = 100.0 * legs["vega"][solved] * legs["iv"][solved]
    condition = 1.0 + (price + np.abs(legs["delta"][solved]) * head.forward) / moves
    for name, roundings in ROUNDINGS.items():
        value = legs[name][solved]
        miss = np.abs(other.legs[name][solved] - value)
        assert (miss <= roundings * EPSILON * condition * np.abs(value)).all(), name
    np.testing.assert_allclose(other.legs["iv_fit"], legs["iv_fit"], rtol=1e-6)
    assert (head.smile and head.smile.status) == (other.header.smile and other.header.smile.status)
