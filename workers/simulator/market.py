"""The simulated market: a chain, or an index, as it stands at an instant.

A function of seed and market time: whoever asks, and however often, sees the same market at the
same time, also after a restart. It knows nothing of HTTP or JSON, and never looks at a clock.
"""

from collections import OrderedDict
from datetime import date
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.clock import SECOND_NS, expiry_ns
from workers.simulator import exchange, paths, trading
from workers.simulator.exchange import Underlying
from workers.simulator.view import DayView, LegDay

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]

_INDEX_S = 0.25  # the index is published this often
_MOST_VIEWS = 48  # every chain of the four underlyings


class ChainColumns(NamedTuple):
    """A chain at an instant, prices in rupees, quantities in units.

    `strikes` has one value a strike; every other column one a leg: call and put of each strike in
    turn. `ids` is None in a chain of the year 2025, which had neither ids nor averages.
    """

    spot: float
    strikes: Floats
    ids: Integers | None
    average: Floats
    last: Floats
    bid: Floats
    bid_quantity: Integers
    ask: Floats
    ask_quantity: Integers
    volume: Integers
    open_interest: Integers
    previous_close: Floats
    previous_volume: Integers
    previous_open_interest: Integers
    iv_percent: Floats
    delta: Floats
    theta: Floats
    gamma: Floats
    vega: Floats

    def leg_of(self, security_id: int) -> int | None:
        """Which leg has that id, or None."""
        found = [] if self.ids is None else np.flatnonzero(self.ids == security_id).tolist()
        return found[0] if found else None


class IndexDay(NamedTuple):
    """An index and its day so far, rupees."""

    last: float
    open: float
    high: float
    low: float
    previous_close: float


class Market:
    """The market of one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._views: OrderedDict[tuple[str, date], DayView] = OrderedDict()

    def spot(self, underlying: Underlying, ts_ns: int) -> float:
        """The index as published at an instant, rupees with two decimals."""
        day, since_s = _day_and_second(ts_ns)
        published = np.array([since_s - since_s % _INDEX_S])
        path = paths.spot_path(self.seed, underlying, day)
        return round(float(paths.at_seconds(path, published)[0]), 2)

    def index_day(self, underlying: Underlying, ts_ns: int) -> IndexDay:
        """The index and its day so far."""
        day, since_s = _day_and_second(ts_ns)
        path = paths.spot_path(self.seed, underlying, day)
        so_far = path[: int(since_s) + 1]
        last = self.spot(underlying, ts_ns)
        return IndexDay(
            last,
            round(float(path[0]), 2),
            max(round(float(so_far.max()), 2), last),
            min(round(float(so_far.min()), 2), last),
            round(float(paths.spot_path(self.seed, underlying, day - 1)[-1]), 2),
        )

    def chain(self, underlying: Underlying, expiry: date, ts_ns: int) -> ChainColumns:
        """The chain of a listed expiry; once it has settled, its last state."""
        ts_ns = min(ts_ns, expiry_ns(expiry) - SECOND_NS)
        view, since_s = self._view(underlying, expiry, ts_ns)
        quotes = view.quotes(since_s)
        iv, delta, theta, gamma, vega = view.greeks.copy()  # the view's own columns go on changing
        return ChainColumns(
            spot=self.spot(underlying, ts_ns),
            strikes=view.strikes,
            ids=view.activity.legs.security_id,
            average=view.average.copy(),
            last=view.last.copy(),
            bid=quotes.bid,
            bid_quantity=quotes.bid_quantity,
            ask=quotes.ask,
            ask_quantity=quotes.ask_quantity,
            volume=view.volume(),
            open_interest=trading.open_interest(view.activity, since_s),
            previous_close=view.previous_close,
            previous_volume=view.previous_volume,
            previous_open_interest=view.previous_open_interest,
            iv_percent=iv * 100.0,
            delta=delta,
            theta=theta,
            gamma=gamma,
            vega=vega,
        )

    def leg_day(self, underlying: Underlying, expiry: date, leg: int, ts_ns: int) -> LegDay:
        """The day so far of one leg of a chain."""
        ts_ns = min(ts_ns, expiry_ns(expiry) - SECOND_NS)
        return self._view(underlying, expiry, ts_ns)[0].leg_day(leg)

    def _view(self, underlying: Underlying, expiry: date, ts_ns: int) -> tuple[DayView, float]:
        day, since_s = _day_and_second(ts_ns)
        key = underlying.name, expiry
        view = self._views.get(key)
        if view is None or view.activity.day != day:
            view = self._views[key] = DayView(self.seed, underlying, expiry, day)
        self._views.move_to_end(key)
        if len(self._views) > _MOST_VIEWS:
            self._views.popitem(last=False)
        view.bring_to(since_s)
        return view, since_s


def _day_and_second(ts_ns: int) -> tuple[int, float]:
    day = exchange.market_day(ts_ns)
    return day, (ts_ns - exchange.day_start_ns(day)) / SECOND_NS
