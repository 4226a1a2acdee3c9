"""Tokens: what a caller may do, signed with the instance's secret.

Issued by the command, checked by the gateway. Never logs a token, never keeps one.
"""

import secrets
import time
from collections.abc import Iterable

import jwt

ALGORITHM = "HS256"
ISSUER = "stockify"
AUDIENCE = "stockify"
SCOPES = ("live", "history", "export", "admin")
DEFAULT_SCOPES = ("live", "history")
DEFAULT_TTL_S = 12 * 3_600


def issue_token(
    secret: str,
    *,
    subject: str = "local",
    scopes: Iterable[str] = DEFAULT_SCOPES,
    ttl_s: float = DEFAULT_TTL_S,
) -> str:
    """A signed token. Times are of the wall clock, also where the market's runs faster.

    Raises ValueError for a scope that does not exist.
    """
    chosen = tuple(scopes)
    unknown = sorted(set(chosen) - set(SCOPES))
    if unknown:
        raise ValueError(f"no such scope: {', '.join(unknown)}; there are {', '.join(SCOPES)}")
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": subject,
        "iat": now,
        "nbf": now,
        "exp": now + int(ttl_s),
        "scope": " ".join(chosen),
        "jti": secrets.token_hex(8),
    }
    return jwt.encode(claims, secret, ALGORITHM)
