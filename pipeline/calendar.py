"""When Indian exchanges trade and when index options expire.

Pure: the facts are in `calendar.json` beside this file, read once at import; nothing else is
opened and no clock is looked at. The file says which years the exchanges have published. Of any
other year only what follows from a rule is known: weekends, the days that return every year and
Good Friday, but none of the festivals that follow the moon. `coverage` tells which it was, so
that nobody takes a guess for a fact.

The expiry rule is for tests and the simulator. A provider's own list of expiries is the truth.
"""

import enum
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import msgspec

from pipeline.clock import IST, exchange_date, to_ns

_DAY = timedelta(days=1)
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_LONGEST_CLOSURE_DAYS = 30  # exchanges never closed longer; a bound for the searches below


class Coverage(enum.StrEnum):
    """Whether a day's year is on the exchanges' published list, or follows from rules only."""

    PUBLISHED = "published"
    RULE = "rule"


class Session(NamedTuple):
    """One trading day: its open intervals (start, end) in ns UTC, the end excluded.

    `is_regular` is false for a session in unusual hours, which is no expiry day.
    `is_certain` is false where the day's coverage is not `published` or its hours are assumed.
    """

    day: date
    intervals_ns: tuple[tuple[int, int], ...]
    name: str
    is_regular: bool
    is_certain: bool


class Expiries(NamedTuple):
    """Expiry dates, ascending; `is_certain` is false where one rests on unpublished holidays."""

    days: tuple[date, ...]
    is_certain: bool


class _Special(msgspec.Struct, frozen=True):
    day: date
    name: str
    hours: list[tuple[str, str]]
    hours_assumed: bool = False


class _Rule(msgspec.Struct, frozen=True):
    start: date = msgspec.field(name="from")
    known: date
    month: str
    week: str | None = None


class _Listed(msgspec.Struct, frozen=True):
    weeks: int
    months: int
    quarters: int
    half_years: int


class _Underlying(msgspec.Struct, frozen=True):
    exchange: str
    listed: _Listed
    rules: list[_Rule]


class _Facts(msgspec.Struct, frozen=True):
    version: str
    published_years: list[int]
    exchanges: list[str]
    session: tuple[str, str]
    holidays: dict[date, str]
    yearly_holidays: dict[str, str]
    special_sessions: list[_Special]
    underlyings: dict[str, _Underlying]


_FACTS = msgspec.json.decode(
    Path(__file__).with_suffix(".json").read_bytes(), type=_Facts, strict=True
)
_SPECIAL = {special.day: special for special in _FACTS.special_sessions}

VERSION = _FACTS.version
UNDERLYINGS = tuple(_FACTS.underlyings)


def coverage(day: date) -> Coverage:
    """Whether that day's holidays are published or follow from rules only."""
    return Coverage.PUBLISHED if day.year in _FACTS.published_years else Coverage.RULE


def holiday(day: date, exchange: str = "NSE") -> str | None:
    """The name of the holiday on that day, or None. A weekend is none. Raises KeyError."""
    _check_exchange(exchange)
    if coverage(day) is Coverage.PUBLISHED:
        return _FACTS.holidays.get(day)
    if day == _good_friday(day.year):
        return "Good Friday"
    return _FACTS.yearly_holidays.get(f"{day:%m-%d}")


def session(day: date, exchange: str = "NSE") -> Session | None:
    """That day's session, or None when the exchange is closed all day. Raises KeyError."""
    _check_exchange(exchange)
    is_known = coverage(day) is Coverage.PUBLISHED
    special = _SPECIAL.get(day)
    if special is not None:
        hours = tuple(_interval_ns(day, start, end) for start, end in special.hours)
        is_regular = hours == (_interval_ns(day, *_FACTS.session),)
        return Session(day, hours, special.name, is_regular, is_known and not special.hours_assumed)
    if day.weekday() >= 5 or holiday(day, exchange) is not None:
        return None
    return Session(day, (_interval_ns(day, *_FACTS.session),), "regular", True, is_known)


def is_open(ts_ns: int, exchange: str = "NSE") -> bool:
    """Whether the exchange trades at that instant, ns UTC. Raises KeyError."""
    found = session(exchange_date(ts_ns), exchange)
    return found is not None and any(start <= ts_ns < end for start, end in found.intervals_ns)


def next_open_ns(ts_ns: int, exchange: str = "NSE") -> int:
    """The instant itself when open, else when the exchange opens next, ns UTC."""
    day = exchange_date(ts_ns)
    for _ in range(_LONGEST_CLOSURE_DAYS):
        found = session(day, exchange)
        for start, end in found.intervals_ns if found else ():
            if ts_ns < end:
                return max(ts_ns, start)
        day += _DAY
    raise ValueError(f"no session within {_LONGEST_CLOSURE_DAYS} days of the instant")


