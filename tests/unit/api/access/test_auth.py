"""Tokens that must not hold, and the ones that must."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest

from api.access.auth import LEEWAY_S, TOKEN_BYTES, Verifier, bearer_token, demand
from api.errors import ApiError
from pipeline.credentials import issue_token

SECRET = "a secret of the tests, long enough for HS256"
OTHER = "another secret of the tests, just as long..."


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    whole = {"iss": "stockify", "aud": "stockify", "sub": "local", "iat": now, "nbf": now}
    whole |= {"exp": now + 60, "scope": "live history", "jti": "1"}
    return {name: value for name, value in (whole | changes).items() if value is not ...}


def signed(secret: str = SECRET, algorithm: str = "HS256", **changes: Any) -> str:
    return jwt.encode(claims(**changes), secret, algorithm)


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def forged(header: dict[str, Any], body: dict[str, Any], secret: bytes = SECRET.encode()) -> str:
    text = f"{part(header)}.{part(body)}"
    digest = hmac.new(secret, text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


def tampered() -> str:
    head, _, tail = signed(scope="live").split(".")
    return f"{head}.{part(claims(scope='admin'))}.{tail}"


NOW = int(time.time())
BAD: dict[str, Callable[[], str]] = {
    "empty": lambda: "",
    "garbage": lambda: "garbage",
    "two dots": lambda: "..",
    "not base64": lambda: "a!.b!.c!",
    "bytes": lambda: "\x00\xff.\x00.\x00",
    "too long": lambda: signed(jti="x" * TOKEN_BYTES),
    "other secret": lambda: signed(OTHER),
    "no signature": lambda: signed().rpartition(".")[0] + ".",
    "claims exchanged": tampered,
    "alg none": lambda: f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims())}.",
    "alg None": lambda: f"{part({'alg': 'None'})}.{part(claims())}.",
    "alg HS512": lambda: signed(SECRET * 2, "HS512"),
    "alg RS256 signed as HMAC": lambda: forged({"alg": "RS256"}, claims()),
    "alg missing": lambda: forged({"typ": "JWT"}, claims()),
    "critical extension": lambda: forged({"alg": "HS256", "crit": ["b64"], "b64": False}, claims()),
    "header no object": lambda: f"{part([1])}.{part(claims())}.x",
    "claims no object": lambda: forged({"alg": "HS256"}, [1]),  # type: ignore[arg-type]
    "expired": lambda: signed(exp=NOW - 60),
    "exp missing": lambda: signed(exp=...),
    "exp text": lambda: forged({"alg": "HS256"}, claims(exp="tomorrow")),
    "exp null": lambda: forged({"alg": "HS256"}, claims(exp=None)),
    "exp infinite": lambda: forged({"alg": "HS256"}, claims(exp=float("inf"))),
    "nbf in future": lambda: signed(nbf=NOW + 600),
    "nbf missing": lambda: signed(nbf=...),
    "iat in future": lambda: signed(iat=NOW + 600),
    "iat missing": lambda: signed(iat=...),
    "aud wrong": lambda: signed(aud="elsewhere"),
    "aud missing": lambda: signed(aud=...),
    "iss wrong": lambda: signed(iss="elsewhere"),
    "iss missing": lambda: signed(iss=...),
    "sub missing": lambda: signed(sub=...),
    "sub number": lambda: forged({"alg": "HS256"}, claims(sub=7)),
    "scope list": lambda: signed(scope=["live"]),
    "scope number": lambda: signed(scope=7),
}


@pytest.mark.parametrize("make", BAD.values(), ids=BAD.keys())
def test_bad_token_is_unauthenticated(make: Callable[[], str]) -> None:
    with pytest.raises(ApiError) as caught:
        Verifier(SECRET).verify(make())
    assert caught.value.status == 401
    assert caught.value.headers["WWW-Authenticate"].startswith("Bearer ")


def test_issued_token_says_who_and_what() -> None:
    token = issue_token(SECRET, subject="desk", scopes=("live",), ttl_s=60)
    principal = Verifier(SECRET).verify(token)
    assert principal.subject == "desk"
    assert principal.scopes == {"live"}
    assert abs(principal.expires - time.time() - 60) < 2


def test_unknown_scope_is_not_issued() -> None:
    with pytest.raises(ValueError, match="root"):
        issue_token(SECRET, scopes=("live", "root"))


def test_known_token_expires_from_the_cache_too() -> None:
    now = time.time()
    verifier = Verifier(SECRET, now=lambda: now)
    token = issue_token(SECRET, ttl_s=60)
    assert verifier.verify(token) is verifier.verify(token)
    now += 60 + LEEWAY_S
    with pytest.raises(ApiError, match="expired"):
        verifier.verify(token)


def test_cache_of_tokens_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.access.auth.CACHED_TOKENS", 20)
    verifier = Verifier(SECRET)
    for number in range(30):
        verifier.verify(signed(jti=str(number)))
    assert len(verifier._known) == 20


@pytest.mark.parametrize("header", [None, "", "Basic dXNlcjpwYXNz", "Token abc", "JWT abc", "abc"])
def test_other_schemes_are_unauthenticated(header: str | None) -> None:
    with pytest.raises(ApiError) as caught:
        bearer_token(header)
    assert caught.value.status == 401
    assert caught.value.headers["WWW-Authenticate"] == 'Bearer realm="stockify"'


def test_scheme_is_read_in_any_case() -> None:
    assert bearer_token("bearer  abc ") == "abc"


def test_missing_scope_is_forbidden() -> None:
    principal = Verifier(SECRET).verify(signed(scope="lives history"))
    demand(principal, "history")
    with pytest.raises(ApiError) as caught:
        demand(principal, "live")
    assert caught.value.status == 403
    assert 'scope="live"' in caught.value.headers["WWW-Authenticate"]
