"""The stored past, as the gateway asks for it: histories, chains as of an instant, instruments.

Instants are int ns UTC and ranges half-open, `[start_ns, end_ns)`. Rows are dicts; absent is None.
Where a snapshot was calculated more than once the highest revision speaks, or the one asked for by
`rev`. Every question is a named query of `sql/`; nothing is written here. Raises StoreError.
"""

from datetime import date, timedelta

import msgspec

from pipeline.clock import exchange_date, expiry_ns, to_datetime
from pipeline.database import Database, Row, Session
from pipeline.errors import DecodeError
from pipeline.models import (
    FRAME_VERSION,
    ChainAggregates,
    ChainHeader,
    ContractId,
    Smile,
    parse_symbol,
)

# Where the last snapshot of a chain is looked for first, so that a question about now does not
# plan over every day there is.
WEEK = timedelta(days=7)
AS_OF_WINDOWS = (WEEK, None)
INSTANTS_AT_ONCE = 4_096  # in one scan of the key; a tenth of a second
_FIRST_NS = 0


async def contract_history(
    database: Database,
    symbol: str,
    start_ns: int,
    end_ns: int,
    limit: int,
    after_ns: int | None = None,
    newest_first: bool = False,
    rev: int | None = None,
) -> list[Row]:
    """Rows of a contract: ts_ingest, ts_event, provider, rev, spot, forward and the leg's
    values (strike, kind and security_id are the instrument's). `after_ns` is the `ts_ingest`
    of the last row of the page before. An unknown contract has none. Raises StoreError;
    DecodeError if the symbol is no contract's.
    """
    contract = _contract(symbol)
    if after_ns is not None:
        start_ns, end_ns = _behind(start_ns, end_ns, after_ns, newest_first)
    rows: list[Row] = []
    async with database.session() as session:
        known = await session.fetch("instruments_of_symbol", symbol=symbol)
        asked = {
            "underlying": contract.underlying,
            "expiry": contract.expiry,
            "providers": sorted({row["provider"] for row in known}),
            "rev": rev,
        }
        start_ns = max([start_ns, *([min(row["valid_from"] for row in known)] if known else [])])
        wanted = limit
        while known and start_ns < end_ns and len(rows) < limit:
            instants = await session.fetch(
                _directed("chain_instants", newest_first),
                **asked,
                start=to_datetime(start_ns),
                end=to_datetime(end_ns),
                limit=wanted,
            )
            rows += await rows_at(session, instants, known)
            if len(instants) < wanted:
                break
            seen_ns = instants[-1]["ts_ingest"]
            start_ns, end_ns = _behind(start_ns, end_ns, seen_ns, newest_first)
            wanted = min(2 * wanted, INSTANTS_AT_ONCE)  # it was not listed in all of them
    return rows[:limit]


async def underlying_history(
    database: Database,
    underlying: str,
    expiry: date | None,
    start_ns: int,
    end_ns: int,
    limit: int,
    after: tuple[int, str] | None = None,
    newest_first: bool = False,
    rev: int | None = None,
) -> list[Row]:
    """Snapshots of an underlying, through one chain or all: ts_ingest, ts_event, chain and the
    header's and the aggregates' fields. `after` is `ts_ingest` and `chain` of the last row of
    the page before. Raises StoreError; DecodeError if `after` names no chain.
    """
    parameters: Row = {"underlying": underlying, "limit": limit, "rev": rev}
    if expiry is not None:
        if after is not None:
            start_ns, end_ns = _behind(start_ns, end_ns, after[0], newest_first)
        name = _directed("chain_history", newest_first)
        parameters["expiry"] = expiry
    else:
        name = _directed("underlying_history", newest_first)
        after_ns, after_expiry = _position(after, start_ns, end_ns, newest_first)
        parameters |= {"after_ts": to_datetime(after_ns), "after_expiry": after_expiry}
    if start_ns >= end_ns:
        return []
    parameters |= {"start": to_datetime(start_ns), "end": to_datetime(end_ns)}
    return await database.fetch(name, **parameters)


async def chain_as_of(
    database: Database, underlying: str, expiry: date, at_ns: int, rev: int | None = None
) -> tuple[Row, list[Row]] | None:
    """The last snapshot of a chain at or before an instant: its header, as
    `underlying_history` gives it, and its legs by strike, the call before the put: symbol and
    every field of the leg layout. None if there is none. Raises StoreError.
    """
    at = to_datetime(at_ns)
    async with database.session() as session:
        for window in AS_OF_WINDOWS:
            since = at - window if window else to_datetime(_FIRST_NS)
            found = await session.fetch(
                "chain_snapshot_as_of",
                underlying=underlying,
                expiry=expiry,
                since=since,
                at=at,
                rev=rev,
            )
            if found:
                break
        else:
            return None
        header = found[0]
        legs = await session.fetch(
            "chain_legs",
            underlying=underlying,
            expiry=expiry,
            provider=header["provider"],
            ts=to_datetime(header["ts_ingest"]),
            rev=header["rev"],
        )
    return header, legs


