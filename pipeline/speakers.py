"""Which chain speaks for its underlying. Pure; knows no stream and no key."""

from datetime import date

from pipeline.clock import SECOND_NS, expiry_ns
from pipeline.models import ChainHeader

SILENT_NS = 60 * SECOND_NS  # a nearer chain that has not come for so long speaks no more


class Speakers:
    """Which chain speaks for its underlying: the nearest that has not settled and still comes.

    Forward and volatility differ by expiry; taken from whichever chain came last they would jump
    to and fro.
    """

    def __init__(self) -> None:
        self._nearest: dict[str, tuple[date, int]] = {}

    def speaks(self, header: ChainHeader) -> bool:
        """Whether this chain speaks for its underlying now."""
        expiry, ts = self._nearest.get(header.underlying, (header.expiry, header.ts_ingest))
        if header.ts_ingest < ts:
            return True  # a late one: whether it is too late, the keys' positions say
        if (
            header.expiry > expiry
            and header.ts_ingest < expiry_ns(expiry)
            and header.ts_ingest - ts < SILENT_NS
        ):
            return False
        self._nearest[header.underlying] = header.expiry, header.ts_ingest
        return True
