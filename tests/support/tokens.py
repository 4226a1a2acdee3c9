"""Tokens of every kind that must not hold, and the keys of those that must.

A gateway or verifier of these tests knows two secrets and, of another issuer, three public keys.
"""

import base64
import functools
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pipeline.credentials import LONGEST_TTL_S, key_id

SECRET = "a secret of the tests, long enough for HS256"
FORMER = "the secret before that one, which verifies still"
WITHDRAWN = "a secret that was withdrawn and verifies no more"
ISSUER = "https://issuer.example/"
TOKEN_BYTES = 4_096
NOW = int(time.time())


@functools.cache
def rsa_key(number: int = 0) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65_537, 2_048)


@functools.cache
def ed_key(number: int = 0) -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


@functools.cache
def ec_key(number: int = 0) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


SIGNERS: dict[str, tuple[str, Callable[[], Any]]] = {
    "rsa-1": ("RS256", rsa_key),
    "ed-1": ("EdDSA", ed_key),
    "ec-1": ("ES256", ec_key),
}


def jwk(name: str, **changes: Any) -> dict[str, Any]:
    """The public key of a signer, as it stands in a key set."""
    algorithm, key = SIGNERS[name]
    entry = json.loads(jwt.get_algorithm_by_name(algorithm).to_jwk(key().public_key()))
    whole = entry | {"kid": name, "alg": algorithm, "use": "sig"} | changes
    return {field: value for field, value in whole.items() if value is not ...}


def key_set(*names: str) -> bytes:
    return json.dumps({"keys": [jwk(name) for name in names or SIGNERS]}).encode()


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    whole = {"iss": "stockify", "aud": "stockify", "sub": "local", "iat": now, "nbf": now}
    whole |= {"exp": now + 60, "scope": "live history", "jti": "1"}
    return {name: value for name, value in (whole | changes).items() if value is not ...}


def signed(secret: str = SECRET, algorithm: str = "HS256", **changes: Any) -> str:
    return jwt.encode(claims(**changes), secret, algorithm)


def foreign(name: str = "rsa-1", **changes: Any) -> str:
    """A token of the other issuer."""
    algorithm, key = SIGNERS[name]
    said = {"kid": name} | changes.pop("headers", {})
    return jwt.encode(claims(**({"iss": ISSUER} | changes)), key(), algorithm, headers=said)


def part(value: object) -> str:
    return encoded(json.dumps(value).encode())


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def forged(header: object, body: object, secret: bytes = SECRET.encode()) -> str:
    """A token of these very parts (JSON values, or bytes as they are), signed by HMAC."""
    parts = [encoded(each) if isinstance(each, bytes) else part(each) for each in (header, body)]
    text = ".".join(parts)
    return f"{text}.{encoded(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"


def said(**header: Any) -> str:
    """A good token but for its header."""
    return forged({"alg": "HS256"} | header, claims())


def claiming(**changes: Any) -> str:
    """A good token but for its claims."""
    return forged({"alg": "HS256", "typ": "JWT"}, claims(**changes))


def _public(form: PublicFormat) -> bytes:
    encoding = Encoding.OpenSSH if form is PublicFormat.OpenSSH else Encoding.PEM
    return rsa_key().public_key().public_bytes(encoding, form)


def _claims_exchanged() -> str:
    head, _, tail = signed(scope="live").split(".")
    return f"{head}.{part(claims(scope='admin'))}.{tail}"


def _own_key(header: dict[str, Any]) -> str:
    """Signed by a key that the token itself brings or points to."""
    return jwt.encode(claims(iss=ISSUER), rsa_key(9), "RS256", headers=header)


def _brought() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        jwt.get_algorithm_by_name("RS256").to_jwk(rsa_key(9).public_key())
    )
    return found


def _twice(first: str, second: str) -> bytes:
    body = json.dumps(claims(scope=...))[:-1]
    return f'{body}, "scope": "{first}", "scope": "{second}"}}'.encode()


def _zero_signature() -> str:
    text = f"{part({'alg': 'ES256', 'kid': 'ec-1'})}.{part(claims(iss=ISSUER))}"
    return f"{text}.{encoded(bytes(64))}"


def _with_flipped_bit(token: str) -> str:
    text, _, tail = token.rpartition(".")
    raw = bytearray(base64.urlsafe_b64decode(tail + "=" * (-len(tail) % 4)))
    raw[3] ^= 1
    return f"{text}.{encoded(bytes(raw))}"


