"""Synthetic chains: a provider's body, and the enriched chain it stands for."""

import json
import math
from datetime import date
from typing import Any

import msgspec

from pipeline import dhan_chain, enrich
from pipeline.clock import expiry_ns
from pipeline.models import EnrichedChain, RequestContext, Smile

EXPIRY = date(2026, 1, 27)
HOUR_NS = 3_600 * 1_000_000_000
TS_INGEST = expiry_ns(EXPIRY) - 48 * HOUR_NS
SPOT = 25_000.0
FORWARD = 25_012.0
LOT = 65
SMILE = Smile(
    a=1e-4, b=0.0213, rho=-0.31, m=0.0125, sigma=0.045, error=0.12, points=17, status="poor"
)


def request_context(**changes: Any) -> RequestContext:
    fields: dict[str, Any] = {
        "provider": "dhan",
        "underlying": "NIFTY",
        "expiry": EXPIRY,
        "security_id": 13,
        "segment": "IDX_I",
        "path": "/optionchain",
        "status": 200,
    }
    return RequestContext(**(fields | changes))


def leg(price: float, **changes: Any) -> dict[str, Any]:
    lots = max(1, round(price)) * LOT
    body = {
        "average_price": price,
        "greeks": {"delta": 0.5, "theta": -12.5, "gamma": 0.001, "vega": 11.25},
        "implied_volatility": 12.5,
        "last_price": price,
        "oi": 10 * lots,
        "previous_close_price": round(price * 1.01, 2),
        "previous_oi": 9 * lots,
        "previous_volume": 4 * lots,
        "security_id": 40_000 + round(price),
        "top_ask_price": round(price + 0.1, 2),
        "top_ask_quantity": 3 * LOT,
        "top_bid_price": round(price - 0.1, 2),
        "top_bid_quantity": 2 * LOT,
        "volume": 7 * lots,
    }
    return body | changes


def black(strike: float, *, is_call: bool, iv: float = 0.12, years: float = 2 / 365) -> float:
    """The price of a leg, to the tick; undiscounted Black-76 with the error function."""
    deviation = iv * math.sqrt(years)
    d1 = math.log(FORWARD / strike) / deviation + deviation / 2
    d2 = d1 - deviation
    sign = 1 if is_call else -1
    value = sign * (FORWARD * _normal(sign * d1) - strike * _normal(sign * d2))
    return max(0.05, round(round(value / 0.05) * 0.05, 2))


def body(strikes: int = 21, *, step: float = 50.0, **leg_changes: Any) -> dict[str, Any]:
    """A chain answer of `strikes` strikes round the money, two-sided throughout."""
    first = SPOT - step * (strikes // 2)
    oc = {}
    for number in range(strikes):
        strike = first + number * step
        oc[f"{strike:.6f}"] = {
            "ce": leg(black(strike, is_call=True), **leg_changes),
            "pe": leg(black(strike, is_call=False), **leg_changes),
        }
    return {"data": {"last_price": SPOT, "oc": oc}, "status": "success"}


def encoded(answer: dict[str, Any]) -> bytes:
    return json.dumps(answer, separators=(",", ":")).encode()


def enriched(strikes: int = 21, *, ts_ingest: int = TS_INGEST, **changes: Any) -> EnrichedChain:
    snapshot = dhan_chain.map_chain(encoded(body(strikes)), request_context(**changes), ts_ingest)
    return enrich.enrich(snapshot, rate=0.065)


def with_smile(chain: EnrichedChain, smile: Smile | None = SMILE) -> EnrichedChain:
    """The chain with this smile in its header, or with none."""
    return EnrichedChain(msgspec.structs.replace(chain.header, smile=smile), chain.legs)


def _normal(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))
