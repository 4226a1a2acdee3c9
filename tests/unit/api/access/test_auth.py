"""Tokens that must not hold, and the ones that must."""

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import jwt
import pytest

from api.access import auth
from api.access.auth import LEEWAY_S, Verifier, bearer_token, demand
from api.access.jws import TOKEN_BYTES
from api.access.keys import Keyring, KeySet
from api.access.revoked import Revoked
from api.errors import ApiError
from pipeline.credentials import Principal, issue_token
from pipeline.revocations import News, Place, is_revoked
from tests.support import tokens
from tests.support.tokens import BAD, FORMER, ISSUER, SECRET, foreign, signed


class Held:
    """A key set's document, and how often it was read."""

    def __init__(self, document: bytes) -> None:
        self.document = document
        self.reads = 0

    async def read(self) -> bytes:
        self.reads += 1
        return self.document


async def ring(document: bytes | None = None) -> Keyring:
    """The secrets of these tests and another issuer's keys."""
    held = Held(tokens.key_set() if document is None else document)
    keys = KeySet(held, ISSUER, lambda *_, **__: None)
    await keys.refresh()
    return Keyring((SECRET, FORMER), keys)


def verifier(**options: Any) -> Verifier:
    return Verifier(Keyring((SECRET, FORMER)), **options)


@pytest.fixture(scope="module")
def wide() -> Verifier:
    """A verifier that knows every key of these tests."""
    return Verifier(asyncio.run(ring()))


@pytest.mark.parametrize("make", BAD.values(), ids=BAD.keys())
def test_bad_token_is_unauthenticated(wide: Verifier, make: Callable[[], str]) -> None:
    token = make()
    for _ in range(2):  # and is not taken for a known one afterwards
        with pytest.raises(ApiError) as caught:
            wide.verify(token)
        assert caught.value.status == 401
        assert caught.value.headers["WWW-Authenticate"].startswith("Bearer ")
        assert len(token) < 8 or token not in str(vars(caught.value))


def test_there_are_enough_bad_tokens_and_each_is_another() -> None:
    assert tokens.TOKEN_BYTES == TOKEN_BYTES
    assert len({make() for make in BAD.values()}) == len(BAD) >= 40


@pytest.mark.parametrize("name", tokens.SIGNERS)
def test_each_algorithm_of_the_other_issuer_holds(wide: Verifier, name: str) -> None:
    principal = wide.verify(foreign(name, sub="desk", scope="live admin openid"))
    assert (principal.subject, principal.kind) == ("desk", "token")
    assert principal.scopes == {"live", "admin"}  # others mean nothing here


def test_token_without_a_key_name_finds_its_key(wide: Verifier) -> None:
    token = jwt.encode(tokens.claims(iss=ISSUER), tokens.ed_key(), "EdDSA")
    assert wide.verify(token).subject == "local"
    assert wide.verify(signed(FORMER)).subject == "local"


def test_first_secret_signs_and_all_verify() -> None:
    known = verifier()
    assert known.keyring.signing_secret == SECRET
    assert known.verify(issue_token(SECRET)).subject == "local"
    assert known.verify(issue_token(FORMER)).subject == "local"
    with pytest.raises(ApiError, match="not one of ours"):
        known.verify(issue_token(tokens.WITHDRAWN))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"nbf": ...}, id="nbf-missing"),
        pytest.param({"jti": ...}, id="jti-missing"),
        pytest.param({"aud": ["elsewhere", "stockify"]}, id="aud-list"),
        pytest.param({"exp": tokens.NOW + 600.5}, id="exp-fraction"),
        pytest.param({"more": {"deep": [1]}}, id="further-claims"),
    ],
)
def test_what_other_issuers_do_is_allowed(changes: dict[str, Any]) -> None:
    principal = verifier().verify(signed(**changes))
    assert principal.token_id


def test_token_without_an_id_is_named_by_what_was_signed() -> None:
    one, other = (verifier().verify(signed(jti=..., sub=sub)).token_id for sub in ("a", "b"))
    assert one != other
    assert len(one) == 32


