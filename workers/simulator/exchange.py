"""What is listed on the simulated exchange: underlyings, expiries, strikes, lots and ids.

Pure arithmetic: an id says which contract it is, and the same contract has the same id for its
whole life, though strikes come and go with the spot. Nothing here knows a price.
"""

from datetime import date, timedelta
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline import calendar
from pipeline.clock import SECOND_NS, exchange_date, expiry_ns

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]

INDEX_SEGMENT = "IDX_I"
DAY_S = 86_400
# A market day runs from 09:15 IST to the next 09:15: 03:45 UTC.
_DAY_START_S = 3 * 3_600 + 45 * 60
_UNTIL_FAR = timedelta(days=100)  # strikes further out are listed in wide steps
_SLOTS = 512  # strikes of a chain, and weeks of expiries, that ids can tell apart


class Underlying(NamedTuple):
    """One index: its ids as the provider has them, its ladder, and the character of its market.

    `wings` are strikes on either side of the money. Lots are (first expiry, lot), ascending.
    Volumes and open interest are in lots, of the busiest leg of a near chain.
    """

    name: str
    number: int
    security_id: int
    segment: str
    first_id: int
    base: float
    market_share: float
    own_share: float
    iv: float
    step: int
    wings: int
    far_step: int
    far_wings: int
    lots: tuple[tuple[date, int], ...]
    day_volume: float
    open_interest: float


_ALWAYS = date.min
UNDERLYINGS = (
    Underlying(
        *("NIFTY", 0, 13, "NSE_FNO", 100_000, 25_900.0, 1.0, 0.25, 0.125, 50, 120, 1_000, 9),
        ((_ALWAYS, 25), (date(2025, 1, 31), 75), (date(2025, 12, 31), 65)),
        *(1.4e6, 180_000.0),
    ),
    Underlying(
        *("BANKNIFTY", 1, 25, "NSE_FNO", 100_000, 58_600.0, 1.05, 0.5, 0.14, 100, 175, 500, 45),
        ((_ALWAYS, 15), (date(2025, 1, 31), 35), (date(2025, 12, 31), 30)),
        *(4.0e5, 60_000.0),
    ),
    Underlying(
        *("FINNIFTY", 2, 27, "NSE_FNO", 100_000, 27_300.0, 1.0, 0.5, 0.145, 50, 95, 500, 12),
        ((_ALWAYS, 25), (date(2025, 1, 31), 65), (date(2025, 12, 31), 60)),
        *(4.0e4, 12_000.0),
    ),
    Underlying(
        *("SENSEX", 3, 51, "BSE_FNO", 1_000_000, 84_500.0, 1.0, 0.2, 0.128, 100, 90, 500, 40),
        ((_ALWAYS, 10), (date(2025, 1, 4), 20)),
        *(9.0e5, 90_000.0),
    ),
)
BY_NAME = {underlying.name: underlying for underlying in UNDERLYINGS}
# The provider has been seen to answer for SENSEX under its exchange token too.
BY_REQUEST = {(one.security_id, INDEX_SEGMENT): one for one in UNDERLYINGS} | {
    (1, "BSE_FNO"): BY_NAME["SENSEX"]
}
KNOWN_SEGMENTS = frozenset(
    {
        INDEX_SEGMENT,
        "NSE_EQ",
        "NSE_FNO",
        "NSE_CURRENCY",
        "BSE_EQ",
        "MCX_COMM",
        "BSE_CURRENCY",
        "BSE_FNO",
    }
)


class Contract(NamedTuple):
    """Where a contract stands in its chain: leg 2·i is the call of strike i, 2·i + 1 its put."""

    underlying: Underlying
    expiry: date
    leg: int


def market_day(ts_ns: int) -> int:
    """The number of the market day of an instant; days turn at 09:15 IST."""
    return (ts_ns // SECOND_NS - _DAY_START_S) // DAY_S


def day_start_ns(day: int) -> int:
    """The first instant of a market day, ns UTC."""
    return (day * DAY_S + _DAY_START_S) * SECOND_NS


def expiries(underlying: Underlying, ts_ns: int) -> tuple[date, ...]:
    """The expiries listed at an instant: one that has settled that day is listed no more."""
    today = exchange_date(ts_ns)
    if ts_ns >= expiry_ns(today):
        today += timedelta(days=1)
    return calendar.expiries(underlying.name, today).days


def is_answered(underlying: Underlying, expiry: date, ts_ns: int) -> bool:
    """Whether a chain can be asked for: a listed one, or one that settled today."""
    today = exchange_date(ts_ns)
    return expiry in expiries(underlying, ts_ns) or (
        expiry == today and expiry in calendar.expiries(underlying.name, today, 1).days
    )


def lot(underlying: Underlying, expiry: date) -> int:
    """Units in one lot of the contracts of that expiry."""
    return next(units for first, units in reversed(underlying.lots) if expiry >= first)


def strikes(underlying: Underlying, expiry: date, on: date, spot: float) -> Floats:
    """The strikes listed on a day that began at `spot`, ascending."""
    is_far = expiry - on > _UNTIL_FAR
    step = underlying.far_step if is_far else underlying.step
    wings = underlying.far_wings if is_far else underlying.wings
    # The ladder moves in jumps of ten steps, so that most days have the strikes of the day before.
    centre = round(spot / (10 * step)) * 10
    return np.arange(centre - wings, centre + wings + 1, dtype=np.float64) * step


def security_ids(underlying: Underlying, expiry: date, ladder: Floats) -> Integers:
    """The ids of a chain's legs: call and put of each strike in turn."""
    slot = np.rint(ladder / underlying.step).astype(np.int64) % _SLOTS
    chain = underlying.number * _SLOTS + _week(expiry) % _SLOTS
    calls = underlying.first_id + (chain * _SLOTS + slot) * 2
    return np.stack((calls, calls + 1), axis=1).ravel()


def chain_of(segment: str, security_id: int, ts_ns: int) -> tuple[Underlying, date] | None:
    """The listed chain to which an option's id belongs, or None."""
    for underlying in UNDERLYINGS:
        number, _rest = divmod((security_id - underlying.first_id) // 2, _SLOTS)
        if underlying.segment != segment or number // _SLOTS != underlying.number:
            continue
        for expiry in expiries(underlying, ts_ns):
            if _week(expiry) % _SLOTS == number % _SLOTS:
                return underlying, expiry
    return None


def _week(expiry: date) -> int:
    """At most one expiry of an underlying falls into a week."""
    return expiry.toordinal() // 7
