"""What a reader wants of the enriched stream: which chains, and which legs of them.

Pure: it decides by symbols, headers and columns, and opens nothing. A symbol id says which chain an
entry is, so what is not wanted is never decoded.
"""

import functools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from datetime import date

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, DecodeError
from pipeline.models import ChainHeader, ChainId, Column, ContractId, Kind, Legs, parse_symbol

Rows = slice | NDArray[np.intp]

LEGS_PER_STRIKE = 2  # a call and a put at most

_KINDS = {"call": Kind.CALL, "put": Kind.PUT}


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """A filter; what is left at its default keeps everything.

    `band_strikes` keeps the strike nearest the forward and that many on each side of it,
    `band_percent` the strikes within so many percent of the forward; together, what both keep.
    Where a chain tells no forward, no leg of it is within a band.
    """

    underlyings: frozenset[str] = frozenset()
    expiries: frozenset[date] = frozenset()
    kind: Kind | None = None
    band_strikes: int | None = None
    band_percent: float | None = None

    @property
    def cuts_legs(self) -> bool:
        """Whether it may keep some legs of a chain and others not."""
        return (self.kind, self.band_strikes, self.band_percent) != (None, None, None)

    def wants(self, symbol: str) -> bool:
        """Whether the underlying, chain or contract of that symbol id is wanted.

        An underlying by itself has no expiry, and is wanted whichever those are.
        """
        if not self.underlyings and not self.expiries:
            return True
        underlying, expiry = _parts(symbol)
        if self.underlyings and underlying not in self.underlyings:
            return False
        return not self.expiries or expiry is None or expiry in self.expiries

    def rows(self, header: ChainHeader, legs: Legs) -> Rows | None:
        """Which legs of a chain are wanted: a slice, or indices in order; None for all of them.

        The legs run by strike, as those of every frame do.
        """
        first, last = 0, header.n
        if self.band_strikes is not None or self.band_percent is not None:
            first, last = self._band(header.forward, legs["strike"])
        if self.kind is None:
            return slice(first, last) if (first, last) != (0, header.n) else None
        return np.flatnonzero(legs["kind"][first:last] == self.kind) + first

    def _band(self, forward: float | None, strike: Column) -> tuple[int, int]:
        first, last = 0, len(strike)
        if forward is None or not math.isfinite(forward) or not last:
            return 0, 0
        if self.band_percent is not None:
            reach = forward * self.band_percent / 100
            first = int(strike.searchsorted(forward - reach, "left"))
            last = int(strike.searchsorted(forward + reach, "right"))
        if self.band_strikes is not None:
            low, high = _around(forward, strike, self.band_strikes)
            first, last = max(first, low), min(last, high)
        return first, max(first, last)


def selection(
    *,
    underlying: str | Iterable[str] = (),
    expiry: date | str | Iterable[date | str] = (),
    kind: Kind | str | None = None,
    band_strikes: int | None = None,
    band_percent: float | None = None,
) -> Selection:
    """A selection from what people write: one or many, dates or ISO text, `call` or `put`.

    Raises ConfigError naming what is wrong.
    """
    if isinstance(kind, str):
        if kind not in _KINDS:
            raise ConfigError(f"kind {kind!r}: want call or put")
        kind = _KINDS[kind]
    for name, value in (("band_strikes", band_strikes), ("band_percent", band_percent)):
        if value is not None and not 0 <= value < math.inf:
            raise ConfigError(f"{name} {value!r}: want zero or more")
    return Selection(
        underlyings=frozenset([underlying] if isinstance(underlying, str) else underlying),
        expiries=frozenset(map(_date, [expiry] if isinstance(expiry, date | str) else expiry)),
        kind=kind,
        band_strikes=band_strikes,
        band_percent=band_percent,
    )


def _around(forward: float, strike: Column, each_side: int) -> tuple[int, int]:
    """Where the strike nearest the forward begins, the lower of two, with so many beside it."""
    middle = int(strike.searchsorted(forward))
    start = max(0, middle - LEGS_PER_STRIKE * (each_side + 1))
    window = strike[start : middle + LEGS_PER_STRIKE * (each_side + 1)].tolist()
    strikes = list(dict.fromkeys(window))
    above = bisect_left(strikes, forward)
    nearest = min(above, len(strikes) - 1)
    if above and (nearest < above or forward - strikes[above - 1] <= strikes[above] - forward):
        nearest = above - 1
    low = strikes[max(0, nearest - each_side)]
    high = strikes[min(len(strikes) - 1, nearest + each_side)]
    return start + bisect_left(window, low), start + bisect_right(window, high)


@functools.lru_cache(maxsize=65_536)  # asked for every entry, of a few thousand symbols
def _parts(symbol: str) -> tuple[str, date | None]:
    """Underlying and expiry of a symbol id; what is no symbol id is an underlying by itself."""
    try:
        parsed = parse_symbol(symbol)
    except DecodeError:
        return symbol, None
    if isinstance(parsed, ChainId | ContractId):
        return parsed.underlying, parsed.expiry
    return parsed, None


def _date(value: date | str) -> date:
    try:
        return date.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        raise ConfigError(f"expiry {value!r}: want a date as 2026-01-27") from None
