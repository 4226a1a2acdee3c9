"""Ticks over REST: every update of a contract, as the worker of a live feed stores them."""

from litestar import Response, get
from litestar.params import FromPath

from api.errors import not_found
from api.gateway import database_of
from api.rest.answers import AnyRequest, with_instants
from api.rest.coverage import uncounted
from api.rest.history import COST
from api.rest.pages import (
    Instant,
    Small,
    fields_parameter,
    page,
    page_parameters,
    place_of,
    range_parameters,
)
from api.rest.query import Query, symbol_of
from pipeline.database import Row
from pipeline.models import ContractId
from pipeline.ticks import TICK_FIELDS, contract_ticks

_TICKS = Query(*range_parameters(), *page_parameters(), fields_parameter(TICK_FIELDS))


@get("/contracts/{symbol:str}/ticks", opt={"scope": "history", "query": _TICKS, "cost": COST})
async def ticks(request: AnyRequest, symbol: FromPath[str]) -> Response[bytes]:
    """Every stored update of a contract in `[start, end)`.

    Ticks of one instant are told apart by `place`. `meta.coverage` counts nothing, since a
    feed says not how much was to come: it has the closed hours alone.
    """
    query = _TICKS.parse(request.query_params.multi_items())
    if not isinstance(symbol_of(symbol), ContractId):
        raise not_found("contract", symbol)
    place = place_of(request, query, Instant, Small, Small)
    rows = await contract_ticks(
        database_of(request),
        symbol,
        place.start_ns,
        place.end_ns,
        query["limit"] + 1,
        place.after,
        query["order"] == "desc",
    )
    if rows is None:
        raise not_found("contract", symbol)
    form = query["ts"]
    coverage = uncounted(request, symbol, place.start_ns, place.end_ns, form)
    meta = {"symbol": symbol, "coverage": coverage}
    return page(request, rows, query, meta, place, _position, lambda row: _told(row, form))


def _told(row: Row, form: str) -> Row:
    return {n: v for n, v in with_instants(row, form).items() if n != "instrument_id"}


def _position(row: Row) -> tuple[int, ...]:
    return row["ts_ingest"], row["place"], row["instrument_id"]


routes = [ticks]
