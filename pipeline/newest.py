"""The last stored row of every contract, of a chain or of an underlying.

A chain's last snapshot has nearly all of them; what it no longer lists is looked for farther back.
Instants are int ns UTC; rows are dicts, absent is None. Raises StoreError.
"""

from datetime import date, timedelta

from pipeline.clock import to_datetime
from pipeline.database import Database, Row, Session
from pipeline.history import INSTANTS_AT_ONCE

DAY_NS = 86_400 * 1_000_000_000
REACH_NS = 7 * DAY_NS  # how far back a contract is looked for: over any holidays
_FIRST_INSTANTS = 1
_MORE_INSTANTS = 32  # so many times as many in every further look


async def newest_of_chain(
    database: Database,
    underlying: str,
    expiry: date,
    at_ns: int,
    *,
    since_ns: int | None = None,
    rev: int | None = None,
) -> list[Row]:
    """The last row of every contract of a chain in `[since_ns, at_ns]`, by strike, the call before
    the put: ts_ingest, symbol, strike, kind, security_id, provider, rev and the leg's values.
    `since_ns` is seven days before where it is not given. Raises StoreError.
    """
    since_ns = max(0, at_ns - REACH_NS) if since_ns is None else since_ns
    async with database.session() as session:
        return await _newest(session, underlying, expiry, since_ns, at_ns, rev)


async def newest_of_underlying(
    database: Database,
    underlying: str,
    at_ns: int,
    *,
    since_ns: int | None = None,
    rev: int | None = None,
) -> list[Row]:
    """`newest_of_chain` for every chain that had not expired at `since_ns`, by expiry."""
    since_ns = max(0, at_ns - REACH_NS) if since_ns is None else since_ns
    rows: list[Row] = []
    async with database.session() as session:
        day = (
            to_datetime(since_ns) - timedelta(days=1)
        ).date()  # an expiry is a day of the exchange
        for chain in await session.fetch("expiries_since", underlying=underlying, since=day):
            rows += await _newest(session, underlying, chain["expiry"], since_ns, at_ns, rev)
    return rows


async def _newest(
    session: Session, underlying: str, expiry: date, since_ns: int, at_ns: int, rev: int | None
) -> list[Row]:
    known = await session.fetch("instruments_of_chain", underlying=underlying, expiry=expiry)
    missing = {
        row["instrument_id"]
        for row in known
        if row["valid_from"] <= at_ns and (row["valid_to"] or at_ns) > since_ns
    }
    chain: Row = {"underlying": underlying, "expiry": expiry, "rev": rev}
    chain["providers"] = sorted({row["provider"] for row in known})
    found: dict[int, Row] = {}
    wanted, end = _FIRST_INSTANTS, to_datetime(at_ns + 1_000)
    while missing:
        instants = await session.fetch(
            "chain_instants_newest_first",
            **chain,
            start=to_datetime(since_ns),
            end=end,
            limit=wanted,
        )
        if not instants:
            break
        end = instants[-1]["ts"]
        legs = await session.fetch(
            "newest_legs_at",
            instants=[row["ts"] for row in instants],
            first=end,
            last=instants[0]["ts"],
            instrument_ids=list(missing),
            rev=rev,
        )
        found |= {leg.pop("instrument_id"): leg for leg in legs}
        missing -= found.keys()
        wanted = min(wanted * _MORE_INSTANTS, INSTANTS_AT_ONCE)
    return _by_contract(known, found)


def _by_contract(known: list[Row], found: dict[int, Row]) -> list[Row]:
    """One row a contract, of whichever of its definitions was seen last."""
    newest: dict[str, Row] = {}
    for definition in known:
        leg = found.get(definition["instrument_id"])
        symbol = definition["symbol"]
        if leg is None or (symbol in newest and newest[symbol]["ts_ingest"] >= leg["ts_ingest"]):
            continue
        named = {name: definition[name] for name in ("strike", "kind", "security_id", "provider")}
        newest[symbol] = {"ts_ingest": leg["ts_ingest"], "symbol": symbol, **named, **leg}
    return list(newest.values())
