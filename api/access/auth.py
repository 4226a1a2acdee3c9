"""Who asks, and what he may see: bearer tokens checked, and kept checked until they expire.

The algorithm is fixed here and never taken from the token. Never logs a token; a refusal says why
in words that help an honest caller.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import jwt
import msgspec
from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from api.errors import ApiError
from pipeline.credentials import ALGORITHM, AUDIENCE, ISSUER

TOKEN_BYTES = 4_096  # ours are about 300; a longer one is refused unread
CACHED_TOKENS = 4_096  # a check costs 66 µs, a look-up one
LEEWAY_S = 5  # clocks of two hosts differ a little
_REALM = 'Bearer realm="stockify"'
_REQUIRED = ["exp", "nbf", "iat", "iss", "aud", "sub"]


class Principal(msgspec.Struct, frozen=True):
    """Who a verified token speaks for. `expires` is in seconds of the wall clock."""

    subject: str
    scopes: frozenset[str]
    expires: float


class Verifier:
    """Checks tokens against one secret."""

    def __init__(self, secret: str, now: Callable[[], float] = time.time) -> None:
        self._secret = secret
        self._now = now
        self._known: OrderedDict[str, Principal] = OrderedDict()

    def verify(self, token: str) -> Principal:
        """Who the token speaks for. Raises ApiError 401."""
        known = self._known.get(token)
        if known is not None:
            if self._now() < known.expires + LEEWAY_S:
                return known
            del self._known[token]
        principal = self._checked(token)
        while len(self._known) >= CACHED_TOKENS:
            self._known.popitem(last=False)
        self._known[token] = principal
        return principal

    def _checked(self, token: str) -> Principal:
        if not token or len(token) > TOKEN_BYTES:
            raise unauthenticated("the token is empty or too long")
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=[ALGORITHM],
                audience=AUDIENCE,
                issuer=ISSUER,
                leeway=LEEWAY_S,
                options={"require": _REQUIRED},
            )
        except jwt.ExpiredSignatureError:
            raise unauthenticated("the token has expired") from None
        except jwt.ImmatureSignatureError:
            raise unauthenticated("the token is not valid yet") from None
        except (jwt.InvalidAudienceError, jwt.InvalidIssuerError):
            raise unauthenticated("the token is for somebody else") from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            raise unauthenticated("the token is not one of ours") from None
        scope = claims.get("scope", "")
        if not isinstance(scope, str) or not isinstance(claims["sub"], str):
            raise unauthenticated("the token is not one of ours")
        principal = Principal(claims["sub"], frozenset(scope.split()), float(claims["exp"]))
        if self._now() >= principal.expires + LEEWAY_S:
            raise unauthenticated("the token has expired")
        return principal


def unauthenticated(detail: str, *, is_invalid: bool = True) -> ApiError:
    """401, with the challenge that RFC 6750 asks for."""
    challenge = f'{_REALM}, error="invalid_token", error_description="{detail}"'
    return ApiError(
        401,
        "invalid_token" if is_invalid else "unauthenticated",
        detail,
        headers={"WWW-Authenticate": challenge if is_invalid else _REALM},
    )


def bearer_token(header: str | None) -> str:
    """The token of an Authorization header. Raises ApiError 401 where it is no Bearer."""
    if not header:
        raise unauthenticated("an Authorization: Bearer header is needed", is_invalid=False)
    scheme, _, token = header.strip().partition(" ")
    if scheme.lower() != "bearer":
        raise unauthenticated("the Authorization scheme must be Bearer", is_invalid=False)
    return token.strip()


def demand(principal: Principal, scope: str) -> None:
    """Raises ApiError 403 unless the principal has the scope."""
    if scope not in principal.scopes:
        raise ApiError(
            403,
            "insufficient_scope",
            f"this needs the scope {scope}",
            headers={"WWW-Authenticate": f'{_REALM}, error="insufficient_scope", scope="{scope}"'},
        )


def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Admits a request to a data route.

    The route names its scope in `opt["scope"]`, and in `opt["scope_with"]` the scope that it needs
    instead when a query parameter is given.
    """
    token = bearer_token(connection.headers.get("authorization"))
    scope = handler.opt["scope"]
    for name, instead in handler.opt.get("scope_with", {}).items():
        if name in connection.query_params:
            scope = instead
    demand(connection.app.state.gateway.verifier.verify(token), scope)
