"""The aggregates of a chain, calculated again from its rows: slowly, and as the data model says."""

import math
from itertools import pairwise
from typing import Any

Row = dict[str, Any]


def aggregates_of(rows: list[Row], header: Row) -> Row:
    """Every aggregate of the rows of a chain; `header` says forward, discount and years."""
    forward, strikes = header["forward"], sorted({row["strike"] for row in rows})
    calls, puts = ([row for row in rows if row["kind"] == kind] for kind in ("call", "put"))
    atm_iv = _at_the_money(rows, strikes, forward)
    totals = {
        f"{name}_{field}": sum(row[field] for row in side if row[field] is not None)
        for name, side in (("call", calls), ("put", puts))
        for field in ("open_interest", "volume")
    }
    exposure = sum(
        (1 if row["kind"] == "call" else -1) * row["gamma"] * row["open_interest"]
        for row in rows
        if row["gamma"] is not None and row["open_interest"] is not None
    )
    return {
        "atm_strike": min(strikes, key=lambda strike: (abs(strike - forward), strike)),
        "atm_iv": atm_iv,
        "put_call_ratio_open_interest": totals["put_open_interest"] / totals["call_open_interest"],
        "put_call_ratio_volume": totals["put_volume"] / totals["call_volume"],
        "call_open_interest": totals["call_open_interest"],
        "put_open_interest": totals["put_open_interest"],
        "max_pain": min(strikes, key=lambda at: (_paid_out(rows, at), at)),
        "skew_25_delta": _quarter(puts, header) - _quarter(calls, header),
        "gamma_exposure": exposure * forward**2 / 100,
        "expected_move": forward * atm_iv * math.sqrt(header["years"]),
    }


def _is_ok(row: Row) -> bool:
    return row["iv_status"] == 0 and row["iv"] is not None


def _at_the_money(rows: list[Row], strikes: list[float], forward: float) -> float:
    """iv at the forward, between the strikes round it in proportion."""
    told: dict[float, list[float]] = {}
    for row in filter(_is_ok, rows):
        told.setdefault(row["strike"], []).append(row["iv"])
    low = max(strike for strike in strikes if strike <= forward)
    high = min(strike for strike in strikes if strike > forward)
    ivs = [sum(told[strike]) / len(told[strike]) for strike in (low, high)]
    return ivs[0] + (ivs[1] - ivs[0]) * (forward - low) / (high - low)


def _paid_out(rows: list[Row], at: float) -> float:
    """What all contracts together are worth to their holders if it settles there."""
    return sum(
        (row["open_interest"] or 0)
        * max(0.0, at - row["strike"] if row["kind"] == "call" else row["strike"] - at)
        for row in rows
    )


def _quarter(side: list[Row], header: Row) -> float:
    """iv of the legs out of the money where their delta, undiscounted, is a quarter."""
    points = []
    for row in filter(_is_ok, side):
        sign = 1 if row["kind"] == "call" else -1
        if sign * (row["strike"] - header["forward"]) >= 0:
            points.append((abs(row["delta"]) / header["discount"], row["iv"]))
    points.sort()
    for (low, low_iv), (high, high_iv) in pairwise(points):
        if low <= 0.25 <= high:
            return float(low_iv + (high_iv - low_iv) * (0.25 - low) / (high - low))
    raise AssertionError("no leg is on the far side of a quarter")
