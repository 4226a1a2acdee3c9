"""Who is let in by a real gateway: bad tokens, API keys, tickets, revocation, other issuers."""

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import redis.asyncio as redis_client
import websockets

from api.access import following
from api.access import keys as access_keys
from api.access import revoked as access_revoked
from api.access.auth import Verifier
from api.access.keys import Keyring
from api.access.revoked import APPLIED_S, Revoked
from api.errors import ApiError
from pipeline.credentials import Principal, issue_token
from pipeline.errors import DecodeError
from pipeline.keys import ApiKeys, Tickets
from pipeline.revocations import Revocations
from tests.support import gateway, issuer, servers, tokens
from tests.support.gateway import CHAIN, Gateway
from tests.support.tokens import BAD, FORMER, ISSUER, SECRET, foreign

pytestmark = pytest.mark.asyncio(loop_scope="module")
PATH = "/v1/underlyings"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gateway]:
    """A gateway with two secrets and another issuer's keys, without limits."""
    directory = tmp_path_factory.mktemp("access")
    (directory / "keys.json").write_bytes(tokens.key_set())
    with servers.running(servers.valkey_binary(), directory) as server:
        async with gateway.running(
            server.url,
            jwt_secrets=(SECRET, FORMER),
            jwt_jwks=str(directory / "keys.json"),
            jwt_issuer=ISSUER,
            gateway_address_rate=0.0,
            gateway_rate=0.0,
        ) as running:
            await running.publish(CHAIN, 7)
            yield running


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def status(served: Gateway, token: str, path: str = PATH) -> int:
    return (await served.http.get(path, headers=bearer(token))).status_code


async def ask(served: Gateway, path: str, token: str, **body: Any) -> httpx.Response:
    return await served.http.post(path, headers=bearer(token), json=body)


async def told(served: Gateway, path: str, token: str, **body: Any) -> dict[str, Any]:
    """The data of a success."""
    response = await ask(served, path, token, **body)
    assert response.status_code == 200, response.text
    assert response.headers["cache-control"] == "no-store"
    data: dict[str, Any] = response.json()["data"]
    return data


async def api_key(served: Gateway, *scopes: str, ttl_s: int = 0) -> tuple[str, str]:
    """A key's text and its id."""
    text, key = await ApiKeys(served.redis).create("desk", scopes or ("live",), ttl_s=ttl_s)
    return text, key.id


# The matrix


async def test_bad_tokens_are_401_over_rest_and_are_never_repeated(
    shared: Gateway, capfd: pytest.CaptureFixture[str]
) -> None:
    shown = []
    for name, make in BAD.items():
        token = make()
        if not token:
            continue  # a header cannot say it
        response = await shared.http.get(PATH, headers=bearer(token))
        body = response.json()
        assert (response.status_code, body["status"]) == (401, 401), name
        assert response.headers["content-type"] == "application/problem+json", name
        assert body["code"] in ("invalid_token", "unauthenticated"), name
        assert response.headers["www-authenticate"].startswith('Bearer realm="stockify"'), name
        if len(token) > 30:
            shown.append(token)
            assert token[:30] not in response.text + str(response.headers), name
    assert len(shown) > 60
    logged = "".join(capfd.readouterr())
    assert [token for token in shown if token[-20:] in logged] == []


async def test_bad_tokens_close_a_socket_with_4401(shared: Gateway) -> None:
    async def closed(make: Any) -> int:
        async with shared.client(is_authenticated=False) as client:
            await client.send("auth", token=make())
            return await client.closed()

    names = list(BAD)
    for first in range(0, len(names), 20):
        some = names[first : first + 20]
        codes = await asyncio.gather(*(closed(BAD[name]) for name in some))
        assert dict(zip(some, codes, strict=True)) == dict.fromkeys(some, 4401)


@pytest.mark.parametrize("name", tokens.SIGNERS)
async def test_tokens_of_the_other_issuer_are_let_in(shared: Gateway, name: str) -> None:
    assert await status(shared, foreign(name)) == 200
    async with shared.client(is_authenticated=False) as client:
        assert (await client.ask("auth", token=foreign(name)))["type"] == "ack"


async def test_scopes_are_those_of_the_token(shared: Gateway) -> None:
    for scope in ("history", "export", "admin", "nothing", ""):
        response = await shared.http.get(PATH, headers=bearer(tokens.signed(scope=scope)))
        assert (response.status_code, response.json()["code"]) == (403, "insufficient_scope")
        assert 'scope="live"' in response.headers["www-authenticate"]
    async with shared.client(is_authenticated=False) as client:
        await client.send("auth", token=tokens.signed(scope="admin"))
        assert await client.closed() == 4403


