"""What the tests of the page share: the chain it shows, and how to look at it."""

import numpy as np

from pipeline.models import EnrichedChain, Kind
from tests.support import chains
from tests.support.browser import Window, expect
from tests.support.gateway import Gateway, moved

NOW_S = 28  # of the gateway's clock, which stands 30 s after the first chain
CHAIN = moved(chains.enriched(41), seconds=NOW_S)
ATM = 25_000.0
FIRST_SPOT = 24_950.0


def origin(gateway: Gateway) -> str:
    return str(gateway.http.base_url).rstrip("/")


def leg(chain: EnrichedChain, strike: float, kind: Kind) -> int:
    """Where a leg stands in its columns."""
    legs = chain.legs
    return int(np.flatnonzero((legs["strike"] == strike) & (legs["kind"] == kind))[0])


def last(chain: EnrichedChain, strike: float, kind: Kind) -> float:
    return float(chain.legs["last"][leg(chain, strike, kind)])


async def show_chain(window: Window, gateway: Gateway) -> None:
    await window.open(gateway.token())
    await expect(window.page.locator(".grid-body .grid-row")).to_have_count(41)
