"""What a chain tells over time, thinned by the server: put/call ratios, max pain, exposure, skew,
the volatility at the money and of one contract.

An interval is half-open, named by its start, and begins where a candle of that length does
(`pipeline/buckets.py`). Instants are int ns UTC; rows are dicts, absent is None. Raises StoreError.
"""

from datetime import date

from pipeline.buckets import check_interval
from pipeline.clock import to_datetime
from pipeline.database import Database, Row
from pipeline.errors import DecodeError
from pipeline.history import rows_at
from pipeline.models import ContractId, parse_symbol

MAXIMUM_INTERVALS = 50_000  # a month of minutes; at most so many rows come at once
_OF_THE_CHAIN = ("starts", "ts_ingest", "provider", "rev", "spot", "forward", "atm_iv")
_OF_THE_LEG = ("last", "iv", "iv_fit", "iv_provider", "iv_status", "delta")


async def chain_series(
    database: Database,
    underlying: str,
    expiry: date,
    start_ns: int,
    end_ns: int,
    interval_s: int,
    rev: int | None = None,
) -> list[Row]:
    """The last snapshot of a chain in each interval of `[start_ns, end_ns)`, oldest first: `starts`
    (of the interval) and the fields of `underlying_history`. An interval without a snapshot has no
    row. Raises StoreError; ValueError for no length of an interval, or over `MAXIMUM_INTERVALS`.
    """
    asked = _asked(underlying, expiry, start_ns, end_ns, interval_s, rev)
    return await database.fetch("chain_series", **asked)


async def iv_history(
    database: Database,
    symbol: str,
    start_ns: int,
    end_ns: int,
    interval_s: int,
    rev: int | None = None,
) -> list[Row]:
    """The volatilities of a contract in the last snapshot of its chain in each interval, oldest
    first: starts, ts_ingest, provider, rev, spot, forward, atm_iv, and of the leg last, iv, iv_fit,
    iv_provider, iv_status and delta. A snapshot that did not list it gives no row. Raises
    StoreError; DecodeError if the symbol is no contract's; ValueError as `chain_series` does.
    """
    contract = parse_symbol(symbol)
    if not isinstance(contract, ContractId):
        raise DecodeError(f"not the symbol of a contract: {symbol!r}")
    asked = _asked(contract.underlying, contract.expiry, start_ns, end_ns, interval_s, rev)
    async with database.session() as session:
        known = await session.fetch("instruments_of_symbol", symbol=symbol)
        if not known:
            return []
        points = await session.fetch("chain_points", **asked)
        rows = await rows_at(session, points, known)
    return [{name: row[name] for name in (*_OF_THE_CHAIN, *_OF_THE_LEG)} for row in rows]


def _asked(
    underlying: str, expiry: date, start_ns: int, end_ns: int, interval_s: int, rev: int | None
) -> Row:
    check_interval(interval_s)
    if (end_ns - start_ns) / 1e9 / interval_s > MAXIMUM_INTERVALS:
        raise ValueError(f"more than {MAXIMUM_INTERVALS} intervals of {interval_s} s")
    return {
        "underlying": underlying,
        "expiry": expiry,
        "start": to_datetime(start_ns),
        "end": to_datetime(end_ns),
        "seconds": interval_s,
        "rev": rev,
    }
