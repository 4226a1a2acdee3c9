"""`/v1/ws` over a real gateway: who may come in, and what a session may say."""

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import websockets

from api.gateway import Limits
from pipeline.credentials import Principal
from pipeline.keys import Tickets
from tests.support import gateway
from tests.support.gateway import CHAIN, QUICK, Gateway, moved, until_true

CHANNEL = "chain:NIFTY-20260127"


@pytest.fixture
async def served(valkey: str) -> AsyncIterator[Gateway]:
    async with gateway.running(valkey, limits=QUICK) as running:
        await running.publish(CHAIN, 5)
        yield running


# Who may come in


async def test_token_in_the_header_needs_no_auth_message(served: Gateway) -> None:
    headers = {"Authorization": f"Bearer {served.token('live')}"}
    async with served.client(is_authenticated=False, additional_headers=headers) as client:
        ack = await client.until(lambda m: m["type"] == "ack")
        assert (ack["op"], ack["scopes"]) == ("auth", ["live"])
        assert (await client.ask("subscribe", channels=[CHANNEL]))["refused"] == []


@pytest.mark.parametrize(
    ("token", "code"), [("garbage", 4401), ("", 4401), ("history", 4403)], ids=str
)
async def test_token_that_does_not_hold_closes(served: Gateway, token: str, code: int) -> None:
    async with served.client(is_authenticated=False) as client:
        await client.send("auth", token=served.token("history") if code == 4403 else token)
        assert await client.closed() == code


@pytest.mark.parametrize("header", ["Bearer garbage", "Basic dXNlcjpwYXNz"])
async def test_header_that_does_not_hold_closes(served: Gateway, header: str) -> None:
    headers = {"Authorization": header}
    async with served.client(is_authenticated=False, additional_headers=headers) as client:
        assert await client.closed() == 4401


async def test_late_auth_closes(served: Gateway) -> None:
    async with served.client(is_authenticated=False) as client:
        error = await client.ask("subscribe", channels=[CHANNEL])
        assert (error["type"], error["code"]) == ("error", "unauthenticated")
        assert await client.closed() == 4408


async def test_expiring_token_closes_unless_renewed(served: Gateway) -> None:
    async with served.client() as renewed, served.client() as expiring:
        for client in (renewed, expiring):
            ack = await client.ask("auth", token=served.token(ttl_s=-4))
            assert ack["op"] == "auth"
        await renewed.ask("auth", token=served.token())
        assert await expiring.closed() == 4401
        assert (await renewed.ask("ping"))["type"] == "pong"


async def test_token_in_the_address_does_not_count(served: Gateway) -> None:
    url = f"{served.socket_url}?token={served.token()}"
    async with websockets.connect(url) as connection:
        assert await gateway.Client(connection).closed() == 4408


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
async def test_foreign_origin_is_refused(served: Gateway, origin: str) -> None:
    with pytest.raises(websockets.InvalidStatus) as caught:
        async with websockets.connect(served.socket_url, origin=websockets.Origin(origin)):
            pass
    assert caught.value.response.status_code == 403
    assert json.loads(caught.value.response.body)["code"] == "foreign_origin"


async def test_own_and_listed_origins_may_connect(valkey: str) -> None:
    listed = "https://desk.example"
    async with gateway.running(valkey, gateway_origins=(listed,)) as served:
        own = f"http://127.0.0.1:{served.settings.gateway_port}"
        for origin in (own, listed):
            async with served.client(origin=websockets.Origin(origin)) as client:
                assert (await client.ask("ping"))["type"] == "pong"


async def test_ticket_lets_one_session_in(served: Gateway) -> None:
    principal = Principal(
        subject="desk",
        scopes=frozenset({"live"}),
        expires=time.time() + 60,
        token_id="t1",
        issued=time.time(),
    )
    ticket = await Tickets(served.redis).issue(principal)
    url = f"{served.socket_url}?ticket={ticket}"
    async with websockets.connect(url) as connection:
        first = gateway.Client(connection)
        ack = await first.until(lambda message: message["type"] == "ack")
        assert (ack["op"], ack["scopes"]) == ("auth", ["live"])
        async with websockets.connect(url) as again:
            assert await gateway.Client(again).closed() == 4401
        assert (await first.ask("subscribe", channels=[CHANNEL]))["refused"] == []


