"""History over REST, from Postgres: contracts and underlyings, page by page."""

from typing import Any

from litestar import Response, get
from litestar.params import FromPath

from api.errors import invalid_parameter, not_found
from api.gateway import database_of
from api.rest.answers import AnyRequest
from api.rest.coverage import coverage_of, expiry_or_all
from api.rest.pages import (
    Instant,
    Name,
    fields_parameter,
    page,
    page_parameters,
    place_of,
    range_parameters,
)
from api.rest.query import Query, day, symbol_of
from pipeline import history
from pipeline.database import Database
from pipeline.errors import DecodeError
from pipeline.frames import ROW_FIELDS
from pipeline.models import ChainAggregates, ContractId

COST = 5  # of a page from the database; what an answer from Redis costs is 1

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

_RANGE = (*range_parameters(), *page_parameters())
_CONTRACT = Query(*_RANGE, fields_parameter(CONTRACT_FIELDS))
_UNDERLYING = Query(
    *_RANGE, fields_parameter(SNAPSHOT_FIELDS), day("expiry", "snapshots of one chain alone")
)


@get("/contracts/{symbol:str}/history", opt={"scope": "history", "query": _CONTRACT, "cost": COST})
async def contract_history(request: AnyRequest, symbol: FromPath[str]) -> Response[bytes]:
    """Every stored snapshot of a contract in `[start, end)`.

    `meta.coverage` is that of its chain over the whole range, whichever page this is.
    """
    query = _CONTRACT.parse(request.query_params.multi_items())
    if not isinstance(symbol_of(symbol), ContractId):
        raise not_found("contract", symbol)
    database = database_of(request)
    place = place_of(request, query, Instant)
    rows = await history.contract_history(
        database,
        symbol,
        place.start_ns,
        place.end_ns,
        query["limit"] + 1,
        None if place.after is None else place.after[0],
        query["order"] == "desc",
    )
    if not rows and place.after is None and not await history.instrument(database, symbol):
        raise not_found("contract", symbol)
    coverage = await coverage_of(request, symbol, place.start_ns, place.end_ns, query["ts"])
    meta = {"symbol": symbol, "coverage": coverage}
    return page(request, rows, query, meta, place, lambda row: (row["ts_ingest"],))


@get(
    "/underlyings/{underlying:str}/history",
    opt={"scope": "history", "query": _UNDERLYING, "cost": COST},
)
async def underlying_history(request: AnyRequest, underlying: FromPath[str]) -> Response[bytes]:
    """Every stored snapshot of an underlying in `[start, end)`, through one chain or all.

    `meta.coverage` is that of the chain, or of all chains, over the whole range.
    """
    query = _UNDERLYING.parse(request.query_params.multi_items())
    if not isinstance(symbol_of(underlying), str):
        raise not_found("underlying", underlying)
    database = database_of(request)
    place = place_of(request, query, Instant, Name)
    after: Any = place.after
    try:
        rows = await history.underlying_history(
            database,
            underlying,
            query["expiry"],
            place.start_ns,
            place.end_ns,
            query["limit"] + 1,
            after,
            query["order"] == "desc",
        )
    except DecodeError:
        raise invalid_parameter("cursor", "not a cursor of this list") from None
    if not rows and place.after is None:
        await known_underlying(database, underlying)
    symbol = expiry_or_all(underlying, query["expiry"])
    coverage = await coverage_of(request, symbol, place.start_ns, place.end_ns, query["ts"])
    meta = {"symbol": underlying, "coverage": coverage}
    return page(request, rows, query, meta, place, lambda row: (row["ts_ingest"], row["chain"]))


async def known_underlying(database: Database, underlying: str) -> None:
    """Raises ApiError 404 where nothing is stored of the underlying."""
    if underlying not in {row["underlying"] for row in await history.underlyings(database)}:
        raise not_found("underlying", underlying)


routes = [contract_history, underlying_history]
