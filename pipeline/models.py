"""What flows through the pipeline: symbols, the leg layout, chains before and after enrichment.

`LEG_COLUMNS` is the one declaration of a leg; the codec, the kernels, COPY and the client JSON all
follow it. A column of a chain is a numpy array with one element a leg; absent is NaN in a float
column and `NULL_INTEGER` in an integer column, never zero.
"""

import functools
from collections.abc import Mapping
from datetime import date
from enum import IntEnum
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import DecodeError

NULL_INTEGER = -(2**63)
FRAME_VERSION = 1
CALCULATION_REVISION = 2  # raise it when the same raw entry would enrich to other numbers
RAW_CHAIN_TYPE = "chain.raw.v1"
RAW_EXPIRIES_TYPE = "expiries.raw.v1"
ENRICHED_CHAIN_TYPE = "chain.enriched.v1"
ENRICHED_EXPIRIES_TYPE = "expiries.enriched.v1"
RAW_POLLS_TYPE = "polls.raw.v1"
ENRICHED_POLLS_TYPE = "polls.enriched.v1"
# One contract that was set aside from its chain: a frame of a single leg.
CONTRACT_LETTER_TYPE = "contract.enriched.v1"

Column = NDArray[Any]
Legs = Mapping[str, Column]


class Kind(IntEnum):
    """The two kinds of option, as column `kind` holds them."""

    CALL = 1
    PUT = 0


class IvStatus(IntEnum):
    """Why a leg has the volatility it has, or none; column `iv_status`."""

    OK = 0
    ILL_CONDITIONED = 1
    BELOW_INTRINSIC = 2
    AT_INTRINSIC = 3
    ABOVE_MAXIMUM = 4
    EXPIRED = 5
    INVALID = 6
    NOT_CONVERGED = 7
    NO_PRICE = 8
    CROSSED = 9


class PriceSource(IntEnum):
    """Which price a leg's volatility comes from; column `price_source`."""

    NONE = 0
    MID = 1
    LAST = 2


class GreeksSource(IntEnum):
    """Whose Greeks fill the columns; column `greeks_source`."""

    NONE = 0
    COMPUTED = 1
    PROVIDER = 2


class ColumnSpec(NamedTuple):
    """One column of the leg layout: its name, little-endian dtype, unit and meaning."""

    name: str
    dtype: str
    unit: str
    meaning: str


LEG_COLUMNS: tuple[ColumnSpec, ...] = (
    ColumnSpec("strike", "<f8", "rupees", "strike price"),
    ColumnSpec("kind", "|u1", "", "1 call, 0 put"),
    ColumnSpec("security_id", "<i8", "", "the provider's id of the contract"),
    ColumnSpec("last", "<f8", "rupees", "last traded price"),
    ColumnSpec("bid", "<f8", "rupees", "best bid"),
    ColumnSpec("ask", "<f8", "rupees", "best ask"),
    ColumnSpec("average", "<f8", "rupees", "volume-weighted average price of the session"),
    ColumnSpec("previous_close", "<f8", "rupees", "close of the previous session"),
    ColumnSpec("bid_size", "<i8", "units", "quantity at the best bid"),
    ColumnSpec("ask_size", "<i8", "units", "quantity at the best ask"),
    ColumnSpec("volume", "<i8", "units", "traded in this session"),
    ColumnSpec("open_interest", "<i8", "units", "contracts outstanding"),
    ColumnSpec("previous_open_interest", "<i8", "units", "at the previous session's close"),
    ColumnSpec("iv", "<f8", "per year", "implied volatility, decimal"),
    ColumnSpec("delta", "<f8", "", "dV/dF, discounted"),
    ColumnSpec("gamma", "<f8", "per rupee", "d2V/dF2, discounted"),
    ColumnSpec("theta", "<f8", "rupees per calendar day", "dV/dt with the forward fixed"),
    ColumnSpec("vega", "<f8", "rupees per vol point", "dV for iv + 0.01"),
    ColumnSpec("rho", "<f8", "rupees per percentage point", "dV for rate + 0.01, forward fixed"),
    ColumnSpec("iv_fit", "<f8", "per year", "volatility of the fitted smile"),
    ColumnSpec("iv_provider", "<f4", "per year", "the provider's implied volatility"),
    ColumnSpec("delta_provider", "<f4", "", "the provider's delta, on spot"),
    ColumnSpec("gamma_provider", "<f4", "per rupee", "the provider's gamma, on spot"),
    ColumnSpec("theta_provider", "<f4", "rupees per calendar day", "the provider's theta"),
    ColumnSpec("vega_provider", "<f4", "rupees per vol point", "the provider's vega"),
    ColumnSpec("iv_status", "|u1", "", "see IvStatus"),
    ColumnSpec("price_source", "|u1", "", "0 none, 1 mid of the quote, 2 last"),
    ColumnSpec("greeks_source", "|u1", "", "0 none, 1 computed, 2 provider"),
)
COMPUTED_COLUMNS = frozenset(
    (
        *("iv", "delta", "gamma", "theta", "vega", "rho", "iv_fit"),
        *("iv_status", "price_source", "greeks_source"),
    )
)


class ChainSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A chain as the provider gave it; `legs` lacks the computed columns.

    Legs run by strike, the call before the put. `spot` is None where the provider gave none.
    """

    underlying: str
    expiry: date
    provider: str
    ts_event: int | None
    ts_ingest: int
    spot: float | None
    lot: int | None
    legs: Legs


class ChainAggregates(msgspec.Struct, frozen=True, kw_only=True):
    """What is said of a chain as a whole; None where the chain does not tell.

    `skew_25_delta` is the volatility of the put less that of the call whose undiscounted delta is
    a quarter, decimal; `gamma_exposure` the rupees of delta that dealers short the puts and long
    the calls gain per 1 % of the forward; `expected_move` one standard deviation of the forward
    until expiry at `atm_iv`, rupees. Fields are only ever added at the end.
    """

    atm_strike: float | None = None
    atm_iv: float | None = None
    put_call_ratio_open_interest: float | None = None
    put_call_ratio_volume: float | None = None
    call_open_interest: int | None = None
    put_open_interest: int | None = None
    max_pain: float | None = None
    skew_25_delta: float | None = None
    gamma_exposure: float | None = None
    expected_move: float | None = None


class Smile(msgspec.Struct, frozen=True, kw_only=True):
    """The fitted smile of an expiry: total variance over k = ln(strike/forward), as raw SVI.

    w(k) = a + b·(rho·(k - m) + √((k - m)² + sigma²)), and iv_fit = √(w/years). `status` is `ok`;
    `poor` where it misses the quotes by more than a bound; `arbitrage` where the fitted curve
    itself would let a butterfly be bought for less than nothing. `error` is the root of the
    weighted mean square miss, vol points; `points` the legs that it was fitted to.
    """

    a: float
    b: float
    rho: float
    m: float
    sigma: float
    error: float
    points: int
    status: str


class ChainHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for every leg of an enriched chain. Fields are only ever added at the end.

    `forward_source` is `parity`, `single_strike`, `spot_carry` or `none`; `forward_residual` is the
    root of the weighted mean square miss of the parity pairs, rupees. `years` is to expiry, of 365
    days, negative once it has passed.
    """

    v: int
    rev: int
    chain: str
    underlying: str
    expiry: date
    provider: str
    ts_event: int | None
    ts_ingest: int
    spot: float | None
    forward: float | None
    discount: float | None
    years: float
    rate: float
    model: str
    forward_pairs: int
    forward_residual: float | None
    forward_source: str
    lot: int | None
    n: int
    aggregates: ChainAggregates
    smile: Smile | None = None


class EnrichedChain(msgspec.Struct, frozen=True):
    """A chain with volatilities and Greeks; `legs` has every column of `LEG_COLUMNS`, length n."""

    header: ChainHeader
    legs: Legs


class Expiries(msgspec.Struct, frozen=True, kw_only=True):
    """The expiries a provider lists for an underlying, ascending."""

    underlying: str
    provider: str
    ts_ingest: int
    expiries: tuple[date, ...]


Cause = Literal["upstream", "us"]
_Instant = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Count = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class PollGap(msgspec.Struct, frozen=True):
    """Time [starts, ends), ns UTC, in which polls of a chain were due and no snapshot came.

    `missed` polls were due in it; `cause` is `upstream` where the provider did not answer with
    data, `us` where nothing asked or what asked was refused for its account; `detail` is a word.
    """

    starts: _Instant
    ends: _Instant
    missed: _Count
    cause: Cause
    detail: str

    def __post_init__(self) -> None:
        if self.starts >= self.ends:
            raise ValueError("a gap ends after it starts")


