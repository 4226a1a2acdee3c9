"""What the chains of an underlying say taken together: its volatility surface, the term structure
of its volatility, and the aggregates of each chain; now, or as of an instant of the past.
"""

import math
from datetime import date
from typing import Any

import msgspec
import numpy as np
from litestar import Response, get
from litestar.params import FromPath

from api.gateway import database_of, gateway_of
from api.rest.answers import AnyRequest, answer, instant, not_modified, with_instants
from api.rest.history import COST
from api.rest.pages import fields_parameter
from api.rest.query import Parameter, Query, integer_between, times
from api.rest.query import instant as instant_parameter
from api.rest.seen import SeenHeaders, expiry_bounds, is_within, seen_headers
from pipeline.models import ChainAggregates, ChainHeader, chain_symbol
from pipeline.standing import (
    DAYS_MAXIMUM,
    LEAST_DAYS,
    Standing,
    daily_closes,
    standings,
)
from pipeline.surface import Surface, surface, total_variance

MONEYNESS = tuple(round(0.90 + 0.01 * n, 2) for n in range(21))
MONEYNESS_MAXIMUM = 101
MONEYNESS_BOUNDS = (0.2, 5.0)
REACH = 5.0  # deviations from the forward; farther out a smile is nobody's opinion
DAYS_A_YEAR = 365


def moneyness() -> Parameter:
    """The points of the grid."""
    low, high = MONEYNESS_BOUNDS

    def parse(text: str) -> tuple[float, ...]:
        try:
            points = tuple(float(part) for part in text.split(","))
        except ValueError:
            raise ValueError("want numbers, comma-separated") from None
        if len(points) > MONEYNESS_MAXIMUM or not all(low <= point <= high for point in points):
            raise ValueError(f"want at most {MONEYNESS_MAXIMUM} numbers from {low} to {high}")
        return points

    text = "strike over forward at each point of the grid, comma-separated; 0.90 to 1.10 by 0.01"
    items = {"type": "number", "minimum": low, "maximum": high}
    schema = {"type": "array", "items": items, "minItems": 1, "maxItems": MONEYNESS_MAXIMUM}
    return Parameter("moneyness", text, schema, parse, MONEYNESS)


_AS_OF = instant_parameter("as_of", "as it was at this instant, from history")
_WITH_PAST = {"as_of": "history"}
TERM_FIELDS = (
    *("expiry", "chain", "ts_ingest", "years", "spot", "forward", "basis", "carry"),
    *("atm_strike", "atm_iv", "forward_iv", "expected_move", "skew_25_delta"),
)
AGGREGATE_FIELDS = (
    *("expiry", "chain", "ts_ingest", "years", "spot", "forward", "lot", "n"),
    *ChainAggregates.__struct_fields__,
)
_SURFACE = Query(moneyness(), *expiry_bounds(), _AS_OF, times())
_TERMS = Query(*expiry_bounds(), fields_parameter(TERM_FIELDS), _AS_OF, times())
_ANALYTICS = Query(
    integer_between(
        "days",
        "tell in `meta.iv` where the volatility at the money stands among so many daily closes;"
        " from history",
        2,
        DAYS_MAXIMUM,
    ),
    *expiry_bounds(),
    fields_parameter(AGGREGATE_FIELDS),
    _AS_OF,
    times(),
)


