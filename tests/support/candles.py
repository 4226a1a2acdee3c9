"""Random snapshots of a chain, and the candles that a plain loop over them makes."""

import math
import random
from collections.abc import Iterable
from datetime import date
from typing import Any

import msgspec
import numpy as np

from pipeline.buckets import DAY_S, Candle, bucket_start, day_start
from pipeline.clock import SECOND_NS
from pipeline.models import EnrichedChain
from tests.support import chains

ABSENT = -(2**63)
_CHAINS: dict[tuple[date, int], EnrichedChain] = {}
AT_CLOSE = (
    *("forward", "atm_iv", "put_call_ratio_open_interest", "put_call_ratio_volume", "max_pain"),
    *("skew_25_delta", "gamma_exposure", "expected_move", "call_open_interest"),
    "put_open_interest",
)


def snapshot(
    draw: random.Random, ts_ns: int, *, rev: int = 1, expiry: date = chains.EXPIRY
) -> EnrichedChain:
    """A chain of three strikes whose prices are quarters, so that four bytes keep them exactly."""
    if (expiry, 3) not in _CHAINS:
        _CHAINS[expiry, 3] = chains.enriched(3, expiry=expiry)
    base = _CHAINS[expiry, 3]
    n = base.header.n
    spot = 25_000 + draw.randrange(400) / 4
    aggregates = msgspec.structs.replace(base.header.aggregates, atm_iv=draw.randrange(8, 64) / 256)
    header = msgspec.structs.replace(
        *(base.header,),
        ts_ingest=ts_ns,
        rev=rev,
        spot=spot,
        forward=spot + 12,
        aggregates=aggregates,
    )
    prices = {name: _quarters(draw, n) for name in ("last", "bid", "ask", "iv")}
    seconds = (ts_ns - day_start(ts_ns)) // SECOND_NS
    volume = [seconds * 10 + leg if draw.random() > 0.1 else ABSENT for leg in range(n)]
    interest = [draw.randrange(1, 1_000_000) for _ in range(n)]
    legs = {**base.legs, **prices}
    legs["volume"], legs["open_interest"] = np.array(volume, "<i8"), np.array(interest, "<i8")
    return EnrichedChain(header, legs)


def contract_truth(
    written: Iterable[EnrichedChain], leg: int, interval_s: int
) -> list[dict[str, Any]]:
    """Candles of one leg, by the definition and no other way."""
    totals: dict[int, int] = {}
    candles: list[Candle] = []
    length = min(interval_s, DAY_S)
    for starts, group in _grouped(written, length):
        rows = [{name: _value(c.legs[name][leg]) for name in c.legs} for c in group]
        told = [row["last"] for row in rows if row["last"] is not None]
        total = next((row["volume"] for row in rows[::-1] if row["volume"] is not None), None)
        volume = None
        if total is not None:
            volume = max(0, total - totals.get(day_start(starts), 0))
            totals[day_start(starts)] = total
        closing = {name: rows[-1][name] for name in ("open_interest", "iv", "bid", "ask")}
        candles.append(_candle(starts, told, group) | closing | {"volume": volume})
    return _weeks(candles, interval_s)


def underlying_truth(written: Iterable[EnrichedChain], interval_s: int) -> list[dict[str, Any]]:
    """Candles of the chain that expires next in each bucket, of days where buckets are longer."""
    length = min(interval_s, DAY_S)
    nearest: dict[int, Candle] = {}
    by_expiry = sorted({chain.header.expiry for chain in written}, reverse=True)
    for expiry in by_expiry:
        of_chain = [chain for chain in written if chain.header.expiry == expiry]
        for starts, group in _grouped(of_chain, length):
            header = group[-1].header
            kept = msgspec.structs.asdict(header) | msgspec.structs.asdict(header.aggregates)
            closing = {name: _value(kept[name]) for name in AT_CLOSE} | {"expiry": expiry}
            spots = [chain.header.spot for chain in group]
            nearest[starts] = _candle(starts, spots, group) | closing
    return _weeks([nearest[starts] for starts in sorted(nearest)], interval_s)


def _grouped(
    written: Iterable[EnrichedChain], length_s: int
) -> list[tuple[int, list[EnrichedChain]]]:
    newest: dict[int, EnrichedChain] = {}
    for chain in sorted(written, key=lambda one: one.header.rev):
        newest[chain.header.ts_ingest] = chain
    groups: dict[int, list[EnrichedChain]] = {}
    for ts_ns in sorted(newest):
        groups.setdefault(bucket_start(ts_ns, length_s), []).append(newest[ts_ns])
    return sorted(groups.items())


def _candle(starts: int, told: list[Any], group: list[EnrichedChain]) -> Candle:
    prices: Candle = dict.fromkeys(("open", "high", "low", "close"))
    if told:
        prices = {"open": told[0], "high": max(told), "low": min(told), "close": told[-1]}
    return {"starts": starts, **prices, "n": len(group), "closed_at": group[-1].header.ts_ingest}


def _weeks(candles: list[Candle], interval_s: int) -> list[Candle]:
    if interval_s <= DAY_S:
        return candles
    weeks: dict[int, list[Candle]] = {}
    for candle in candles:
        weeks.setdefault(bucket_start(candle["starts"], interval_s), []).append(candle)
    found = []
    for starts, days in weeks.items():
        told = [day for day in days if day["open"] is not None]
        week = days[-1] | {"starts": starts, "n": sum(day["n"] for day in days)}
        if told:
            week |= {"open": told[0]["open"], "close": told[-1]["close"]}
            week |= {"high": max(d["high"] for d in told), "low": min(d["low"] for d in told)}
        if "volume" in week:
            week["volume"] = sum(day["volume"] or 0 for day in days)
        found.append(week)
    return found


def _quarters(draw: random.Random, n: int) -> Any:
    values = [draw.randrange(1, 400) / 4 if draw.random() > 0.2 else np.nan for _ in range(n)]
    return np.array(values, "<f8")


def _value(value: Any) -> Any:
    if value is None or value == ABSENT or math.isnan(value):
        return None
    return value.item() if isinstance(value, np.generic) else value
