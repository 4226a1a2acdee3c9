"""What follows from the latest chains of an underlying taken together: its volatility surface."""

import math
from datetime import date
from typing import Any

import msgspec
import numpy as np
from litestar import Response, get
from litestar.params import FromPath

from api.errors import not_found
from api.gateway import Gateway, gateway_of
from api.rest.answers import AnyRequest, answer, entity_tag, not_modified, with_instants
from api.rest.query import Parameter, Query, times
from pipeline.clock import expiry_ns
from pipeline.frames import LatestChain
from pipeline.latest import decode_latest
from pipeline.models import ChainHeader, chain_symbol
from pipeline.surface import Surface, surface, total_variance

MONEYNESS = tuple(round(0.90 + 0.01 * n, 2) for n in range(21))
MONEYNESS_MAXIMUM = 101
MONEYNESS_BOUNDS = (0.2, 5.0)
REACH = 5.0  # deviations from the forward; farther out a smile is nobody's opinion


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
    return Parameter("moneyness", text, {"type": "string"}, parse, MONEYNESS)


_SURFACE = Query(moneyness(), times())


@get("/underlyings/{underlying:str}/surface", opt={"scope": "live", "query": _SURFACE})
async def volatility_surface(request: AnyRequest, underlying: FromPath[str]) -> Response[bytes]:
    """The volatility surface of an underlying: the smile of each expiry to come, nearest first.

    `iv` holds the fitted volatility at each point of `meta.moneyness`, null more than five
    deviations from the forward. `flags`: `poor` and `arbitrage` are the smile's own status,
    `calendar` says that the expiry has less total variance somewhere than the one before it;
    `meta.gaps` says where. What was not received, or has no smile, is null.
    """
    query = _SURFACE.parse(request.query_params.multi_items())
    gateway = gateway_of(request)
    days = await _expiries_to_come(gateway, underlying)
    symbols = [chain_symbol(underlying, day) for day in days]
    texts = await gateway.latest.texts(symbols)
    chains = [_chain(symbol, text) for symbol, text in zip(symbols, texts, strict=True)]
    positions = [(one.position.epoch, one.position.seq) if one else None for one in chains]
    tag = entity_tag(underlying, days, positions, query["moneyness"], query["ts"])
    unchanged = not_modified(request, tag)
    if unchanged is not None:
        return unchanged
    headers = {one.header.expiry: one.header for one in chains if one is not None}
    made = surface(headers.values())
    gaps = made.gaps()
    ivs = _grid(made, query["moneyness"])
    later = {gap.later for gap in gaps}
    data = [
        with_instants(
            _row(symbol, day, headers.get(day), ivs.get(day), has_gap=day in later), query["ts"]
        )
        for symbol, day in zip(symbols, days, strict=True)
    ]
    meta = {
        "underlying": underlying,
        "n": len(data),
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
    return answer(request, data, meta, tag=tag)


async def _expiries_to_come(gateway: Gateway, underlying: str) -> list[date]:
    """Those that are listed and those that were received, nearest first. Raises ApiError 404."""
    catalog = await gateway.latest.catalog()
    if underlying not in catalog.underlyings():
        raise not_found("underlying", underlying)
    card = catalog.listed.get(underlying)
    days = {chain.expiry for chain in catalog.chains_of(underlying).values()}
    days.update(card.expiries if card else ())
    now_ns = gateway.clock.now_ns()
    expiries = sorted(date.fromisoformat(day) for day in days)
    return [expiry for expiry in expiries if expiry_ns(expiry) >= now_ns]


def _chain(symbol: str, text: bytes | None) -> LatestChain | None:
    known = decode_latest(symbol, text) if text is not None else None
    return known if isinstance(known, LatestChain) else None


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


def _row(
    symbol: str,
    expiry: date,
    header: ChainHeader | None,
    iv: list[float | None] | None,
    *,
    has_gap: bool,
) -> dict[str, Any]:
    smile = header.smile if header else None
    flags = [smile.status] if smile and smile.status != "ok" else []
    return {
        "expiry": expiry,
        "chain": symbol,
        "ts_ingest": header.ts_ingest if header else None,
        "years": header.years if header else None,
        "spot": header.spot if header else None,
        "forward": header.forward if header else None,
        "atm_iv": header.aggregates.atm_iv if header else None,
        "smile": msgspec.structs.asdict(smile) if smile else None,
        "flags": [*flags, "calendar"] if has_gap else flags,
        "iv": iv,
    }


routes = [volatility_surface]
