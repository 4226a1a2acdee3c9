"""A provider's chain to an enriched one: chooses prices, runs the kernels, fills the header.

Pure glue between models and kernels: no I/O, no clock; the same snapshot always gives the same
bytes. Data never raises here, it ends as null with a status.
"""

import math
from datetime import date

import numpy as np

from pipeline.clock import expiry_ns, years_until
from pipeline.kernels import aggregates, forward, quotes, smile
from pipeline.kernels.greeks import solve
from pipeline.models import (
    CALCULATION_REVISION,
    COMPUTED_COLUMNS,
    FRAME_VERSION,
    LEG_COLUMNS,
    NULL_INTEGER,
    ChainAggregates,
    ChainHeader,
    ChainSnapshot,
    Column,
    EnrichedChain,
    GreeksSource,
    IvStatus,
    Kind,
    Legs,
    Smile,
    chain_symbol,
    empty_column,
)

MODEL = "black76"
FORWARD_SOURCES = {
    forward.NONE: "none",
    forward.PARITY: "parity",
    forward.SINGLE_STRIKE: "single_strike",
    forward.SPOT_CARRY: "spot_carry",
}
SMILE_STATUSES = {smile.OK: "ok", smile.POOR: "poor", smile.ARBITRAGE: "arbitrage"}
_COLUMNS = tuple(spec.name for spec in LEG_COLUMNS)
_INPUTS = tuple(
    (spec, spec.name, np.dtype(spec.dtype))
    for spec in LEG_COLUMNS
    if spec.name not in COMPUTED_COLUMNS
)
_COMPUTED = ("iv", "delta", "gamma", "theta", "vega", "rho", "iv_fit")


def enrich(snapshot: ChainSnapshot, *, rate: float, greeks: str = "all") -> EnrichedChain:
    """The chain with volatility and Greeks for every leg, by Black-76 on the parity forward.

    `rate` is continuous per year. Time to expiry runs from `ts_event`, or `ts_ingest` where the
    provider gives none. The price of a leg is the mid of a sane quote (both sides above zero,
    uncrossed, the spread not above the bid or `quotes.WIDE_SPREAD`), else the last; a crossed quote
    with no last has status CROSSED, any other leg without a price NO_PRICE, every leg of an expired
    chain EXPIRED, and every priced leg without a forward INVALID. `greeks="missing"` keeps the
    provider's volatility and Greeks where all are given and computes the rest; rho, the smile and
    the aggregates are always ours. Raises ValueError where columns differ in length, which no
    mapper makes.
    """
    legs = _input_columns(snapshot.legs)
    strikes, kinds = legs["strike"], legs["kind"]
    now_ns = snapshot.ts_ingest if snapshot.ts_event is None else snapshot.ts_event
    years = years_until(expiry_ns(snapshot.expiry), now_ns)
    spot = snapshot.spot if snapshot.spot is not None else math.nan
    chosen = quotes.choose(kinds, legs["bid"], legs["ask"], legs["last"])
    fit = forward.parity_of_legs(strikes, kinds, legs["bid"], legs["ask"], spot, years, rate)

    curve = _solve(legs, chosen, fit, years)
    summary = aggregates.summarise(
        strikes,
        chosen.is_call,
        legs["open_interest"],
        legs["volume"],
        legs["iv"],
        legs["iv_status"].view(np.int8),
        fit.forward,
        delta=legs["delta"],
        gamma=legs["gamma"],
        discount=fit.discount,
        years=years,
    )
    if greeks == "missing" and years > 0.0:
        _keep_provided(legs)
    header = ChainHeader(
        v=FRAME_VERSION,
        rev=CALCULATION_REVISION,
        chain=chain_symbol(snapshot.underlying, snapshot.expiry),
        underlying=snapshot.underlying,
        expiry=snapshot.expiry,
        provider=snapshot.provider,
        ts_event=snapshot.ts_event,
        ts_ingest=snapshot.ts_ingest,
        spot=_or_none(spot),
        forward=_or_none(fit.forward),
        discount=_or_none(fit.discount),
        years=years,
        rate=rate,
        model=MODEL,
        forward_pairs=fit.pairs,
        forward_residual=_or_none(fit.residual),
        forward_source=FORWARD_SOURCES[fit.source],
        lot=snapshot.lot,
        n=strikes.size,
        aggregates=_aggregates(summary),
        smile=_smile(curve),
    )
    return EnrichedChain(header, {name: legs[name] for name in _COLUMNS})


