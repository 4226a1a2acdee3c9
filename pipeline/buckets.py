"""The arithmetic of candles: where buckets begin, what they are made of, and what fills gaps.

Pure: instants are int ns UTC, lengths whole seconds. A bucket is half-open and named by its start.
From a day on buckets are counted from Monday 00:00 IST. Below, from 09:15 IST: through the nights
where the length divides a day, else anew in each exchange day, whose first bucket then begins at
00:00 IST. The function `candle_start` of the database says the same.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from pipeline import calendar
from pipeline.clock import SECOND_NS, exchange_date, to_ns

DAY_S = 86_400
DAY_NS = DAY_S * SECOND_NS
LEVELS_S = {"1m": 60, "5m": 300, "1h": 3_600, "1d": DAY_S}

_MONDAY_NS = to_ns(datetime(2000, 1, 2, 18, 30, tzinfo=UTC))
_OPENING_NS = to_ns(datetime(2000, 1, 3, 3, 45, tzinfo=UTC))

Candle = dict[str, Any]


def check_interval(interval_s: int) -> None:
    """Raises ValueError unless it is at least a second, and below a day or whole days."""
    if interval_s < 1 or (interval_s > DAY_S and interval_s % DAY_S):
        raise ValueError(f"no length of a candle: {interval_s} s; want seconds, or whole days")


def level_of(interval_s: int) -> str | None:
    """The highest level whose candles make up one of that length; None: none does, only rows."""
    if interval_s % DAY_S == 0:
        return "1d"
    # Hours go through midnight, which lengths that begin anew in each day do not.
    if interval_s % LEVELS_S["1h"] == 0 and DAY_S % interval_s == 0:
        return "1h"
    return next((name for name in ("5m", "1m") if interval_s % LEVELS_S[name] == 0), None)


def day_start(instant_ns: int) -> int:
    """00:00 IST of the exchange day of an instant."""
    return _floor(instant_ns, DAY_NS, _MONDAY_NS)


def bucket_start(instant_ns: int, interval_s: int) -> int:
    """The start of the bucket that an instant lies in."""
    length = interval_s * SECOND_NS
    if interval_s >= DAY_S:
        return _floor(instant_ns, length, _MONDAY_NS)
    if DAY_S % interval_s == 0:
        return _floor(instant_ns, length, _OPENING_NS)
    day = day_start(instant_ns)
    return max(day, _floor(instant_ns, length, day + _OPENING_NS - _MONDAY_NS))


def bucket_end(instant_ns: int, interval_s: int) -> int:
    """The end of the bucket that an instant lies in, which is the start of the next."""
    length = interval_s * SECOND_NS
    if interval_s >= DAY_S or DAY_S % interval_s == 0:
        return bucket_start(instant_ns, interval_s) + length
    day = day_start(instant_ns)
    return min(_floor(instant_ns, length, day + _OPENING_NS - _MONDAY_NS) + length, day + DAY_NS)


def next_start(instant_ns: int, interval_s: int) -> int:
    """The first start of a bucket at or after an instant."""
    start = bucket_start(instant_ns, interval_s)
    return start if start == instant_ns else bucket_end(instant_ns, interval_s)


def merged(earlier: Candle, later: Candle) -> Candle:
    """Two parts of one bucket as one candle; of two chains the one that expires next speaks."""
    if earlier.get("expiry") != later.get("expiry"):
        return min(earlier, later, key=lambda part: part["expiry"])
    return joined(earlier, later)


def joined(earlier: Candle, later: Candle) -> Candle:
    """Two candles as one; what holds at the close is that of the later."""
    both = earlier | later
    both["open"] = _first_told(earlier["open"], later["open"])
    both["close"] = _first_told(later["close"], earlier["close"])
    both["high"] = max((p for p in (earlier["high"], later["high"]) if p is not None), default=None)
    both["low"] = min((p for p in (earlier["low"], later["low"]) if p is not None), default=None)
    both["n"] = earlier["n"] + later["n"]
    if "volume_total" in both:
        both["volume_total"] = _first_told(later["volume_total"], earlier["volume_total"])
    return both


def with_volumes(candles: Sequence[Candle], before: Candle | None) -> None:
    """Replace `volume_total` by `volume`, what was traded since the candle before in the same day.

    `before` is what the day had before the first candle. A total that falls gives 0.
    """
    day, total = (None, 0) if before is None else _counted(before)
    for candle in candles:
        candle_day, candle_total = _counted(candle)
        del candle["volume_total"]
        candle["volume"] = None
        if candle_day != day:
            day, total = candle_day, 0
        if candle_total is not None:
            candle["volume"] = max(0, candle_total - (total or 0))
            total = candle_total


def whole_days(candles: Sequence[Candle], interval_s: int) -> list[Candle]:
    """Candles of days as candles of several; `volume` is the sum of theirs."""
    found: list[Candle] = []
    for candle in candles:
        starts = bucket_start(candle["starts"], interval_s)
        if not found or found[-1]["starts"] != starts:
            found.append(candle | {"starts": starts})
            continue
        both = joined(found[-1], candle) | {"starts": starts}
        if "volume" in both:
            volumes = [part["volume"] for part in (found[-1], candle) if part["volume"] is not None]
            both["volume"] = sum(volumes) if volumes else None
        found[-1] = both
    return found


def filled(
    candles: Sequence[Candle],
    interval_s: int,
    underlying: str,
    before: Candle | None = None,
    until_ns: int | None = None,
    *,
    from_ns: int = 0,
    at_most: int | None = None,
    newest_first: bool = False,
) -> list[Candle]:
    """Candles with those added that their gaps lack, each at the close of the one before.

    Only gaps between two candles of one exchange day, where its session is open, and only lengths
    below a day. `before` is the last candle of the day before the first of these, `until_ns` the
    start of the next after the last. An added candle has n = 0, traded nothing, and starts at
    `from_ns` or later. Of more than `at_most` there are at least so many of the first, or with
    `newest_first` of the last: gaps farther on are not filled.
    """
    if interval_s >= DAY_S:
        return list(candles)
    ends: list[tuple[int, Candle | None]] = [(candle["starts"], candle) for candle in candles]
    if until_ns is not None:
        ends.append((until_ns, None))
    pairs = list(zip((before, *candles), ends, strict=False))
    found: list[Candle] = []
    for previous, (ends_ns, candle) in reversed(pairs) if newest_first else pairs:
        part: list[Candle] = []
        if previous is not None:
            added = _between(previous, ends_ns, interval_s, underlying)
            part += [one for one in added if one["starts"] >= from_ns]
        if candle is not None:
            part.append(candle)
        found += reversed(part) if newest_first else part
        if at_most is not None and len(found) >= at_most:
            break
    return found[::-1] if newest_first else found


def _between(previous: Candle, until_ns: int, interval_s: int, underlying: str) -> Iterator[Candle]:
    day = exchange_date(previous["starts"])
    if exchange_date(until_ns) != day:
        return
    session = calendar.session(day, _exchange(underlying))
    close = previous["close"]
    same = previous | {"open": close, "high": close, "low": close, "n": 0}
    if "volume" in same:
        same["volume"] = 0
    starts = bucket_end(previous["starts"], interval_s)
    while starts < until_ns:
        ends = bucket_end(starts, interval_s)
        if session and any(starts < shut and ends > opens for opens, shut in session.intervals_ns):
            yield same | {"starts": starts}
        starts = ends


def _exchange(underlying: str) -> str:
    return calendar.exchange_of(underlying) if underlying in calendar.UNDERLYINGS else "NSE"


def _counted(candle: Candle) -> tuple[int, int | None]:
    return day_start(candle["starts"]), candle["volume_total"]


def _first_told(one: Any, other: Any) -> Any:
    return other if one is None else one


def _floor(instant_ns: int, length_ns: int, origin_ns: int) -> int:
    return instant_ns - (instant_ns - origin_ns) % length_ns