async def headers_as_of(
    database: Database, underlying: str, at_ns: int, rev: int | None = None
) -> list[ChainHeader]:
    """Of each chain of an underlying that had not settled at an instant the last header at or
    before it, nearest expiry first; what is older than a week is left out. Raises
    StoreError.
    """
    at = to_datetime(at_ns)
    rows = await database.fetch(
        "chain_headers_as_of",
        underlying=underlying,
        day=exchange_date(at_ns),
        since=at - WEEK,
        at=at,
        rev=rev,
    )
    return [header_of(row) for row in rows if expiry_ns(row["expiry"]) >= at_ns]


def header_of(row: Row) -> ChainHeader:
    """A stored snapshot as the header that its frame had; its version is that of now."""
    told = {name: row[name] for name in ChainAggregates.__struct_fields__}
    known = {name: row[name] for name in ChainHeader.__struct_fields__ if name in row}
    known["smile"] = None if row["smile"] is None else msgspec.convert(row["smile"], Smile)
    return ChainHeader(**(known | {"v": FRAME_VERSION, "aggregates": ChainAggregates(**told)}))


async def expiry_as_of(database: Database, underlying: str, at_ns: int) -> date | None:
    """The expiry of an underlying that settles next at an instant; if all have, the last of the
    year before; None where none is known. Raises StoreError.
    """
    since = exchange_date(at_ns) - timedelta(days=366)
    rows = await database.fetch("expiries_since", underlying=underlying, since=since)
    expiries: list[date] = [row["expiry"] for row in rows]
    to_come = [expiry for expiry in expiries if expiry_ns(expiry) >= at_ns]
    nearest = to_come[:1] or expiries[-1:]
    return nearest[0] if nearest else None


async def rows_at(session: Session, instants: list[Row], known: list[Row]) -> list[Row]:
    """Instants of a chain with the values of one leg, in their order; none where it was not listed.

    `instants` are rows with `ts`, which they lose, `ts_ingest`, `provider` and `rev`; `known` the
    contract's definitions.
    """
    if not instants:
        return []
    provider_of = {row["instrument_id"]: row["provider"] for row in known}
    ends = instants[0]["ts"], instants[-1]["ts"]
    legs = await session.fetch(
        "legs_at",
        instants=[row["ts"] for row in instants],
        first=min(ends),
        last=max(ends),
        instrument_ids=list(provider_of),
    )
    found = {
        (leg.pop("ts_ingest"), provider_of[leg.pop("instrument_id")], leg.pop("rev")): leg
        for leg in legs
    }
    rows = []
    for instant in instants:
        leg = found.get((instant["ts_ingest"], instant["provider"], instant["rev"]))
        if leg is not None:
            del instant["ts"]
            rows.append(instant | leg)
    return rows


async def underlyings(database: Database) -> list[Row]:
    """Underlyings that have contracts: underlying, and expiries as dates, ascending."""
    return await database.fetch("underlyings")


async def instrument(database: Database, symbol: str) -> list[Row]:
    """Every definition of a contract, oldest first; `valid_to` is None while it holds."""
    return await database.fetch("instruments_of_symbol", symbol=symbol)


async def instruments(database: Database, underlying: str, expiry: date) -> list[Row]:
    """Every definition of a chain's contracts, by strike, the call before the put."""
    return await database.fetch("instruments_of_chain", underlying=underlying, expiry=expiry)


def _contract(symbol: str) -> ContractId:
    contract = parse_symbol(symbol)
    if not isinstance(contract, ContractId):
        raise DecodeError(f"not the symbol of a contract: {symbol!r}")
    return contract


def _directed(name: str, newest_first: bool) -> str:
    return f"{name}_newest_first" if newest_first else name


def _behind(start_ns: int, end_ns: int, after_ns: int, newest_first: bool) -> tuple[int, int]:
    """The part of a range that lies behind a row already seen."""
    if newest_first:
        return start_ns, min(end_ns, after_ns)
    return max(start_ns, after_ns + 1_000), end_ns  # Postgres keeps whole microseconds


def _position(
    after: tuple[int, str] | None, start_ns: int, end_ns: int, newest_first: bool
) -> tuple[int, date]:
    """The instant and expiry behind which a page of all chains begins."""
    if after is None:
        return (end_ns, date.max) if newest_first else (start_ns, date.min)
    chain = parse_symbol(after[1])
    if isinstance(chain, str):
        raise DecodeError(f"not the symbol of a chain: {after[1]!r}")
    return after[0], chain.expiry
