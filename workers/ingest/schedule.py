"""Which chains to poll and when. Pure: it takes the time, it never reads it."""

from collections.abc import Iterable
from datetime import date

from pipeline import calendar
from pipeline.clock import SECOND_NS, expiry_ns

CLOSED_INTERVAL_S = 300.0  # a closed market's chain does not change; one look tells a restart
DISTANCE_FROM_ANSWER = 0.975  # of the spacing: 3.02 s after an answer, where 3.0 is refused
RELIST_INTERVAL_S = 3_600.0
RELIST_AFTER_FAILURE_S = 15.0


def closed_pause_s(now_ns: int, exchange: str) -> float:
    """Market seconds until a chain of a closed exchange is polled again: when it opens at last."""
    opens_ns = calendar.next_open_ns(now_ns, exchange)
    return min(CLOSED_INTERVAL_S, max(0.0, (opens_ns - now_ns) / SECOND_NS))


def nearest(expiries: Iterable[date], now_ns: int, count: int) -> list[date]:
    """The next `count` expiries that have not settled, ascending."""
    return [expiry for expiry in sorted(expiries) if expiry_ns(expiry) > now_ns][:count]


def seconds_to_relist(expiries: Iterable[date], now_ns: int) -> float:
    """Market seconds until the list is asked for again: an hour, or when the nearest settles."""
    following = nearest(expiries, now_ns, 1)
    if not following:
        return RELIST_AFTER_FAILURE_S
    return min(RELIST_INTERVAL_S, (expiry_ns(following[0]) - now_ns) / SECOND_NS + 1)
