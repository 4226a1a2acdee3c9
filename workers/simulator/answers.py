"""The provider's wire form: exact JSON text, written by hand.

Integral numbers have no decimals, nothing is `null` but 0, Greeks have five decimals of which
trailing zeros are cut (so that a theta that rounds to nothing from below reads `-0`), strikes are
six-decimal keys in ascending order, and keys stand where the provider puts them. Nothing here
knows where a number comes from.
"""

import math
from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from functools import lru_cache

import msgspec

from workers.simulator.instruments import DepthLevel, Instrument
from workers.simulator.market import ChainColumns, Floats

ERRORS = {
    800: (500, "Internal Server Error"),
    804: (400, "Requested number of instruments exceeds limit"),
    805: (429, "Too many requests. Further requests may result in the user being blocked."),
    806: (401, "Data APIs not subscribed"),
    807: (401, "Access token is expired"),
    808: (401, "Authentication Failed - Client ID or Access Token invalid"),
    809: (401, "Access token is invalid"),
    810: (401, "Client ID is invalid"),
    811: (400, "Invalid Expiry Date"),
    812: (400, "Invalid Date Format"),
    813: (400, "Invalid SecurityId"),
    814: (400, "Invalid Request"),
}

_LEG_2025 = (
    '{"greeks":{"delta":%s,"theta":%s,"gamma":%s,"vega":%s},"implied_volatility":%s,'
    '"last_price":%s,"oi":%d,"previous_close_price":%s,"previous_oi":%d,"previous_volume":%d,'
    '"top_ask_price":%s,"top_ask_quantity":%d,"top_bid_price":%s,"top_bid_quantity":%d,'
    '"volume":%d}'
)
_LEG = _LEG_2025.replace('{"greeks"', '{"average_price":%s,"greeks"').replace(
    '"top_ask_price"', '"security_id":%d,"top_ask_price"'
)


def number(value: float) -> str:
    """A number as the provider writes it: shortest digits, no `.0`, no exponent."""
    text = repr(value)
    if text.endswith(".0"):
        return text[:-2]
    return format(Decimal(text), "f") if "e" in text else text


# Prices are multiples of a tick: the same few thousand texts all day.
price = lru_cache(maxsize=65_536)(number)


def rounded(value: float) -> str:
    """A Greek: five decimals without trailing zeros, `-0` where it vanishes from below."""
    if -0.000005 < value < 0.000005:  # half of all legs: nothing to format
        return "0" if math.copysign(1.0, value) > 0.0 else "-0"
    text = f"{value:.5f}".rstrip("0")
    return text[:-1] if text[-1] == "." else text


def chain(columns: ChainColumns) -> str:
    """A body of /v2/optionchain; without ids, in the form of the year 2025."""
    before = [
        *([rounded(value) for value in greek.tolist()] for greek in _greeks(columns)),
        [number(value) for value in columns.iv_percent.tolist()],
        [price(value) for value in columns.last.tolist()],
        columns.open_interest.tolist(),
        [price(value) for value in columns.previous_close.tolist()],
        columns.previous_open_interest.tolist(),
        columns.previous_volume.tolist(),
    ]
    after = [
        [price(value) for value in columns.ask.tolist()],
        columns.ask_quantity.tolist(),
        [price(value) for value in columns.bid.tolist()],
        columns.bid_quantity.tolist(),
        columns.volume.tolist(),
    ]
    if columns.ids is None:
        legs = [_LEG_2025 % leg for leg in zip(*before, *after, strict=True)]
    else:
        average = [number(value) for value in columns.average.tolist()]
        columns_in_order = average, *before, columns.ids.tolist(), *after
        legs = [_LEG % leg for leg in zip(*columns_in_order, strict=True)]
    pairs = zip(columns.strikes.tolist(), legs[::2], legs[1::2], strict=True)
    strikes = ",".join([f'"{strike:.6f}":{{"ce":{ce},"pe":{pe}}}' for strike, ce, pe in pairs])
    return success(f'{{"last_price":{number(columns.spot)},"oc":{{{strikes}}}}}')


def expiry_list(days: Iterable[date]) -> str:
    """A body of /v2/optionchain/expirylist."""
    return success("[" + ",".join(f'"{day}"' for day in days) + "]")


def feed(kind: str, found: Mapping[str, Mapping[int, Instrument]]) -> str:
    """A body of /v2/marketfeed/ltp, ohlc or quote: segments and ids in the order of their text."""
    write = {"ltp": _last, "ohlc": _ohlc, "quote": _quote}[kind]
    segments = []
    for segment in sorted(found):
        ids = sorted((str(number), one) for number, one in found[segment].items())
        instruments = ",".join(f'"{text}":{{{write(one)}}}' for text, one in ids)
        segments.append(f'"{segment}":{{{instruments}}}')
    return success("{" + ",".join(segments) + "}")


def success(data: str) -> str:
    """Any data in the envelope of a success."""
    return f'{{"data":{data},"status":"success"}}'


def data_error(code: int) -> tuple[int, str]:
    """HTTP status and body of an error of the data endpoints."""
    status, text = ERRORS[code]
    return status, f'{{"data":{{"{code}":"{text}"}},"status":"failed"}}'


def http_error(status: int, reason: str, path: str, ts_ns: int) -> str:
    """The body for a path or method that does not exist."""
    body = {"timestamp": ts_ns // 1_000_000, "status": status, "error": reason, "path": path}
    return msgspec.json.encode(body).decode()


def _greeks(columns: ChainColumns) -> tuple[Floats, ...]:
    return columns.delta, columns.theta, columns.gamma, columns.vega  # in the wire's order


def _last(one: Instrument) -> str:
    return f'"last_price":{number(one.last)}'


def _day(one: Instrument) -> str:
    return (
        f'"ohlc":{{"open":{number(one.open)},"close":{number(one.previous_close)},'
        f'"high":{number(one.high)},"low":{number(one.low)}}}'
    )


def _ohlc(one: Instrument) -> str:
    return f"{_last(one)},{_day(one)}"


def _quote(one: Instrument) -> str:
    return (
        f'"average_price":{number(one.average)},"buy_quantity":{one.buy_quantity},'
        f'"depth":{{"buy":[{_levels(one.bids)}],"sell":[{_levels(one.asks)}]}},{_last(one)},'
        f'"last_quantity":{one.last_quantity},"last_trade_time":"{one.last_trade_time}",'
        f'"lower_circuit_limit":{number(one.lower_limit)},"net_change":{number(one.net_change)},'
        f'{_day(one)},"oi":{one.open_interest},"oi_day_high":{one.open_interest_high},'
        f'"oi_day_low":{one.open_interest_low},"sell_quantity":{one.sell_quantity},'
        f'"upper_circuit_limit":{number(one.upper_limit)},"volume":{one.volume}'
    )


def _levels(levels: Iterable[DepthLevel]) -> str:
    return ",".join(
        f'{{"quantity":{level.quantity},"orders":{level.orders},"price":{number(level.price)}}}'
        for level in levels
    )
