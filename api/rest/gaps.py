"""Gaps over REST: when there are no snapshots, of what, and why."""

from litestar import Response, get

from api.gateway import database_of, gateway_of
from api.rest.answers import AnyRequest
from api.rest.coverage import coverage_of, gap_values
from api.rest.history import COST
from api.rest.pages import (
    Instant,
    Name,
    fields_parameter,
    page,
    page_parameters,
    place_of,
    range_parameters,
)
from api.rest.query import Query, check_symbols, listed, text
from pipeline.coverage import CLOSED, Gap, gap_position, gaps_page
from pipeline.database import Row

CAUSES = ("upstream", "us", CLOSED)
GAP_FIELDS = ("start", "end", "cause", "symbol", "detail", "missed", "provider")

_GAPS = Query(
    text("symbol", "an underlying, a chain or a contract; all of them if not said", at_most=64),
    listed(
        "cause", "`upstream`, `us`, `closed`; the first two if not said", at_most=3, known=CAUSES
    ),
    *range_parameters(),
    *page_parameters(),
    fields_parameter(GAP_FIELDS),
)


@get("/gaps", opt={"scope": "history", "query": _GAPS, "cost": COST})
async def gaps(request: AnyRequest) -> Response[bytes]:
    """Gaps that reach into `[start, end)`: when no snapshots came, of which chain, and why.

    A stored gap is given whole, with its `missed` polls; closed hours follow from the calendar,
    are cut to the range and belong to no symbol. A contract has the gaps of its chain.
    """
    query = _GAPS.parse(request.query_params.multi_items())
    symbol = query["symbol"]
    if symbol is not None:
        check_symbols("symbol", [symbol])
    place = place_of(request, query, Instant, Name, Name)
    start_ns, end_ns = place.start_ns, min(place.end_ns, gateway_of(request).clock.now_ns())
    after = place.after
    rows = await gaps_page(
        database_of(request),
        symbol,
        query["cause"] or CAUSES[:2],
        start_ns,
        max(start_ns, end_ns),
        query["limit"] + 1,
        None if after is None else (after[0], after[1], after[2]),
        query["order"] == "desc",
    )
    form = query["ts"]
    coverage = await coverage_of(request, symbol, place.start_ns, place.end_ns, form)
    meta = {"symbol": symbol, "coverage": coverage}
    return page(request, rows, query, meta, place, gap_position, lambda row: _told(row, form))


def _told(row: Row, form: str) -> Row:
    gap = Gap(**{name: row[name] for name in Gap.__struct_fields__})
    return gap_values(gap, form) | {"provider": row["provider"] or None}


routes = [gaps]
