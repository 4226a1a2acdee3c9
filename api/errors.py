"""Every error as an RFC 9457 problem: one map from exceptions to status and code.

Used by the REST handlers, by the rim of the application and, for its codes, by the socket. Never
shows a stack, a query or a token.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException

from pipeline.errors import BusUnavailable, DecodeError, StoreUnavailable
from pipeline.redaction import blotted

PROBLEM_TYPE = "application/problem+json"
RETRY_AFTER_S = 2  # a server that is restarting is back within about that

_CODES = {
    400: "bad_request",
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    408: "body_too_slow",
    409: "conflict",
    413: "body_too_large",
    414: "uri_too_long",
    415: "unsupported_media_type",
    421: "bad_host",
    422: "unprocessable",
    429: "too_many_requests",
    431: "head_too_large",
    500: "internal_error",
    503: "unavailable",
}

_OURS = "the gateway failed; its log has this request_id"


class Problem(msgspec.Struct, frozen=True):
    """The body of an error; `code` is stable, `errors` names the parameters that are wrong."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[dict[str, str]]


class ApiError(Exception):
    """An answer other than success, in the words the client will read."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = [dict(error) for error in errors]
        self.headers = dict(headers or {})


def not_found(what: str, name: str) -> ApiError:
    """The answer for a name that nothing is known of."""
    return ApiError(404, f"unknown_{what}", f"no {what} {name[:80]!r} is known")


def invalid_parameter(name: str, detail: str) -> ApiError:
    """The answer to a query parameter that cannot be used."""
    errors = [{"parameter": name, "detail": detail}]
    return ApiError(400, "invalid_query", f"{name}: {detail}", errors=errors)


def problem_body(error: ApiError, request_id: str) -> bytes:
    """The problem as JSON. It may repeat what was asked for, but never a secret within."""
    body = msgspec.json.encode(
        Problem(
            f"urn:stockify:problem:{error.code}",
            HTTPStatus(error.status).phrase,
            error.status,
            error.detail,
            error.code,
            request_id,
            error.errors,
        )
    )
    return blotted(body.decode()).encode()


def as_api_error(error: Exception) -> ApiError:
    """What a client is told of any exception."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, HTTPException) and error.status_code < 500:  # above, it tells of our code
        status = error.status_code
        return ApiError(status, code_of(status), error.detail, headers=_with_head(error.headers))
    retry = {"Retry-After": str(RETRY_AFTER_S)}
    if isinstance(error, BusUnavailable):
        return ApiError(503, "redis_unavailable", "the latest values are away", headers=retry)
    if isinstance(error, StoreUnavailable):
        return ApiError(503, "database_unavailable", "the history is away", headers=retry)
    if isinstance(error, DecodeError):
        return ApiError(500, "undecodable_value", "a stored value cannot be read")
    return ApiError(500, "internal_error", _OURS)


def code_of(status: int) -> str:
    """The code of a status that nobody gave a nearer reason for."""
    return _CODES.get(status, "error")


def respond(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """The problem response to an exception; one that is our fault is logged with its stack."""
    answer = as_api_error(error)
    request_id = str(request.scope["state"].get("request_id", ""))
    if answer.status == 500:
        log = request.app.state.gateway.telemetry.log
        log.error("request_failed", request_id=request_id, path=request.url.path, exc_info=error)
    return Response(
        problem_body(answer, request_id),
        status_code=answer.status,
        media_type=PROBLEM_TYPE,
        headers={"Cache-Control": "no-store"} | answer.headers,
    )


def _with_head(headers: Mapping[str, str] | None) -> dict[str, str]:
    """An `Allow` that names GET names HEAD as well, which the rim answers."""
    given = dict(headers or {})
    allowed = given.get("allow", "").split(", ")
    if "GET" in allowed:
        given["allow"] = ", ".join(sorted({*allowed, "HEAD"}))
    return given
