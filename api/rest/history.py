"""History over REST, from Postgres: contracts and underlyings, page by page."""

from collections.abc import Callable
from datetime import date
from typing import Any

from litestar import Response, get
from litestar.params import FromPath

from api.errors import invalid_parameter, not_found
from api.gateway import database_of, gateway_of
from api.rest.answers import (
    AnyRequest,
    answer,
    decode_cursor,
    encode_cursor,
    instant,
    with_instants,
)
from api.rest.query import Parameter, Query, choice, limit, listed, symbol_of, text, times
from api.rest.query import instant as instant_parameter
from pipeline import history
from pipeline.errors import DecodeError
from pipeline.frames import ROW_FIELDS
from pipeline.models import ChainAggregates, ContractId

DEFAULT_SPAN_NS = 86_400 * 1_000_000_000  # what is given when nobody says from when


def _day() -> Parameter:
    def parse(value: str) -> date:
        try:
            return date.fromisoformat(value)
        except ValueError:
            raise ValueError("want a date such as 2026-01-27") from None

    return Parameter("expiry", "one chain alone", {"type": "string", "format": "date"}, parse)


# What a stored leg has beside what its instrument says, and what a stored snapshot has.
_INSTRUMENT_FIELDS = ("symbol", "strike", "kind", "security_id")
CONTRACT_FIELDS: tuple[str, ...] = (
    *("ts_ingest", "ts_event", "provider", "rev", "spot", "forward"),
    *(name for name in ROW_FIELDS if name not in _INSTRUMENT_FIELDS),
)
SNAPSHOT_FIELDS: tuple[str, ...] = (
    *("ts_ingest", "ts_event", "ts_enrich", "epoch", "seq", "underlying", "chain", "expiry"),
    *("provider", "rev", "model", "rate", "years", "spot", "forward", "discount"),
    *("forward_source", "forward_pairs", "forward_residual", "lot", "n"),
    *(field for field in ChainAggregates.__struct_fields__),
    "smile",
)

_RANGE = (
    instant_parameter("start", "first instant; 24 hours before `end` where not given"),
    instant_parameter("end", "first instant no longer included; now where not given"),
    limit(),
    choice("order", "oldest or newest first", "asc", "desc", default="asc"),
    text("cursor", "`next` of the page before", at_most=200),
    times(),
)


def _fields(known: tuple[str, ...]) -> Parameter:
    return listed("fields", "fields of the rows", at_most=len(known), known=known)


_CONTRACT = Query(*_RANGE, _fields(CONTRACT_FIELDS))
_UNDERLYING = Query(*_RANGE, _fields(SNAPSHOT_FIELDS), _day())


@get("/contracts/{symbol:str}/history", opt={"scope": "history", "query": _CONTRACT})
async def contract_history(request: AnyRequest, symbol: FromPath[str]) -> Response[bytes]:
    """Every stored snapshot of a contract in `[start, end)`."""
    query = _CONTRACT.parse(request.query_params.multi_items())
    if not isinstance(symbol_of(symbol), ContractId):
        raise not_found("contract", symbol)
    database = database_of(request)
    start_ns, end_ns = _range(request, query)
    after_ns = None
    if query["cursor"] is not None:
        (after_ns,) = decode_cursor(query["cursor"], tuple[int])
    rows = await history.contract_history(
        database, symbol, start_ns, end_ns, query["limit"], after_ns, query["order"] == "desc"
    )
    if not rows and after_ns is None and not await history.instrument(database, symbol):
        raise not_found("contract", symbol)
    meta = {"symbol": symbol}
    return _page(request, rows, query, meta, lambda row: encode_cursor(row["ts_ingest"]))


@get("/underlyings/{underlying:str}/history", opt={"scope": "history", "query": _UNDERLYING})
async def underlying_history(request: AnyRequest, underlying: FromPath[str]) -> Response[bytes]:
    """Every stored snapshot of an underlying in `[start, end)`, through one chain or all."""
    query = _UNDERLYING.parse(request.query_params.multi_items())
    if not isinstance(symbol_of(underlying), str):
        raise not_found("underlying", underlying)
    database = database_of(request)
    start_ns, end_ns = _range(request, query)
    after = None
    if query["cursor"] is not None:
        after = decode_cursor(query["cursor"], tuple[int, str])
    try:
        rows = await history.underlying_history(
            database,
            underlying,
            query["expiry"],
            start_ns,
            end_ns,
            query["limit"],
            after,
            query["order"] == "desc",
        )
    except DecodeError:
        raise invalid_parameter("cursor", "not a cursor of this list") from None
    if not rows and after is None:
        known = {row["underlying"] for row in await history.underlyings(database)}
        if underlying not in known:
            raise not_found("underlying", underlying)
    meta = {"symbol": underlying}
    return _page(
        request, rows, query, meta, lambda row: encode_cursor(row["ts_ingest"], row["chain"])
    )


def _range(request: AnyRequest, query: dict[str, Any]) -> tuple[int, int]:
    end_ns = query["end"]
    if end_ns is None:
        end_ns = gateway_of(request).clock.now_ns() + 1_000
    start_ns = query["start"] if query["start"] is not None else max(0, end_ns - DEFAULT_SPAN_NS)
    if start_ns >= end_ns:
        raise invalid_parameter("start", "not before end")
    return start_ns, end_ns


def _page(
    request: AnyRequest,
    rows: list[dict[str, Any]],
    query: dict[str, Any],
    meta: dict[str, Any],
    cursor_of: Callable[[dict[str, Any]], str],
) -> Response[bytes]:
    """A page and what is known of its coverage; a full page is followed by another."""
    form = query["ts"]
    following = cursor_of(rows[-1]) if len(rows) == query["limit"] else None
    stamps = [row["ts_ingest"] for row in rows]
    meta["coverage"] = {
        "rows": len(rows),
        "first": instant(min(stamps), form) if stamps else None,
        "last": instant(max(stamps), form) if stamps else None,
        "complete": None,  # the gaps are not counted yet, so nothing is claimed
    }
    if query["fields"]:
        rows = [{name: row[name] for name in query["fields"]} for row in rows]
    return answer(request, [with_instants(row, form) for row in rows], meta, following=following)
