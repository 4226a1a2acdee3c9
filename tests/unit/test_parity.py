import numpy as np
import pytest

from pipeline.models import EnrichedChain
from pipeline.parity import parity_gap
from tests.support import chains


def test_one_volatility_on_both_sides_leaves_no_gap_of_ours() -> None:
    gap = parity_gap(chains.enriched(41), strikes=21)
    assert gap is not None
    assert len(gap.strikes) == 21
    assert gap.strikes == sorted(gap.strikes)
    assert gap.strikes[10] == 25_000.0  # the forward lies twelve above it
    assert gap.computed_max < 0.5  # what the 0.05 tick leaves
    assert gap.provided_max == pytest.approx(0.0, abs=1e-5)


def test_traded_leg_without_a_volatility_counts_as_the_zero_that_was_printed() -> None:
    chain = chains.enriched(5)
    provided = chain.legs["iv_provider"].copy()
    provided[4] = np.nan  # the call at the money
    silent = EnrichedChain(chain.header, {**chain.legs, "iv_provider": provided})
    gap = parity_gap(silent)
    assert gap is not None
    assert gap.provided_max == pytest.approx(12.5, abs=1e-4)


def test_chain_without_volatilities_cannot_be_compared() -> None:
    chain = chains.enriched(5)
    nothing = np.full(10, np.nan)
    assert parity_gap(EnrichedChain(chain.header, {**chain.legs, "iv": nothing})) is None
