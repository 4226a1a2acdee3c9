"""Candles of contracts and underlyings, of any length, and what keeps them rolled up.

Levels of a minute, five minutes, an hour and a day are kept: by the server where it has continuous
aggregates, else by `roll_candles`, which the storage worker calls. A candle is read from the
highest level that makes it up; behind what is rolled, from minutes and then from rows. Instants are
int ns UTC; candles are dicts, absent is None. Raises StoreError.
"""

import time
from datetime import date
from typing import Literal

import msgspec

from pipeline.buckets import (
    DAY_NS,
    DAY_S,
    LEVELS_S,
    Candle,
    bucket_end,
    bucket_start,
    check_interval,
    day_start,
    filled,
    level_of,
    merged,
    next_start,
    whole_days,
    with_volumes,
)
from pipeline.clock import SECOND_NS, expiry_ns, to_datetime
from pipeline.database import Database, Row, Session
from pipeline.errors import DecodeError
from pipeline.models import ContractId, parse_symbol

Fill = Literal["none", "previous"]

# A minute is rolled once it is over by so much, so that what is on its way is there; what comes
# later still is found and rolled again.
GRACE_S = 5.0
MINUTES_AT_ONCE = 5  # in one transaction: with ten chains some tenths of a second

# How much is looked through first; where it holds too little, twice as much, and so on.
_REACH_NS = DAY_NS
_REACH_OF_SECONDS_NS = 3_600 * SECOND_NS


class _Series(msgspec.Struct, frozen=True):
    """What candles are asked of: the names of the queries and their parameters."""

    kind: str  # "contract" or "underlying"
    underlying: str
    asked: Row
    first_ns: int  # nothing is before
    last_ns: int  # nothing is at or after


class _Page(msgspec.Struct, frozen=True):
    """Which candles: the starts of their buckets lie in [start_ns, end_ns)."""

    interval_s: int
    start_ns: int
    end_ns: int
    limit: int
    newest_first: bool
    fill: Fill
    until_ns: int | None  # a candle is known to start there


async def contract_candles(
    database: Database,
    symbol: str,
    interval_s: int,
    start_ns: int,
    end_ns: int,
    limit: int,
    after_ns: int | None = None,
    newest_first: bool = False,
    fill: Fill = "none",
) -> list[Candle]:
    """Candles of a contract that start in `[start_ns, end_ns)`, oldest first: starts, open, high,
    low and close of `last`, volume, and at the close open_interest, iv, bid and ask; n snapshots,
    closed_at. `after_ns` is `starts` of the last candle of the page before. `fill` "previous" adds
    what a gap in a session lacks. An unknown contract has none. Raises StoreError; DecodeError if
    the symbol is no contract's; ValueError if the interval is neither below a day nor whole days.
    """
    contract = parse_symbol(symbol)
    if not isinstance(contract, ContractId):
        raise DecodeError(f"not the symbol of a contract: {symbol!r}")
    page = _page(interval_s, start_ns, end_ns, limit, after_ns, newest_first, fill)
    async with database.session() as session:
        known = await session.fetch("instruments_of_symbol", symbol=symbol)
        if not known:
            return []
        asked: Row = {
            "underlying": contract.underlying,
            "expiry": contract.expiry,
            "instrument_ids": [row["instrument_id"] for row in known],
        }
        first_ns = min(row["valid_from"] for row in known)
        last_ns = expiry_ns(contract.expiry) + DAY_NS
        series = _Series("contract", contract.underlying, asked, first_ns, last_ns)
        return await _candles(session, series, page)


async def underlying_candles(
    database: Database,
    underlying: str,
    expiry: date | None,
    interval_s: int,
    start_ns: int,
    end_ns: int,
    limit: int,
    after_ns: int | None = None,
    newest_first: bool = False,
    fill: Fill = "none",
    least_days: int | None = None,
) -> list[Candle]:
    """Candles of an underlying as one chain saw it, or of several (None) the one that expires next,
    with `least_days` the next of those that have so many to go on the candle's day: starts, expiry,
    open, high, low and close of spot, and at the close forward, atm_iv, both put/call ratios,
    max_pain, skew_25_delta, gamma_exposure, expected_move, call and put open interest; n snapshots,
    closed_at. All else is as in `contract_candles`.
    """
    page = _page(interval_s, start_ns, end_ns, limit, after_ns, newest_first, fill)
    asked: Row = {"underlying": underlying, "expiry": expiry, "least_days": least_days}
    async with database.session() as session:
        (seen,) = await session.fetch("candle_span", underlying=underlying, expiry=expiry)
        if seen["starts"] is None:
            return []
        last_ns = expiry_ns(seen["expiry"]) + DAY_NS
        series = _Series("underlying", underlying, asked, seen["starts"], last_ns)
        return await _candles(session, series, page)


async def roll_candles(database: Database, now_ns: int, *, budget_s: float = 2.0) -> int:
    """Roll minutes that have changed and are over, and the levels above; gives how many minutes.

    Stops after `budget_s` and goes on at the next call; does nothing where the server keeps candles
    itself. Safe from several sessions. `now_ns` is the market's. Raises StoreError.
    """
    upto = to_datetime(now_ns - int(GRACE_S * SECOND_NS))
    deadline = time.monotonic() + budget_s
    rolled = 0
    while True:
        rows = await database.fetch("roll_candles", upto=upto, most=MINUTES_AT_ONCE)
        minutes: int = rows[0]["rolled"]
        rolled += minutes
        if minutes < MINUTES_AT_ONCE or time.monotonic() > deadline:
            return rolled


