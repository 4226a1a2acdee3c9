"""Days of the exchange as the cold store cuts them: from midnight to midnight, IST. Pure."""

from datetime import date, datetime, timedelta
from datetime import time as time_of_day

from pipeline.clock import IST, to_ns

_DAY = timedelta(days=1)


def bounds(day: date) -> tuple[datetime, datetime]:
    """A day as the interval [start, end)."""
    start = datetime.combine(day, time_of_day(), IST)
    return start, start + _DAY


def is_closed(day: date, now_ns: int) -> bool:
    """Whether a day is over."""
    return to_ns(bounds(day)[1]) <= now_ns


def days_between(first: date, last: date) -> list[date]:
    """Every day from the first to the last, both of them too."""
    return [first + number * _DAY for number in range((last - first).days + 1)]
