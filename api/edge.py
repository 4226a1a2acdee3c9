"""The rim of the application: what holds for every request, before any route is looked for.

Gives each request an id, refuses unknown hosts, foreign origins and oversized requests, answers
HEAD, and puts the security headers on every answer.
"""

import ipaddress
import re
import secrets
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from api.errors import PROBLEM_TYPE, ApiError, problem_body
from pipeline.config import Settings
from pipeline.telemetry import Counter

BODY_BYTES = 64 * 1024  # nothing we take is longer
QUERY_BYTES = 8 * 1024  # a list of fifty symbols is below 2 kB
_REQUEST_ID = re.compile(rb"^[A-Za-z0-9._:-]{1,100}$")
_SECURITY_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
)


class Edge:
    """An ASGI application round another."""

    def __init__(self, app: Any, settings: Settings, requests: Counter) -> None:
        self._app = app
        self._requests = requests
        self._origins = frozenset(origin.rstrip("/").lower() for origin in settings.gateway_origins)
        names = {settings.gateway_host.lower(), "localhost"}
        names |= {urlsplit(origin).hostname or "" for origin in self._origins}
        self._hosts = frozenset(names | {name.lower() for name in settings.gateway_hosts})

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        self._requests.add()
        request_id = _request_id(scope["headers"])
        scope.setdefault("state", {})["request_id"] = request_id.decode()
        refusal = self._refusal(scope)
        if scope["type"] == "websocket":
            if refusal is None:
                await self._app(scope, receive, send)
            else:
                await _deny(send, "websocket.http.response", refusal, request_id)
            return
        is_head = scope["method"] == "HEAD"
        sender = _sender(send, request_id, is_head)
        if refusal is not None:
            await _deny(sender, "http.response", refusal, request_id)
            return
        await self._app(scope | {"method": "GET"} if is_head else scope, receive, sender)

    def _refusal(self, scope: Any) -> ApiError | None:
        headers = scope["headers"]
        host = _only(headers, b"host")
        if not self._is_known_host(host):
            return ApiError(421, "bad_host", "this gateway does not answer under that name")
        if len(scope["query_string"]) > QUERY_BYTES:
            return ApiError(414, "uri_too_long", f"a query has at most {QUERY_BYTES} bytes")
        if scope["type"] == "websocket":
            origin = _only(headers, b"origin")
            if origin is not None and not self._is_known_origin(origin, host or ""):
                return ApiError(403, "foreign_origin", "pages of that origin may not connect")
            return None
        length = _only(headers, b"content-length") or "0"
        if not length.isdigit() or int(length) > BODY_BYTES:
            return ApiError(413, "body_too_large", f"a body has at most {BODY_BYTES} bytes")
        return None

    def _is_known_host(self, host: str | None) -> bool:
        """An address, or one of our names: another name is somebody else's pointed at us."""
        if not host:
            return False
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self._hosts or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _is_known_origin(self, origin: str, host: str) -> bool:
        low = origin.lower()
        return low in self._origins or low in (f"http://{host.lower()}", f"https://{host.lower()}")


def _request_id(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    for name, value in headers:
        if name == b"x-request-id" and _REQUEST_ID.match(value):
            return value
    return secrets.token_hex(8).encode()


def _only(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> str | None:
    """A header's value; two of them count as a wrong one."""
    values = [value for name, value in headers if name == wanted]
    if not values:
        return None
    return values[0].decode("latin-1") if len(values) == 1 else "?"


def _sender(send: Any, request_id: bytes, is_head: bool) -> Any:
    async def sender(message: Any) -> None:
        if message["type"] == "http.response.start":
            extra = (*_SECURITY_HEADERS, (b"x-request-id", request_id))
            message = message | {"headers": [*message.get("headers", ()), *extra]}
        elif is_head and message["type"] == "http.response.body":
            message = message | {"body": b""}
        await send(message)

    return sender


async def _deny(send: Any, kind: str, refusal: ApiError, request_id: bytes) -> None:
    body = problem_body(refusal, request_id.decode())
    headers = [
        (b"content-type", PROBLEM_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": f"{kind}.start", "status": refusal.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})
