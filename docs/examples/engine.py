"""An algo engine: sells the straddle at the money while its volatility is dear.

`stockify run engine:straddle` from the folder of this file. What it decides goes to
`stream:signals`, each signal exactly once.
"""

import msgspec

from pipeline.streams import Chain, consume, worker

DEAR_IV = 0.10


class Signal(msgspec.Struct, frozen=True):
    """What to do; `price` in rupees, `iv` decimal per year."""

    contract: str
    side: str
    price: float
    iv: float


@worker(
    consume(
        "my-engine",
        underlying="NIFTY",
        band_strikes=0,  # the strike nearest the forward alone
        critical=True,  # no chain is trimmed before it was looked at
        start="earliest",
        writes={"signal.v1": Signal},
    ),
    target="signals",
)
def straddle(chain: Chain) -> list[Signal]:
    """Both legs at their bids, or nothing."""
    iv = chain.header.aggregates.atm_iv
    if iv is None or iv < DEAR_IV:
        return []
    return [
        Signal(contract=leg.symbol, side="sell", price=leg.bid, iv=iv)
        for leg in chain.legs()
        if leg.bid is not None
    ]
