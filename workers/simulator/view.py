"""One chain on one market day, brought forward as it is asked for.

What is kept here saves work and decides nothing: any view of the same chain, day and seed says
the same at the same second, except for the day's extremes, which may miss what nobody looked at.
"""

from datetime import date
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pipeline.clock import SECOND_NS, YEAR_S, exchange_date, expiry_ns
from workers.simulator import exchange, paths, pricing, randomness, trading
from workers.simulator.exchange import Underlying
from workers.simulator.trading import TICK, Legs

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]

_PROVIDER_EXPIRES_LATE_S = 5.5 * 3_600  # its Greeks count to 21:00 IST
_GRID_S = 900  # how often averages and extremes of a day look at every leg
_GRID_TRADES = 96  # legs that trade at least once in a grid step
_QUOTE_S = 0.5  # quotes are made anew this often
_SMALLEST_BID = 0.04  # nobody bids for what is worth less
_DEPTH_RUPEES = 600.0  # the cheaper an option, the more lots stand at its best price


class Quotes(NamedTuple):
    """Best bid and ask of each leg, rupees and units; zeros where there is none."""

    bid: Floats
    bid_quantity: Integers
    ask: Floats
    ask_quantity: Integers


class LegDay(NamedTuple):
    """One leg's day so far; zeros, and no instant, before its first trade."""

    open: float
    high: float
    low: float
    last_quantity: int
    last_trade_ns: int | None
    first_open_interest: int


