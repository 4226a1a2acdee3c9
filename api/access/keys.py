"""The keys that tokens are verified with, each bound to one algorithm and one issuer.

A token's header only chooses among them: neither key nor algorithm is ever taken from a token. Of
a foreign key set only public keys are used, and never one that is shared.
"""

import asyncio
import json
import ssl
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from pipeline.credentials import ALGORITHM, ISSUER, key_id
from pipeline.errors import ConfigError, DecodeError

SET_BYTES = 256 * 1024
SET_KEYS = 50
RSA_BITS = range(2_048, 8_193)  # below it is broken, above it a check costs too much
FETCH_S = 5.0
REFRESH_S = 900.0  # so soon a key that was withdrawn is no longer taken
FLOOR_S = 10.0  # between two fetches, whatever tokens name
# A compressed answer could be a thousand times as large once it is held.
_PLAIN = {"Accept": "application/json", "Accept-Encoding": "identity"}
STALE_S = 86_400.0  # a set that nobody could fetch for a day is not believed any more


_ALGORITHMS = {"RSA": "RS256", "OKP Ed25519": "EdDSA", "EC P-256": "ES256"}
PUBLIC_ALGORITHMS = frozenset(_ALGORITHMS.values())
# RFC 9864 names Ed25519 fully; as a key's `alg` both are met.
_NAMES = {"RS256": "RS256", "EdDSA": "Ed25519", "ES256": "ES256"}


@dataclass(frozen=True, slots=True)
class Key:
    """A key that tokens may be verified with. `verify` takes what was signed and the signature."""

    id: str | None
    algorithm: str
    issuer: str
    verify: Callable[[bytes, bytes], bool]


def secret_keys(secrets: Iterable[str]) -> tuple[Key, ...]:
    """The keys of the instance's own secrets."""
    return tuple(
        Key(key_id(secret), ALGORITHM, ISSUER, _verification(ALGORITHM, secret.encode()))
        for secret in secrets
    )


def parse_key_set(document: bytes, issuer: str) -> tuple[tuple[Key, ...], tuple[str, ...]]:
    """The usable keys of a JWKS, and why others are none. Raises DecodeError."""
    try:
        found = json.loads(document)
        listed = found["keys"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DecodeError("not a JWKS") from None
    if not isinstance(listed, list) or len(listed) > SET_KEYS:
        raise DecodeError(f"not a JWKS of at most {SET_KEYS} keys")
    keys: list[Key] = []
    refused: list[str] = []
    for place, entry in enumerate(listed):
        try:
            keys.append(_public_key(entry, issuer))
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, AttributeError) as error:
            refused.append(f"key {place + 1}: {str(error)[:80]}")
    return tuple(keys), tuple(refused)


class Source(Protocol):
    """Where a key set comes from."""

    async def read(self) -> bytes:
        """The document. Raises OSError, httpx.HTTPError or DecodeError."""


class FileSource:
    """A JWKS in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def read(self) -> bytes:
        """The file, read again each time."""
        with self._path.open("rb") as file:
            return _bounded(file.read(SET_BYTES + 1))


class AddressSource:
    """A JWKS at an https address; redirections are not followed."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._trust: ssl.SSLContext | None = None

    async def read(self) -> bytes:
        """The answer's body."""
        if self._trust is None:  # reading the certificates takes tens of ms
            self._trust = await asyncio.to_thread(httpx.create_ssl_context)
        parts: list[bytes] = []
        length = 0
        async with (
            asyncio.timeout(FETCH_S),
            httpx.AsyncClient(verify=self._trust, timeout=FETCH_S) as client,
            client.stream("GET", self._url, headers=_PLAIN) as answer,
        ):
            if answer.status_code != 200:
                raise DecodeError(f"the answer is {answer.status_code}")
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise DecodeError("the answer is compressed")
            async for part in answer.aiter_raw():
                parts.append(part)
                length += len(part)
                if length > SET_BYTES:
                    break
        return _bounded(b"".join(parts))