def open_between(start_ns: int, end_ns: int, exchange: str = "NSE") -> Iterator[tuple[int, int]]:
    """The intervals of [start_ns, end_ns) in which the exchange is open, oldest first."""
    day = exchange_date(start_ns)
    while start_ns < end_ns and day <= exchange_date(end_ns - 1):
        found = session(day, exchange)
        for opens, closes in found.intervals_ns if found else ():
            if opens < end_ns and closes > start_ns:
                yield max(opens, start_ns), min(closes, end_ns)
        day += _DAY


def trading_day_before(day: date, exchange: str = "NSE") -> date:
    """The last day before `day` with regular hours."""
    return _roll_back(day - _DAY, exchange)


def exchange_of(underlying: str) -> str:
    """Where the underlying's options trade. Raises KeyError."""
    return _FACTS.underlyings[underlying].exchange


def has_weeklies(underlying: str, on: date) -> bool:
    """Whether weekly options of the underlying expire around that day. Raises KeyError."""
    return _rule(_FACTS.underlyings[underlying], on, on).week is not None


@lru_cache(maxsize=256)
def expiries(underlying: str, from_date: date, count: int | None = None) -> Expiries:
    """The expiries listed on `from_date`, that day included, shaped like the provider's list.

    The nearest weeklies (the monthlies among them), then monthly, quarterly and half-yearly ones,
    by the rules that were known on that day; the first `count` of them. Raises KeyError.
    """
    facts = _FACTS.underlyings[underlying]
    monthly = _monthlies(facts, from_date)
    chosen = set(monthly[: facts.listed.months])
    chosen.update([day for day in monthly if day.month % 3 == 0][: facts.listed.quarters])
    chosen.update([day for day in monthly if day.month % 6 == 0][: facts.listed.half_years])
    chosen.update(_weeklies(facts, from_date, monthly))
    days = tuple(sorted(chosen)[:count])
    return Expiries(days, all(coverage(day) is Coverage.PUBLISHED for day in days))


def _monthlies(facts: _Underlying, from_date: date) -> list[date]:
    """Every month's expiry from that day on, as far ahead as anything is listed."""
    listed = facts.listed
    months = max(listed.months, 3 * listed.quarters, 6 * listed.half_years) + 1
    found = []
    for offset in range(months + 1):
        year, month = divmod(from_date.year * 12 + from_date.month - 1 + offset, 12)
        last = date(year + (month + 1) // 12, (month + 1) % 12 + 1, 1) - _DAY
        weekday = _rule(facts, last, from_date).month
        day = last - ((last.weekday() - _WEEKDAYS.index(weekday)) % 7) * _DAY
        found.append(_roll_back(day, facts.exchange))
    return [day for day in found if day >= from_date]


def _weeklies(facts: _Underlying, from_date: date, monthly: list[date]) -> list[date]:
    """The nearest weekly expiries; a monthly stands in for the weekly of its own week."""
    monday = from_date - from_date.weekday() * _DAY
    by_week = {day - day.weekday() * _DAY: day for day in monthly}
    found: list[date] = []
    for _ in range(facts.listed.weeks + 3):
        week = _rule(facts, monday, from_date).week
        if monday in by_week:
            found.append(by_week[monday])
        elif week is not None:
            found.append(_roll_back(monday + _WEEKDAYS.index(week) * _DAY, facts.exchange))
        monday += 7 * _DAY
    has_any = any(day not in monthly for day in found)
    return [day for day in found if day >= from_date][: facts.listed.weeks] if has_any else []


def _rule(facts: _Underlying, on: date, known_on: date) -> _Rule:
    """The rule for an expiry around `on`, as one knew it on `known_on`."""
    valid = [rule for rule in facts.rules if rule.start <= on and rule.known <= known_on]
    return valid[-1] if valid else facts.rules[0]


def _roll_back(day: date, exchange: str) -> date:
    for _ in range(_LONGEST_CLOSURE_DAYS):
        found = session(day, exchange)
        if found is not None and found.is_regular:
            return day
        day -= _DAY
    raise ValueError(f"no session within {_LONGEST_CLOSURE_DAYS} days before {day}")


def _good_friday(year: int) -> date:
    """Two days before Easter, which is the Sunday after the ecclesiastical full moon (Gauss)."""
    golden, century = year % 19, year // 100
    epact = (19 * golden + century - century // 4 - (8 * century + 13) // 25 + 15) % 30
    moon = epact - (epact // 28) * (1 - (29 // (epact + 1)) * ((21 - golden) // 11))
    sunday = moon - (year + year // 4 + moon + 2 - century + century // 4) % 7
    month = 3 + (sunday + 40) // 44
    return date(year, month, sunday + 28 - 31 * (month // 4)) - 2 * _DAY


def _interval_ns(day: date, start: str, end: str) -> tuple[int, int]:
    return _instant_ns(day, start), _instant_ns(day, end)


def _instant_ns(day: date, text: str) -> int:
    return to_ns(datetime.combine(day, time.fromisoformat(text), IST))


def _check_exchange(exchange: str) -> None:
    if exchange not in _FACTS.exchanges:
        raise KeyError(f"exchange {exchange!r}: want one of {', '.join(_FACTS.exchanges)}")
