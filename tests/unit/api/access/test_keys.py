"""Key sets of other issuers: which keys are usable, when they are fetched, how long believed."""

import asyncio
import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from api.access.keys import (
    FLOOR_S,
    REFRESH_S,
    SET_BYTES,
    STALE_S,
    FileSource,
    Keyring,
    KeySet,
    key_set_of,
    parse_key_set,
)
from pipeline.errors import ConfigError, DecodeError
from tests.support import tokens
from tests.support.tokens import ISSUER, jwk


def private(name: str) -> dict[str, Any]:
    algorithm, key = tokens.SIGNERS[name]
    entry: dict[str, Any] = json.loads(jwt.get_algorithm_by_name(algorithm).to_jwk(key()))
    return entry | {"kid": name}


def of_bits(bits: int) -> dict[str, Any]:
    key = rsa.generate_private_key(65_537, bits)
    entry: dict[str, Any] = json.loads(jwt.get_algorithm_by_name("RS256").to_jwk(key.public_key()))
    return entry


def test_each_kind_of_key_is_bound_to_its_algorithm() -> None:
    keys, refused = parse_key_set(tokens.key_set(), ISSUER)
    assert refused == ()
    assert {key.id: key.algorithm for key in keys} == {
        name: algorithm for name, (algorithm, _) in tokens.SIGNERS.items()
    }
    assert {key.issuer for key in keys} == {ISSUER}


@pytest.mark.parametrize("changes", [{"alg": ...}, {"use": ...}, {"kid": ...}], ids=str)
def test_what_a_key_need_not_say(changes: dict[str, Any]) -> None:
    for name in tokens.SIGNERS:
        keys, refused = parse_key_set(json.dumps({"keys": [jwk(name, **changes)]}).encode(), ISSUER)
        assert (len(keys), refused) == (1, ())


def test_full_name_of_ed25519_is_known() -> None:
    document = json.dumps({"keys": [jwk("ed-1", alg="Ed25519")]}).encode()
    assert [key.algorithm for key in parse_key_set(document, ISSUER)[0]] == ["EdDSA"]


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(lambda: {"kty": "oct", "k": "c2VjcmV0" * 8, "alg": "HS256"}, id="shared"),
        pytest.param(lambda: private("rsa-1"), id="private RSA"),
        pytest.param(lambda: private("ed-1"), id="private Ed25519"),
        pytest.param(lambda: jwk("rsa-1", alg="HS256"), id="RSA as HMAC"),
        pytest.param(lambda: jwk("rsa-1", alg="RS512"), id="RSA for RS512"),
        pytest.param(lambda: jwk("rsa-1", alg="RSA-OAEP"), id="RSA for encryption"),
        pytest.param(lambda: jwk("rsa-1", use="enc"), id="for encryption"),
        pytest.param(lambda: jwk("rsa-1", key_ops=["encrypt"]), id="to encrypt"),
        pytest.param(lambda: jwk("rsa-1", kid=7), id="kid number"),
        pytest.param(lambda: jwk("rsa-1", n="AQAB"), id="RSA of few bits"),
        pytest.param(lambda: of_bits(1_024), id="RSA of 1024 bits"),
        pytest.param(lambda: jwk("rsa-1", n=...), id="RSA without a modulus"),
        pytest.param(lambda: jwk("rsa-1", e="AA"), id="RSA with exponent 0"),
        pytest.param(lambda: jwk("ec-1", crv="P-384"), id="other curve"),
        pytest.param(lambda: jwk("ec-1", crv="P-256", x="AAAA"), id="point off the curve"),
        pytest.param(lambda: jwk("ed-1", crv="X25519"), id="for key exchange"),
        pytest.param(lambda: jwk("ed-1", x="AAAA"), id="Ed25519 too short"),
        pytest.param(lambda: {"kty": ["RSA"]}, id="kty list"),
        pytest.param(lambda: {}, id="empty"),
        pytest.param(lambda: "rsa-1", id="no object"),
        pytest.param(lambda: None, id="null"),
    ],
)
def test_key_that_is_none_to_verify_with_is_left_out(entry: Any) -> None:
    document = json.dumps({"keys": [entry(), jwk("ec-1")]}).encode()
    keys, refused = parse_key_set(document, ISSUER)
    assert [key.id for key in keys] == ["ec-1"]
    assert len(refused) == 1
    assert refused[0].startswith("key 1: ")


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"[]",
        b"null",
        b'{"keys": {}}',
        b"\xff",
        b"[" * 9_000,
        b'{"keys":[' + b"1," * 60 + b"1]}",
    ],
    ids=["empty", "list", "null", "no list", "bytes", "deep", "too many"],
)
def test_what_is_no_key_set_is_an_error(document: bytes) -> None:
    with pytest.raises(DecodeError):
        parse_key_set(document, ISSUER)


