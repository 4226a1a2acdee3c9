"""Candles over REST, of contracts, chains and underlyings, at any interval."""

import re
from typing import Any

from litestar import Response, get
from litestar.params import FromPath

from api.errors import invalid_parameter, not_found
from api.gateway import database_of
from api.rest.answers import AnyRequest, instant
from api.rest.coverage import coverage_of
from api.rest.history import COST, known_underlying
from api.rest.pages import (
    Instant,
    fields_parameter,
    page,
    page_parameters,
    place_of,
    range_parameters,
)
from api.rest.query import Parameter, Query, choice, symbol_of
from pipeline import history
from pipeline.buckets import DAY_S, check_interval
from pipeline.candles import contract_candles, underlying_candles
from pipeline.database import Row
from pipeline.models import ChainId, ContractId

UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": DAY_S, "w": 7 * DAY_S}
LONGEST_INTERVAL_S = 366 * DAY_S
_INTERVAL = re.compile(r"^([1-9]\d{0,5})([smhdw])$", re.ASCII)
_PRICES = ("starts", "open", "high", "low", "close")
_ENDS = ("n", "closed_at")
_OF_CONTRACTS = ("volume", "open_interest", "iv", "bid", "ask")
CANDLE_FIELDS = (
    *_PRICES,
    *_OF_CONTRACTS,
    *("expiry", "forward", "atm_iv", "put_call_ratio_open_interest", "put_call_ratio_volume"),
    *("max_pain", "skew_25_delta", "gamma_exposure", "expected_move"),
    *("call_open_interest", "put_open_interest", *_ENDS),
)


def interval(default: str) -> Parameter:
    """The length of an interval, in seconds."""

    def parse(text: str) -> int:
        match = _INTERVAL.match(text)
        if match is None:
            raise ValueError("want a number and s, m, h, d or w, for example 5m")
        seconds = int(match[1]) * UNITS_S[match[2]]
        if seconds > LONGEST_INTERVAL_S:
            raise ValueError("longer than a year")
        try:
            check_interval(seconds)
        except ValueError:
            raise ValueError("want seconds up to a day, or whole days") from None
        return seconds

    description = "length, such as 30s, 1m, 75m, 1h, 1d, 1w; above a day in whole days"
    schema = {"type": "string", "pattern": _INTERVAL.pattern, "default": default}
    return Parameter("interval", description, schema, parse, parse(default))


_CANDLES = Query(
    interval("1m"),
    choice(
        "fill",
        "`previous` adds candles where a session was open and nothing was received",
        *("none", "previous"),
        default="none",
    ),
    *range_parameters(),
    *page_parameters(),
    fields_parameter(CANDLE_FIELDS),
)


@get("/candles/{symbol:str}", opt={"scope": "history", "query": _CANDLES, "cost": COST})
async def candles(request: AnyRequest, symbol: FromPath[str]) -> Response[bytes]:
    """Candles that start in `[start, end)`, of a contract, an underlying or a chain.

    A contract's are of its last price, with `volume` and what holds at the close; an underlying's
    of spot, with the aggregates at the close, as its chains saw it: of several the one that
    expires next speaks, and a chain's symbol keeps to that one. The candle of now is there too.
    """
    query = _CANDLES.parse(request.query_params.multi_items())
    found = symbol_of(symbol)
    _check_fields(query["fields"] or (), isinstance(found, ContractId))
    place = place_of(request, query, Instant)
    asked: Row = {
        "interval_s": query["interval"],
        "start_ns": place.start_ns,
        "end_ns": place.end_ns,
        "limit": query["limit"] + 1,
        "after_ns": None if place.after is None else place.after[0],
        "newest_first": query["order"] == "desc",
        "fill": query["fill"],
    }
    database = database_of(request)
    if isinstance(found, ContractId):
        rows = await contract_candles(database, symbol, **asked)
        if not rows and not await history.instrument(database, symbol):
            raise not_found("contract", symbol)
    else:
        underlying, expiry = found if isinstance(found, ChainId) else (found, None)
        rows = await underlying_candles(database, underlying, expiry, **asked)
        if not rows:
            await known_underlying(database, underlying)
    form = query["ts"]
    coverage = await coverage_of(request, symbol, place.start_ns, place.end_ns, form)
    meta = {"symbol": symbol, "interval_s": query["interval"], "coverage": coverage}
    return page(request, rows, query, meta, place, _position, lambda row: _told(row, form))


def _check_fields(asked: tuple[str, ...], is_contract: bool) -> None:
    own = {*_PRICES, *_OF_CONTRACTS, *_ENDS}
    known = own if is_contract else {*CANDLE_FIELDS} - {*_OF_CONTRACTS}
    unknown = [name for name in asked if name not in known]
    if unknown:
        raise invalid_parameter("fields", f"these candles have no {', '.join(unknown)}")


def _position(row: Row) -> tuple[int, ...]:
    return (row["starts"],)


def _told(row: Row, form: str) -> Row:
    """The instants of a candle in the form that was asked for."""
    told: dict[str, Any] = {}
    for name, value in row.items():
        told[name] = instant(value, form) if name in ("starts", "closed_at") else value
    return told


routes = [candles]