@get(
    "/underlyings/{underlying:str}/surface",
    opt={
        "scope": "live",
        "scope_with": _WITH_PAST,
        "query": _SURFACE,
        "cost": 2,
        "is_tagged": True,
    },
)
async def volatility_surface(request: AnyRequest, underlying: FromPath[str]) -> Response[bytes]:
    """The volatility surface of an underlying: the smile of each expiry to come, nearest first.

    `iv` holds the fitted volatility at each point of `meta.moneyness`, null more than five
    deviations from the forward. `flags`: `poor` and `arbitrage` are the smile's own status,
    `calendar` says that the expiry has less total variance somewhere than the one before it;
    `meta.gaps` says where. What was not received, or has no smile, is null. With `as_of`, which
    needs the scope `history`, it is made of the snapshots stored last before.
    """
    query = _SURFACE.parse(request.query_params.multi_items())
    seen = await seen_headers(request, underlying, query, query["moneyness"], *_wanted(query))
    unchanged = _unchanged(request, seen)
    if unchanged is not None:
        return unchanged
    made = surface(header for header in seen.headers.values() if header is not None)
    gaps = made.gaps()
    ivs = _grid(made, query["moneyness"])
    later = {gap.later for gap in gaps}
    data = [
        with_instants(
            _row(underlying, day, header, ivs.get(day), has_gap=day in later), query["ts"]
        )
        for day, header in seen.headers.items()
        if is_within(query, day)
    ]
    meta = _meta(underlying, seen, query, len(data)) | {
        "moneyness": query["moneyness"],
        "gaps": [
            {
                "earlier": gap.earlier,
                "later": gap.later,
                "moneyness": math.exp(gap.k),
                "shortfall": gap.shortfall,
            }
            for gap in gaps
        ],
    }
    return answer(request, data, meta, tag=seen.tag)


@get(
    "/underlyings/{underlying:str}/term-structure",
    opt={
        "scope": "live",
        "scope_with": _WITH_PAST,
        "query": _TERMS,
        "cost": 2,
        "is_tagged": True,
    },
)
async def term_structure(request: AnyRequest, underlying: FromPath[str]) -> Response[bytes]:
    """Volatility and forward by expiry, nearest first.

    `forward_iv` is the volatility at the money between the expiry before and this one, null where
    total variance falls between them; `basis` is forward less spot, rupees, and `carry` its rate,
    decimal per year. What was not received is null.
    """
    query = _TERMS.parse(request.query_params.multi_items())
    seen = await seen_headers(request, underlying, query, *_wanted(query))
    unchanged = _unchanged(request, seen)
    if unchanged is not None:
        return unchanged
    data = []
    before = None
    for day, header in seen.headers.items():
        if is_within(query, day):
            data.append(_cut(_term(underlying, day, header, before), query))
        before = header if header is not None and header.aggregates.atm_iv else before
    return answer(request, data, _meta(underlying, seen, query, len(data)), tag=seen.tag)


@get(
    "/underlyings/{underlying:str}/analytics",
    opt={
        "scope": "live",
        "scope_with": _WITH_PAST | {"days": "history"},
        "query": _ANALYTICS,
        "cost": COST,
        "is_tagged": True,
    },
)
async def analytics(request: AnyRequest, underlying: FromPath[str]) -> Response[bytes]:
    """The aggregates of each chain to come, nearest first.

    With `days`, `meta.iv` tells where the volatility at the money of the chain that settles next
    with a week to go stands among the closes of so many exchange days before: `rank` between the
    lowest and the highest of them, `percentile` by their number, both from 0 to 1.
    """
    query = _ANALYTICS.parse(request.query_params.multi_items())
    seen = await seen_headers(request, underlying, query, *_wanted(query))
    if query["days"] is None:
        unchanged = _unchanged(request, seen)
        if unchanged is not None:
            return unchanged
    data = []
    for day, header in seen.headers.items():
        if not is_within(query, day):
            continue
        told = _head(underlying, day, header)
        told |= {"lot": header.lot if header else None, "n": header.n if header else None}
        aggregates = header.aggregates if header else ChainAggregates()
        told |= msgspec.structs.asdict(aggregates)
        data.append(_cut(told, query))
    meta = _meta(underlying, seen, query, len(data))
    if query["days"] is None:
        return answer(request, data, meta, tag=seen.tag)
    meta["iv"] = msgspec.structs.asdict(
        await _standing(request, underlying, seen, query["days"], query["as_of"])
    )
    return answer(request, data, meta)


async def _standing(
    request: AnyRequest, underlying: str, seen: SeenHeaders, days: int, at_ns: int | None
) -> Standing:
    now_ns = gateway_of(request).clock.now_ns() if at_ns is None else at_ns
    headers = [header for header in seen.headers.values() if header is not None]
    iv = next(
        (one.aggregates.atm_iv for one in headers if one.years * DAYS_A_YEAR >= LEAST_DAYS), None
    )
    closes = await daily_closes(database_of(request), underlying, now_ns, now_ns, days)
    return standings([(now_ns, iv)], closes, days)[0]


