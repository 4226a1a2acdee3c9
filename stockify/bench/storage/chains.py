"""What is stored: enriched entries of whole chains as they are polled, cut into equal batches.

Chains are the simulator's, of every underlying and expiry that is polled by default, at many
instants of a day; a chain that is needed oftener comes again at a later instant. Never opens
anything.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline import bodies, dhan, frames
from pipeline.clock import IST, SECOND_NS, to_datetime, to_ns
from pipeline.config import Settings
from pipeline.entries import Entry, NewEntry
from pipeline.instruments import Instruments
from pipeline.models import NULL_INTEGER, RAW_CHAIN_TYPE, EnrichedChain
from pipeline.rows import COPY_COLUMNS, StoredChain
from workers import processor
from workers.simulator import answers, exchange
from workers.simulator.market import Market

OPENS_NS = to_ns(datetime(2026, 1, 22, 9, 30, tzinfo=IST))
APART_NS = SECOND_NS // 5  # chains of one laptop's worth of accounts
TURNS_APART_NS = 900 * SECOND_NS  # between the different instants of the market
NEAR_LEGS = 182  # next to the money

Batch = list[StoredChain]


class Sample(msgspec.Struct, frozen=True):
    """Entries in order, and the same as chains without their instruments."""

    entries: list[NewEntry]
    chains: list[EnrichedChain]

    @property
    def rows(self) -> int:
        """Legs of all chains."""
        return sum(chain.header.n for chain in self.chains)


def make(
    batches: int,
    batch_rows: int,
    *,
    instants: int,
    underlyings: Sequence[str] = Settings().underlyings,
    near: bool = False,
) -> Sample:
    """So many whole batches; `near`: only the legs next to the money."""
    patterns = list(_patterns(instants, underlyings))
    if near:
        patterns = [(entry, _near_the_money(chain)) for entry, chain in patterns]
    entries: list[NewEntry] = []
    chains: list[EnrichedChain] = []
    full = room = 0
    for place, (entry, chain) in enumerate(itertools.cycle(patterns)):
        if room <= 0:
            if full == batches:
                break
            full, room = full + 1, batch_rows
        ts = OPENS_NS + place * APART_NS
        again = EnrichedChain(msgspec.structs.replace(chain.header, ts_ingest=ts), chain.legs)
        chains.append(again)
        entries.append(
            msgspec.structs.replace(
                entry,
                id=f"{entry.id.rpartition(':')[0]}-{place}:r{chain.header.rev}",
                ts=ts,
                te=ts + SECOND_NS // 100,
                data=frames.encode_frame(again),
                contracts=chain.header.n,
            )
        )
        room -= chain.header.n
    return Sample(entries, chains)


def _patterns(
    instants: int, underlyings: Sequence[str]
) -> Iterator[tuple[NewEntry, EnrichedChain]]:
    market = Market(1)
    for number in range(instants):
        ts = OPENS_NS + number * TURNS_APART_NS
        for symbol in underlyings:
            underlying, listed = dhan.UNDERLYINGS[symbol], exchange.BY_NAME[symbol]
            for expiry in exchange.expiries(listed, OPENS_NS)[: Settings().expiries_per_underlying]:
                asked = dhan.request_context(underlying, expiry, provider="simulator")
                body = answers.chain(market.chain(listed, expiry, ts)).encode()
                entry = _enriched(bodies.raw_entry(RAW_CHAIN_TYPE, asked, body, ts))
                yield entry, frames.decode_frame(entry.data)


def _enriched(raw: NewEntry) -> NewEntry:
    known = {name: getattr(raw, name) for name in set(NewEntry.__struct_fields__) - {"contracts"}}
    read = Entry(stream_id="1-0", seq=1, epoch="", attempts=1, **known)
    result, _legs = processor.derive(read, te=raw.ts, rate=0.065, greeks="all", traceparent="")
    return result


def _near_the_money(chain: EnrichedChain) -> EnrichedChain:
    strikes = chain.legs["strike"]
    money = chain.header.forward or chain.header.spot or float(np.median(strikes))
    chosen = np.sort(np.argsort(np.abs(strikes - money), kind="stable")[:NEAR_LEGS])
    legs = {name: column[chosen] for name, column in chain.legs.items()}
    return EnrichedChain(msgspec.structs.replace(chain.header, n=len(chosen)), legs)


async def stored(sample: Sample, instruments: Instruments) -> list[StoredChain]:
    """The chains as the storage worker prepares them; defines their contracts."""
    found = []
    for number, entry in enumerate(sample.entries):
        header, columns = frames.open_frame(entry.data)
        ids = await instruments.of(header, columns)
        found.append(StoredChain(header, columns, "bench", number + 1, entry.te, ids))
    return found


def batches(chains: Sequence[StoredChain], rows: int) -> list[Batch]:
    """Batches as the storage worker makes them: chains until there are so many rows."""
    found: list[Batch] = []
    room = 0
    for chain in chains:
        if room <= 0:
            found.append([])
            room = rows
        found[-1].append(chain)
        room -= chain.header.n
    return found


def day(ts_ns: int) -> date:
    """The UTC day of an instant, by which tables are cut."""
    return to_datetime(ts_ns).date()


def count(batch: Batch) -> int:
    """Rows of a batch."""
    return sum(chain.header.n for chain in batch)


def columns(batch: Batch) -> dict[str, NDArray[Any]]:
    """The rows of a batch by column; `ts` in µs since 1970, absent as NaN or NULL_INTEGER."""
    own: dict[str, Callable[[StoredChain], NDArray[Any]]] = {
        "ts": lambda one: np.full(one.header.n, one.header.ts_ingest // 1_000, np.int64),
        "rev": lambda one: np.full(one.header.n, one.header.rev, np.int64),
        "instrument_id": lambda one: one.instrument_ids,
    }

    def part(one: StoredChain, name: str) -> NDArray[Any]:
        if name in own:
            return own[name](one)
        return frames.decode_column(one.columns.get(name), name, one.header.n)

    return {name: np.concatenate([part(one, name) for one in batch]) for name in COPY_COLUMNS}


def records(batch: Batch) -> list[tuple[Any, ...]]:
    """The rows of a batch as Python objects, as a driver wants them."""
    found = columns(batch)
    lists = [
        [to_datetime(us * 1_000) for us in values.tolist()] if name == "ts" else _objects(values)
        for name, values in found.items()
    ]
    return list(zip(*lists, strict=True))


def _objects(values: NDArray[Any]) -> list[Any]:
    absent = np.isnan(values) if values.dtype.kind == "f" else values == NULL_INTEGER
    if not absent.any():
        return list(values.tolist())
    given = values.astype(object)
    given[absent] = None
    return list(given.tolist())