def warmup() -> None:
    """Compile, or load from the cache, every kernel that `enrich` calls."""
    strikes = np.array([90.0, 90.0, 100.0, 100.0, 110.0, 110.0])
    bid = np.array([10.8, 0.7, 4.0, 3.9, 0.8, 10.7])
    snapshot = ChainSnapshot(
        underlying="WARMUP",
        expiry=date(2026, 1, 27),
        provider="warmup",
        ts_event=None,
        ts_ingest=expiry_ns(date(2025, 12, 27)),
        spot=100.0,
        lot=None,
        legs={
            "strike": strikes,
            "kind": np.array([Kind.CALL, Kind.PUT] * 3, np.uint8),
            "bid": bid,
            "ask": bid + 0.1,
        },
    )
    enrich(snapshot, rate=0.05)


def _input_columns(given: Legs) -> dict[str, Column]:
    """Every column that a provider can fill, in its dtype; those not given are empty."""
    n = np.asarray(given["strike"]).size
    legs: dict[str, Column] = {}
    for spec, name, dtype in _INPUTS:
        column = given.get(name)
        if column is None:
            legs[name] = empty_column(spec, n)
            continue
        legs[name] = column = np.ascontiguousarray(column, dtype)
        if column.shape != (n,):
            raise ValueError(f"column {name} has not the {n} legs of column strike")
    return legs


def _solve(
    legs: dict[str, Column], chosen: quotes.Prices, fit: forward.ForwardFit, years: float
) -> smile.SmileFit:
    """Fill the computed columns; gives the smile."""
    strikes, kinds = legs["strike"], legs["kind"]
    values = np.empty((len(_COMPUTED), strikes.size))
    iv, delta, gamma, theta, vega, rho, iv_fit = values
    status, source = np.empty((2, strikes.size), np.uint8)
    solve(
        fit.forward,
        fit.discount,
        years,
        strikes,
        chosen.is_call,
        chosen.price,
        iv,
        delta,
        gamma,
        theta,
        vega,
        rho,
        status.view(np.int8),
    )
    quotes.settle(chosen.lack, kinds, years, values, status, source)
    legs |= zip(_COMPUTED, values, strict=True)
    legs |= {"iv_status": status, "price_source": chosen.source, "greeks_source": source}
    return smile.fit(
        *(fit.forward, years, strikes, chosen.is_call, iv, vega, chosen.spread),
        *(status.view(np.int8), iv_fit),
    )


def _keep_provided(legs: dict[str, Column]) -> None:
    """Where the provider gives a volatility and four Greeks, they stand in for ours.

    A delta of zero comes with the provider's placeholder volatilities, so it is none.
    """
    given = (legs["iv_provider"] > 0.0) & (legs["delta_provider"] != 0.0)
    for name in ("iv", "delta", "gamma", "theta", "vega"):
        given &= np.isfinite(legs[f"{name}_provider"])
    for name in ("iv", "delta", "gamma", "theta", "vega"):
        legs[name][given] = legs[f"{name}_provider"][given]
    legs["iv_status"][given] = IvStatus.OK
    legs["greeks_source"][given] = GreeksSource.PROVIDER


def _aggregates(summary: aggregates.Summary) -> ChainAggregates:
    return ChainAggregates(
        atm_strike=_or_none(summary.atm_strike),
        atm_iv=_or_none(summary.atm_iv),
        put_call_ratio_open_interest=_or_none(summary.put_call_ratio_open_interest),
        put_call_ratio_volume=_or_none(summary.put_call_ratio_volume),
        call_open_interest=_sum_or_none(summary.call_open_interest),
        put_open_interest=_sum_or_none(summary.put_open_interest),
        max_pain=_or_none(summary.max_pain),
        skew_25_delta=_or_none(summary.skew_25_delta),
        gamma_exposure=_or_none(summary.gamma_exposure),
        expected_move=_or_none(summary.expected_move),
    )


def _smile(curve: smile.SmileFit) -> Smile | None:
    if curve.status == smile.NONE:
        return None
    return Smile(
        a=curve.a,
        b=curve.b,
        rho=curve.rho,
        m=curve.m,
        sigma=curve.sigma,
        error=curve.error,
        points=curve.points,
        status=SMILE_STATUSES[curve.status],
    )


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _sum_or_none(value: int) -> int | None:
    return None if value == NULL_INTEGER else value
