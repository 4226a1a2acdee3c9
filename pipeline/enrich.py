"""A provider's chain to an enriched one: chooses prices, runs the kernels, fills the header.

Pure glue between models and kernels: no I/O, no clock; the same snapshot always gives the same
bytes. Data never raises here, it ends as null with a status.
"""

import math
from datetime import date

import numpy as np
from numpy.typing import NDArray

from pipeline.clock import expiry_ns, years_until
from pipeline.kernels import aggregates, forward
from pipeline.kernels.greeks import solve
from pipeline.models import (
    CALCULATION_REVISION,
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
    PriceSource,
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
# A quote is sane while its spread is below its bid, or below this many rupees for cheap options;
# the middle of a wider one is nobody's price.
WIDE_SPREAD = 0.5
_GREEKS = ("iv", "delta", "gamma", "theta", "vega", "rho")

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]


def enrich(snapshot: ChainSnapshot, *, rate: float, greeks: str = "all") -> EnrichedChain:
    """The chain with volatility and Greeks for every leg, by Black-76 on the parity forward.

    `rate` is continuous per year. Time to expiry runs from `ts_event`, or `ts_ingest` where the
    provider gives none. The price of a leg is the mid of a sane quote (both sides above zero,
    uncrossed, the spread not above the bid or `WIDE_SPREAD`), else the last; a crossed quote with
    no last has status CROSSED, any other leg without a price NO_PRICE, every leg of an expired
    chain EXPIRED, and every priced leg without a forward INVALID. `greeks="missing"` keeps the
    provider's volatility and Greeks where all are given and computes the rest; rho is always ours.
    Raises ValueError where columns differ in length, which no mapper makes.
    """
    legs = _input_columns(snapshot.legs)
    n = legs["strike"].size
    now_ns = snapshot.ts_ingest if snapshot.ts_event is None else snapshot.ts_event
    years = years_until(expiry_ns(snapshot.expiry), now_ns)
    is_call = legs["kind"] == Kind.CALL
    spot = snapshot.spot if snapshot.spot is not None else math.nan
    fit = _fit_forward(legs, is_call, spot, years, rate)

    prices, legs["price_source"], is_crossed = _choose_prices(legs)
    _solve(legs, fit, years, is_call, prices)
    _name_the_priceless(legs["iv_status"], prices, is_crossed)
    if greeks == "missing" and years > 0.0:
        _keep_provided(legs)
    summary = aggregates.summarise(
        legs["strike"],
        is_call,
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
        n=n,
        aggregates=_aggregates(summary),
    )
    return EnrichedChain(header, {spec.name: legs[spec.name] for spec in LEG_COLUMNS})


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
    """Every column of the layout in its dtype; the computed ones empty."""
    n = np.asarray(given["strike"]).size
    legs: dict[str, Column] = {}
    for spec in LEG_COLUMNS:
        column = given.get(spec.name)
        if column is None:
            legs[spec.name] = empty_column(spec, n)
            continue
        legs[spec.name] = np.ascontiguousarray(column, spec.dtype)
        if legs[spec.name].shape != (n,):
            raise ValueError(f"column {spec.name} has not the {n} legs of column strike")
    return legs


def _fit_forward(
    legs: Legs, is_call: Booleans, spot: float, years: float, rate: float
) -> forward.ForwardFit:
    """The parity fit over the ladder: legs of one strike stand beside each other."""
    strike = legs["strike"]
    is_new = np.ones(strike.size, np.bool_)
    is_new[1:] = strike[1:] != strike[:-1]
    place = np.cumsum(is_new) - 1
    rungs = int(is_new.sum())

    def ladder(name: str, side: Booleans) -> Floats:
        quotes = np.full(rungs, np.nan)
        quotes[place[side]] = legs[name][side]
        return quotes

    is_put = legs["kind"] == Kind.PUT
    return forward.parity(
        strike[is_new],
        ladder("bid", is_call),
        ladder("ask", is_call),
        ladder("bid", is_put),
        ladder("ask", is_put),
        spot,
        years,
        rate,
    )


def _choose_prices(legs: Legs) -> tuple[Floats, Column, Booleans]:
    """(price, source, whether the quote is crossed) of each leg; NaN and NONE where no price."""
    bid, ask, last = legs["bid"], legs["ask"], legs["last"]
    is_quoted = (bid > 0.0) & (ask > 0.0) & np.isfinite(bid) & np.isfinite(ask)
    is_crossed = is_quoted & (bid > ask)
    with np.errstate(invalid="ignore", over="ignore"):
        is_sane = is_quoted & ~is_crossed & (ask - bid <= np.maximum(bid, WIDE_SPREAD))
        mid = 0.5 * bid + 0.5 * ask
    has_last = ~np.isnan(last) & (last != 0.0)
    prices = np.where(is_sane, mid, np.where(has_last, last, np.nan))
    source = np.where(is_sane, PriceSource.MID, np.where(has_last, PriceSource.LAST, 0))
    return prices, source.astype(np.uint8), is_crossed


def _solve(
    legs: dict[str, Column],
    fit: forward.ForwardFit,
    years: float,
    is_call: Booleans,
    prices: Floats,
) -> None:
    solve(
        fit.forward,
        fit.discount,
        years,
        legs["strike"],
        is_call,
        prices,
        legs["iv"],
        legs["delta"],
        legs["gamma"],
        legs["theta"],
        legs["vega"],
        legs["rho"],
        legs["iv_status"].view(np.int8),
    )
    has_kind = is_call | (legs["kind"] == Kind.PUT)
    if not has_kind.all() and years > 0.0:
        legs["iv_status"][~has_kind] = IvStatus.INVALID
        for name in _GREEKS:
            legs[name][~has_kind] = np.nan
    legs["greeks_source"][legs["iv_status"] <= IvStatus.ILL_CONDITIONED] = GreeksSource.COMPUTED


def _name_the_priceless(status: Column, prices: Floats, is_crossed: Booleans) -> None:
    is_priceless = np.isnan(prices) & (status != IvStatus.EXPIRED)
    status[is_priceless] = IvStatus.NO_PRICE
    status[is_priceless & is_crossed] = IvStatus.CROSSED


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


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _sum_or_none(value: int) -> int | None:
    return None if value == NULL_INTEGER else value