async def test_sessions_beyond_the_bound_are_closed_until_one_ends(valkey: str) -> None:
    async with gateway.running(valkey, gateway_sessions=1) as served:
        async with served.client(), served.client(is_authenticated=False) as second:
            await second.send("auth", token=served.token())
            assert await second.closed() == 4409
        await until_true(lambda: served.telemetry.report()["gauges"]["clients"] == 0)
        async with served.client() as third:
            assert (await third.ask("ping"))["type"] == "pong"


async def test_client_that_would_rather_be_cut_is_cut(valkey: str) -> None:
    async with gateway.running(valkey, limits=Limits(backlog_bytes=40_000)) as served:
        await served.publish(CHAIN, 5)
        options: dict[str, Any] = {"max_queue": 1, "compression": None}
        async with served.client(**options) as client:
            await client.ask("subscribe", channels=[CHANNEL], interval_ms=0, slow="disconnect")
            chain, seq = CHAIN, 5
            while served.telemetry.report()["gauges"]["clients"]:
                assert seq < 1_000
                seq += 1
                chain = moved(chain, seconds=1, last=dict.fromkeys(range(42), float(seq)))
                await served.publish(chain, seq)
            assert await client.closed() == 4008


# Bad input


@pytest.mark.parametrize(
    "text", ["{", "[]", "null", "", "\x00"], ids=["open", "array", "null", "empty", "zero"]
)
async def test_malformed_message_closes(served: Gateway, text: str) -> None:
    async with served.client() as client:
        await client.socket.send(text)
        assert await client.closed() == 4400


async def test_binary_message_on_the_json_protocol_closes(served: Gateway) -> None:
    async with served.client() as client:
        await client.socket.send(b"{}")
        assert await client.closed() == 4400


async def test_wrong_operations_are_answered_and_the_session_goes_on(served: Gateway) -> None:
    async with served.client() as client:
        for op, fields, code in (
            ("fly", {}, "unknown_op"),
            ("subscribe", {}, "invalid_op"),
            ("subscribe", {"channels": [], "interval_ms": 7}, "invalid_op"),
            ("subscribe", {"channels": [CHANNEL], "fields": ["colour"]}, "unknown_field"),
            ("auth", {"token": 5}, "invalid_op"),
        ):
            error = await client.ask(op, **fields)
            assert (error["type"], error["code"]) == ("error", code)
        assert (await client.ask("ping"))["type"] == "pong"


async def test_message_above_the_bound_closes(served: Gateway) -> None:
    async with served.client() as client:
        await client.send("auth", token="x" * 70_000)
        assert await client.closed() == 1009


async def test_too_many_operations_close(served: Gateway) -> None:
    async with served.client() as client:
        for _ in range(60):
            await client.send("ping")
        assert await client.closed() == 4429


async def test_too_many_channels_are_refused_and_absurd_many_close(valkey: str) -> None:
    async with gateway.running(valkey, limits=Limits(channels=3)) as served:
        await served.publish(CHAIN, 5)
        async with served.client() as client:
            names = [f"contract:{name}" for name in _symbols()]
            await client.ask("subscribe", channels=names[:2])
            ack = await client.ask("subscribe", channels=names[1:4])
            assert len(ack["channels"]) == 3
            assert [refusal["code"] for refusal in ack["refused"]] == ["too_many_channels"]
            await client.send("subscribe", channels=names[:4])
            assert await client.closed() == 4413


def _symbols() -> list[str]:
    return [f"NIFTY-20260127-{strike}-CE" for strike in (24950, 25000, 25050, 25100)]
