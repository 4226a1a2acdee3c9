"""One chain strike by strike: its smile and its open interest; now, or as of an instant."""

import math
from collections.abc import Callable
from typing import Any

import msgspec
from litestar import Response, get
from litestar.params import FromPath

from api.rest.answers import AnyRequest, answer, instant, not_modified
from api.rest.pages import fields_parameter
from api.rest.query import Query, number, times
from api.rest.query import instant as instant_parameter
from api.rest.seen import Seen, expiry_parameter, seen_chain
from pipeline.models import ChainHeader

_Leg = dict[str, Any]
_SIDES = ("call", "put")
SMILE_FIELDS = (
    *("strike", "moneyness", "iv", "iv_fit", "call_iv", "put_iv"),
    *("call_status", "put_status", "call_delta", "put_delta"),
)
INTEREST_FIELDS = (
    "strike",
    *(f"{side}_{name}" for side in _SIDES for name in ("open_interest", "change", "volume")),
    "gamma_exposure",
)


def _query(fields: tuple[str, ...]) -> Query:
    return Query(
        expiry_parameter(),
        number("strike.gte", "strikes from here"),
        number("strike.lte", "strikes to here"),
        fields_parameter(fields),
        instant_parameter("as_of", "as it was at this instant, from history"),
        times(),
    )


_SMILE, _INTEREST = _query(SMILE_FIELDS), _query(INTEREST_FIELDS)
_OPTIONS = {
    "scope": "live",
    "scope_with": {"as_of": "history"},
    "cost": 2,
    "is_tagged": True,
}


@get("/underlyings/{underlying:str}/smile", opt=_OPTIONS | {"query": _SMILE})
async def smile(request: AnyRequest, underlying: FromPath[str]) -> Response[bytes]:
    """The smile of one chain: a row a strike, and the curve that was fitted, in `meta.smile`.

    `iv` is that of the side out of the money (the call from the forward on), `iv_fit` that of the
    curve, `moneyness` strike over forward. `call_status`, `put_status` are the legs' `iv_status`.
    """
    return await _by_strike(request, underlying, _SMILE, _smile_row)


@get("/underlyings/{underlying:str}/oi", opt=_OPTIONS | {"query": _INTEREST})
async def open_interest(request: AnyRequest, underlying: FromPath[str]) -> Response[bytes]:
    """Open interest of one chain: a row a strike, with what changed since the session before.

    In units. `gamma_exposure` is the strike's part of the chain's, rupees of delta for 1 % of the
    forward. `meta` has the totals, the put/call ratios and max pain.
    """
    return await _by_strike(request, underlying, _INTEREST, _interest_row)


async def _by_strike(
    request: AnyRequest,
    underlying: str,
    known: Query,
    row_of: Callable[[ChainHeader, float, _Leg, _Leg], dict[str, Any]],
) -> Response[bytes]:
    query = known.parse(request.query_params.multi_items())
    bounds, fields = (query["strike.gte"], query["strike.lte"]), query["fields"]
    seen = await seen_chain(request, underlying, query, request.url.path, bounds, fields)
    unchanged = None if seen.tag is None else not_modified(request, seen.tag)
    if unchanged is not None:
        return unchanged
    low = -math.inf if bounds[0] is None else bounds[0]
    high = math.inf if bounds[1] is None else bounds[1]
    pairs: dict[float, dict[str, _Leg]] = {}
    for leg in seen.legs:
        if low <= leg["strike"] <= high:
            pairs.setdefault(leg["strike"], {})[leg["kind"]] = leg
    data = [
        row_of(seen.header, strike, pair.get("call", {}), pair.get("put", {}))
        for strike, pair in pairs.items()
    ]
    if fields:
        data = [{name: row[name] for name in fields} for row in data]
    return answer(request, data, _meta(seen, len(data), query), tag=seen.tag)


def _smile_row(header: ChainHeader, strike: float, call: _Leg, put: _Leg) -> dict[str, Any]:
    forward = header.forward
    nearer = call if forward is not None and strike >= forward else put
    fitted = call.get("iv_fit")
    return {
        "strike": strike,
        "moneyness": strike / forward if forward else None,
        "iv": nearer.get("iv"),
        "iv_fit": put.get("iv_fit") if fitted is None else fitted,
        "call_iv": call.get("iv"),
        "put_iv": put.get("iv"),
        "call_status": call.get("iv_status"),
        "put_status": put.get("iv_status"),
        "call_delta": call.get("delta"),
        "put_delta": put.get("delta"),
    }


def _interest_row(header: ChainHeader, strike: float, call: _Leg, put: _Leg) -> dict[str, Any]:
    row: dict[str, Any] = {"strike": strike}
    for side, leg in zip(_SIDES, (call, put), strict=True):
        now, before = leg.get("open_interest"), leg.get("previous_open_interest")
        row[f"{side}_open_interest"] = now
        row[f"{side}_change"] = None if now is None or before is None else now - before
        row[f"{side}_volume"] = leg.get("volume")
    row["gamma_exposure"] = _exposure(header, call, put)
    return row


def _exposure(header: ChainHeader, call: _Leg, put: _Leg) -> float | None:
    told = [
        sign * leg["gamma"] * leg["open_interest"]
        for sign, leg in ((1, call), (-1, put))
        if leg.get("gamma") is not None and leg.get("open_interest") is not None
    ]
    if not told or header.forward is None:
        return None
    return float(sum(told)) * header.forward**2 / 100


def _meta(seen: Seen, n: int, query: dict[str, Any]) -> dict[str, Any]:
    header = seen.header
    meta = {
        "underlying": header.underlying,
        "chain": header.chain,
        "expiry": header.expiry,
        "ts_ingest": instant(header.ts_ingest, query["ts"]),
        "years": header.years,
        "spot": header.spot,
        "forward": header.forward,
        "rows": n,
        "smile": None if header.smile is None else msgspec.structs.asdict(header.smile),
        "aggregates": msgspec.structs.asdict(header.aggregates),
    }
    if query["as_of"] is not None:
        meta |= {"as_of": instant(query["as_of"], query["ts"]), "coverage": seen.coverage}
    return meta


routes = [smile, open_interest]
