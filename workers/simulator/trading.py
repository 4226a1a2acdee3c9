"""Who trades what, when and how wide: the activity of each leg of a chain on one market day.

Pure. A leg's trades are fixed by the seed: their instants, sides and sizes can be had for any
moment without playing the day from its start, so that volume only grows and a restart changes
nothing. Legs too far from the money do not trade at all.
"""

from datetime import date
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from workers.simulator import paths, randomness, smile
from workers.simulator.exchange import DAY_S, Underlying, lot

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]
Flags: TypeAlias = NDArray[np.bool_]

TICK = 0.05
_TICKS = 20  # in a rupee
_LEAST_SCALE = 0.012  # of log moneyness: wings stay alive on the last day
_REACH_DOWN, _REACH_UP = (0.05, 3.0), (0.07, 4.0)  # alive within a + b · scale of the money
_FADE_OTM, _FADE_ITM = 0.28, 1.6  # of volume, per scale
_ROUND_SHARE, _EVEN_SHARE, _ODD_SHARE = 1.0, 0.3, 0.15  # of strikes by multiples of the step
_SLOWEST_FADE = 0.02  # volume of far expiries against the nearest
_FADE_DAYS = 7.0
_BASE_HALF_SPREAD, _PRICE_SHARE, _ILLIQUID_SHARE = 0.025, 0.0007, 1.0 / 6.0
_OI_FADE_OTM, _OI_FADE_ITM, _OI_SCALE = 0.35, 0.9, 0.03
_OI_GROWS_DAYS = 6.0


class Legs(NamedTuple):
    """The legs of a chain, call and put of each strike in turn."""

    strike: Floats
    is_call: Flags
    security_id: Integers


class Activity(NamedTuple):
    """How a chain's legs trade on one market day.

    `trades` a day (0: the leg is dead), of `lots_a_trade` on average; `illiquidity` counts decades
    of volume below the busiest leg.
    """

    seed: int
    underlying: Underlying
    expiry: date
    day: int
    lot: int
    legs: Legs
    trades: Integers
    lots_a_trade: Floats
    illiquidity: Floats
    purpose: int  # the key of its chances; the next three belong to it too

    def trades_until(self, since_s: float) -> Integers:
        """How many trades each leg has seen `since_s` seconds into the day."""
        slot_s = DAY_S / np.maximum(self.trades, 1)
        done = np.minimum((since_s / slot_s).astype(np.int64), self.trades)
        everyone = np.arange(len(done))
        is_next_due = since_s >= self._instant(everyone, done + 1)
        count: Integers = np.minimum(done + is_next_due, self.trades)
        return count

    def volume(self, chosen: Integers, count: Integers) -> Integers:
        """Units traded after that many trades of each chosen leg."""
        jitter = randomness.uniform(self.purpose, self.legs.security_id[chosen], count)
        # One lot each, and a share of the rest that varies from trade to trade.
        more = np.floor((self.lots_a_trade[chosen] - 1.0) * (count + jitter)).astype(np.int64)
        return np.where(count > 0, count + more, 0) * self.lot

    def trade(self, chosen: Integers, number: Integers) -> tuple[Floats, Floats, Floats]:
        """The trade of that number of each chosen leg: seconds into the day, price, true IV."""
        since_s = self._instant(chosen, number)
        mid, iv = self.worth(chosen, since_s)
        half = half_spread(mid, self.illiquidity[chosen])
        chance = randomness.uniform(self.purpose + 1, self.legs.security_id[chosen], number)
        ticks = np.rint((mid + half * np.where(chance < 0.5, -1.0, 1.0)) * _TICKS)
        return since_s, np.maximum(ticks, 1.0) / _TICKS, iv

    def worth(self, chosen: Integers, since_s: Floats) -> tuple[Floats, Floats]:
        """True price and IV of the chosen legs, each at its own instant (or all at one)."""
        found = smile.truth(
            *(self.seed, self.underlying, self.expiry, self.day),
            since_s,
            self.legs.strike[chosen],
        )
        return np.where(self.legs.is_call[chosen], found.call, found.put), found.iv

    def _instant(self, chosen: Integers, number: Integers) -> Floats:
        slot_s = DAY_S / np.maximum(self.trades[chosen], 1)
        chance = randomness.uniform(self.purpose + 2, self.legs.security_id[chosen], number)
        instant: Floats = slot_s * (number - 1 + chance)
        return instant