def test_secret_in_the_form_of_a_key_file_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match="cannot be used"):
        Keyring((json.dumps(jwk("rsa-1")),))


def test_keyring_without_secrets_signs_nothing() -> None:
    assert Keyring().signing_secret is None


class Changing:
    """A source that can fail, and counts."""

    def __init__(self) -> None:
        self.document: bytes | Exception = tokens.key_set("rsa-1")
        self.reads = 0

    async def read(self) -> bytes:
        self.reads += 1
        await asyncio.sleep(0)
        if isinstance(self.document, Exception):
            raise self.document
        return self.document


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def made(source: Changing, clock: Clock) -> tuple[KeySet, list[str]]:
    told: list[str] = []
    return KeySet(source, ISSUER, lambda event, **_: told.append(event), clock), told


async def test_set_is_fetched_again_after_its_time_and_never_sooner_than_the_floor() -> None:
    source, clock = Changing(), Clock()
    keys, _ = made(source, clock)
    assert keys.is_due
    assert await keys.refresh()
    assert not keys.is_due
    clock.now += FLOOR_S - 0.1
    assert not await keys.refresh()
    assert source.reads == 1
    clock.now += REFRESH_S
    assert keys.is_due
    assert not await keys.refresh()  # they are the same
    assert source.reads == 2
    assert not keys.is_due


async def test_callers_at_the_same_time_share_one_fetch() -> None:
    source, clock = Changing(), Clock()
    keys, _ = made(source, clock)
    assert all(await asyncio.gather(*(keys.refresh() for _ in range(20))))
    assert source.reads == 1


async def test_set_that_cannot_be_fetched_holds_until_it_is_stale() -> None:
    source, clock = Changing(), Clock()
    keys, told = made(source, clock)
    await keys.refresh()
    source.document = OSError("away")
    clock.now += REFRESH_S
    assert not await keys.refresh()
    assert "cannot be fetched" in keys.trouble
    assert [key.id for key in keys.keys] == ["rsa-1"]
    clock.now += STALE_S - REFRESH_S
    assert keys.keys
    clock.now += 1
    assert keys.is_stale
    assert keys.keys == ()
    source.document = tokens.key_set()
    assert await keys.refresh()
    assert len(keys.keys) == 3
    assert keys.trouble == ""
    assert told == ["key_set", "key_set_away", "key_set"]


async def test_same_keys_are_news_again_once_they_were_stale() -> None:
    source, clock = Changing(), Clock()
    keys, _ = made(source, clock)
    await keys.refresh()
    clock.now += STALE_S + 1
    assert keys.keys == ()
    assert await keys.refresh()
    assert keys.keys


async def test_set_is_read_from_a_file_again_and_again(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    source = FileSource(path)
    with pytest.raises(FileNotFoundError):
        await source.read()
    path.write_bytes(tokens.key_set())
    assert await source.read() == tokens.key_set()
    path.write_bytes(b" " * (SET_BYTES + 1))
    with pytest.raises(DecodeError, match="bytes"):
        await source.read()


def test_no_place_is_no_key_set() -> None:
    assert key_set_of("", ISSUER, print) is None
