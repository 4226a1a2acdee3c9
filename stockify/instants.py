"""Times and places as people type them: RFC 3339, HH:MM of the exchange's day, or a stream id."""

import re
from datetime import datetime

import msgspec

from pipeline.clock import IST, exchange_date, parse_instant, to_ns
from pipeline.errors import ConfigError

_TIME_OF_DAY = re.compile(r"^(\d{1,2}):(\d{2})(?::(\d{2}))?$")
_STREAM_ID = re.compile(r"^(\d{6,20})(?:-(\d{1,20}))?$")


class Place(msgspec.Struct, frozen=True):
    """A bound of an interval: an instant of receipt (ns) or a stream id; one of them is there."""

    ns: int | None = None
    stream_id: tuple[int, int] | None = None

    def is_reached(self, ts: int, stream_id: str) -> bool:
        """Whether an entry received at `ts` (ns) under that id stands at the place or after it."""
        if self.stream_id is not None:
            return id_order(stream_id) >= self.stream_id
        return ts >= (self.ns or 0)


def instant(text: str, now_ns: int) -> int:
    """ns UTC of RFC 3339 (without an offset IST) or HH:MM[:SS], IST on the exchange's day of now.

    Raises ConfigError.
    """
    match = _TIME_OF_DAY.match(text.strip())
    if match is None:
        return parse_instant(text.strip())
    try:
        day = exchange_date(now_ns)
        hour, minute, second = (int(part or 0) for part in match.groups())
        return to_ns(datetime(day.year, day.month, day.day, hour, minute, second, tzinfo=IST))
    except ValueError as error:
        raise ConfigError(f"not a time of day: {text!r}") from error


def place(text: str, now_ns: int) -> Place:
    """An instant, or a stream id. Raises ConfigError."""
    match = _STREAM_ID.match(text.strip())
    if match is not None:
        return Place(stream_id=(int(match[1]), int(match[2] or 0)))
    try:
        return Place(ns=instant(text, now_ns))
    except ConfigError as error:
        raise ConfigError(f"{text!r}: want RFC 3339, HH:MM in IST, or a stream id") from error


def id_order(stream_id: str) -> tuple[int, int]:
    """What stream ids are ordered by."""
    ms, _, seq = stream_id.partition("-")
    return int(ms), int(seq or 0)