class PollReport(msgspec.Struct, frozen=True, kw_only=True):
    """The polls of one chain in [since, until), ns UTC: one minute, or what an outage left out.

    `answered` brought a snapshot, received in the minute of `since`. The polls that were due are
    these and the `missed` ones of the gaps; a gap may have begun before `since`.
    """

    chain: str
    provider: str
    since: _Instant
    until: _Instant
    answered: _Count
    gaps: tuple[PollGap, ...]

    @property
    def due(self) -> int:
        """How many polls were due."""
        return self.answered + sum(gap.missed for gap in self.gaps)


class RequestContext(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked, kept beside a raw body because the body does not say: entry field `meta`.

    `ts_event` is the venue's instant where the provider gives one; `lot` is from the contract
    master, where known. Headers of the request are never kept.
    """

    provider: str
    underlying: str
    expiry: date | None = None
    security_id: int
    segment: str
    path: str
    status: int
    http_date: str | None = None
    lot: int | None = None
    origin: str = "live"  # or "replay"


class MarketSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """An underlying as one of its chains saw it."""

    symbol: str
    chain: str
    expiry: date
    provider: str
    ts_event: int | None
    ts_ingest: int
    spot: float | None
    forward: float | None
    atm_strike: float | None
    atm_iv: float | None


class ContractId(NamedTuple):
    """The parts of a contract's symbol id."""

    underlying: str
    expiry: date
    strike: float
    kind: Kind


class ChainId(NamedTuple):
    """The parts of a chain's symbol id."""

    underlying: str
    expiry: date


def market_snapshot(header: ChainHeader) -> MarketSnapshot:
    """The underlying as this chain saw it."""
    return MarketSnapshot(
        symbol=header.underlying,
        chain=header.chain,
        expiry=header.expiry,
        provider=header.provider,
        ts_event=header.ts_event,
        ts_ingest=header.ts_ingest,
        spot=header.spot,
        forward=header.forward,
        atm_strike=header.aggregates.atm_strike,
        atm_iv=header.aggregates.atm_iv,
    )


@functools.lru_cache(maxsize=4_096)  # asked for every chain, of a few of them
def chain_symbol(underlying: str, expiry: date) -> str:
    """`NIFTY-20260127`."""
    return f"{underlying}-{expiry:%Y%m%d}"


def contract_symbol(chain: str, strike: float, kind: int) -> str:
    """`NIFTY-20260127-25000-CE`; the strike without trailing zeros."""
    text = format(strike, ".6f").rstrip("0").rstrip(".")
    return f"{chain}-{text}-{'CE' if kind == Kind.CALL else 'PE'}"


def contract_symbols(chain: str, legs: Legs) -> list[str]:
    """The symbol id of every leg, in order."""
    return [
        contract_symbol(chain, strike, kind)
        for strike, kind in zip(legs["strike"].tolist(), legs["kind"].tolist(), strict=True)
    ]


def parse_symbol(symbol: str) -> ContractId | ChainId | str:
    """The parts of a symbol id: of a contract, of a chain, or the underlying itself.

    Raises DecodeError where the text is none of them.
    """
    parts = symbol.rsplit("-", 3)
    if len(parts) == 4 and parts[3] in ("CE", "PE"):
        kind = Kind.CALL if parts[3] == "CE" else Kind.PUT
        try:
            strike = float(parts[2])
        except ValueError:
            raise DecodeError(f"no strike in symbol {symbol!r}") from None
        if not 0 < strike < float("inf"):
            raise DecodeError(f"no strike in symbol {symbol!r}")
        return ContractId(
            _underlying(parts[0], symbol), _compact_date(parts[1], symbol), strike, kind
        )
    name, dash, day = symbol.rpartition("-")
    if dash and len(day) == 8 and day.isdigit():
        return ChainId(_underlying(name, symbol), _compact_date(day, symbol))
    return _underlying(symbol, symbol)


def empty_column(spec: ColumnSpec, length: int) -> Column:
    """A column in which every leg is absent."""
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        return np.full(length, np.nan, dtype)
    return np.full(length, NULL_INTEGER if dtype.itemsize == 8 else 0, dtype)


def _underlying(text: str, symbol: str) -> str:
    if not text or len(text) > 32 or not all(c.isalnum() or c in "&-_" for c in text):
        raise DecodeError(f"no underlying in symbol {symbol!r}")
    return text


def _compact_date(text: str, symbol: str) -> date:
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:8]))
    except ValueError:
        raise DecodeError(f"no date in symbol {symbol!r}") from None
