"""The rim of the application: what holds for every request, before any route is looked for.

Gives each request an id, refuses unknown hosts, foreign origins, oversized requests and addresses
that have nothing left, bounds bodies in size and time, answers HEAD and preflights, and puts the
security and limit headers on every answer.
"""

import asyncio
import random
import re
import time
from collections.abc import Iterable
from typing import Any

from api.access.limiting import Headers, Limiter, headers_of, too_many
from api.errors import PROBLEM_TYPE, ApiError, as_api_error, problem_body
from api.origins import Origins
from pipeline.config import Settings
from pipeline.redaction import blotted
from pipeline.telemetry import Counter

BODY_BYTES = 64 * 1024  # nothing we take is longer
BODY_S = 10.0  # such a body takes a moment; who sends it by the byte holds a place
QUERY_BYTES = 8 * 1024  # a list of fifty symbols is below 2 kB
_REQUEST_ID = re.compile(rb"^[A-Za-z0-9._:-]{1,100}$")
SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
)
_NOTHING_RUNS = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")


class Edge:
    """An ASGI application round another."""

    def __init__(
        self, app: Any, settings: Settings, requests: Counter, limiter: Limiter, log: Any
    ) -> None:
        self._app = app
        self._requests = requests
        self._origins = Origins(settings)
        self._limiter = limiter
        self._log = log

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        self._requests.add()
        request_id = _request_id(scope["headers"])
        state = scope.setdefault("state", {})
        state["request_id"] = request_id.decode()
        state["address"] = self._limiter.address_of(scope)
        if scope["type"] == "websocket":
            await self._connect(scope, receive, send, request_id)
        else:
            await self._answer(scope, receive, send, request_id)

    async def _connect(self, scope: Any, receive: Any, send: Any, request_id: bytes) -> None:
        refusal = self._refusal(scope)
        if refusal is None:
            try:
                await self._limiter.connect(scope["state"]["address"])
            except ApiError as error:
                refusal = error
        if refusal is not None:
            extra = (*SECURITY_HEADERS, (b"x-request-id", request_id))
            await _deny(send, "websocket.http.response", refusal, request_id, extra)
            return
        await self._app(scope, receive, send)

    async def _answer(self, scope: Any, receive: Any, send: Any, request_id: bytes) -> None:
        origin = _only(scope["headers"], b"origin")
        body = Body(receive) if _has_body(scope["headers"]) else None
        extra = (*self._origins.headers(origin), (b"x-request-id", request_id))
        answer = _Answer(scope, send, self._limiter, body, extra)
        scope["state"]["is_head"] = answer.is_head
        try:
            await self._route(scope, body.receive if body else receive, answer, origin)
        except Exception as error:
            if answer.is_started:
                raise
            told = as_api_error(error)
            if told.status == 500:
                self._log.error(
                    "request_failed",
                    request_id=request_id.decode(),
                    path=scope["path"],
                    exc_info=error,
                )
            await _deny(answer.send, "http.response", told, request_id)

    async def _route(self, scope: Any, receive: Any, answer: "_Answer", origin: str | None) -> None:
        """Hand a request on, unless it ends here. Raises ApiError."""
        refusal = self._refusal(scope) or await self._blocked(scope)
        if refusal is not None:
            raise refusal
        allowed = self._origins.preflight(scope, origin)
        if allowed is None:
            inner = scope | {"method": "GET"} if answer.is_head else scope
            await self._app(inner, receive, answer.send)
            return
        start = {"type": "http.response.start", "status": 204, "headers": [*allowed]}
        await answer.send(start)
        await answer.send({"type": "http.response.body", "body": b""})

    def _refusal(self, scope: Any) -> ApiError | None:
        headers = scope["headers"]
        host = _only(headers, b"host")
        if not self._origins.is_known_host(host):
            return ApiError(421, "bad_host", "this gateway does not answer under that name")
        if len(scope["query_string"]) > QUERY_BYTES:
            return ApiError(414, "uri_too_long", f"a query has at most {QUERY_BYTES} bytes")
        if scope["type"] == "websocket":
            origin = _only(headers, b"origin")
            if origin is not None and not self._origins.is_known_origin(origin, host or ""):
                return ApiError(403, "foreign_origin", "pages of that origin may not connect")
            return None
        length = _only(headers, b"content-length") or "0"
        if not length.isdigit() or int(length) > BODY_BYTES:
            return body_too_large()
        return None

    async def _blocked(self, scope: Any) -> ApiError | None:
        """429 for an address that is known to have nothing left, before its token is looked at."""
        state = scope["state"]
        if scope["path"] == "/healthz" or not self._limiter.is_blocked(state["address"]):
            return None
        verdict = await self._limiter.take(None, state["address"], 1)
        if not verdict.wait_s:
            return None
        state["limits"] = headers_of(verdict.standings)
        return too_many(verdict)


