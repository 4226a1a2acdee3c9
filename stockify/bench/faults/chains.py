"""Small option chains for the rig to be fed with, in the provider's form.

They are made once, in the process that runs the rig; the feeder reads them from a file, so that it
is up again at once when it is killed.
"""

from datetime import date
from pathlib import Path

import msgspec

from pipeline import dhan
from pipeline.bodies import raw_entry
from pipeline.clock import SECOND_NS, Clock
from pipeline.entries import NewEntry
from pipeline.models import RAW_CHAIN_TYPE
from workers.simulator import answers, exchange
from workers.simulator.market import Market

# With three shards, by crc32: the first and the last share one, the others have one each.
UNDERLYINGS = ("NIFTY", "BANKNIFTY", "FINNIFTY", "SENSEX")
SHARDS = 3
# One for each of six shards, and one more: some are unknown to the simulator, and any chain serves.
UNDERLYINGS_OF_SIX = (
    *("NIFTY", "NIFTYNXT50", "BANKNIFTY", "MIDCPNIFTY", "FINNIFTY", "SBIN", "SENSEX"),
)
STRIKES = 20  # two legs each
INSTANTS = 8
APART_NS = 60 * SECOND_NS
POISON = b'{"data": {"last_price": 1, "oc": {"25000.000000": '  # an answer that was cut off


class Chains(msgspec.Struct, frozen=True):
    """One underlying's chain of one expiry at several instants: bodies as received."""

    underlying: str
    expiry: date
    texts: list[bytes]

    def entry(self, number: int, ts_ingest: int) -> NewEntry:
        """The raw entry of one of them, received at that instant."""
        return self._entry(self.texts[number % len(self.texts)], ts_ingest)

    def poison(self, ts_ingest: int) -> NewEntry:
        """A raw entry that nobody can decode."""
        return self._entry(POISON, ts_ingest)

    def _entry(self, text: bytes, ts_ingest: int) -> NewEntry:
        context = dhan.request_context(
            dhan.UNDERLYINGS.get(self.underlying) or _stock(self.underlying),
            self.expiry,
            provider="simulator",
        )
        return raw_entry(RAW_CHAIN_TYPE, context, text, ts_ingest)


def write(path: Path, underlyings: tuple[str, ...] = UNDERLYINGS) -> int:
    """Make the chains of every underlying; gives the legs of one."""
    market, now = Market(1), Clock().now_ns()
    made = []
    for name in underlyings:
        underlying = exchange.BY_NAME.get(name, exchange.BY_NAME[UNDERLYINGS[0]])
        expiry = exchange.expiries(underlying, now)[1]
        times = [now - place * APART_NS for place in range(INSTANTS)]
        texts = [answers.chain(market.chain(underlying, expiry, ts)).encode() for ts in times]
        made.append(Chains(name, expiry, [_middle(text) for text in texts]))
    path.write_bytes(msgspec.msgpack.encode(made))
    return 2 * STRIKES


def read(path: Path) -> list[Chains]:
    """The chains that were made."""
    return msgspec.msgpack.decode(path.read_bytes(), type=list[Chains])


def _stock(name: str) -> dhan.DhanUnderlying:
    return dhan.DhanUnderlying(name, 1, "NSE_EQ", "NSE")


def _middle(text: bytes) -> bytes:
    """The same answer with the strikes around the spot alone."""
    answer = msgspec.json.decode(text)
    spot, ladder = answer["data"]["last_price"], answer["data"]["oc"]
    nearest = sorted(ladder, key=lambda strike: abs(float(strike) - spot))[:STRIKES]
    answer["data"]["oc"] = {strike: ladder[strike] for strike in sorted(nearest, key=float)}
    return msgspec.json.encode(answer)
