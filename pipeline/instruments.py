"""Which instrument each leg of a chain is: known ones found, new ones defined, changes versioned.

A definition (the provider's id, the lot) holds for a time [valid_from, valid_to). What a provider
does not say matches any definition, and is filled in when it says it. Snapshots may come in any
order of time. Never touches the rows of snapshots.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.clock import to_datetime
from pipeline.database import Database, Row, Session
from pipeline.frames import decode_column
from pipeline.models import NULL_INTEGER, ChainHeader, Kind, chain_symbol, contract_symbols
from pipeline.rows import NO_INSTRUMENT

CACHED_CHAINS = 512  # of some 300 contracts each: a few megabytes
_EVER_NS = 2**63 - 1

Ids = NDArray[np.int32]


class Source(NamedTuple):
    """Of which chain definitions speak, and who gives them."""

    underlying: str
    expiry: date
    provider: str


class Definition(msgspec.Struct, frozen=True):
    """What a provider says of a contract; None is not said."""

    symbol: str
    strike: float
    kind: str
    security_id: int | None
    lot: int | None


class Known(msgspec.Struct, frozen=True):
    """A stored definition and the time it holds, ns."""

    instrument_id: int
    security_id: int | None
    lot: int | None
    valid_from: int
    valid_to: int


class Changes(msgspec.Struct):
    """What has to be written for one snapshot; ids, and definitions with the ns they end at."""

    add: list[tuple[Definition, int]] = []
    extend: list[int] = []
    end: list[int] = []
    complete: list[tuple[int, int | None, int | None]] = []

    def __bool__(self) -> bool:
        return bool(self.add or self.extend or self.end or self.complete)


class _Cached(msgspec.Struct, frozen=True):
    ids: Ids
    valid_from: int
    valid_to: int


class Instruments:
    """The instruments of chains; remembers those of the chains last seen."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._cache: OrderedDict[tuple[object, ...], _Cached] = OrderedDict()

    async def of(self, header: ChainHeader, columns: Mapping[str, bytes]) -> Ids:
        """The instrument id of every leg of a frame, int4, in order.

        A leg that is no contract, or the same as one before it, has NO_INSTRUMENT. Raises
        RowsRejected where the chain cannot be told of at all, StoreUnavailable.
        """
        identity = [columns.get(name, b"") for name in ("strike", "kind", "security_id")]
        key = (header.provider, header.chain, header.lot, header.n, *identity)
        cached = self._cache.get(key)
        if cached is not None and cached.valid_from <= header.ts_ingest < cached.valid_to:
            self._cache.move_to_end(key)
            return cached.ids
        found = await self._resolve(header, columns)
        self._cache[key] = found
        self._cache.move_to_end(key)
        if len(self._cache) > CACHED_CHAINS:
            self._cache.popitem(last=False)
        return found.ids

    def forget(self) -> None:
        """Ask the database anew for every chain."""
        self._cache.clear()

    async def _resolve(self, header: ChainHeader, columns: Mapping[str, bytes]) -> _Cached:
        wanted = _definitions(header, columns)
        defined = [definition for definition in wanted if definition is not None]
        if not defined:
            return _Cached(np.full(header.n, NO_INSTRUMENT, np.int32), 0, _EVER_NS)
        source = Source(header.underlying, header.expiry, header.provider)
        async with self._database.session() as session, session.transaction():
            held = await define(session, source, defined, header.ts_ingest)
        ids = [NO_INSTRUMENT if d is None else held[d.symbol].instrument_id for d in wanted]
        return _Cached(
            np.array(ids, np.int32),
            max(one.valid_from for one in held.values()),
            min(one.valid_to for one in held.values()),
        )


async def define(
    session: Session, source: Source, wanted: Sequence[Definition], ts_ingest: int
) -> dict[str, Known]:
    """Make definitions hold at an instant (ns), in a transaction; gives what holds, by symbol."""
    chain = chain_symbol(source.underlying, source.expiry)
    await session.fetch("lock_instruments", chain=chain)
    known = await _known(session, source)
    changes = decide(wanted, known, ts_ingest)
    if changes:
        await _write(session, source, ts_ingest, changes)
        known = await _known(session, source)
    return {one.symbol: _holding(known.get(one.symbol, ()), ts_ingest) for one in wanted}


