"""Who asks, and what he may see: tokens verified once, and kept until they expire or are revoked.

The algorithm is that of the key, never taken from the token alone. Never logs a token; a refusal
says why in words that help an honest caller.
"""

import contextlib
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

from litestar.connection import ASGIConnection
from litestar.handlers import BaseRouteHandler

from api.access.jws import Claims, Header, Unusable, read_claims, take_apart
from api.access.keys import PUBLIC_ALGORITHMS, Key, Keyring
from api.access.revoked import Revoked
from api.errors import RETRY_AFTER_S, ApiError
from pipeline.credentials import ALGORITHM, AUDIENCE, LONGEST_TTL_S, SCOPES, Principal
from pipeline.keys import KEY_PREFIX, TICKET_PREFIX, Tickets

CACHED_TOKENS = 4_096  # a check costs 60 to 300 µs, a look-up about one
LEEWAY_S = 5  # clocks of two hosts differ a little
ANY_SCOPE = ""  # `opt["scope"]` of a route that wants a token and nothing of it
_REALM = 'Bearer realm="stockify"'
_SCOPES = frozenset(SCOPES)
_NOT_OURS = "the token is not one of ours"


class UnknownKey(ApiError):
    """The token names a key that is not known; the other issuer may have made it just now."""


class Verifier:
    """Verifies tokens with the keys of a ring, unless they are among what was revoked."""

    def __init__(
        self,
        keyring: Keyring,
        *,
        audience: str = AUDIENCE,
        revoked: Revoked | None = None,
        tickets: Tickets | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.keyring = keyring
        self.revoked = revoked
        self._tickets = tickets
        self._audience = audience
        self._now = now
        self._known: OrderedDict[str, Principal] = OrderedDict()
        self._attended: dict[object, tuple[Principal, Callable[[], None]]] = {}

    def verify(self, token: str) -> Principal:
        """Who the token speaks for, by the keys at hand.

        Raises ApiError 401, or 503 while revocations or keys are not known.
        """
        if self.revoked is not None:
            self.revoked.demand_known()
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

    async def admit(self, token: str) -> Principal:
        """The same, but where the token names an unknown key, the key set is fetched first."""
        try:
            return self.verify(token)
        except UnknownKey:
            key_set = self.keyring.key_set
            if key_set is None or not await key_set.refresh():
                raise
            self.forget()
            return self.verify(token)

    async def redeem(self, ticket: str) -> Principal:
        """Who a stream ticket speaks for; it is used up by that.

        Raises ApiError 401 or 503, BusUnavailable, DecodeError.
        """
        principal = await self._tickets.redeem(ticket) if self._tickets else None
        if principal is None:
            raise unauthenticated("the ticket is unknown, used or too old")
        self.check(principal)
        return principal

    def check(self, principal: Principal) -> None:
        """Raises ApiError for a principal that was verified before and does not hold any more."""
        if self.revoked is not None:
            self.revoked.demand_known()
            if self.revoked.holds(principal):
                raise unauthenticated("the token was revoked")
        if self._now() >= principal.expires + LEEWAY_S:
            raise unauthenticated("the token has expired")

    def attend(self, session: object, principal: Principal, end: Callable[[], None]) -> None:
        """Call `end` when a session's token is revoked; a later call for the session replaces.

        At once where that happened since the token was verified.
        """
        if self.revoked is not None and self.revoked.holds(principal):
            end()
        else:
            self._attended[session] = (principal, end)

    def dismiss(self, session: object) -> None:
        """The session has ended."""
        self._attended.pop(session, None)

    @contextlib.contextmanager
    def attending(self, principal: Principal, end: Callable[[], None]) -> Iterator[None]:
        """Attend an answer that lasts, for as long as the block does."""
        session = object()
        self.attend(session, principal, end)
        try:
            yield
        finally:
            self.dismiss(session)

    def forget(self) -> None:
        """Verify every token anew, for the keys have changed."""
        self._known.clear()

    def apply(self) -> None:
        """Forget the tokens that are revoked by now, and end their sessions."""
        revoked = self.revoked
        if revoked is None:
            return
        for token in [one for one, who in self._known.items() if revoked.holds(who)]:
            del self._known[token]
        for session, (principal, end) in list(self._attended.items()):
            if revoked.holds(principal):
                self._attended.pop(session, None)
                end()

    def _checked(self, token: str) -> Principal:
        if not token:
            raise unauthenticated("the token is empty")
        if token.startswith(KEY_PREFIX):
            raise unauthenticated("an API key is no token: exchange it at POST /v1/token")
        if token.startswith(TICKET_PREFIX):
            raise unauthenticated("a stream ticket is no token")
        try:
            found = take_apart(token)
            key = self._key(found.header, found.signed, found.signature)
            claims = read_claims(found.payload)
        except Unusable:
            raise unauthenticated(_NOT_OURS) from None
        return self._principal(claims, key, found.signed)

    def _key(self, header: Header, signed: bytes, signature: bytes) -> Key:
        candidates = self.keyring.candidates(header.alg, header.kid)
        for key in candidates:
            if key.verify(signed, signature):
                return key
        key_set = self.keyring.key_set
        if candidates or key_set is None or header.alg not in PUBLIC_ALGORITHMS:
            raise unauthenticated(_NOT_OURS)
        if key_set.is_stale:
            retry = {"Retry-After": str(RETRY_AFTER_S)}
            detail = "the keys of that issuer are not known"
            raise UnknownKey(503, "keys_unavailable", detail, headers=retry)
        refusal = unauthenticated(_NOT_OURS)
        if header.kid is None or self.keyring.knows(header.kid):
            raise refusal
        raise UnknownKey(401, refusal.code, refusal.detail, headers=refusal.headers)

    def _principal(self, claims: Claims, key: Key, signed: bytes) -> Principal:
        now = self._now()
        if claims.iss != key.issuer or not claims.is_for(self._audience):
            raise unauthenticated("the token is for somebody else")
        if now >= claims.exp + LEEWAY_S:
            raise unauthenticated("the token has expired")
        if max(claims.nbf, claims.iat) > now + LEEWAY_S:
            raise unauthenticated("the token is not valid yet")
        if claims.exp - claims.iat > LONGEST_TTL_S:
            raise unauthenticated("the token holds for too long")
        principal = Principal(
            subject=claims.sub,
            scopes=frozenset(claims.scope.split()) & _SCOPES,
            expires=claims.exp,
            token_id=claims.jti or hashlib.sha256(signed).hexdigest()[:32],
            kind="key" if claims.key and key.algorithm == ALGORITHM else "token",
            issued=claims.iat,
        )
        if self.revoked is not None and self.revoked.holds(principal):
            raise unauthenticated("the token was revoked")
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


def insufficient(detail: str, scope: str) -> ApiError:
    """403, with the challenge that names the scope, one that exists."""
    challenge = f'{_REALM}, error="insufficient_scope", scope="{scope}"'
    return ApiError(403, "insufficient_scope", detail, headers={"WWW-Authenticate": challenge})


def authorization_of(connection: ASGIConnection[Any, Any, Any, Any]) -> str | None:
    """The Authorization header, None without one.

    Raises ApiError 401 for two of them: who reads the first and who reads the last would differ.
    """
    found = [value for name, value in connection.scope["headers"] if name == b"authorization"]
    if len(found) > 1:
        raise unauthenticated("one Authorization header is enough", is_invalid=False)
    return found[0].decode("latin-1") if found else None


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
        raise insufficient(f"this needs the scope {scope}", scope)


def scopes_instead(
    connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
) -> list[str]:
    """Of `opt["scope_with"]` the scopes of those parameters that the query has."""
    if not connection.scope.get("query_string"):
        return []
    scopes: dict[str, str] = handler.opt.get("scope_with", {})
    return [scope for name, scope in scopes.items() if name in connection.query_params]


async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Admits a request to a route, and keeps who asks for `principal_of`.

    The route names its scope in `opt["scope"]`, and in `opt["scope_with"]` the scope that it needs
    instead when a query parameter is given; `ANY_SCOPE` asks for a token alone, and a route that
    `takes_key` for none, one that `takes_ticket` for a stream ticket where there is no header, and
    a question for the methods asks nothing. A coroutine, because others
    are sent to a thread.
    """
    if handler.opt.get("takes_key") or connection.scope.get("method") == "OPTIONS":
        return
    header = authorization_of(connection)
    ticket = connection.query_params.get("ticket") if handler.opt.get("takes_ticket") else None
    verifier: Verifier = connection.app.state.gateway.verifier
    scope = handler.opt["scope"]
    for instead in scopes_instead(connection, handler):
        scope = instead
    if header is None and ticket is not None:
        principal = await verifier.redeem(ticket)
    else:
        principal = await verifier.admit(bearer_token(header))
    if scope != ANY_SCOPE:
        demand(principal, scope)
    connection.scope["state"]["principal"] = principal


def principal_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Principal:
    """Whom the guard has admitted."""
    principal: Principal = connection.scope["state"]["principal"]
    return principal