_FORM: dict[str, Callable[[], str]] = {
    "empty": lambda: "",
    "garbage": lambda: "garbage",
    "two dots": lambda: "..",
    "not base64": lambda: "a!.b!.c!",
    "too long": lambda: signed(jti="x" * TOKEN_BYTES),
    "five parts": lambda: f"{signed()}.{part(1)}.{part(2)}",
    "one part too many": lambda: f"{signed()}.",
    "as JSON": lambda: json.dumps(
        dict(zip(("protected", "payload", "signature"), signed().split("."), strict=True))
    ),
    "padded": lambda: signed() + "=",
    "space inside": lambda: signed().replace(".", " .", 1),
    "in quotes": lambda: f'"{signed()}"',
    "header no object": lambda: f"{part([1])}.{part(claims())}.{part(1)}",
    "header no JSON": lambda: forged(b"{alg: HS256}", claims()),
    "header no text": lambda: forged(b'{"alg":"HS256","typ":"\xff"}', claims()),
    "claims no object": lambda: forged({"alg": "HS256"}, [1]),
    "claims no JSON": lambda: forged({"alg": "HS256"}, b"sub=local"),
    "claims nested deeply": lambda: forged({"alg": "HS256"}, b'{"a":' + b"[" * 1_000),
    "claims in UTF-16": lambda: forged({"alg": "HS256"}, json.dumps(claims()).encode("utf-16")),
    "an API key": lambda: f"sk_{'a' * 12}_{'b' * 64}",
    "a ticket": lambda: f"st_{'a' * 64}",
}
_SIGNATURES: dict[str, Callable[[], str]] = {
    "other secret": lambda: signed(WITHDRAWN),
    "other secret with our name": lambda: jwt.encode(
        claims(), WITHDRAWN, "HS256", headers={"kid": key_id(SECRET)}
    ),
    "no signature": lambda: signed().rpartition(".")[0] + ".",
    "claims exchanged": _claims_exchanged,
    "signature of another": lambda: signed().rpartition(".")[0] + "." + signed(jti="2")[-43:],
    "signature cut": lambda: signed()[:-4],
    "signature with a flipped bit": lambda: _with_flipped_bit(signed()),
    "RS256 with a flipped bit": lambda: _with_flipped_bit(foreign()),
    "EdDSA with a flipped bit": lambda: _with_flipped_bit(foreign("ed-1")),
    "ES256 of zeros": _zero_signature,
    "stranger's RSA with a known name": lambda: jwt.encode(
        claims(iss=ISSUER), rsa_key(9), "RS256", headers={"kid": "rsa-1"}
    ),
    "stranger's Ed25519 with a known name": lambda: jwt.encode(
        claims(iss=ISSUER), ed_key(9), "EdDSA", headers={"kid": "ed-1"}
    ),
}
_ALGORITHMS: dict[str, Callable[[], str]] = {
    "alg none": lambda: f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims())}.",
    "alg none with a signature": lambda: forged({"alg": "none"}, claims()),
    "alg None": lambda: f"{part({'alg': 'None'})}.{part(claims())}.",
    "alg nOnE": lambda: forged({"alg": "nOnE"}, claims()),
    "alg hs256": lambda: said(alg="hs256"),
    "alg HS512": lambda: signed(SECRET * 2, "HS512"),
    "alg missing": lambda: forged({"typ": "JWT"}, claims()),
    "alg empty": lambda: said(alg=""),
    "alg list": lambda: said(alg=["HS256"]),
    "RS256 signed as HMAC": lambda: said(alg="RS256"),
    "HMAC with the RSA public key": lambda: forged(
        {"alg": "HS256"}, claims(iss=ISSUER), _public(PublicFormat.SubjectPublicKeyInfo)
    ),
    "HMAC with the RSA public key and its name": lambda: forged(
        {"alg": "HS256", "kid": "rsa-1"},
        claims(iss=ISSUER),
        _public(PublicFormat.SubjectPublicKeyInfo),
    ),
    "HMAC with the public key for ssh": lambda: forged(
        {"alg": "HS256", "kid": "rsa-1"}, claims(iss=ISSUER), _public(PublicFormat.OpenSSH)
    ),
    "HMAC with the key set's entry": lambda: forged(
        {"alg": "HS256", "kid": "rsa-1"}, claims(iss=ISSUER), json.dumps(jwk("rsa-1")).encode()
    ),
    "our secret under the RSA key's name": lambda: said(kid="rsa-1"),
    "RS256 under the secret's name": lambda: foreign(headers={"kid": key_id(SECRET)}),
    "PS256 by the RSA key": lambda: jwt.encode(
        claims(iss=ISSUER), rsa_key(), "PS256", headers={"kid": "rsa-1"}
    ),
    "RS512 by the RSA key": lambda: jwt.encode(
        claims(iss=ISSUER), rsa_key(), "RS512", headers={"kid": "rsa-1"}
    ),
    "EdDSA under the P-256 key's name": lambda: foreign("ed-1", headers={"kid": "ec-1"}),
}
_HEADERS: dict[str, Callable[[], str]] = {
    "crit": lambda: said(crit=["b64"], b64=False),
    "crit of nothing": lambda: said(crit=[]),
    "b64": lambda: said(b64=False),
    "zip": lambda: said(zip="DEF"),
    "cty: nested": lambda: said(cty="JWT"),
    "nested token": lambda: forged({"alg": "HS256"}, signed().encode()),
    "typ of another": lambda: said(typ="dpop+jwt"),
    "alg twice": lambda: forged(b'{"alg":"none","alg":"HS256"}', claims()),
    "kid path": lambda: forged({"alg": "HS256", "kid": "../../dev/null"}, claims(), b""),
    "kid query": lambda: said(kid="x' OR '1'='1"),
    "kid address": lambda: said(kid="https://evil.example/key"),
    "kid number": lambda: said(kid=7),
    "kid empty": lambda: said(kid=""),
    "kid object": lambda: said(kid={"a": 1}),
    "kid long": lambda: said(kid="k" * 500),
    "jwk brought along": lambda: _own_key({"jwk": _brought()}),
    "jwk with a known name": lambda: _own_key({"jwk": _brought(), "kid": "rsa-1"}),
    "jku": lambda: _own_key({"jku": "https://evil.example/keys", "kid": "rsa-1"}),
    "x5u": lambda: _own_key({"x5u": "https://evil.example/certificate"}),
    "x5c": lambda: _own_key({"x5c": ["MIIB"]}),
    "jku in a good token": lambda: foreign(headers={"jku": "https://issuer.example/keys"}),
}
_CLAIMS: dict[str, Callable[[], str]] = {
    "expired": lambda: signed(exp=NOW - 60),
    "exp missing": lambda: signed(exp=...),
    "exp text": lambda: claiming(exp="tomorrow"),
    "exp number as text": lambda: claiming(exp=str(NOW + 60)),
    "exp null": lambda: claiming(exp=None),
    "exp true": lambda: claiming(exp=True),
    "exp infinite": lambda: claiming(exp=float("inf")),
    "exp beyond a float": lambda: claiming(exp=10**400),
    "exp negative": lambda: claiming(exp=-1),
    "exp too far": lambda: signed(exp=NOW + LONGEST_TTL_S + 3_600),
    "nbf in future": lambda: signed(nbf=NOW + 600),
    "nbf text": lambda: claiming(nbf="0"),
    "iat in future": lambda: signed(iat=NOW + 600),
    "iat missing": lambda: signed(iat=...),
    "iat not a number": lambda: claiming(iat=float("nan")),
    "aud wrong": lambda: signed(aud="elsewhere"),
    "aud missing": lambda: signed(aud=...),
    "aud list without us": lambda: signed(aud=["elsewhere", "stockify2"]),
    "aud number": lambda: claiming(aud=1),
    "iss wrong": lambda: signed(iss="elsewhere"),
    "iss missing": lambda: signed(iss=...),
    "iss list": lambda: claiming(iss=["stockify"]),
    "our iss by the other issuer": lambda: foreign(iss="stockify"),
    "the other's iss by our secret": lambda: signed(iss=ISSUER),
    "sub missing": lambda: signed(sub=...),
    "sub empty": lambda: signed(sub=""),
    "sub number": lambda: claiming(sub=7),
    "sub long": lambda: signed(sub="s" * 300),
    "jti number": lambda: claiming(jti=7),
    "scope list": lambda: signed(scope=["live"]),
    "scope number": lambda: signed(scope=7),
    "scope twice": lambda: forged({"alg": "HS256"}, _twice("live", "live admin")),
}
BAD = {**_FORM, **_SIGNATURES, **_ALGORITHMS, **_HEADERS, **_CLAIMS}
