"""What the chains of an underlying said over time: its metrics by interval, over REST."""

from typing import Any

from litestar import Response, get
from litestar.params import FromPath

from api.errors import invalid_parameter, not_found
from api.gateway import database_of
from api.rest.answers import AnyRequest, instant
from api.rest.candles import interval
from api.rest.coverage import coverage_of, expiry_or_all
from api.rest.history import COST, known_underlying
from api.rest.pages import Instant, page, page_parameters, place_of, range_parameters
from api.rest.query import Query, day, integer_between, listed, symbol_of
from pipeline.candles import underlying_candles
from pipeline.database import Database, Row
from pipeline.standing import (
    DAYS_DEFAULT,
    DAYS_MAXIMUM,
    LEAST_DAYS,
    daily_closes,
    standings,
)

METRICS = (
    *("spot", "forward", "atm_iv", "put_call_ratio_open_interest", "put_call_ratio_volume"),
    *("max_pain", "skew_25_delta", "gamma_exposure", "expected_move"),
    *("call_open_interest", "put_open_interest"),
)
RANKED = ("iv_rank", "iv_percentile")

_SERIES = Query(
    listed(
        "metric",
        f"of {', '.join((*METRICS, *RANKED))}; all but the last two if not said",
        at_most=len(METRICS) + len(RANKED),
        known=(*METRICS, *RANKED),
    ),
    interval("5m"),
    day("expiry", "of one chain; else of the one that expires next"),
    integer_between("days", "closes that iv_rank looks back on; 252 if not said", 2, DAYS_MAXIMUM),
    *range_parameters(),
    *page_parameters(),
)


@get(
    "/underlyings/{underlying:str}/analytics/history",
    opt={"scope": "history", "query": _SERIES, "cost": COST},
)
async def analytics_history(request: AnyRequest, underlying: FromPath[str]) -> Response[bytes]:
    """Metrics of an underlying at the end of each interval that starts in `[start, end)`.

    A row has `starts`, `expiry` (of the chain that spoke), `closed_at` (of its last snapshot) and
    the metrics. `iv_rank` and `iv_percentile`, both from 0 to 1, are of the chain that expires next
    with a week to go, whose volatility is `iv_ranked`, among the closes of the `days` exchange days
    before. An interval in which nothing was received has no row.
    """
    query = _SERIES.parse(request.query_params.multi_items())
    if not isinstance(symbol_of(underlying), str):
        raise not_found("underlying", underlying)
    metrics = query["metric"] or METRICS
    ranked = [name for name in metrics if name in RANKED]
    if ranked and query["expiry"] is not None:
        raise invalid_parameter("metric", f"{ranked[0]} is of the underlying, not of one expiry")
    database = database_of(request)
    place = place_of(request, query, Instant)
    rows = await underlying_candles(
        *(database, underlying, query["expiry"], query["interval"], place.start_ns, place.end_ns),
        limit=query["limit"] + 1,
        after_ns=None if place.after is None else place.after[0],
        newest_first=query["order"] == "desc",
    )
    if not rows:
        await known_underlying(database, underlying)
    for row in rows:
        row["spot"] = row["close"]
    names = list(metrics)
    if ranked and rows:
        await _rank(database, underlying, rows, query["interval"], query["days"] or DAYS_DEFAULT)
    if ranked:
        names.append("iv_ranked")
    form = query["ts"]
    symbol = expiry_or_all(underlying, query["expiry"])
    coverage = await coverage_of(request, symbol, place.start_ns, place.end_ns, form)
    meta = {"underlying": underlying, "interval_s": query["interval"], "coverage": coverage}
    return page(
        *(request, rows, query, meta, place),
        position_of=lambda row: (row["starts"],),
        told=lambda row: _told(row, names, form),
    )


async def _rank(
    database: Database, underlying: str, rows: list[Row], interval_s: int, days: int
) -> None:
    """Put what the volatility of each row is among those before into it."""
    first = min(row["starts"] for row in rows)
    last = max(row["starts"] for row in rows)
    ranked = await underlying_candles(
        *(database, underlying, None, interval_s, first, last + 1),
        limit=len(rows),
        least_days=LEAST_DAYS,
    )
    iv_at = {candle["starts"]: candle["atm_iv"] for candle in ranked}
    closes = await daily_closes(database, underlying, first, last + 1, days)
    points = [(row["starts"], iv_at.get(row["starts"])) for row in rows]
    for row, standing in zip(rows, standings(points, closes, days), strict=True):
        row["iv_ranked"] = standing.iv
        row["iv_rank"], row["iv_percentile"] = standing.rank, standing.percentile


def _told(row: Row, names: list[str], form: str) -> dict[str, Any]:
    told: dict[str, Any] = {
        "starts": instant(row["starts"], form),
        "closed_at": instant(row["closed_at"], form),
        "expiry": row["expiry"],
        "n": row["n"],
    }
    return told | {name: row[name] for name in names}


routes = [analytics_history]
