"""The only source of now, and the arithmetic of Indian market time.

A clock may run faster than the wall or from another day (`STOCKIFY_CLOCK`), and every process of
an instance reads the same one. Times are int ns since 1970 UTC, whole microseconds, so that
Postgres keeps them exactly.
"""

import functools
import re
import time
from datetime import UTC, date, datetime, timedelta, timezone
from datetime import time as time_of_day

from pipeline.errors import ConfigError

IST = timezone(timedelta(hours=5, minutes=30), "IST")
SECOND_NS = 1_000_000_000
_EPOCH = datetime.fromtimestamp(0, UTC)
YEAR_S = 365 * 86_400
EXPIRY_TIME = time_of_day(15, 30)  # IST; index options settle at the close of their last session

_SPEC = re.compile(
    r"^(?:real|(?P<start>\d{4}-\d{2}-\d{2}[^@x×]*?))?"
    r"(?:@?[x×](?P<speed>\d+(?:\.\d+)?))?"
    r"(?:@(?P<anchor>\d+))?$"
)


class Clock:
    """Market time as a line through the wall clock.

    `spec` is `real`, `x60` (from now, sixty times as fast), `2026-01-20T09:15:00+05:30` (from that
    instant), or both as `2026-01-20T09:15:00+05:30@x60`. A start without an offset is IST.
    `anchored()` gives the text another process needs to read the same time. Raises ConfigError.
    """

    def __init__(self, spec: str = "real") -> None:
        match = _SPEC.match(spec.strip())
        if not spec.strip() or match is None:
            raise ConfigError(
                f"clock {spec!r}: want 'real', 'x60', '2026-01-20T09:15:00+05:30' or '<start>@x60'"
            )
        self.speed = float(match["speed"] or 1)
        if self.speed <= 0:
            raise ConfigError(f"clock {spec!r}: the speed must be above zero")
        self._is_real = match["start"] is None and self.speed == 1
        self._anchor_ns = int(match["anchor"]) if match["anchor"] else time.time_ns()
        self._start_ns = parse_instant(match["start"]) if match["start"] else self._anchor_ns

    def now_ns(self) -> int:
        """Market time now, ns UTC, in whole microseconds."""
        wall_ns = time.time_ns()
        if self._is_real:
            return wall_ns - wall_ns % 1_000
        market_ns = self._start_ns + int((wall_ns - self._anchor_ns) * self.speed)
        return market_ns - market_ns % 1_000

    def wall_seconds(self, market_s: float) -> float:
        """How many seconds of the wall clock pass while the market's advances by `market_s`."""
        return market_s / self.speed

    def anchored(self) -> str:
        """A spec that reads the same time in any process."""
        if self._is_real:
            return "real"
        start = _EPOCH + timedelta(microseconds=self._start_ns // 1_000)
        return f"{start.isoformat()}@x{self.speed:g}@{self._anchor_ns}"


def parse_instant(text: str) -> int:
    """ns UTC of an ISO instant; one without an offset is IST. Raises ConfigError."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"not an ISO instant: {text!r}") from error
    return to_ns(instant if instant.tzinfo else instant.replace(tzinfo=IST))


def to_ns(instant: datetime) -> int:
    """ns UTC of an aware datetime, exact to the microsecond."""
    since = instant - _EPOCH
    return (since.days * 86_400 + since.seconds) * SECOND_NS + since.microseconds * 1_000


def to_datetime(ns: int) -> datetime:
    """The aware UTC datetime of an instant in ns; what is below a microsecond is cut."""
    return _EPOCH + timedelta(microseconds=ns // 1_000)


@functools.lru_cache(maxsize=4_096)  # one instant stands in hundreds of messages
def to_rfc3339(ns: int) -> str:
    """An instant as RFC 3339 in UTC with microseconds."""
    return to_datetime(ns).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def exchange_date(ns: int) -> date:
    """The exchange's calendar day at an instant."""
    return to_datetime(ns).astimezone(IST).date()


@functools.lru_cache(maxsize=4_096)  # asked for every chain, of a few days
def expiry_ns(expiry: date) -> int:
    """The instant at which options of that expiry settle, ns UTC."""
    return to_ns(datetime.combine(expiry, EXPIRY_TIME, IST))


def years_until(instant_ns: int, now_ns: int) -> float:
    """Years of 365 days from `now_ns` to `instant_ns`; negative once it has passed."""
    return (instant_ns - now_ns) / (SECOND_NS * YEAR_S)