def decide(wanted: Iterable[Definition], known: dict[str, list[Known]], ts_ingest: int) -> Changes:
    """What must change so that each definition holds at an instant; `known` runs by time."""
    changes = Changes()
    for definition in wanted:
        versions = known.get(definition.symbol, [])
        at = next((v for v in versions if v.valid_from <= ts_ingest < v.valid_to), None)
        if at is not None:
            _at_its_time(changes, definition, at, ts_ingest)
        elif versions and _agree(definition, versions[0]):
            changes.extend.append(versions[0].instrument_id)
            _complete(changes, definition, versions[0])
        else:  # never seen, or seen only later and otherwise
            end = versions[0].valid_from if versions else _EVER_NS
            changes.add.append((definition, end))
    return changes


def _at_its_time(changes: Changes, definition: Definition, at: Known, ts_ingest: int) -> None:
    if _agree(definition, at):
        _complete(changes, definition, at)
    elif ts_ingest > at.valid_from:
        changes.end.append(at.instrument_id)
        changes.add.append((definition, at.valid_to))
    else:  # two definitions from the same instant on: what was said last holds
        changes.complete.append((at.instrument_id, definition.security_id, definition.lot))


def _agree(definition: Definition, known: Known) -> bool:
    pairs = ((definition.security_id, known.security_id), (definition.lot, known.lot))
    return all(said is None or stored is None or said == stored for said, stored in pairs)


def _complete(changes: Changes, definition: Definition, known: Known) -> None:
    """Fill in what the provider says now and did not say before."""
    adds_id = known.security_id is None and definition.security_id is not None
    adds_lot = known.lot is None and definition.lot is not None
    if adds_id or adds_lot:
        security_id = definition.security_id if adds_id else known.security_id
        lot = definition.lot if adds_lot else known.lot
        changes.complete.append((known.instrument_id, security_id, lot))


def _definitions(header: ChainHeader, columns: Mapping[str, bytes]) -> list[Definition | None]:
    """What is said of each leg; None of one that is no contract, or the same as one before it."""
    legs = {
        name: decode_column(columns.get(name), name, header.n)
        for name in ("strike", "kind", "security_id")
    }
    symbols = contract_symbols(header.chain, legs)
    found: list[Definition | None] = []
    seen: set[str] = set()
    for symbol, strike, kind, security_id in zip(
        symbols, *(legs[name].tolist() for name in legs), strict=True
    ):
        is_contract = 0 < strike < float("inf") and kind in (Kind.CALL, Kind.PUT)
        if not is_contract or symbol in seen:
            found.append(None)
            continue
        seen.add(symbol)
        word = "call" if kind == Kind.CALL else "put"
        said = None if security_id == NULL_INTEGER else security_id
        found.append(Definition(symbol, strike, word, said, header.lot))
    return found


def _holding(versions: Iterable[Known], ts_ingest: int) -> Known:
    return next(v for v in versions if v.valid_from <= ts_ingest < v.valid_to)


async def _known(session: Session, source: Source) -> dict[str, list[Known]]:
    rows = await session.fetch(
        "instruments_of_chain", underlying=source.underlying, expiry=source.expiry
    )
    known: dict[str, list[Known]] = {}
    for row in rows:
        if row["provider"] == source.provider:
            known.setdefault(row["symbol"], []).append(_known_of(row))
    return known


def _known_of(row: Row) -> Known:
    return Known(
        row["instrument_id"],
        row["security_id"],
        row["lot"],
        row["valid_from"],
        _EVER_NS if row["valid_to"] is None else row["valid_to"],
    )


async def _write(session: Session, source: Source, ts_ingest: int, changes: Changes) -> None:
    at = to_datetime(ts_ingest)
    if changes.end:
        await session.execute("end_instruments", instrument_ids=changes.end, valid_to=at)
    if changes.extend:
        await session.execute("extend_instruments", instrument_ids=changes.extend, valid_from=at)
    if changes.complete:
        ids, security_ids, lots = (list(part) for part in zip(*changes.complete, strict=True))
        await session.execute(
            "complete_instruments", instrument_ids=ids, security_ids=security_ids, lots=lots
        )
    if changes.add:
        added = [definition for definition, _ in changes.add]
        await session.execute(
            "add_instruments",
            underlying=source.underlying,
            expiry=source.expiry,
            provider=source.provider,
            valid_from=at,
            symbols=[definition.symbol for definition in added],
            strikes=[definition.strike for definition in added],
            kinds=[definition.kind for definition in added],
            security_ids=[definition.security_id for definition in added],
            lots=[definition.lot for definition in added],
            valid_to=[None if end == _EVER_NS else to_datetime(end) for _, end in changes.add],
        )
