"""Dhan's bodies as our models: types, units and zeros put right. Pure; it opens nothing.

A body carries neither its time nor its expiry; the request context kept beside it does. Zero means
"nothing" for a price, a volatility and a Greek, and becomes absent; open interest and volume of
zero are values.
"""

import math
from collections.abc import Iterable
from datetime import date
from typing import Any

import msgspec
import numpy as np

from pipeline.errors import (
    AccessDenied,
    AuthenticationFailed,
    ConfigError,
    DecodeError,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    RequestRejected,
)
from pipeline.models import (
    NULL_INTEGER,
    ChainSnapshot,
    Column,
    Expiries,
    Kind,
    RequestContext,
)

CHAIN_PATH = "/optionchain"
EXPIRIES_PATH = "/optionchain/expirylist"
PRICE_TICK = 0.05  # rupees; the spot arrives as a float32 widened to double
LOT_WITNESSES = 20  # quantities needed before their common divisor is believed to be the lot


class DhanUnderlying(msgspec.Struct, frozen=True):
    """How Dhan names an underlying in a request."""

    symbol: str
    security_id: int
    segment: str
    exchange: str


UNDERLYINGS = {
    underlying.symbol: underlying
    for underlying in (
        DhanUnderlying("NIFTY", 13, "IDX_I", "NSE"),
        DhanUnderlying("BANKNIFTY", 25, "IDX_I", "NSE"),
        DhanUnderlying("FINNIFTY", 27, "IDX_I", "NSE"),
        DhanUnderlying("MIDCPNIFTY", 442, "IDX_I", "NSE"),
        DhanUnderlying("NIFTYNXT50", 38, "IDX_I", "NSE"),
        DhanUnderlying("SENSEX", 51, "IDX_I", "BSE"),
        DhanUnderlying("BANKEX", 69, "IDX_I", "BSE"),
    )
}


def underlyings_named(names: Iterable[str], where: str) -> list[DhanUnderlying]:
    """The underlyings of those names. Raises ConfigError naming `where` and which are unknown."""
    wanted = list(names)
    unknown = [name for name in wanted if name not in UNDERLYINGS]
    if unknown:
        raise ConfigError(f"{where}: {', '.join(unknown)} not among {', '.join(UNDERLYINGS)}")
    return [UNDERLYINGS[name] for name in wanted]


def request_context(
    underlying: DhanUnderlying,
    expiry: date | None,
    *,
    provider: str,
    path: str = CHAIN_PATH,
    status: int = 200,
    http_date: str | None = None,
    origin: str = "live",
) -> RequestContext:
    """What is kept beside an answer about an underlying; `expiry` is None for its expiry list."""
    return RequestContext(
        provider=provider,
        underlying=underlying.symbol,
        expiry=expiry,
        security_id=underlying.security_id,
        segment=underlying.segment,
        path=path,
        status=status,
        http_date=http_date,
        origin=origin,
    )


class _Greeks(msgspec.Struct, gc=False):
    delta: float = 0.0
    theta: float = 0.0
    gamma: float = 0.0
    vega: float = 0.0


class _Leg(msgspec.Struct, gc=False):
    last_price: float | None = None
    top_bid_price: float | None = None
    top_ask_price: float | None = None
    average_price: float | None = None
    previous_close_price: float | None = None
    top_bid_quantity: float | None = None
    top_ask_quantity: float | None = None
    volume: float | None = None
    oi: float | None = None
    previous_oi: float | None = None
    security_id: float | None = None
    implied_volatility: float | None = None
    greeks: _Greeks | None = None


class _Sides(msgspec.Struct, gc=False):
    ce: _Leg | None = None
    pe: _Leg | None = None


class _Chain(msgspec.Struct, gc=False):
    oc: dict[str, _Sides]
    last_price: float | None = None


class _ChainAnswer(msgspec.Struct, gc=False):
    data: _Chain
    status: str = ""


class _ExpiriesAnswer(msgspec.Struct, gc=False):
    data: list[date]
    status: str = ""