async def test_former_secret_verifies_and_the_first_signs(shared: Gateway) -> None:
    assert await status(shared, issue_token(FORMER)) == 200
    text, _ = await api_key(shared)
    token = (await told(shared, "/v1/token", text))["token"]
    assert tokens.jwt.get_unverified_header(token)["kid"] == tokens.key_id(SECRET)


# API keys


async def test_key_is_exchanged_for_a_token_with_its_scopes(shared: Gateway) -> None:
    text, number = await api_key(shared, "live", "history")
    before = time.time()
    data = await told(shared, "/v1/token", text)
    assert data["scopes"] == ["history", "live"]
    assert data["subject"] == f"key-{number}"
    assert await status(shared, data["token"]) == 200
    claims = tokens.jwt.decode(data["token"], options={"verify_signature": False})
    assert claims["key"] == number
    assert before - 1 < claims["iat"] <= time.time()
    assert claims["exp"] - claims["iat"] == 3_600
    narrow = await told(shared, "/v1/token", text, scopes=["history"], ttl_s=60)
    assert narrow["scopes"] == ["history"]
    assert await status(shared, narrow["token"]) == 403
    used = {key.id: at for key, at in await ApiKeys(shared.redis).listed()}
    assert used[number] >= int(before)


async def test_key_may_stand_in_the_body(shared: Gateway) -> None:
    text, _ = await api_key(shared)
    response = await shared.http.post("/v1/token", json={"key": text})
    assert response.status_code == 200
    both = await ask(shared, "/v1/token", text, key=text)
    assert (both.status_code, both.json()["code"]) == (400, "invalid_body")


async def test_token_ends_with_its_key(shared: Gateway) -> None:
    text, _ = await api_key(shared, ttl_s=100)
    data = await told(shared, "/v1/token", text, ttl_s=3_600)
    claims = tokens.jwt.decode(data["token"], options={"verify_signature": False})
    assert 90 < claims["exp"] - claims["iat"] <= 100
    gone, _ = await api_key(shared, ttl_s=-1)
    assert (await ask(shared, "/v1/token", gone)).status_code == 401


async def test_redis_holds_no_secret_of_a_key_or_ticket(shared: Gateway) -> None:
    text, number = await api_key(shared)
    token = (await told(shared, "/v1/token", text))["token"]
    ticket = (await told(shared, "/v1/tickets", token))["ticket"]
    held: list[bytes] = []
    async for key in shared.redis.scan_iter(count=1_000):
        held.append(key)
        kind = await shared.redis.type(key)
        if kind == b"string":
            held.append(await shared.redis.get(key))
        elif kind == b"hash":
            found = await shared.redis.hgetall(key)
            held += [*found, *found.values()]
    everything = b"\n".join(held)
    assert number.encode() in everything
    for secret in (text.rpartition("_")[2], ticket.rpartition("_")[2], token.rpartition(".")[2]):
        assert secret.encode() not in everything


def _changed(text: str, place: int) -> str:
    return text[:place] + ("0" if text[place] != "0" else "1") + text[place + 1 :]


async def test_keys_that_do_not_hold_are_401(shared: Gateway) -> None:
    text, number = await api_key(shared)
    revoked, other = await api_key(shared)
    await ApiKeys(shared.redis).revoke(other)
    bad = {
        "secret changed": _changed(text, -1),
        "id changed": _changed(text, 4),
        "of another": f"sk_{other}_{text.rpartition('_')[2]}",
        "revoked": revoked,
        "no secret": f"sk_{number}_",
        "id alone": f"sk_{number}",
        "short": text[:-1],
        "long": text + "0",
        "capitals": text.upper(),
        "newline": text + "\n",
        "asterisk": f"sk_*_{text.rpartition('_')[2]}",
        "a token": tokens.signed(),
        "a bad token": "a.b.c",
        "a ticket": f"st_{'0' * 64}",
        "empty": "",
    }
    for name, each in bad.items():
        answers = [await shared.http.post("/v1/token", json={"key": each})]
        if each and not each.endswith("\n"):  # which a header cannot say
            answers.append(await shared.http.post("/v1/token", headers=bearer(each)))
        for answer in answers:
            assert answer.status_code == 401, name
            assert answer.headers["www-authenticate"].startswith("Bearer "), name
            assert answer.headers["content-type"] == "application/problem+json"
            assert not each.strip() or each.strip()[-20:] not in answer.text, name
    assert (await shared.http.post("/v1/token")).status_code == 401
    basic = await shared.http.post("/v1/token", headers={"Authorization": f"Basic {text}"})
    assert basic.status_code == 401
    assert await status(shared, text) == 401  # a key is no token
    twice = [("Authorization", f"Bearer {text}"), ("Authorization", f"Bearer {revoked}")]
    assert (await shared.http.post("/v1/token", headers=twice)).status_code == 401
    misplaced = await shared.http.post("/v1/token", json={text: 1})
    assert misplaced.status_code == 400
    assert text not in misplaced.text


