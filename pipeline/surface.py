"""The volatility surface of an underlying: the smiles of its expiries, joined in time.

Made of chain headers alone, in plain numpy, so that readers need no kernels. Between expiries the
total variance w at one k = ln(strike/forward) is linear in time; before the first and after the
last the volatility at that k stays as it is there, so w is proportional to time. At an expiry it
is the expiry's own smile. Never fits anything and never mends: where a later expiry has less total
variance than an earlier one, `gaps` says so.
"""

from collections.abc import Iterable
from datetime import date
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.models import ChainHeader, Smile

Floats = NDArray[np.float64]

CALENDAR_DEVIATIONS = 3.0  # of the nearer expiry; farther out nobody trades both
_CALENDAR_POINTS = 61
_ROUNDING = 1e-9  # of the total variance


class Slice(NamedTuple):
    """One expiry of a surface; years and forward are those of the chain's snapshot."""

    expiry: date
    years: float
    forward: float
    smile: Smile


class Gap(NamedTuple):
    """Calendar arbitrage: at k the later expiry has less total variance than the earlier one."""

    earlier: date
    later: date
    k: float
    shortfall: float


def total_variance(smile: Smile, k: ArrayLike) -> Floats:
    """w of one smile at k = ln(strike/forward), of any shape."""
    u = np.asarray(k, np.float64) - smile.m
    w: Floats = smile.a + smile.b * (smile.rho * u + np.hypot(u, smile.sigma))
    return w


class Surface:
    """Smiles of several expiries of one underlying, nearest first in `slices`.

    Arguments broadcast against each other as numpy's do; results are NaN where there are no
    slices, and at times that are not after now.
    """

    def __init__(self, slices: Iterable[Slice]) -> None:
        self.slices = tuple(sorted(slices, key=lambda one: one.years))
        self._years = np.array([one.years for one in self.slices])
        self._log_forwards = np.log([one.forward for one in self.slices])

    def total_variance(self, k: ArrayLike, years: ArrayLike) -> Floats:
        """w at k = ln(strike/forward) and years from now."""
        k, years = np.broadcast_arrays(np.asarray(k, np.float64), np.asarray(years, np.float64))
        if not self.slices:
            return np.full(k.shape, np.nan)
        known = np.stack([total_variance(one.smile, k) for one in self.slices])
        last = len(self.slices) - 1
        after = np.searchsorted(self._years, years)  # the first expiry at or after that time
        low, high = np.clip(after - 1, 0, last), np.clip(after, 0, last)
        w_low = np.take_along_axis(known, low[np.newaxis], 0)[0]
        w_high = np.take_along_axis(known, high[np.newaxis], 0)[0]
        years_low, years_high = self._years[low], self._years[high]
        is_between = high > low
        step = np.where(is_between, years_high - years_low, 1.0)
        inside = w_low + (w_high - w_low) * (years - years_low) / step
        w = np.where(is_between, inside, w_low * (years / years_low))
        return np.where(years > 0.0, w, np.nan)

    def iv(self, k: ArrayLike, years: ArrayLike) -> Floats:
        """Volatility at k = ln(strike/forward) and years from now, decimal per year."""
        years = np.asarray(years, np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            iv: Floats = np.sqrt(self.total_variance(k, years) / years)
        return iv

    def iv_at_strike(self, strike: ArrayLike, years: ArrayLike) -> Floats:
        """Volatility at a strike in rupees, by the forward of that time."""
        strike = np.asarray(strike, np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            k = np.log(strike / self.forward(years))
        return self.iv(k, years)

    def forward(self, years: ArrayLike) -> Floats:
        """The forward in rupees: its logarithm linear between expiries, constant outside."""
        years = np.asarray(years, np.float64)
        if not self.slices:
            return np.full(years.shape, np.nan)
        forward: Floats = np.exp(np.interp(years, self._years, self._log_forwards))
        return forward

    def grid(self, k: ArrayLike, years: ArrayLike) -> Floats:
        """Volatility at every pair: a row a time, a column a k."""
        return self.iv(np.asarray(k)[np.newaxis, :], np.asarray(years)[:, np.newaxis])

    def gaps(self) -> list[Gap]:
        """Calendar arbitrage between neighbours, where it is widest; none without.

        At one k = ln(strike/forward) total variance may not fall with time (Gatheral and Jacquier,
        2014). Looked for within `CALENDAR_DEVIATIONS` of the earlier expiry's forward.
        """
        found = []
        for earlier, later in zip(self.slices, self.slices[1:], strict=False):
            reach = CALENDAR_DEVIATIONS * float(np.sqrt(total_variance(earlier.smile, 0.0)))
            k = np.linspace(-reach, reach, _CALENDAR_POINTS)
            before = total_variance(earlier.smile, k)
            shortfall = before - total_variance(later.smile, k)
            widest = int(np.argmax(shortfall))
            if shortfall[widest] > _ROUNDING * before[widest]:
                pair = (earlier.expiry, later.expiry)
                found.append(Gap(*pair, float(k[widest]), float(shortfall[widest])))
        return found


def surface(headers: Iterable[ChainHeader]) -> Surface:
    """The surface of an underlying's chains; those without smile, forward or time are left out.

    Of several headers of one expiry the newest stands.
    """
    newest: dict[date, ChainHeader] = {}
    for header in headers:
        known = newest.get(header.expiry)
        if known is None or header.ts_ingest >= known.ts_ingest:
            newest[header.expiry] = header
    return Surface(
        Slice(header.expiry, header.years, header.forward, header.smile)
        for header in newest.values()
        if header.smile is not None and header.forward is not None and header.years > 0.0
    )
