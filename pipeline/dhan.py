"""Dhan's names, errors and lists: what to ask for, and what an answer stands for. Pure.

A body carries neither its time nor its expiry; the request context kept beside it does. Chains are
mapped in `dhan_chain`, which loads the compiler; this room does not.
"""

from collections.abc import Iterable
from datetime import date
from typing import Any

import msgspec

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
from pipeline.models import Expiries, RequestContext

CHAIN_PATH = "/optionchain"
EXPIRIES_PATH = "/optionchain/expirylist"


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


class _ExpiriesAnswer(msgspec.Struct, gc=False):
    data: list[date]
    status: str = ""


class _FailedAnswer(msgspec.Struct):
    """Both shapes of an error body: `data` with a numeric code as its key, or `errorCode`."""

    data: Any = None
    status: Any = ""
    errorCode: str | None = None
    errorMessage: str | None = None


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
