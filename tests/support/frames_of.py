"""The frames of some simulated chains; also as a process of its own: `… frames_of FILE`.

Chains of several underlyings, expiries and instants: quoted on both sides and on one, traded and
not, a month and an hour before they settle.
"""

import sys
from datetime import datetime
from pathlib import Path

import msgspec

from pipeline import bodies, dhan
from pipeline.clock import IST, to_ns
from pipeline.entries import Entry, NewEntry
from pipeline.models import RAW_CHAIN_TYPE
from workers import processor
from workers.simulator import answers, exchange
from workers.simulator.market import Market

INSTANTS = tuple(
    to_ns(datetime(2026, 1, day, hour, minute, tzinfo=IST))
    for day, hour, minute in ((22, 9, 16), (23, 12, 0), (27, 14, 30))
)
NAMES = ("NIFTY", "BANKNIFTY")
SEED = 5


def entries() -> list[NewEntry]:
    """Raw entries, a different chain in each."""
    found, market = [], Market(SEED)
    for ts in INSTANTS:
        for name in NAMES:
            listed = exchange.BY_NAME[name]
            for expiry in exchange.expiries(listed, ts)[:2]:
                body = answers.chain(market.chain(listed, expiry, ts)).encode()
                asked = dhan.request_context(dhan.UNDERLYINGS[name], expiry, provider="simulator")
                found.append(bodies.raw_entry(RAW_CHAIN_TYPE, asked, body, ts))
    return found


def frame_of(entry: NewEntry) -> bytes:
    """The frame of one entry, by itself."""
    read = Entry(
        stream_id="1-0",
        seq=1,
        epoch="",
        attempts=1,
        **{
            name: getattr(entry, name)
            for name in NewEntry.__struct_fields__
            if name in Entry.__struct_fields__
        },
    )
    result, _legs = processor.derive(read, te=1, rate=0.065, greeks="all", traceparent="")
    return result.data


if __name__ == "__main__":
    frames = [frame_of(entry) for entry in entries()]
    Path(sys.argv[1]).write_bytes(msgspec.msgpack.encode(frames))