def test_audience_is_the_one_of_the_settings() -> None:
    other = verifier(audience="desk")
    assert other.verify(issue_token(SECRET, audience="desk")).subject == "local"
    with pytest.raises(ApiError, match="somebody else"):
        other.verify(issue_token(SECRET))


def test_issued_token_says_who_and_what() -> None:
    token = issue_token(SECRET, subject="desk", scopes=("live",), ttl_s=60)
    principal = verifier().verify(token)
    assert principal.subject == "desk"
    assert principal.scopes == {"live"}
    assert abs(principal.expires - time.time() - 60) < 2


@pytest.mark.parametrize(
    ("changes", "word"), [({"scopes": ("live", "root")}, "root"), ({"ttl_s": 1e9}, "366 days")]
)
def test_token_that_would_not_hold_is_not_issued(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        issue_token(SECRET, **changes)


def test_known_token_expires_from_the_cache_too() -> None:
    now = time.time()
    known = verifier(now=lambda: now)
    token = issue_token(SECRET, ttl_s=60)
    assert known.verify(token) is known.verify(token)
    now += 60 + LEEWAY_S
    with pytest.raises(ApiError, match="expired"):
        known.verify(token)


def test_cache_of_tokens_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.access.auth.CACHED_TOKENS", 20)
    known = verifier()
    for number in range(30):
        known.verify(signed(jti=str(number)))
    assert len(known._known) == 20


# Keys that come and go


async def test_unknown_key_is_asked_for_once_and_then_known() -> None:
    held = Held(tokens.key_set("rsa-1"))
    now = 0.0
    keys = KeySet(held, ISSUER, lambda *_, **__: None, now=lambda: now)
    known = Verifier(Keyring((SECRET,), keys))
    assert (await known.admit(foreign("rsa-1"))).subject == "local"
    held.document = tokens.key_set()
    for _ in range(5):
        with pytest.raises(auth.UnknownKey):
            await known.admit(foreign("ed-1"))
    assert held.reads == 1  # the floor between two fetches
    now += 11
    assert (await known.admit(foreign("ed-1"))).subject == "local"
    assert held.reads == 2


async def test_withdrawn_key_does_not_live_on_in_the_cache() -> None:
    held = Held(tokens.key_set())
    now = 0.0
    keys = KeySet(held, ISSUER, lambda *_, **__: None, now=lambda: now)
    known = Verifier(Keyring((SECRET,), keys))
    token = foreign("ec-1")
    await known.admit(token)
    held.document = tokens.key_set("rsa-1")
    now += 11
    with pytest.raises(ApiError):
        await known.admit(foreign("rsa-1", headers={"kid": "rsa-2"}))
    with pytest.raises(ApiError, match="not one of ours"):
        known.verify(token)


async def test_bad_signature_never_makes_the_gateway_fetch() -> None:
    held = Held(tokens.key_set())
    now = 0.0
    keys = KeySet(held, ISSUER, lambda *_, **__: None, now=lambda: now)
    known = Verifier(Keyring((SECRET,), keys))
    await keys.refresh()
    for name, make in BAD.items():
        now += 100
        keys._fetched = now
        reads = held.reads
        with pytest.raises(ApiError):
            await known.admit(make())
        assert held.reads == reads, name


async def test_keys_that_were_never_had_are_503() -> None:
    keys = KeySet(Held(b"{}"), ISSUER, lambda *_, **__: None)
    known = Verifier(Keyring((SECRET,), keys))
    with pytest.raises(ApiError) as caught:
        await known.admit(foreign())
    assert (caught.value.status, caught.value.code) == (503, "keys_unavailable")
    assert known.verify(signed()).subject == "local"


# What was revoked


class Told:
    """Revocations as Redis would tell them."""

    def __init__(self) -> None:
        self.news = News(Place(), {}, {})

    async def read(self, _place: Place) -> News:
        return self.news


async def test_revoked_token_leaves_the_cache_and_ends_its_session() -> None:
    told = Told()
    known = verifier(revoked=Revoked(told, 60.0))  # type: ignore[arg-type]
    assert known.revoked is not None
    await known.revoked.refresh()
    revoked, other = signed(jti="gone"), signed(jti="stays")
    ended: list[str] = []
    for token in (revoked, other):
        principal = known.verify(token)
        known.attend(token, principal, lambda name=principal.token_id: ended.append(name))
    told.news = News(Place("e", 1), {"gone": tokens.NOW + 3_600}, {})
    assert await known.revoked.refresh()
    known.apply()
    assert ended == ["gone"]
    known.attend(
        "late", Principal("local", frozenset(), 1e10, "gone"), lambda: ended.append("late")
    )
    assert ended == ["gone", "late"]
    known.dismiss(other)
    told.news = News(Place("e", 2), {"stays": tokens.NOW + 3_600}, {})
    await known.revoked.refresh()
    known.apply()
    assert ended == ["gone", "late"]  # a session that has ended already is not told
    for token in (revoked, other):
        with pytest.raises(ApiError, match="revoked"):
            known.verify(token)
    assert known.verify(signed(jti="third"))


async def test_nobody_is_let_in_while_revocations_are_not_known() -> None:
    now = 0.0
    revoked = Revoked(Told(), 60.0, clock=lambda: now)  # type: ignore[arg-type]
    known = verifier(revoked=revoked)
    token = signed()

    for elapsed in (0.0, 63.1):  # at the start, and after the grace beyond the last reading
        now += elapsed
        with pytest.raises(ApiError) as caught:
            known.verify(token)
        assert (caught.value.status, caught.value.code) == (503, "redis_unavailable")
        await revoked.refresh()
        assert known.verify(token)
    now += 62.9
    assert known.verify(token)


@pytest.mark.parametrize(
    ("issued", "is_out"), [(99.0, True), (100.0, True), (100.9, True), (101.0, False)]
)
def test_subject_is_revoked_up_to_the_end_of_a_second(issued: float, is_out: bool) -> None:
    principal = Principal("desk", frozenset(), 1e9, "1", "token", issued)
    assert is_revoked(principal, {}, {"desk": (100, 10**9)}) is is_out
    assert not is_revoked(principal, {}, {"other": (100, 10**9)})


async def test_later_instant_of_a_subject_wins_and_loss_in_redis_changes_nothing() -> None:
    told = Told()
    revoked = Revoked(told, 60.0)  # type: ignore[arg-type]
    far = tokens.NOW + 10_000
    principal = Principal("desk", frozenset(), far, "1", "token", tokens.NOW)
    for before in (tokens.NOW, tokens.NOW - 50):
        told.news = News(Place("e", 1), {}, {"desk": (before, far)})
        await revoked.refresh()
    assert revoked.holds(principal)
    told.news = News(Place(), {}, {})  # Redis began anew
    await revoked.refresh()
    assert revoked.holds(principal)


# What a request brings


@pytest.mark.parametrize("header", [None, "", "Basic dXNlcjpwYXNz", "Token abc", "JWT abc", "abc"])
def test_other_schemes_are_unauthenticated(header: str | None) -> None:
    with pytest.raises(ApiError) as caught:
        bearer_token(header)
    assert caught.value.status == 401
    assert caught.value.headers["WWW-Authenticate"] == 'Bearer realm="stockify"'


def test_scheme_is_read_in_any_case() -> None:
    assert bearer_token("bearer  abc ") == "abc"


def test_missing_scope_is_forbidden() -> None:
    principal = verifier().verify(signed(scope="lives history"))
    demand(principal, "history")
    with pytest.raises(ApiError) as caught:
        demand(principal, "live")
    assert caught.value.status == 403
    assert 'scope="live"' in caught.value.headers["WWW-Authenticate"]


async def test_guard_keeps_who_asks_for_the_handler() -> None:
    gateway = SimpleNamespace(verifier=verifier())
    connection: Any = SimpleNamespace(
        query_params={},
        app=SimpleNamespace(state=SimpleNamespace(gateway=gateway)),
        scope={
            "state": {},
            "headers": [(b"authorization", f"Bearer {signed(sub='desk')}".encode())],
        },
    )
    handler: Any = SimpleNamespace(opt={"scope": auth.ANY_SCOPE})
    await auth.guard(connection, handler)
    assert auth.principal_of(connection).subject == "desk"
    connection.scope["headers"] *= 2
    with pytest.raises(ApiError, match="is enough"):
        await auth.guard(connection, handler)