class _FailedAnswer(msgspec.Struct):
    """Both shapes of an error body: `data` with a numeric code as its key, or `errorCode`."""

    data: Any = None
    status: Any = ""
    errorCode: str | None = None
    errorMessage: str | None = None


_decode_chain = msgspec.json.Decoder(_ChainAnswer)
_decode_expiries = msgspec.json.Decoder(_ExpiriesAnswer)
_decode_failed = msgspec.json.Decoder(_FailedAnswer)

_ERRORS_BY_CODE: dict[str, type[ProviderError]] = {
    **dict.fromkeys(("800", "DH-908", "DH-909", "DH-910"), ProviderUnavailable),
    **dict.fromkeys(("805", "DH-904"), RateLimited),
    **dict.fromkeys(("806", "DH-902", "DH-903"), AccessDenied),
    **dict.fromkeys(("807", "808", "809", "810", "DH-901"), AuthenticationFailed),
    **dict.fromkeys(("804", "811", "812", "813", "814", "DH-905", "DH-907"), RequestRejected),
}
_ERRORS_BY_STATUS = {401: AuthenticationFailed, 403: AccessDenied, 429: RateLimited}
# A failed body is short; a whole chain is never searched for its status.
_LONGEST_FAILURE_BYTES = 4_096


def failure(status: int, body: bytes) -> ProviderError | None:
    """The error that an answer stands for, or None where it is data.

    The code in the body decides, not the HTTP status: errors arrive with 200 as well.
    """
    is_object = body[:1] == b"{"
    if status == 200 and is_object and len(body) > _LONGEST_FAILURE_BYTES:
        return None
    try:
        answer = _decode_failed.decode(body)
    except msgspec.MsgspecError:
        # Broken JSON that came with 200 is kept as received and judged where it is decoded.
        return None if status == 200 and is_object else _by_status(status, "no JSON object")
    code, text = _code_and_text(answer)
    if code is None:
        is_data = status == 200 and answer.status != "failed"
        return None if is_data else _by_status(status, "no code")
    if code == "DH-906" and "token" in text.lower():
        return AuthenticationFailed(text, code)
    kind = _ERRORS_BY_CODE.get(code, _ERRORS_BY_STATUS.get(status, ProviderUnavailable))
    return kind(text or f"code {code}", code)


def map_chain(body: bytes, context: RequestContext, ts_ingest: int) -> ChainSnapshot:
    """A chain body as a snapshot. Raises DecodeError naming what is wrong with it."""
    if context.expiry is None:
        raise DecodeError("a chain without an expiry in its request context")
    try:
        chain = _decode_chain.decode(body).data
    except msgspec.MsgspecError as error:
        raise DecodeError(f"not an option chain: {error}") from error
    legs: list[tuple[float, int, _Leg]] = []
    for text, sides in chain.oc.items():
        strike = _strike(text)
        if sides.ce is not None:
            legs.append((strike, int(Kind.CALL), sides.ce))
        if sides.pe is not None:
            legs.append((strike, int(Kind.PUT), sides.pe))
    legs.sort(key=lambda leg: (leg[0], leg[1] != Kind.CALL))
    columns = _columns(legs)
    return ChainSnapshot(
        underlying=context.underlying,
        expiry=context.expiry,
        provider=context.provider,
        ts_event=None,
        ts_ingest=ts_ingest,
        spot=_spot(chain.last_price),
        lot=context.lot or _common_lot(columns),
        legs=columns,
    )


def map_expiries(body: bytes, context: RequestContext, ts_ingest: int) -> Expiries:
    """An expiry list, ascending. Raises DecodeError."""
    try:
        listed = _decode_expiries.decode(body).data
    except msgspec.MsgspecError as error:
        raise DecodeError(f"not a list of expiries: {error}") from error
    return Expiries(
        underlying=context.underlying,
        provider=context.provider,
        ts_ingest=ts_ingest,
        expiries=tuple(sorted(listed)),
    )


def _by_status(status: int, what: str) -> ProviderError:
    rejected = RequestRejected if 400 <= status < 500 else ProviderUnavailable
    return _ERRORS_BY_STATUS.get(status, rejected)(f"HTTP {status} with {what}")