async def refresh_candles(database: Database, start_ns: int, end_ns: int) -> None:
    """Make every candle of `[start_ns, end_ns)` anew; for ranges written other than by the storage
    worker, never for one whose rows have been dropped. Raises StoreError: call it again.
    """
    async with database.session() as session:
        await session.execute(
            "refresh_candles", start=to_datetime(start_ns), end=to_datetime(end_ns)
        )


def _page(
    interval_s: int,
    start_ns: int,
    end_ns: int,
    limit: int,
    after_ns: int | None,
    newest_first: bool,
    fill: Fill,
) -> _Page:
    check_interval(interval_s)
    if limit < 1:
        raise ValueError(f"not a number of candles: {limit}")
    start_ns, end_ns = next_start(start_ns, interval_s), next_start(end_ns, interval_s)
    if after_ns is not None and newest_first:
        end_ns = min(end_ns, bucket_start(after_ns, interval_s))
    elif after_ns is not None:
        start_ns = max(start_ns, bucket_end(after_ns, interval_s))
    until_ns = end_ns if newest_first and after_ns is not None else None
    return _Page(interval_s, start_ns, end_ns, limit, newest_first, fill, until_ns)


async def _candles(session: Session, series: _Series, page: _Page) -> list[Candle]:
    interval_s = page.interval_s
    start_ns = max(page.start_ns, bucket_start(series.first_ns, interval_s))
    end_ns = min(page.end_ns, next_start(series.last_ns, interval_s))
    reach = max(
        page.limit * interval_s * SECOND_NS,
        _REACH_NS if interval_s >= LEVELS_S["1m"] else _REACH_OF_SECONDS_NS,
    )
    found: list[Candle] = []
    low = high = end_ns if page.newest_first else start_ns
    while len(found) < page.limit and (start_ns < low if page.newest_first else high < end_ns):
        if page.newest_first:
            begun = max(start_ns, bucket_start(low - reach, interval_s))
            found = await _between(session, series, interval_s, begun, low) + found
            low = begun
        else:
            ended = min(end_ns, next_start(high + reach, interval_s))
            found += await _between(session, series, interval_s, high, ended)
            high = ended
        reach *= 2
    return await _finished(session, series, page, found, low)


async def _finished(
    session: Session, series: _Series, page: _Page, found: list[Candle], low_ns: int
) -> list[Candle]:
    """What was found from an instant on, as it was asked for."""
    if not found:
        return []
    before = None
    if page.interval_s < DAY_S and (series.kind == "contract" or page.fill == "previous"):
        before = await _before(session, series, page.interval_s, low_ns)
    if series.kind == "contract":
        with_volumes(found, before)
    if page.interval_s > DAY_S:
        found = whole_days(found, page.interval_s)
    if page.fill == "previous":
        if before is not None:
            before["starts"] = bucket_start(before["closed_at"], page.interval_s)
            before["volume"] = before.pop("volume_total", None)
            before = {name: before[name] for name in found[0]}
        found = filled(
            *(found, page.interval_s, series.underlying, before, page.until_ns),
            from_ns=low_ns,
            at_most=page.limit,
            newest_first=page.newest_first,
        )
    return found[: -page.limit - 1 : -1] if page.newest_first else found[: page.limit]


async def _before(
    session: Session, series: _Series, interval_s: int, start_ns: int
) -> Candle | None:
    """What the exchange day had before a bucket, as one candle."""
    begun = next_start(day_start(start_ns), interval_s)
    if begun >= start_ns:
        return None
    parts = await _parts(session, series, "1m", DAY_S, begun, start_ns)
    return parts[0] if parts else None


async def _between(
    session: Session, series: _Series, interval_s: int, start_ns: int, end_ns: int
) -> list[Candle]:
    """Candles that start in a range, which ends where buckets end; of more than a day, its days."""
    return await _parts(
        session, series, level_of(interval_s), min(interval_s, DAY_S), start_ns, end_ns
    )


async def _parts(
    session: Session, series: _Series, level: str | None, seconds: int, start_ns: int, end_ns: int
) -> list[Candle]:
    """Candles from a level as far as it is rolled, then from minutes, then from rows."""
    (until,) = await session.fetch("candles_until", level=level or "1m")
    sources: list[tuple[str, int]] = []
    if level is not None:
        sources = [(level, min(until["level"], bucket_start(end_ns, LEVELS_S[level])))]
        sources.append(("1m", min(until["minutes"], bucket_start(end_ns, LEVELS_S["1m"]))))
    found: list[Candle] = []
    for source, reached in (*sources, ("live", end_ns)):
        if start_ns >= reached:
            continue
        asked = series.asked | {"start": to_datetime(start_ns), "end": to_datetime(reached)}
        name = f"{series.kind}_candles_{source}"
        if LEVELS_S.get(source) == seconds:  # as they were rolled; else they are summed up
            rows = await session.fetch(f"{name}_kept", **asked)
        else:
            rows = await session.fetch(name, **asked, seconds=seconds)
        for row in rows:
            if found and found[-1]["starts"] == row["starts"]:
                found[-1] = merged(found[-1], row)
            else:
                found.append(row)
        start_ns = reached
    return found
