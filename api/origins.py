"""Which host names are ours, and which origins' pages may read our answers.

The rules of the browser's own checks, decided in one place for REST and sockets. Never looks at a
token.
"""

import ipaddress
from typing import Any
from urllib.parse import urlsplit

from pipeline.config import Settings

METHODS = "GET, HEAD, POST, PUT, DELETE"
REQUEST_HEADERS = ", ".join(
    (
        *("Authorization", "Content-Type", "Accept", "If-None-Match", "Last-Event-ID"),
        *("X-Request-Id", "traceparent"),
    )
)
EXPOSED_HEADERS = ", ".join(
    (
        *("ETag", "Link", "Content-Disposition", "RateLimit", "RateLimit-Policy", "Retry-After"),
        *("WWW-Authenticate", "X-Request-Id"),
    )
)
PREFLIGHT_S = 600  # for which a browser need not ask again

Headers = tuple[tuple[bytes, bytes], ...]


class Origins:
    """The host names and origins of one gateway."""

    def __init__(self, settings: Settings) -> None:
        self._origins = frozenset(origin.rstrip("/").lower() for origin in settings.gateway_origins)
        names = {settings.gateway_host.lower(), "localhost"}
        names |= {urlsplit(origin).hostname or "" for origin in self._origins}
        self._hosts = frozenset(names | {name.lower() for name in settings.gateway_hosts})
        self._varying: Headers = ((b"vary", b"Origin"),) if self._origins else ()

    def is_known_host(self, host: str | None) -> bool:
        """An address, or one of our names: another name is somebody else's pointed at us."""
        if not host:
            return False
        try:
            parts = urlsplit(f"//{host}")
            is_host = parts.netloc == host and "@" not in host and parts.port != 0
        except ValueError:
            return False
        name = parts.hostname or ""
        if not is_host:
            return False
        if name in self._hosts or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def is_known_origin(self, origin: str, host: str) -> bool:
        """Whether pages of an origin may open a socket: our own, and those that were named."""
        low = origin.lower()
        return low in self._origins or low in (f"http://{host.lower()}", f"https://{host.lower()}")

    def headers(self, origin: str | None) -> Headers:
        """What lets a page of that origin read an answer; nothing of the kind for others."""
        if origin is None or origin.lower() not in self._origins:
            return self._varying
        return (
            *self._varying,
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", EXPOSED_HEADERS.encode()),
        )

    def preflight(self, scope: Any, origin: str | None) -> Headers | None:
        """The answer's headers where a request only asks what may be asked; else None."""
        if origin is None or scope["method"] != "OPTIONS":
            return None
        if not any(name == b"access-control-request-method" for name, _ in scope["headers"]):
            return None
        if origin.lower() not in self._origins:
            return ()
        return (
            (b"access-control-allow-methods", METHODS.encode()),
            (b"access-control-allow-headers", REQUEST_HEADERS.encode()),
            (b"access-control-max-age", str(PREFLIGHT_S).encode()),
        )