class Body:
    """A request's body as it comes: bounded in size, also without a length, and in time.

    Raises ApiError 413 or 408 to whoever reads it.
    """

    def __init__(self, receive: Any, *, longest_s: float | None = None) -> None:
        self._receive = receive
        self._deadline = time.monotonic() + (BODY_S if longest_s is None else longest_s)
        self._size = 0
        self.is_whole = False

    async def receive(self) -> Any:
        """The next ASGI event; once the body is whole it waits for the client to leave."""
        if self.is_whole:
            return await self._receive()
        try:
            async with asyncio.timeout(self._deadline - time.monotonic()):
                message = await self._receive()
        except TimeoutError:
            raise ApiError(408, "body_too_slow", "the body did not come in time") from None
        if message["type"] == "http.disconnect":  # nobody hears it; but it is no failure of ours
            raise ApiError(400, "bad_request", "the client left amid its body")
        self._size += len(message.get("body", b""))
        if self._size > BODY_BYTES:
            raise body_too_large()
        self.is_whole = not message.get("more_body", False)
        return message


class _Answer:
    """Passes an answer on, with the headers that every one has."""

    def __init__(
        self, scope: Any, send: Any, limiter: Limiter, body: Body | None, extra: Headers
    ) -> None:
        self.is_head = scope["method"] == "HEAD"
        self.is_started = False
        self._state = scope["state"]
        self._send = send
        self._limiter = limiter
        self._body = body
        self._extra = extra

    async def send(self, message: Any) -> None:
        """Send an ASGI event of the answer."""
        if message["type"] == "http.response.start":
            self.is_started = True
            message = message | {"headers": await self._headers(message)}
        elif self.is_head and message["type"] == "http.response.body":
            message = message | {"body": b""}
        await self._send(message)

    async def _headers(self, message: Any) -> list[tuple[bytes, bytes]]:
        address = self._state["address"]
        if message["status"] == 401:
            self._limiter.fail(address)
        limits = self._state.get("limits")
        if limits is None:
            limits = headers_of((await self._limiter.note(address)).standings)
        own = message.get("headers", ())
        headers = [*own, *SECURITY_HEADERS, *limits, *self._extra]
        if not any(name == b"content-security-policy" for name, _ in own):
            headers.append(_NOTHING_RUNS)
        if self._body is not None and not self._body.is_whole:
            headers.append((b"connection", b"close"))  # what is left of it is not read
        return headers


def body_too_large() -> ApiError:
    """413."""
    return ApiError(413, "body_too_large", f"a body has at most {BODY_BYTES} bytes")


def _has_body(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in headers
    )


def _request_id(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    for name, value in headers:
        if name == b"x-request-id" and _REQUEST_ID.match(value):
            text = value.decode("ascii")
            if blotted(text) == text:  # it will stand in logs
                return value
    return b"%016x" % random.getrandbits(64)


def _only(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> str | None:
    """A header's value; two of them count as a wrong one."""
    values = [value for name, value in headers if name == wanted]
    if not values:
        return None
    return values[0].decode("latin-1") if len(values) == 1 else "?"


async def _deny(
    send: Any, kind: str, refusal: ApiError, request_id: bytes, extra: Headers = ()
) -> None:
    body = problem_body(refusal, request_id.decode())
    headers = [
        (b"content-type", PROBLEM_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
        *((name.lower().encode(), value.encode()) for name, value in refusal.headers.items()),
        *extra,
    ]
    await send({"type": f"{kind}.start", "status": refusal.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
