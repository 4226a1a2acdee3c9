"""A token taken apart, strictly: its header, what was signed, and its claims.

Pure. What a token says of keys (`jwk`, `jku`, `x5u`, …) is never looked at: a header has `alg`,
`kid` and `typ`, or it is refused. Signatures are checked elsewhere, by the keys.
"""

import binascii
import json
import re
from base64 import urlsafe_b64decode
from typing import Annotated, Any

import msgspec

TOKEN_BYTES = 4_096  # ours are about 400; a longer one is refused unread
_PART = r"[A-Za-z0-9_-]+"
_TOKEN = re.compile(rf"({_PART})\.({_PART})\.({_PART})", re.ASCII)
_TYPES = (None, "jwt", "at+jwt")  # what a header may say of itself, in any case

Seconds = Annotated[float, msgspec.Meta(ge=0, lt=2.0**40)]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class Unusable(Exception):
    """Not a token of the form that is taken here."""


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that a header may say; thumbprints are allowed and of no meaning."""

    alg: str
    kid: Text | None = None
    typ: str | None = None
    x5t: str | None = None
    x5t_sha256: str | None = msgspec.field(default=None, name="x5t#S256")


class Claims(msgspec.Struct, frozen=True):
    """The claims that are looked at; others may be there. Instants in seconds."""

    iss: str
    aud: str | list[str]
    sub: Text
    exp: Seconds
    iat: Seconds
    nbf: Seconds = 0
    jti: Text | None = None
    scope: str = ""
    key: Text | None = None

    def is_for(self, audience: str) -> bool:
        """Whether an audience is meant."""
        return audience == self.aud if isinstance(self.aud, str) else audience in self.aud


class Unverified(msgspec.Struct, frozen=True):
    """The parts of a token that nobody has vouched for yet."""

    header: Header
    signed: bytes
    signature: bytes
    payload: bytes


def take_apart(token: str) -> Unverified:
    """The parts of a token. Raises Unusable."""
    if len(token) > TOKEN_BYTES:
        raise Unusable("too long")
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise Unusable("not three parts")
    head, body, tail = match.groups()
    header: Header = _strictly(_decoded(head), Header)
    if header.typ is not None and header.typ.lower() not in _TYPES:
        raise Unusable("another type of token")
    return Unverified(header, f"{head}.{body}".encode(), _decoded(tail), _decoded(body))


def read_claims(payload: bytes) -> Claims:
    """The claims of a verified token. Raises Unusable."""
    claims: Claims = _strictly(payload, Claims)
    return claims


def _decoded(part: str) -> bytes:
    try:
        return urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except (binascii.Error, ValueError):
        raise Unusable("not base64url") from None


def _strictly(data: bytes, shape: type[Any]) -> Any:
    """JSON in which no name stands twice and no number is infinite."""
    try:
        value = json.loads(
            data.decode(), object_pairs_hook=_each_once, parse_constant=_refuse_constant
        )
        return msgspec.convert(value, shape)
    except (ValueError, OverflowError, RecursionError) as error:
        raise Unusable(type(error).__name__) from None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _refuse_constant(_name: str) -> Any:
    raise ValueError("not a number of JSON")
