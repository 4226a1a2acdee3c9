"""Symbols over REST: what there is, found by what people type, and the terms of each."""

from datetime import date
from typing import Any

from litestar import Response, get
from litestar.params import FromPath

from api.errors import invalid_parameter, not_found
from api.gateway import database_of, gateway_of
from api.rest.answers import AnyRequest, answer, instant
from api.rest.history import COST
from api.rest.pages import Name, fields_parameter, keyed_place, page, page_parameters
from api.rest.query import Query, choice, day, flag, listed, number, symbol_of, text, times
from pipeline import history
from pipeline.clock import exchange_date, expiry_ns
from pipeline.database import Row
from pipeline.models import ContractId
from pipeline.symbols import SYMBOL_FIELDS, TYPES, Filter, find_symbols, position, symbol_terms

_TOLD_FIELDS = (*SYMBOL_FIELDS, "is_expired")
_SYMBOLS = Query(
    text("q", "words: `nifty 25000 ce`, `bank 27 jan`, `NIFTY-20260127`; all fit", at_most=100),
    listed("type", "of `underlying`, `chain`, `contract`; all if not said", at_most=3, known=TYPES),
    text("underlying", "those of one underlying", at_most=32),
    day("expiry", "those of one expiry"),
    day("expiry.gte", "expiries from this day; today's if not said, unless `expired`"),
    day("expiry.lte", "expiries to this day"),
    number("strike.gte", "contracts with strikes from here"),
    number("strike.lte", "contracts with strikes to here"),
    choice("kind", "contracts of one kind", "call", "put"),
    flag("expired", "those that have expired too"),
    *page_parameters(),
    fields_parameter(_TOLD_FIELDS),
)
_SYMBOL = Query(times())


@get("/symbols", opt={"scope": "live", "query": _SYMBOLS, "cost": COST})
async def symbols(request: AnyRequest) -> Response[bytes]:
    """Underlyings, chains and contracts, by what people type or by their terms.

    In the order of underlying, expiry, strike and kind, an underlying before its chains, a chain
    before its contracts; `order=desc` begins at the end. `lot` is in units, `tick` in rupees, null
    where not known; a definition held in `[valid_from, valid_to)`, null while it does. What was
    never stored is not found.
    """
    query = _SYMBOLS.parse(request.query_params.multi_items())
    now_ns = gateway_of(request).clock.now_ns()
    given = query["expiry"], query["expiry.gte"]
    today = None if query["expired"] or given != (None, None) else exchange_date(now_ns)
    wanted = Filter(
        text=query["q"] or "",
        types=query["type"] or (),
        underlying=query["underlying"],
        expiry_from=max(filter(None, given), default=today),
        expiry_to=min(filter(None, (query["expiry"], query["expiry.lte"])), default=None),
        strike_from=query["strike.gte"],
        strike_to=query["strike.lte"],
        kind=query["kind"],
    )
    after = keyed_place(request, query, Name, Name, Name, Name)
    try:
        rows = await find_symbols(
            database_of(request),
            wanted,
            query["limit"] + 1,
            after,
            backwards=query["order"] == "desc",
        )
    except ValueError:
        raise invalid_parameter("cursor", "not a cursor of this list") from None
    for row in rows:
        row["is_expired"] = _is_expired(row, now_ns)
    form = query["ts"]
    return page(request, rows, query, {}, None, position, lambda row: _told(row, form))


@get("/symbols/{symbol:str}", opt={"scope": "live", "query": _SYMBOL, "cost": COST})
async def symbol(request: AnyRequest, symbol: FromPath[str]) -> Response[bytes]:
    """One underlying, chain or contract: its terms, and of a contract every definition it had."""
    form = _SYMBOL.parse(request.query_params.multi_items())["ts"]
    found = symbol_of(symbol)
    database = database_of(request)
    row = await symbol_terms(database, found)
    if row is None:
        raise not_found("symbol", symbol)
    row["is_expired"] = _is_expired(row, gateway_of(request).clock.now_ns())
    told = _told(row, form)
    if isinstance(found, ContractId):
        names = ("provider", "security_id", "lot", "valid_from", "valid_to")
        told["definitions"] = [
            _told({name: each[name] for name in names}, form)
            for each in await history.instrument(database, symbol)
        ]
    return answer(request, told, {})


def _is_expired(row: Row, now_ns: int) -> bool | None:
    """An underlying does not expire."""
    expiry: date | None = row["expiry"]
    return None if expiry is None else expiry_ns(expiry) < now_ns


def _told(row: Row, form: str) -> dict[str, Any]:
    return {
        name: instant(value, form) if name.startswith("valid_") else value
        for name, value in row.items()
    }


routes = [symbols, symbol]