def activity(seed: int, underlying: Underlying, expiry: date, day: int, legs: Legs) -> Activity:
    """The activity of those legs on a market day, from where the day began."""
    start = smile.truth(seed, underlying, expiry, day, np.zeros(1), legs.strike)
    left_days = float(start.years[0]) * 365.0
    at_money = underlying.iv * np.sqrt(start.years[0])
    scale = max(float(at_money), _LEAST_SCALE)
    distance = np.log(legs.strike / start.forward)
    outward = np.where(legs.is_call, distance, -distance) / scale
    fade = np.where(outward > 0.0, _FADE_OTM * outward, -_FADE_ITM * outward)
    share = np.exp(-fade) * max(np.exp(-left_days / _FADE_DAYS), _SLOWEST_FADE)
    share *= _round_strike_share(underlying, legs.strike)
    purpose = randomness.key(seed, "trade", underlying.name, str(expiry), day)
    chance = randomness.uniform(purpose + 3, legs.security_id, np.zeros_like(legs.security_id))
    lots = underlying.day_volume * share * (0.5 + chance)
    down, up = (a + b * scale for a, b in (_REACH_DOWN, _REACH_UP))
    is_alive = (distance > -down) & (distance < up) & (np.minimum(start.call, start.put) >= TICK)
    trades = np.where(is_alive, np.clip(lots / 2.0, 1.0, DAY_S), 0.0).astype(np.int64)
    lots_a_trade = np.maximum(lots / np.maximum(trades, 1), 1.0)
    illiquidity = np.clip(np.log10(underlying.day_volume / np.maximum(lots, 1e-9)), 0.0, 6.0)
    return Activity(
        *(seed, underlying, expiry, day, lot(underlying, expiry), legs),
        *(trades, lots_a_trade, illiquidity, purpose),
    )


def half_spread(mid: Floats, illiquidity: Floats) -> Floats:
    """Rupees from the true price to either quote, before rounding to ticks."""
    share = _PRICE_SHARE * (1.0 + _ILLIQUID_SHARE * illiquidity**3)
    return _BASE_HALF_SPREAD + mid * share


def open_interest(activity: Activity, since_s: float) -> Integers:
    """Units outstanding: they grow from day to day and within a day, every three minutes."""
    legs, underlying = activity.legs, activity.underlying
    centre = paths.settled_spot(activity.seed, underlying, activity.day)
    distance = np.log(legs.strike / centre) / _OI_SCALE
    outward = np.where(legs.is_call, distance, -distance)
    fade = np.where(outward > 0.0, _OI_FADE_OTM * outward, -_OI_FADE_ITM * outward)
    purpose = randomness.key(activity.seed, "open interest", underlying.name, str(activity.expiry))
    chance = randomness.uniform(purpose, legs.security_id, np.zeros_like(legs.security_id))
    full = underlying.open_interest * np.exp(-fade) * (0.4 + 1.2 * chance)
    full *= _round_strike_share(underlying, legs.strike)
    days_left = float(smile.years(activity.expiry, activity.day, np.zeros(1))[0]) * 365.0
    grown = [
        0.25 + 0.75 * np.exp(-max(days_left - passed, 0.0) / _OI_GROWS_DAYS) for passed in (0, 1)
    ]
    part = np.floor(since_s / 180.0) * 180.0 / DAY_S
    lots = np.floor(full * (grown[0] + (grown[1] - grown[0]) * part))
    return np.where(activity.trades > 0, np.maximum(lots, 1).astype(np.int64), 0) * activity.lot


def _round_strike_share(underlying: Underlying, strike: Floats) -> Floats:
    """People trade round numbers: multiples of ten steps most, odd ones least."""
    steps = np.rint(strike / underlying.step).astype(np.int64)
    even = np.where(steps % 2 == 0, _EVEN_SHARE, _ODD_SHARE)
    return np.where(steps % 10 == 0, _ROUND_SHARE, even)