@pytest.mark.parametrize(
    ("body", "kind", "answer"),
    [
        pytest.param(b"{", "application/json", (400, "invalid_body"), id="no JSON"),
        pytest.param(b"[]", "application/json", (400, "invalid_body"), id="no object"),
        pytest.param(b'{"a":1}', "application/json", (400, "invalid_body"), id="unknown"),
        pytest.param(b'{"ttl_s":0}', "application/json", (400, "invalid_body"), id="no time"),
        pytest.param(b'{"ttl_s":86401}', "application/json", (400, "invalid_body"), id="too long"),
        pytest.param(b'{"scopes":[]}', "application/json", (400, "invalid_body"), id="no scope"),
        pytest.param(
            b'{"scopes":["admin"]}', "application/json", (403, "insufficient_scope"), id="more"
        ),
        pytest.param(
            b'{"scopes":["x"]}', "application/json", (403, "insufficient_scope"), id="no such"
        ),
        pytest.param(b"{}", "text/plain", (415, "unsupported_media_type"), id="plain"),
        pytest.param(b"[" * 9_000, "application/json", (400, "invalid_body"), id="deep"),
        pytest.param(b'{"a":"\xff"}', "application/json", (400, "invalid_body"), id="bytes"),
    ],
)
async def test_bodies_are_read_strictly(
    shared: Gateway, body: bytes, kind: str, answer: tuple[int, str]
) -> None:
    text, _ = await api_key(shared, "live")
    headers = bearer(text) | {"Content-Type": kind}
    response = await shared.http.post("/v1/token", headers=headers, content=body)
    assert (response.status_code, response.json()["code"]) == answer
    if answer[0] == 403:
        assert 'scope="live"' in response.headers["www-authenticate"]


