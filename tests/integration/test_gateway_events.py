"""The live feed as server-sent events: the messages of the socket, over real gateways."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial

import pytest

from api.access.auth import LEEWAY_S
from api.live import patterns
from pipeline.credentials import issue_token
from tests.support import chains, gateway
from tests.support.events import Events, bearer, streaming
from tests.support.feed import CHANNEL, CONTRACT, Held, Market, market
from tests.support.gateway import CHAIN, QUICK, SECRET, Gateway, moved, until_true

UNDERLYING = "underlying:NIFTY"


@pytest.fixture
async def served(valkey: str) -> AsyncIterator[Gateway]:
    async with gateway.running(valkey, limits=QUICK) as running:
        yield running


@pytest.fixture
async def trading(valkey: str) -> AsyncIterator[Market]:
    async with market(valkey) as running:
        yield running


async def test_stream_has_the_messages_of_the_socket(served: Gateway) -> None:
    await served.publish(CHAIN, 1)
    async with served.client() as client:
        await client.ask("subscribe", channels=[CHANNEL], interval_ms=100)
        async with streaming(served, CHANNEL, interval_ms=100) as events:
            assert events.answer.headers["content-type"].startswith("text/event-stream")
            assert events.answer.headers["cache-control"] == "no-store"
            assert (await events.next())["type"] == "hello"
            ack = await events.next()
            assert (ack["type"], ack["channels"], ack["refused"]) == ("ack", [CHANNEL], [])
            assert events.retry_ms > 0
            assert await events.next() == await client.of("snapshot", CHANNEL)
            await served.publish(moved(CHAIN, seconds=1, last={3: 7.5}), 2)
            update = await events.of("update", CHANNEL)
            assert update == await client.of("update", CHANNEL)
            assert len(update["rows"]) == 1


async def test_stream_comes_back_by_its_last_id_without_loss(
    trading: Market, served: Gateway
) -> None:
    await trading.append(0)
    await _there(served)
    held = Held()
    async with streaming(served, f"{CHANNEL},{CONTRACT}", interval_ms=0) as events:
        last = (await trading.append(*range(1, 4)))[-1]
        while held.last < last:
            held.apply(await events.next())
    missed = await trading.append(*range(4, 9))
    returned = {"Last-Event-ID": events.last_id}
    async with streaming(
        served, f"{CHANNEL},{CONTRACT}", interval_ms=0, headers=returned
    ) as events:
        ack = await events.of("ack")
        assert ack["recovered"] == {CHANNEL: True, CONTRACT: True}
        while held.last < missed[-1]:
            held.apply(await events.next())
    assert held.snapshots == 1
    assert held.seqs[-len(missed) :] == missed


async def test_ticket_opens_one_stream_and_an_id_may_stand_in_the_query(served: Gateway) -> None:
    await served.publish(CHAIN, 1)
    answer = await served.http.post(
        "/v1/tickets", headers={"Authorization": f"Bearer {served.token()}"}
    )
    ticket = answer.json()["data"]["ticket"] if "data" in answer.json() else answer.json()["ticket"]
    async with streaming(served, CHANNEL, ticket=ticket, last_event_id=f"e1={CHANNEL}@1") as events:
        assert (await events.of("ack"))["recovered"] == {CHANNEL: True}
    async with streaming(served, CHANNEL, ticket=ticket) as events:
        assert events.answer.status_code == 401


async def test_what_cannot_be_streamed_is_a_problem(served: Gateway) -> None:
    for query in (
        {"channels": ""},
        {"channels": "nothing:NIFTY"},
        {"channels": "contract:*"},
        {"channels": CHANNEL, "interval_ms": "7"},
        {"channels": CHANNEL, "fields": "password"},
        {"channels": CHANNEL, "last_event_id": "e1"},
        {"channels": CHANNEL, "token": "x"},
    ):
        answer = await served.get("/v1/stream", params=query)
        assert answer.headers["content-type"] == "application/problem+json", query
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_query"), query
    answer = await served.get(
        "/v1/stream", params={"channels": CHANNEL}, headers={"Last-Event-ID": "e1"}
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_query")
    assert _clients(served) == 0


async def test_stream_wants_a_token_of_the_scope(served: Gateway) -> None:
    params = {"channels": CHANNEL}
    assert (await served.http.get("/v1/stream", params=params)).status_code == 401
    headers = {"Authorization": f"Bearer {served.token('history')}"}
    answer = await served.http.get("/v1/stream", params=params, headers=headers)
    assert answer.status_code == 403


async def test_stream_ends_when_its_token_does(served: Gateway) -> None:
    await served.publish(CHAIN, 1)
    kept = issue_token(SECRET, subject="another")
    async with streaming(served, UNDERLYING, headers=bearer(kept)) as other:
        await other.of("snapshot", UNDERLYING)
        short = served.token(ttl_s=3.0, now=time.time() - LEEWAY_S)  # opens within that time
        async with streaming(served, UNDERLYING, headers=bearer(short)) as events:
            assert await _ended(events) == 4401
        revoked = served.token()
        async with streaming(served, UNDERLYING, headers=bearer(revoked)) as events:
            await events.of("snapshot", UNDERLYING)
            answer = await served.http.post("/v1/token/revoke", headers=bearer(revoked))
            assert answer.is_success
            assert await _ended(events) == 4401
        await until_true(lambda: _clients(served) == 1)
        await served.publish(moved(CHAIN, seconds=1), 2)
        await other.of("update", UNDERLYING)


async def test_stream_counts_as_a_session_of_its_subject(valkey: str) -> None:
    async with gateway.running(valkey, limits=QUICK, gateway_sessions=1) as served:
        await served.publish(CHAIN, 1)
        async with streaming(served, UNDERLYING) as events:
            await events.of("snapshot", UNDERLYING)
            answer = await served.get("/v1/stream", params={"channels": UNDERLYING})
            assert (answer.status_code, answer.json()["code"]) == (429, "too_many_requests")
            assert answer.headers["content-type"] == "application/problem+json"
            assert int(answer.headers["retry-after"]) > 0
        async with asyncio.timeout(gateway.WAIT_S):
            while True:  # as soon as the one before it was seen to have left
                async with streaming(served, UNDERLYING) as events:
                    if events.answer.status_code == 200:
                        break


async def test_stream_is_not_compressed_whatever_the_client_takes(served: Gateway) -> None:
    await served.publish(CHAIN, 1)
    takes = {"Accept-Encoding": "gzip, deflate, br, zstd"}
    async with streaming(served, CHANNEL, headers=takes) as events:
        assert "content-encoding" not in events.answer.headers
        assert len((await events.of("snapshot", CHANNEL))["rows"]) == 42


async def test_streams_carry_every_kind_of_channel(
    served: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patterns, "LOOK_S", 0.05)
    await served.publish(CHAIN, 1)
    band, candle = "band:NIFTY-20260127:atm+-1", "candle:NIFTY:1m"
    names = f"{band},{candle},analytics:NIFTY,health,chain:*"
    async with streaming(served, names, interval_ms=100) as events:
        ack = await events.of("ack")
        assert ack["refused"] == []
        assert ack["resolved"]["chain:*"] == [CHANNEL]
        missing = set(ack["channels"])
        while missing:
            message = await events.next()
            assert message["type"] in ("snapshot", "update")
            missing.discard(message["channel"])
        await served.publish(chains.enriched(underlying="BANKNIFTY"), 2)
        joined = await events.of("joined")
        assert joined["channels"] == ["chain:BANKNIFTY-20260127"]
        assert (await events.of("snapshot", joined["channels"][0]))["seq"] == 2
        last_id = events.last_id
    assert "band" not in last_id
    assert "candle" not in last_id
    async with streaming(
        served, names, interval_ms=100, headers={"Last-Event-ID": last_id}
    ) as events:
        recovered = (await events.of("ack"))["recovered"]
        assert recovered == dict.fromkeys(
            ("analytics:NIFTY-20260127", CHANNEL, "chain:BANKNIFTY-20260127"), True
        )


async def test_stream_resumes_wholly_or_says_no(trading: Market, served: Gateway) -> None:
    await trading.append(*range(6))
    await _there(served)
    epoch = await trading.epoch()
    for place, expected in ((f"{epoch}={CHANNEL}@2", True), (f"other={CHANNEL}@2", False)):
        headers = {"Last-Event-ID": place}
        async with streaming(served, CHANNEL, interval_ms=0, headers=headers) as events:
            assert (await events.of("ack"))["recovered"] == {CHANNEL: expected}
            first = await events.next()
            assert first["type"] == ("update" if expected else "snapshot")
            assert first.get("prev", 2) == 2
    await trading.trim(1)
    headers = {"Last-Event-ID": f"{epoch}={CHANNEL}@2"}
    async with streaming(served, CHANNEL, interval_ms=0, headers=headers) as events:
        assert (await events.of("ack"))["recovered"] == {CHANNEL: False}
        assert (await events.next())["type"] == "snapshot"


async def test_head_of_a_stream_ends(served: Gateway) -> None:
    headers = {"Authorization": f"Bearer {served.token()}"}
    answer = await served.http.head("/v1/stream", params={"channels": CHANNEL}, headers=headers)
    assert answer.status_code == 200


async def test_idle_stream_says_so_in_comments(served: Gateway) -> None:
    await served.publish(CHAIN, 1)
    async with streaming(served, UNDERLYING) as events:
        while not events.comments:
            await events.read()
        assert UNDERLYING in events.comments[0]


async def test_gateway_that_stops_ends_its_streams(served: Gateway) -> None:
    await served.publish(CHAIN, 1)
    async with streaming(served, UNDERLYING) as events:
        await events.of("snapshot", UNDERLYING)
        begun = time.monotonic()
        served.stopping.set()
        with contextlib.suppress(StopAsyncIteration):
            while time.monotonic() - begun < 5:
                await events.next()
        assert events.close is not None
        assert events.close["code"] == 1012
        assert time.monotonic() - begun < 5


async def test_stream_that_drains_nothing_is_cut(valkey: str) -> None:
    limits = replace(QUICK, stalled_s=0.5, backlog_bytes=64 * 1024)
    async with gateway.running(valkey, limits=limits) as served:
        await served.publish(CHAIN, 1)
        raw = await _stalled(served)
        seq = 1
        deadline = time.monotonic() + 8
        while _clients(served) and time.monotonic() < deadline:
            seq += 1
            changes = dict.fromkeys(range(42), float(seq))
            await served.publish(moved(CHAIN, seconds=seq, last=changes, bid=changes), seq)
            await asyncio.sleep(0.005)
        assert _clients(served) == 0
        raw.setblocking(True)
        raw.settimeout(5)
        told = b"".join(iter(partial(raw.recv, 65_536), b""))
        assert b'"type":"snapshot"' in told
        assert b"event: close" not in told  # cut, with what waited for it
        raw.close()


async def test_client_that_left_is_forgotten(served: Gateway) -> None:
    await served.publish(CHAIN, 1)
    async with streaming(served, UNDERLYING) as events:
        await events.of("snapshot", UNDERLYING)
        assert _clients(served) == 1
    await until_true(lambda: _clients(served) == 0)


async def _ended(events: Events) -> int:
    """The code of the event that ends a stream."""
    with contextlib.suppress(StopAsyncIteration):
        while True:
            await events.next()
    assert events.close is not None
    return int(events.close["code"])


def _clients(served: Gateway) -> float:
    count: float = served.telemetry.report()["gauges"]["clients"]
    return count


async def _there(served: Gateway) -> None:
    """Until the realtime worker has written the chain."""
    deadline = time.monotonic() + gateway.WAIT_S
    while not await served.redis.exists(served.topics.latest(UNDERLYING.partition(":")[2], 0)):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def _stalled(served: Gateway) -> socket.socket:
    """A raw connection that asks for a stream and then reads nothing at all."""
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    raw.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(raw, ("127.0.0.1", served.settings.gateway_port))
    request = (
        f"GET /v1/stream?channels={CHANNEL}&interval_ms=0 HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Bearer {served.token()}\r\n\r\n"
    )
    await loop.sock_sendall(raw, request.encode())
    await until_true(lambda: _clients(served) == 1)
    return raw
