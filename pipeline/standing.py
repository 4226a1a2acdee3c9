"""Where a volatility stands among those of the days before: its rank and its percentile.

The volatilities are those at the money at the close of each exchange day, of the chain that expires
next with a week to go: one nearer its expiry swings by itself. Instants are int ns UTC. It writes
nothing. Raises StoreError.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from pipeline.buckets import DAY_NS, DAY_S, day_start
from pipeline.candles import underlying_candles
from pipeline.database import Database

LEAST_DAYS = 7  # to go, of the chain whose volatility is ranked
DAYS_DEFAULT = 252  # exchange days: a year
DAYS_MAXIMUM = 504
_CALENDAR_DAYS = 1.6  # to an exchange day at most, where there are many
_CLOSES_MAXIMUM = 10_000


class Standing(msgspec.Struct, frozen=True):
    """A volatility among `days` closes: `rank` is where it stands between the lowest and the
    highest, itself included, `percentile` the share of closes below it; both from 0 to 1, None
    where fewer than two closes or no volatility is known.
    """

    iv: float | None
    rank: float | None
    percentile: float | None
    low: float | None
    high: float | None
    days: int


class Close(NamedTuple):
    """The volatility at the close of the exchange day that starts then."""

    starts: int
    iv: float


async def daily_closes(
    database: Database, underlying: str, start_ns: int, end_ns: int, days: int
) -> list[Close]:
    """The closes of the days of [start_ns, end_ns) and of `days` exchange days before, oldest
    first; a day without a volatility has none. Raises StoreError.
    """
    since_ns = max(0, day_start(start_ns) - int(days * _CALENDAR_DAYS + 10) * DAY_NS)
    candles = await underlying_candles(
        *(database, underlying, None, DAY_S, since_ns, end_ns, _CLOSES_MAXIMUM),
        least_days=LEAST_DAYS,
    )
    return [
        Close(candle["starts"], candle["atm_iv"])
        for candle in candles
        if candle["atm_iv"] is not None
    ]


def standings(
    points: Sequence[tuple[int, float | None]], closes: Sequence[Close], days: int
) -> list[Standing]:
    """Where each volatility stands among the last `days` closes before the exchange day of its
    instant.
    """
    starts = [close.starts for close in closes]
    windows: dict[int, list[float]] = {}
    found = []
    for instant_ns, iv in points:
        end = bisect_left(starts, day_start(instant_ns))
        if end not in windows:
            windows[end] = sorted(close.iv for close in closes[max(0, end - days) : end])
        found.append(standing(iv, windows[end]))
    return found


def standing(iv: float | None, window: Sequence[float]) -> Standing:
    """Where a volatility stands among others, which ascend."""
    if iv is None or len(window) < 2:
        low, high = (window[0], window[-1]) if window else (None, None)
        return Standing(iv, None, None, low, high, len(window))
    low, high = min(window[0], iv), max(window[-1], iv)
    rank = (iv - low) / (high - low) if high > low else None
    return Standing(iv, rank, bisect_left(window, iv) / len(window), low, high, len(window))