async def test_gateway_without_a_secret_gives_no_tokens(valkey: str, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_bytes(tokens.key_set())
    options: dict[str, Any] = {"jwt_secret": "", "jwt_jwks": str(path), "jwt_issuer": ISSUER}
    async with gateway.running(valkey, **options) as served:
        text, _ = await api_key(served)
        response = await ask(served, "/v1/token", text)
        assert (response.status_code, response.json()["code"]) == (503, "no_signing_key")
        assert await status(served, foreign("ed-1")) == 200
        assert await status(served, tokens.signed()) == 401


# Tickets


async def test_ticket_lets_one_in_once(shared: Gateway) -> None:
    token = tokens.signed(sub="desk", jti="of-ticket")
    ticket = (await told(shared, "/v1/tickets", token))["ticket"]
    tickets = Tickets(shared.redis)
    found = await asyncio.gather(*(tickets.redeem(ticket) for _ in range(20)))
    (principal,) = [one for one in found if one is not None]
    assert (principal.subject, principal.token_id) == ("desk", "of-ticket")
    assert principal.scopes == {"live", "history"}
    assert await tickets.redeem(ticket) is None


async def test_ticket_is_over_after_half_a_minute(shared: Gateway) -> None:
    tickets = Tickets(shared.redis)
    ticket = await tickets.issue(Principal("desk", frozenset({"live"}), time.time() + 60))
    async for key in shared.redis.scan_iter(match="ticket:*"):
        assert 0 < await shared.redis.ttl(key) <= 30
        await shared.redis.pexpire(key, 1)
    await asyncio.sleep(0.01)
    assert await tickets.redeem(ticket) is None


async def test_ticket_needs_the_scope_and_is_no_token(shared: Gateway) -> None:
    assert (await ask(shared, "/v1/tickets", tokens.signed(scope="history"))).status_code == 403
    ticket = (await told(shared, "/v1/tickets", tokens.signed()))["ticket"]
    assert await status(shared, ticket) == 401
    for text in ("", "st_", f"st_{'0' * 64}", f"{ticket}0", "*"):
        assert await Tickets(shared.redis).redeem(text) is None


async def test_ticket_opens_one_socket_which_ends_with_its_token(shared: Gateway) -> None:
    token = issue_token(SECRET)
    ticket = (await told(shared, "/v1/tickets", token))["ticket"]
    url = f"{shared.socket_url}?ticket={ticket}"
    async with websockets.connect(url) as first, websockets.connect(url) as second:
        client = gateway.Client(first)
        ack = await client.until(lambda message: message["type"] == "ack")
        assert (ack["op"], ack["scopes"]) == ("auth", ["history", "live"])
        assert await gateway.Client(second).closed() == 4401
        await told(shared, "/v1/token/revoke", token)
        assert await client.closed() == 4401


# Revocation


async def until_refused(served: Gateway, token: str) -> None:
    deadline = time.monotonic() + APPLIED_S
    while await status(served, token) != 401:
        assert time.monotonic() < deadline, "the token was let in for too long"
        await asyncio.sleep(0.02)


async def test_own_token_is_revoked_here_at_once_and_its_session_ends(shared: Gateway) -> None:
    token, other = issue_token(SECRET), issue_token(SECRET)
    async with shared.client(is_authenticated=False) as client:
        await client.ask("auth", token=token)
        data = await told(shared, "/v1/token/revoke", token)
        assert data["applies_within_s"] == APPLIED_S
        assert await status(shared, token) == 401
        assert await client.closed() == 4401
    assert await status(shared, other) == 200


async def test_revocation_reaches_the_other_gateway_and_one_that_starts_later(
    shared: Gateway,
) -> None:
    options: dict[str, Any] = {"jwt_secrets": (SECRET, FORMER)}
    url = shared.settings.redis_url
    token, kept = issue_token(FORMER), issue_token(SECRET)
    async with gateway.running(url, **options) as second:
        assert await status(second, token) == 200
        async with second.client(is_authenticated=False) as client:
            await client.ask("auth", token=token)
            await told(shared, "/v1/token/revoke", token)
            await until_refused(second, token)
            assert await client.closed() == 4401
        assert await status(second, kept) == 200
    async with gateway.running(url, **options) as third:
        assert await status(third, token) == 401
        assert await status(third, kept) == 200


async def test_subject_is_revoked_up_to_now_by_an_admin_alone(shared: Gateway) -> None:
    token = tokens.signed(sub="leaver", jti="leaver-1", iat=tokens.NOW - 10)
    ordinary = await ask(shared, "/v1/token/revoke", tokens.signed(), subject="leaver")
    assert (ordinary.status_code, ordinary.json()["code"]) == (403, "insufficient_scope")
    assert await status(shared, token) == 200
    admin = tokens.signed(scope="admin", sub="chief", jti="chief-1")
    await told(shared, "/v1/token/revoke", admin, subject="leaver")
    assert await status(shared, token) == 401
    later = tokens.signed(sub="leaver", jti="leaver-2", iat=int(time.time()) + 2)
    assert await status(shared, later) == 200


async def test_admin_revokes_a_token_by_its_id_and_a_subject_up_to_an_instant(
    shared: Gateway,
) -> None:
    admin = tokens.signed(scope="admin", sub="chief", jti="chief-2")
    one, other = (tokens.signed(sub="pair", jti=name) for name in ("pair-1", "pair-2"))
    assert (await ask(shared, "/v1/token/revoke", one, token_id="pair-2")).status_code == 403
    await told(shared, "/v1/token/revoke", admin, token_id="pair-1")
    assert [await status(shared, token) for token in (one, other)] == [401, 200]
    await told(
        shared, "/v1/token/revoke", admin, subject="pair", before="2026-01-01T00:00:00+05:30"
    )
    assert await status(shared, other) == 200
    for body in (
        {"subject": "pair", "before": "2200-01-01T00:00:00Z"},
        {"subject": "pair", "before": "soon"},
        {"before": "2026-01-01T00:00:00Z"},
        {"subject": "pair", "token_id": "pair-2"},
    ):
        response = await ask(shared, "/v1/token/revoke", admin, **body)
        assert (response.status_code, response.json()["code"]) == (400, "invalid_body")


async def test_ticket_of_a_revoked_token_is_worth_nothing(shared: Gateway) -> None:
    revoked, kept = issue_token(SECRET), issue_token(SECRET)
    worthless, early, good = [
        (await told(shared, "/v1/tickets", token))["ticket"] for token in (revoked, kept, kept)
    ]
    await told(shared, "/v1/token/revoke", revoked)
    verifier = Verifier(
        Keyring((SECRET,)),
        revoked=Revoked(Revocations(shared.redis), 60.0),
        tickets=Tickets(shared.redis),
    )
    with pytest.raises(ApiError, match="not known"):
        await verifier.redeem(early)
    assert await following.refresh(verifier)
    assert (await verifier.redeem(good)).subject == "local"
    with pytest.raises(ApiError, match="was revoked"):
        await verifier.redeem(worthless)
    with pytest.raises(ApiError, match="unknown, used or too old"):
        await verifier.redeem(good)


async def test_without_redis_the_known_holds_for_a_while_and_then_nobody_is_let_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_revoked, "_CALL_S", 0.3)
    server = servers.RedisServer(servers.valkey_binary(), tmp_path)
    server.start()
    try:
        async with gateway.running(server.url, revocation_grace_s=0.5) as served:
            revoked, kept = issue_token(SECRET), issue_token(SECRET)
            await told(served, "/v1/token/revoke", revoked)
            assert await status(served, kept, "/v1/schemas/types") == 200
            server.kill()
            assert await status(served, kept, "/v1/schemas/types") == 200
            assert await status(served, revoked, "/v1/schemas/types") == 401
            deadline = time.monotonic() + 10
            while await status(served, kept, "/v1/schemas/types") != 503:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)
            assert await status(served, revoked, "/v1/schemas/types") == 503
            server.start()
            while await status(served, kept, "/v1/schemas/types") != 200:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)
            assert await status(served, revoked, "/v1/schemas/types") == 401
    finally:
        server.stop()


