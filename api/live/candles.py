"""Candles of one symbol as they form, `candle:NIFTY:1m`: pure, fed with values and the time.

A candle is of what was received in its interval, and closed once that is over. What comes for it
later still is put into it, and it is told again. Volumes are counted as in stored candles.
"""

import re
from typing import Any

import msgspec

from api.live.channels import Refused
from pipeline.buckets import DAY_S, Candle, bucket_start, check_interval, day_start
from pipeline.errors import DecodeError
from pipeline.models import ChainId, parse_symbol

KEPT = 60  # candles of a snapshot, the one that forms among them
GRACE_NS = 1_000_000_000  # what was received in an interval is here by so long after its end
UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": DAY_S}
_INTERVAL = re.compile(r"([1-9]\d{0,4})([smhd])", re.ASCII)

_encode = msgspec.json.Encoder().encode


class Forming(msgspec.Struct):
    """A candle; `volume` is of contracts alone."""

    starts: int
    open: float
    high: float
    low: float
    close: float
    volume: int | None
    closed: bool


class _Snapshot(msgspec.Struct):
    ts_ingest: int
    spot: float | None


class _Row(msgspec.Struct):
    last: float | None
    volume: int | None


class _Text(msgspec.Struct):
    ts_ingest: int = 0
    row: _Row | None = None
    snapshot: _Snapshot | None = None


_decode = msgspec.json.Decoder(_Text).decode


def quote_of(text: bytes) -> tuple[int, float | None, int | None]:
    """`ts_ingest`, price and volume of the day in a contract's or underlying's latest text.

    Raises msgspec.MsgspecError.
    """
    told = _decode(text)
    if told.snapshot is not None:
        return told.snapshot.ts_ingest, told.snapshot.spot, None
    if told.row is None:
        raise msgspec.ValidationError("neither a contract nor an underlying")
    return told.ts_ingest, told.row.last, told.row.volume


class Series:
    """The newest candles of a symbol at an interval."""

    def __init__(self, interval_s: int) -> None:
        self._interval_s = interval_s
        self._candles: dict[int, Forming] = {}
        self._encoded: dict[int, bytes] = {}
        self._counted: tuple[int, int] | None = None  # exchange day, volume of it so far
        self.newest_ns = 0

    def begin(self, past: list[Candle], day: Candle | None, now_ns: int) -> None:
        """Begin with stored candles, oldest first, and with the whole newest day of a contract."""
        for row in past:
            if None not in (row["open"], row["high"], row["low"], row["close"]):
                stored: dict[str, Any] = {
                    name: row.get(name) for name in Forming.__struct_fields__[:-1]
                }
                self._candles[row["starts"]] = Forming(**stored, closed=False)
            self.newest_ns = max(self.newest_ns, row["closed_at"])
        if day is not None and day["volume"] is not None:
            self._counted = day_start(day["closed_at"]), day["volume"]
        self.pass_time(now_ns)

    def add(self, ts_ns: int, price: float | None, total: int | None) -> bool:
        """Take in a value; False where it changes nothing. `total` is the volume of the day."""
        is_newest = ts_ns >= self.newest_ns
        self.newest_ns = max(self.newest_ns, ts_ns)
        traded = self._traded(ts_ns, total) if is_newest and total is not None else 0
        if price is None:
            return False
        starts = bucket_start(ts_ns, self._interval_s)
        if self._candles and starts < max(self._candles) and starts not in self._candles:
            return False
        one = Forming(starts, price, price, price, price, None if total is None else traded, False)
        held = self._candles.get(starts)
        if held is not None:
            one = _joined(held, one)
            one.close = one.close if is_newest else held.close
        if one == held:
            return False
        self._candles[starts] = one
        self._encoded.pop(starts, None)
        self._close_before(starts)
        return True

    def pass_time(self, now_ns: int) -> bool:
        """Close what is over; False where nothing was."""
        return self._close_before(bucket_start(now_ns - GRACE_NS, self._interval_s))

    def rows(self) -> dict[str, bytes]:
        """The candles by the start of each, oldest first, as JSON."""
        for starts in self._candles.keys() - self._encoded.keys():
            self._encoded[starts] = _encode(_told(self._candles[starts]))
        return {str(starts): self._encoded[starts] for starts in self._candles}

    def _traded(self, ts_ns: int, total: int) -> int:
        """What was traded since the value before; nothing where no value was."""
        day = day_start(ts_ns)
        counted, self._counted = self._counted, (day, total)
        if counted is None:
            return 0
        return max(0, total - (counted[1] if counted[0] == day else 0))

    def _close_before(self, starts_ns: int) -> bool:
        is_changed = False
        for one in self._candles.values():
            if not one.closed and one.starts < starts_ns:
                one.closed = is_changed = True
                self._encoded.pop(one.starts, None)
        for starts in sorted(self._candles)[:-KEPT]:
            del self._candles[starts]
            self._encoded.pop(starts, None)
        return is_changed


def parse_rest(rest: str) -> tuple[str, int]:
    """The symbol and the seconds of `NIFTY:1m`. Raises Refused."""
    symbol, _, text = rest.partition(":")
    match = _INTERVAL.fullmatch(text)
    try:
        if isinstance(parse_symbol(symbol), ChainId):
            raise ValueError("a chain has none")
        seconds = int(match[1]) * UNITS_S[match[2]] if match else 0
        check_interval(seconds)
        if not 1 <= seconds <= DAY_S:
            raise ValueError("an interval is a second to a day")
    except (DecodeError, ValueError) as error:
        detail = f"want candle:NIFTY:1m or of a contract: {error}"[:200]
        raise Refused("malformed_channel", detail) from None
    return symbol, seconds


def _told(candle: Forming) -> dict[str, object]:
    told = msgspec.structs.asdict(candle)
    if candle.volume is None:
        del told["volume"]
    return told


def _joined(before: Forming, after: Forming) -> Forming:
    """One candle of two parts of the same."""
    volumes = [one.volume for one in (before, after) if one.volume is not None]
    return Forming(
        before.starts,
        before.open,
        max(before.high, after.high),
        min(before.low, after.low),
        after.close,
        sum(volumes) if volumes else None,
        before.closed,
    )