class KeySet:
    """Another issuer's public keys, kept, fetched again now and then, and for an unknown name.

    A set that cannot be fetched goes on being used until it is stale. `tell` is given a line for
    the log when something changes.
    """

    def __init__(
        self,
        source: Source,
        issuer: str,
        tell: Callable[..., object],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._issuer = issuer
        self._tell = tell
        self._now = now
        self._keys: tuple[Key, ...] = ()
        self._document = b""
        self._fetched: float | None = None
        self._tried: float | None = None
        self._turn = asyncio.Lock()
        self.trouble = "the key set was not fetched yet"
        self.version = 0

    @property
    def keys(self) -> tuple[Key, ...]:
        """The keys; none while the set is stale."""
        return () if self.is_stale else self._keys

    @property
    def is_stale(self) -> bool:
        """Whether it was never fetched, or too long ago."""
        return self._fetched is None or self._now() - self._fetched > STALE_S

    @property
    def is_due(self) -> bool:
        """Whether it should be fetched again."""
        if self._tried is None:
            return True
        wait_s = FLOOR_S if self.trouble else REFRESH_S
        return self._now() - self._tried >= wait_s

    async def refresh(self) -> bool:
        """Fetch the set unless that was just done; whether the keys have changed since asked.

        Callers at the same time share one fetch.
        """
        version = self.version
        async with self._turn:
            if self.version != version:
                return True
            if self._tried is not None and self._now() - self._tried < FLOOR_S:
                return False
            self._tried = self._now()
            return await self._fetch()

    async def _fetch(self) -> bool:
        try:
            document = await self._source.read()
            keys, refused = parse_key_set(document, self._issuer)
        except (OSError, httpx.HTTPError, httpx.InvalidURL, DecodeError) as error:
            reason = str(error) if isinstance(error, DecodeError) else type(error).__name__
            trouble = f"the key set cannot be fetched: {reason}"
            if trouble != self.trouble:
                self._tell("key_set_away", reason=reason)
            self.trouble = trouble
            return False
        self.trouble = "" if keys else "the key set has no usable key"
        is_same = document == self._document and not self.is_stale
        self._fetched = self._now()
        if is_same:
            return False
        self._tell("key_set", keys=len(keys), refused="; ".join(refused))
        self._keys, self._document = keys, document
        self.version += 1
        return True


class Keyring:
    """Every key there is, the instance's own and another issuer's.

    The first secret signs; where there is none, this gateway gives out no tokens.
    """

    def __init__(self, secrets: Sequence[str] = (), key_set: KeySet | None = None) -> None:
        self.signing_secret = secrets[0] if secrets else None
        self.key_set = key_set
        self._own = secret_keys(secrets)

    def knows(self, name: str) -> bool:
        """Whether some key has that name, of whatever algorithm."""
        return any(key.id == name for key in self._all())

    def candidates(self, algorithm: str, name: str | None) -> list[Key]:
        """The keys of an algorithm that a name may mean; those of any name where none is said."""
        return [
            key
            for key in self._all()
            if key.algorithm == algorithm and (name is None or key.id == name)
        ]

    def _all(self) -> tuple[Key, ...]:
        return self._own + (self.key_set.keys if self.key_set else ())


def key_set_of(place: str, issuer: str, tell: Callable[..., object]) -> KeySet | None:
    """The key set at a file or an address; None where none is named."""
    if not place:
        return None
    source: Source = AddressSource(place) if "://" in place else FileSource(Path(place))
    return KeySet(source, issuer, tell)


def _public_key(entry: dict[str, Any], issuer: str) -> Key:
    """A key of a JWKS. Raises ValueError with the reason where it is none to verify with."""
    if {"d", "p", "q", "dp", "dq", "qi", "k"} & entry.keys():
        raise ValueError("it tells a secret")
    if entry.get("use", "sig") != "sig" or "verify" not in entry.get("key_ops", ["verify"]):
        raise ValueError("not for signatures")
    name = entry.get("kid")
    if not isinstance(name, str | None):
        raise ValueError("its kid is no text")
    algorithm = _ALGORITHMS.get(f"{entry.get('kty')} {entry.get('crv', '')}".strip())
    if algorithm is None or entry.get("alg", algorithm) not in (algorithm, _NAMES[algorithm]):
        raise ValueError("want RSA for RS256, Ed25519 for EdDSA or P-256 for ES256")
    public = jwt.get_algorithm_by_name(algorithm).from_jwk(entry)
    if not isinstance(public, RSAPublicKey | Ed25519PublicKey | EllipticCurvePublicKey):
        raise ValueError("no public key")
    if isinstance(public, RSAPublicKey) and public.key_size not in RSA_BITS:
        raise ValueError(f"RSA of {public.key_size} bits")
    return Key(name, algorithm, issuer, _verification(algorithm, public))


def _verification(algorithm: str, material: Any) -> Callable[[bytes, bytes], bool]:
    chosen = jwt.get_algorithm_by_name(algorithm)
    try:
        prepared = chosen.prepare_key(material)
    except jwt.PyJWTError as error:
        if algorithm == ALGORITHM:
            raise ConfigError(f"a secret of the tokens cannot be used: {error}") from None
        raise
    return partial(_verify, chosen.verify, prepared)


def _verify(
    verify: Callable[[bytes, Any, bytes], bool], material: Any, signed: bytes, signature: bytes
) -> bool:
    return verify(signed, material, signature)


def _bounded(document: bytes) -> bytes:
    if len(document) > SET_BYTES:
        raise DecodeError(f"a key set has at most {SET_BYTES} bytes")
    return document