async def test_what_redis_lost_stays_revoked_where_it_was_known(tmp_path: Path) -> None:
    with servers.running(servers.valkey_binary(), tmp_path) as server:
        async with gateway.running(server.url) as served:
            first, second = issue_token(SECRET), issue_token(SECRET)
            await told(served, "/v1/token/revoke", first)
            async with redis_client.Redis.from_url(server.url) as client:
                await client.flushall()
            await told(served, "/v1/token/revoke", second)
            assert [await status(served, token) for token in (first, second)] == [401, 401]


# Another issuer's keys at an address


async def test_key_set_is_fetched_for_an_unknown_key_and_never_from_a_token(
    valkey: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_keys, "FLOOR_S", 0.2)
    async with issuer.running(tmp_path) as other:
        monkeypatch.setenv("SSL_CERT_FILE", str(other.certificate))
        options: dict[str, Any] = {"jwt_jwks": other.url, "jwt_issuer": ISSUER}
        async with gateway.running(valkey, **options) as served:
            assert await status(served, foreign("rsa-1")) == 200
            other.document = tokens.key_set("ed-1")
            await asyncio.sleep(0.25)
            asked = other.asked
            assert await status(served, foreign("ed-1")) == 200
            assert await status(served, foreign("rsa-1")) == 401  # withdrawn
            assert other.asked == asked + 1
            other.status, other.location = 302, other.url
            await asyncio.sleep(0.25)
            asked = other.asked
            assert await status(served, foreign("ec-1")) == 401
            assert other.asked == asked + 1  # and it is not followed
            assert await status(served, foreign("ed-1")) == 200
            ready = json.dumps((await served.http.get("/readyz")).json())
            assert "the key set cannot be fetched: the answer is 302" in ready
            jku = tokens.jwt.encode(
                tokens.claims(iss=ISSUER), tokens.rsa_key(9), "RS256", headers={"jku": other.url}
            )
            assert await status(served, jku) == 401


async def test_compressed_key_set_is_never_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few kB could be many MB once they are unpacked."""
    async with issuer.running(tmp_path) as other:
        monkeypatch.setenv("SSL_CERT_FILE", str(other.certificate))
        source = access_keys.AddressSource(other.url)
        assert await source.read() == other.document
        assert b"accept-encoding: identity" in other.heard.lower()
        other.document, other.coding = gzip.compress(bytes(32 * 1024 * 1024)), "gzip"
        with pytest.raises(DecodeError, match="compressed"):
            await source.read()


async def test_address_with_a_certificate_of_nobody_is_not_believed(
    valkey: str, tmp_path: Path
) -> None:
    async with issuer.running(tmp_path) as other:
        options: dict[str, Any] = {"jwt_jwks": other.url, "jwt_issuer": ISSUER}
        async with gateway.running(valkey, **options) as served:
            response = await served.http.get(PATH, headers=bearer(foreign()))
            assert (response.status_code, response.json()["code"]) == (503, "keys_unavailable")
            assert other.asked == 0
            assert await status(served, served.token()) == 200