def _code_and_text(answer: _FailedAnswer) -> tuple[str | None, str]:
    if answer.errorCode:
        return answer.errorCode, answer.errorMessage or ""
    if isinstance(answer.data, dict) and (answer.status == "failed" or len(answer.data) == 1):
        for code, text in answer.data.items():
            if code.isdigit() and isinstance(text, str):
                return code, text
    return None, ""


def _strike(text: str) -> float:
    try:
        strike = float(text)
    except ValueError:
        raise DecodeError(f"strike {text[:40]!r} is no number") from None
    if not 0 < strike < math.inf:
        raise DecodeError(f"strike {text[:40]!r} is no price")
    return strike


def _spot(value: float | None) -> float | None:
    if value is None or not 0 < value < math.inf:
        return None
    return round(round(value / PRICE_TICK) * PRICE_TICK, 2)


def _columns(legs: list[tuple[float, int, _Leg]]) -> dict[str, Column]:
    sides = [leg for _strike_price, _kind, leg in legs]
    greeks = [leg.greeks or _NO_GREEKS for leg in sides]
    # Where nothing traded the provider prints a placeholder volatility: no price, no volatility.
    traded = [bool(leg.last_price) for leg in sides]
    provided = [
        bool(leg.implied_volatility) and is_traded
        for leg, is_traded in zip(sides, traded, strict=True)
    ]
    return {
        "strike": np.array([leg[0] for leg in legs], np.float64),
        "kind": np.array([leg[1] for leg in legs], np.uint8),
        "security_id": _identities([leg.security_id for leg in sides]),
        "last": _prices([leg.last_price for leg in sides]),
        "bid": _prices([leg.top_bid_price for leg in sides]),
        "ask": _prices([leg.top_ask_price for leg in sides]),
        "average": _prices([leg.average_price for leg in sides]),
        "previous_close": _prices([leg.previous_close_price for leg in sides]),
        "bid_size": _quantities([leg.top_bid_quantity for leg in sides]),
        "ask_size": _quantities([leg.top_ask_quantity for leg in sides]),
        "volume": _quantities([leg.volume for leg in sides]),
        "open_interest": _quantities([leg.oi for leg in sides]),
        "previous_open_interest": _quantities([leg.previous_oi for leg in sides]),
        "iv_provider": _where(provided, [(leg.implied_volatility or 0) / 100 for leg in sides]),
        "delta_provider": _where(provided, [g.delta for g in greeks]),
        "gamma_provider": _where(provided, [g.gamma for g in greeks]),
        "theta_provider": _where(provided, [g.theta for g in greeks]),
        "vega_provider": _where(provided, [g.vega for g in greeks]),
    }


_NO_GREEKS = _Greeks()


def _prices(values: list[float | None]) -> Column:
    column = np.array(values, np.float64)
    column[~(column > 0) | np.isinf(column)] = np.nan
    return column


def _quantities(values: list[float | None]) -> Column:
    numbers = np.array(values, np.float64)
    present = (numbers >= 0) & (numbers < 2.0**63)
    column = np.full(len(numbers), NULL_INTEGER, np.int64)
    column[present] = numbers[present].astype(np.int64)
    return column


def _identities(values: list[float | None]) -> Column:
    column = _quantities(values)
    column[column == 0] = NULL_INTEGER
    return column


def _where(present: list[bool], values: list[float]) -> Column:
    return np.where(np.array(present, bool), np.array(values, np.float64), np.nan).astype("<f4")


def _common_lot(columns: dict[str, Column]) -> int | None:
    """The lot, as what divides every quantity of a chain; None where too few tell.

    `previous_open_interest` is left out: the day the lot changes it is still in the old one.
    """
    quantities = np.concatenate(
        [columns[name] for name in ("bid_size", "ask_size", "volume", "open_interest")]
    )
    quantities = quantities[quantities > 0]
    if len(quantities) < LOT_WITNESSES:
        return None
    lot = int(np.gcd.reduce(quantities))
    return lot if lot > 1 else None