def _unchanged(request: AnyRequest, seen: SeenHeaders) -> Response[bytes] | None:
    return None if seen.tag is None else not_modified(request, seen.tag)


def _wanted(query: dict[str, Any]) -> tuple[object, ...]:
    """What of the rows is asked for, as far as it is a part of the tag."""
    return query["expiry.gte"], query["expiry.lte"], query.get("fields")


def _cut(row: dict[str, Any], query: dict[str, Any]) -> dict[str, Any]:
    """The fields of a row that are asked for, with its instants in their form."""
    told = with_instants(row, query["ts"])
    return {name: told[name] for name in query["fields"]} if query["fields"] else told


def _meta(underlying: str, seen: SeenHeaders, query: dict[str, Any], rows: int) -> dict[str, Any]:
    meta: dict[str, Any] = {"underlying": underlying, "n": rows}
    if query["as_of"] is not None:
        meta |= {"as_of": instant(query["as_of"], query["ts"]), "coverage": seen.coverage}
    return meta


def _grid(made: Surface, points: tuple[float, ...]) -> dict[date, list[float | None]]:
    """Volatility of each expiry at each point; None beyond its reach."""
    k = np.log(np.array(points))
    found = {}
    for one in made.slices:
        reach = REACH * math.sqrt(total_variance(one.smile, 0.0))
        iv = made.iv(k, one.years)
        is_known = (np.abs(k) <= reach) & np.isfinite(iv)
        pairs = zip(iv.tolist(), is_known.tolist(), strict=True)
        found[one.expiry] = [value if known else None for value, known in pairs]
    return found


def _head(underlying: str, expiry: date, header: ChainHeader | None) -> dict[str, Any]:
    """What every row begins with."""
    return {
        "expiry": expiry,
        "chain": chain_symbol(underlying, expiry),
        "ts_ingest": header.ts_ingest if header else None,
        "years": header.years if header else None,
        "spot": header.spot if header else None,
        "forward": header.forward if header else None,
    }


def _term(
    underlying: str, expiry: date, header: ChainHeader | None, before: ChainHeader | None
) -> dict[str, Any]:
    row = _head(underlying, expiry, header)
    empty = ("basis", "carry", "atm_strike", "atm_iv", "forward_iv", "expected_move")
    row |= dict.fromkeys((*empty, "skew_25_delta"))
    if header is None:
        return row
    told = header.aggregates
    for name in ("atm_strike", "atm_iv", "expected_move", "skew_25_delta"):
        row[name] = getattr(told, name)
    row["forward_iv"] = _forward_iv(header, before)
    if header.spot and header.forward:
        row["basis"] = header.forward - header.spot
        if header.years > 0:
            row["carry"] = math.log(header.forward / header.spot) / header.years
    return row


def _forward_iv(header: ChainHeader, before: ChainHeader | None) -> float | None:
    """The volatility from one expiry to the next; of the first its own."""
    iv = header.aggregates.atm_iv
    earlier = before.aggregates.atm_iv if before else None
    if iv is None or before is None or earlier is None:
        return iv
    variance = iv * iv * header.years - earlier * earlier * before.years
    years = header.years - before.years
    return math.sqrt(variance / years) if variance >= 0 and years > 0 else None


def _row(
    underlying: str,
    expiry: date,
    header: ChainHeader | None,
    iv: list[float | None] | None,
    *,
    has_gap: bool,
) -> dict[str, Any]:
    smile = header.smile if header else None
    flags = [smile.status] if smile and smile.status != "ok" else []
    return _head(underlying, expiry, header) | {
        "atm_iv": header.aggregates.atm_iv if header else None,
        "smile": msgspec.structs.asdict(smile) if smile else None,
        "flags": [*flags, "calendar"] if has_gap else flags,
        "iv": iv,
    }


routes = [volatility_surface, term_structure, analytics]