class DayView:
    """The legs of a chain on one market day: trades taken in so far, and what follows from them.

    `last`, `average`, `high`, `low`, `previous_close` in rupees, `volume` and the like in units;
    `greeks` has the rows iv (decimal), delta, theta, gamma, vega, as the provider prints them.
    """

    def __init__(self, seed: int, underlying: Underlying, expiry: date, day: int) -> None:
        start_ns = exchange.day_start_ns(day)
        spot = float(paths.spot_path(seed, underlying, day)[0])
        self.strikes = exchange.strikes(underlying, expiry, exchange_date(start_ns), spot)
        legs = Legs(
            np.repeat(self.strikes, 2),
            np.tile([True, False], len(self.strikes)),
            exchange.security_ids(underlying, expiry, self.strikes),
        )
        self.activity = trading.activity(seed, underlying, expiry, day, legs)
        self._everyone = np.arange(len(legs.strike))
        self._look_back(trading.activity(seed, underlying, expiry, day - 1, legs))
        self.count = np.full(len(legs.strike), -1, np.int64)
        self.traded_s = np.zeros(len(legs.strike))
        self.last = self.previous_close.copy()
        self.average = np.zeros(len(legs.strike))
        self.open = np.zeros(len(legs.strike))
        alive = np.flatnonzero(self.activity.trades > 0)
        self.open[alive] = self.activity.trade(alive, np.ones_like(alive))[1]
        self.high, self.low = self.open.copy(), self.open.copy()
        self.greeks = np.zeros((5, len(legs.strike)))
        self._grid_steps = 0
        # Row n: the sum of each leg's worth over the first n steps of the day.
        self._grid_sums = np.zeros((exchange.DAY_S // _GRID_S + 1, len(legs.strike)))

    def bring_to(self, since_s: float) -> Integers:
        """Take in every trade up to that second of the day; gives the legs that changed."""
        self._look_at_grid(since_s)
        count = self.activity.trades_until(since_s)
        changed = np.flatnonzero(count != self.count)
        self.count = count
        guess = np.full(len(count), 0.2)
        carried, traded = changed[count[changed] == 0], changed[count[changed] > 0]
        self.traded_s[carried], self.average[carried] = 0.0, 0.0
        self.last[carried] = self.previous_close[carried]
        if len(traded):
            at_s, price, iv = self.activity.trade(traded, count[traded])
            self.traded_s[traded], self.last[traded], guess[traded] = at_s, price, iv
            steps = (at_s // _GRID_S).astype(np.int64) + 1
            average = (self._grid_sums[steps, traded] + price) / (steps + 1)
            self.average[traded] = np.round(average, 2)
            self.high[traded] = np.maximum(self.high[traded], price)
            self.low[traded] = np.minimum(self.low[traded], price)
        if len(changed):
            self._compute_greeks(changed, guess[changed])
        return changed

    def volume(self) -> Integers:
        """Units traded today."""
        return self.activity.volume(self._everyone, self.count)

    def quotes(self, since_s: float) -> Quotes:
        """The best quotes at that second of the day; they hold the true price between them."""
        activity = self.activity
        worth, _iv = activity.worth(self._everyone, np.array([since_s]))
        legs, step = activity.legs, np.full(len(worth), int(since_s / _QUOTE_S))
        width, bids, asks = (
            randomness.uniform(activity.purpose + 4 + n, legs.security_id, step) for n in range(3)
        )
        half = trading.half_spread(worth, activity.illiquidity) * (0.7 + 0.8 * width)
        bid_ticks = np.maximum(np.floor((worth - half) / TICK), 1.0)
        ask_ticks = np.maximum(np.ceil((worth + half) / TICK), bid_ticks + 1.0)
        lots = 1.0 + _DEPTH_RUPEES / (worth + 2.0)
        quantities = [
            np.ceil(lots * (0.1 - 1.1 * np.log1p(-chance))).astype(np.int64) * activity.lot
            for chance in (bids, asks)
        ]
        is_alive = activity.trades > 0
        has_bid = is_alive & (worth >= _SMALLEST_BID)
        ask_ticks = np.where(has_bid, ask_ticks, np.maximum(ask_ticks - 1.0, 1.0))
        return Quotes(
            np.where(has_bid, np.round(bid_ticks * TICK, 2), 0.0),
            np.where(has_bid, quantities[0], 0),
            np.where(is_alive, np.round(ask_ticks * TICK, 2), 0.0),
            np.where(is_alive, quantities[1], 0),
        )

    def leg_day(self, leg: int) -> LegDay:
        """The day so far of one leg."""
        activity, count = self.activity, int(self.count[leg])
        if count <= 0:
            return LegDay(0.0, 0.0, 0.0, 0, None, 0)
        sums = activity.volume(np.array([leg, leg]), np.array([count - 1, count]))
        start_ns = exchange.day_start_ns(activity.day)
        return LegDay(
            float(self.open[leg]),
            float(self.high[leg]),
            float(self.low[leg]),
            int(sums[1] - sums[0]),
            start_ns + int(self.traded_s[leg] * SECOND_NS),
            int(trading.open_interest(activity, 0.0)[leg]),
        )

    def _look_back(self, before: trading.Activity) -> None:
        traded = np.flatnonzero(before.trades > 0)
        self.previous_close = np.zeros(len(before.trades))
        self.previous_close[traded] = before.trade(traded, before.trades[traded])[1]
        self.previous_volume = before.volume(self._everyone, before.trades)
        self.previous_open_interest = trading.open_interest(before, exchange.DAY_S)

    def _look_at_grid(self, since_s: float) -> None:
        is_busy = self.activity.trades >= _GRID_TRADES
        while self._grid_steps <= since_s // _GRID_S:
            at_s = np.array([float(self._grid_steps * _GRID_S)])
            worth, _iv = self.activity.worth(self._everyone, at_s)
            worth = np.round(np.maximum(np.round(worth / TICK), 1.0) * TICK, 2)
            self._grid_sums[self._grid_steps + 1] = self._grid_sums[self._grid_steps] + worth
            self._grid_steps += 1
            self.high = np.where(is_busy, np.maximum(self.high, worth), self.high)
            self.low = np.where(is_busy, np.minimum(self.low, worth), self.low)

    def _compute_greeks(self, chosen: Integers, guess: Floats) -> None:
        """As the provider does: only for legs that traded, with spot and clock of their trade."""
        activity, at_s = self.activity, self.traded_s[chosen]
        path = paths.spot_path(activity.seed, activity.underlying, activity.day)
        spot = paths.at_seconds(path, at_s).astype(np.float32).astype(np.float64)
        left_s = (expiry_ns(activity.expiry) - exchange.day_start_ns(activity.day)) / SECOND_NS
        years = (left_s + _PROVIDER_EXPIRES_LATE_S - at_s) / YEAR_S
        legs = activity.legs
        found = pricing.provider_greeks(
            *(spot, legs.strike[chosen], years, self.last[chosen], legs.is_call[chosen], guess)
        )
        self.greeks[:, chosen] = found
