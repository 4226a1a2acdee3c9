"""What the bus is measured with: frames of 33 kB, and the same chains as other people send them."""

from datetime import datetime
from pathlib import Path

import msgspec
import numpy as np

from pipeline import bodies, dhan, frames
from pipeline.clock import IST, SECOND_NS, to_ns
from pipeline.entries import Entry, NewEntry
from pipeline.models import RAW_CHAIN_TYPE, EnrichedChain
from workers import processor
from workers.simulator import answers, exchange
from workers.simulator.market import Market

UNDERLYING = dhan.UNDERLYINGS["NIFTY"]
OPENS_NS = to_ns(datetime(2026, 1, 22, 9, 30, tzinfo=IST))
INSTANTS = 8  # different chains
APART_NS = 300 * SECOND_NS
LEGS = 182  # next to the money; a frame of them is 33 kB


class Sample(msgspec.Struct, frozen=True):
    """Entries as the processor makes them; their chains are in the peers' file."""

    entries: list[NewEntry]

    @property
    def payload_bytes(self) -> int:
        """The size of a frame."""
        return len(self.entries[0].data)


def make(entries_path: Path, chains_path: Path) -> Sample:
    """Write the entries for our processes and the chains for the peers."""
    market, listed = Market(1), exchange.BY_NAME[UNDERLYING.symbol]
    expiry = exchange.expiries(listed, OPENS_NS)[1]
    asked = dhan.request_context(UNDERLYING, expiry, provider="simulator")
    entries, chains = [], []
    for ts in range(OPENS_NS, OPENS_NS + INSTANTS * APART_NS, APART_NS):
        body = answers.chain(market.chain(listed, expiry, ts)).encode()
        entry = _enriched(bodies.raw_entry(RAW_CHAIN_TYPE, asked, body, ts))
        chain = _near_the_money(frames.decode_frame(entry.data))
        frame = frames.encode_frame(chain)
        entries.append(msgspec.structs.replace(entry, data=frame, contracts=LEGS))
        header = msgspec.to_builtins(chain.header)
        chains.append({"header": header, "contracts": frames.leg_rows(chain)})
    sample = Sample(entries)
    entries_path.write_bytes(msgspec.msgpack.encode(sample))
    chains_path.write_bytes(msgspec.json.encode(chains))
    return sample


def load(path: Path) -> Sample:
    """Read what `make` wrote for our processes."""
    return msgspec.msgpack.decode(path.read_bytes(), type=Sample)


def _enriched(raw: NewEntry) -> NewEntry:
    known = {name: getattr(raw, name) for name in set(NewEntry.__struct_fields__) - {"contracts"}}
    read = Entry(stream_id="1-0", seq=1, epoch="", attempts=1, **known)
    result, _legs = processor.derive(
        read, te=raw.ts + SECOND_NS, rate=0.065, greeks="all", traceparent=TRACEPARENT
    )
    return result


def _near_the_money(chain: EnrichedChain) -> EnrichedChain:
    strikes = chain.legs["strike"]
    money = chain.header.forward or chain.header.spot or float(np.median(strikes))
    chosen = np.sort(np.argsort(np.abs(strikes - money), kind="stable")[:LEGS])
    legs = {name: column[chosen] for name, column in chain.legs.items()}
    return EnrichedChain(msgspec.structs.replace(chain.header, n=len(chosen)), legs)


TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
