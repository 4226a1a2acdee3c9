"""Tokens: what a caller may do, signed with a secret of the instance.

Issued by the command and by the gateway, checked by the gateway. Pure: opens nothing. Never logs a
token, never keeps one.
"""

import hashlib
import secrets
import time
from collections.abc import Iterable, Mapping

import jwt
import msgspec

from pipeline.config import Settings

ALGORITHM = "HS256"
ISSUER = "stockify"
AUDIENCE = "stockify"
SCOPES = ("live", "history", "export", "admin")
DEFAULT_SCOPES = ("live", "history")
DEFAULT_TTL_S = 12 * 3_600
LONGEST_TTL_S = 366 * 86_400  # what is revoked is remembered for so long, and no longer
OF_KEY = "key"  # the claim that names the API key which a token was given for


class Principal(msgspec.Struct, frozen=True):
    """Who a verified token speaks for. `expires` and `issued` are in seconds of the wall clock.

    `token_id` names the token, `kind` says what it was given for: `token`, or `key` where an API
    key was exchanged for it.
    """

    subject: str
    scopes: frozenset[str]
    expires: float
    token_id: str = ""
    kind: str = "token"
    issued: float = 0.0


def issue_token(
    secret: str,
    *,
    subject: str = "local",
    scopes: Iterable[str] = DEFAULT_SCOPES,
    ttl_s: float = DEFAULT_TTL_S,
    audience: str = AUDIENCE,
    extra: Mapping[str, str] | None = None,
    now: float | None = None,
) -> str:
    """A signed token. Times are of the wall clock, also where the market's runs faster.

    Raises ValueError for a scope that does not exist, or where it would hold for too long.
    """
    chosen = tuple(scopes)
    unknown = sorted(set(chosen) - set(SCOPES))
    if unknown:
        raise ValueError(f"no such scope: {', '.join(unknown)}; there are {', '.join(SCOPES)}")
    if ttl_s > LONGEST_TTL_S:
        raise ValueError(f"a token holds for at most {LONGEST_TTL_S // 86_400} days")
    issued = int(time.time() if now is None else now)
    claims = {
        "iss": ISSUER,
        "aud": audience,
        "sub": subject,
        "iat": issued,
        "nbf": issued,
        "exp": issued + int(ttl_s),
        "scope": " ".join(chosen),
        "jti": secrets.token_hex(8),
        **(extra or {}),
    }
    return jwt.encode(claims, secret, ALGORITHM, headers={"kid": key_id(secret)})


def signing_secrets(settings: Settings) -> tuple[str, ...]:
    """Every secret of the settings, each once: the first signs, all verify. May be empty."""
    several = (*settings.jwt_secrets, settings.jwt_secret)
    return tuple(dict.fromkeys(secret for secret in several if secret))


def key_id(secret: str) -> str:
    """The name of a secret, said in the header of what it signs; tells nothing of the secret."""
    return hashlib.blake2s(secret.encode(), digest_size=6, person=b"keyname").hexdigest()
