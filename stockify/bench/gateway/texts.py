"""What the gateway is fed: client texts of small chains, one-leg chains, and one whole chain.

All are made by the project's own code from the simulator's market. Their instant and their number
stand in them as placeholders, which whoever writes them replaces: the clock of a bench must not
run while texts are made.
"""

from datetime import date, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np

from pipeline import bodies, dhan, frames
from pipeline.clock import IST, SECOND_NS, Clock, exchange_date, to_ns
from pipeline.entries import Entry, NewEntry
from pipeline.models import (
    RAW_CHAIN_TYPE,
    ChainHeader,
    EnrichedChain,
    chain_symbol,
    market_snapshot,
)
from workers import processor
from workers.simulator import answers, exchange
from workers.simulator.market import Market

UNDERLYING = dhan.UNDERLYINGS["NIFTY"]
OPENS_NS = to_ns(datetime(2026, 1, 22, 9, 30, tzinfo=IST))
INSTANTS = 8  # different texts of each chain
APART_NS = 300 * SECOND_NS
CHAINS, LEGS = 20, 20  # four hundred contracts, twenty of which change together
EPOCH = "bench"
# As wide as what replaces them, and found nowhere else in a text.
_TS, _SEQ = 1_111_111_111_111_111_111, 2_222_222_222_222_222
_FIRST_SEQ = 1_000_000_000_000_000
_TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Text(msgspec.Struct, frozen=True):
    """What realtime writes of a chain at once, with placeholders in it."""

    header: ChainHeader
    texts: frames.ChainJson

    def at(self, ts_ingest: int, number: int) -> tuple[ChainHeader, frames.ChainJson]:
        """The same, received at an instant (int ns), the number-th of all."""
        instant, seq = b"%019d" % ts_ingest, b"%016d" % (_FIRST_SEQ + number)

        def filled(text: bytes) -> bytes:
            return text.replace(_TS_TEXT, instant).replace(_SEQ_TEXT, seq)

        contracts = {symbol: filled(text) for symbol, text in self.texts.contracts.items()}
        whole, underlying = filled(self.texts.chain), filled(self.texts.underlying)
        header = msgspec.structs.replace(self.header, ts_ingest=ts_ingest)
        return header, frames.ChainJson(whole, underlying, contracts)


class Sample(msgspec.Struct, frozen=True):
    """The texts of every chain of each kind: `[chain][instant]`."""

    batched: list[list[Text]]
    single: list[list[Text]]
    whole: list[list[Text]]

    def contracts(self, kind: str) -> list[str]:
        """The symbols of all contracts of a kind."""
        chains: list[list[Text]] = getattr(self, kind)
        return [symbol for chain in chains for symbol in chain[0].texts.contracts]

    def chains(self, kind: str) -> list[str]:
        """The symbols of all chains of a kind."""
        chains: list[list[Text]] = getattr(self, kind)
        return [chain[0].header.chain for chain in chains]


_TS_TEXT, _SEQ_TEXT = str(_TS).encode(), str(_SEQ).encode()


def position(number: int, ts_ingest: int) -> frames.Position:
    """Where the number-th write stands."""
    return frames.Position(EPOCH, _FIRST_SEQ + number, ts_ingest)


def make(path: Path) -> Sample:
    """Make the texts and write them for other processes."""
    market, listed = Market(1), exchange.BY_NAME[UNDERLYING.symbol]
    expiry = exchange.expiries(listed, OPENS_NS)[1]
    asked = dhan.request_context(UNDERLYING, expiry, provider="simulator")
    batched: list[list[Text]] = [[] for _ in range(CHAINS)]
    single: list[list[Text]] = [[] for _ in range(CHAINS)]
    whole: list[list[Text]] = [[]]
    by_distance = np.empty(0, np.intp)
    today = exchange_date(Clock().now_ns())
    for ts in range(OPENS_NS, OPENS_NS + INSTANTS * APART_NS, APART_NS):
        body = answers.chain(market.chain(listed, expiry, ts)).encode()
        raw = bodies.raw_entry(RAW_CHAIN_TYPE, asked, body, ts)
        chain = frames.decode_frame(_enriched(raw).data)
        whole[0].append(_text(chain, np.arange(chain.header.n), today + timedelta(days=1)))
        if not len(by_distance):
            by_distance = _by_distance(chain)  # of the first instant: all have the same contracts
        for number in range(CHAINS):
            legs = np.sort(by_distance[number * LEGS : (number + 1) * LEGS])
            few, one = (today + timedelta(days=7 * number + day) for day in (2, 3))
            batched[number].append(_text(chain, legs, few))
            single[number].append(_text(chain, legs[:1], one))
    sample = Sample(batched, single, whole)
    path.write_bytes(msgspec.msgpack.encode(sample))
    return sample


def load(path: Path) -> Sample:
    """Read what `make` wrote."""
    return msgspec.msgpack.decode(path.read_bytes(), type=Sample)


def _enriched(raw: NewEntry) -> NewEntry:
    known = {name: getattr(raw, name) for name in set(NewEntry.__struct_fields__) - {"contracts"}}
    read = Entry(stream_id="1-0", seq=1, epoch="", attempts=1, **known)
    te = raw.ts + SECOND_NS
    result, _legs = processor.derive(
        read, te=te, rate=0.065, greeks="all", traceparent=_TRACEPARENT
    )
    return result


def _by_distance(chain: EnrichedChain) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    strikes = chain.legs["strike"]
    money = chain.header.forward or chain.header.spot or float(np.median(strikes))
    return np.argsort(np.abs(strikes - money), kind="stable")


def _text(
    chain: EnrichedChain, chosen: "np.ndarray[tuple[int], np.dtype[np.intp]]", expiry: date
) -> Text:
    """Some legs of a chain as a chain of another expiry."""
    legs = {name: column[chosen] for name, column in chain.legs.items()}
    header = msgspec.structs.replace(
        chain.header,
        chain=chain_symbol(UNDERLYING.symbol, expiry),
        expiry=expiry,
        ts_ingest=_TS,
        n=len(chosen),
    )
    cut = EnrichedChain(header, legs)
    at = frames.Position(EPOCH, _SEQ, _TS)
    return Text(header, frames.encode_client_json(cut, market_snapshot(header), at))
