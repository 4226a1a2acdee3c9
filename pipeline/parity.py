"""How far the volatilities of call and put disagree at one strike: the measure of a forward.

A call and a put of one strike and expiry have one volatility; where a provider shows two, its
forward is wrong. Pure.
"""

import msgspec
import numpy as np

from pipeline.models import Column, EnrichedChain, Kind

STRIKES = 21


class ParityGap(msgspec.Struct, frozen=True):
    """Call against put volatility at the strikes round the money; gaps in vol points.

    Columns run by strike; `computed` is ours and `provided` the provider's, each call minus put,
    absolute. A strike counts only where both of ours are there; where the provider printed no
    volatility for a leg that has traded, it stands as the zero that was printed.
    """

    strikes: list[float]
    call_iv: list[float]
    put_iv: list[float]
    call_iv_provider: list[float]
    put_iv_provider: list[float]
    computed: list[float]
    provided: list[float]

    @property
    def computed_median(self) -> float:
        """The median gap of our volatilities."""
        return float(np.median(self.computed))

    @property
    def computed_max(self) -> float:
        """The largest gap of our volatilities."""
        return max(self.computed)

    @property
    def provided_median(self) -> float:
        """The median gap of the provider's volatilities."""
        return float(np.median(self.provided))

    @property
    def provided_max(self) -> float:
        """The largest gap of the provider's volatilities."""
        return max(self.provided)


def parity_gap(chain: EnrichedChain, strikes: int = STRIKES) -> ParityGap | None:
    """The gap over the `strikes` strikes nearest to the forward; None where none compares."""
    reference = chain.header.forward or chain.header.spot
    if reference is None:
        return None
    legs = chain.legs
    traded = np.isfinite(legs["last"])
    provided = np.where(traded, np.nan_to_num(legs["iv_provider"], nan=0.0), np.nan)
    calls = _by_strike(legs["kind"] == Kind.CALL, legs["strike"])
    puts = _by_strike(legs["kind"] == Kind.PUT, legs["strike"])
    both = sorted(calls.keys() & puts.keys(), key=lambda strike: abs(strike - reference))
    chosen = sorted(both[:strikes])
    rows = []
    for strike in chosen:
        call, put = calls[strike], puts[strike]
        row = (
            strike,
            *_percent(legs["iv"], call, put),
            *_percent(provided, call, put),
        )
        if all(np.isfinite(row)):
            rows.append(row)
    if not rows:
        return None
    columns = [list(column) for column in zip(*rows, strict=True)]
    strike_column, call_iv, put_iv, call_provider, put_provider = columns
    return ParityGap(
        strikes=strike_column,
        call_iv=call_iv,
        put_iv=put_iv,
        call_iv_provider=call_provider,
        put_iv_provider=put_provider,
        computed=[abs(c - p) for c, p in zip(call_iv, put_iv, strict=True)],
        provided=[abs(c - p) for c, p in zip(call_provider, put_provider, strict=True)],
    )


def _by_strike(chosen: Column, strikes: Column) -> dict[float, int]:
    positions = np.flatnonzero(chosen)
    return dict(zip(strikes[positions].tolist(), positions.tolist(), strict=True))


def _percent(column: Column, call: int, put: int) -> tuple[float, float]:
    return float(column[call]) * 100, float(column[put]) * 100
