"""Limits of a real gateway: by subject and by address, over two processes, on sockets as well."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import websockets

from pipeline.credentials import issue_token
from pipeline.runtime import cancel
from tests.support import gateway, servers
from tests.support.gateway import SECRET, Client, Gateway
from tests.support.gateway_process import answer, process, settings

SLOW = {"gateway_rate": 0.1, "gateway_burst": 30, "gateway_address_rate": 0.1}
PROXIED = {"gateway_proxies": ("127.0.0.0/8",)}


@contextlib.asynccontextmanager
async def limited(url: str, **changes: object) -> AsyncIterator[Gateway]:
    """A gateway whose buckets give nothing back while a test runs."""
    async with gateway.running(url, **(SLOW | {"gateway_address_burst": 60} | changes)) as running:
        yield running


def refused(response: httpx.Response) -> dict[str, str]:
    body = response.json()
    assert (response.status_code, body["code"]) == (429, "too_many_requests")
    assert int(response.headers["retry-after"]) >= 1
    return dict(re.findall(r'"(\w+)";r=(\d+)', response.headers["ratelimit"]))


def left(response: httpx.Response) -> int:
    """What the address has left."""
    found = re.search(r'"address";r=(\d+)', response.headers["ratelimit"])
    assert found is not None
    return int(found[1])


async def test_two_processes_let_through_exactly_the_burst(tmp_path: Path) -> None:
    with servers.running(servers.valkey_binary(), tmp_path) as server:
        chosen = [settings(server.port, **SLOW, log_level="error") for _process in range(2)]
        with process(chosen[0]), process(chosen[1]):
            bases = [f"http://127.0.0.1:{one.gateway_port}" for one in chosen]
            for base in bases:
                await asyncio.to_thread(answer, f"{base}/healthz", 200)
            headers = [{"Authorization": f"Bearer {issue_token(SECRET)}"} for _token in range(2)]
            async with httpx.AsyncClient(verify=gateway.NO_TLS, timeout=10) as http:
                answers = await asyncio.gather(
                    *(
                        http.get(f"{bases[n % 2]}/v1/schemas/types", headers=headers[n // 2 % 2])
                        for n in range(90)
                    )
                )
            statuses = [response.status_code for response in answers]
            assert statuses.count(200) == SLOW["gateway_burst"]
            assert statuses.count(429) == 90 - SLOW["gateway_burst"]


async def test_every_answer_tells_of_the_limits(valkey: str) -> None:
    async with limited(valkey) as served:
        good = await served.get("/v1/schemas/types")
        assert good.headers["ratelimit-policy"] == '"subject";q=30;w=300, "address";q=60;w=600'
        assert good.headers["ratelimit"] == '"subject";r=29;t=10, "address";r=59;t=10'
        for path, status in (("/nothing", 404), ("/v1/schemas/types", 401), ("/openapi.json", 200)):
            other = await served.http.get(path)
            assert other.status_code == status
            assert other.headers["ratelimit"].startswith('"address";r=')
        assert "ratelimit" not in (await served.http.get("/healthz")).headers
        chain = "/v1/chains/NIFTY/2026-01-27"
        for path, cost in ((chain, 1), (f"{chain}?as_of=2026-01-27", 5), ("/readyz", 5)):
            before = left(await served.http.get("/nothing"))  # costs one by itself
            assert left(await served.get(path)) == before - cost


async def test_request_too_much_is_a_429_that_says_when_to_come_back(valkey: str) -> None:
    async with limited(valkey) as served:
        for _request in range(30):
            assert (await served.get("/v1/schemas/types")).status_code == 200
        left = refused(await served.get("/v1/schemas/types"))
        assert left["subject"] == "0"
        headers = {"Authorization": f"Bearer {served.token(subject='another')}"}
        other = await served.http.get("/v1/schemas/types", headers=headers)
        assert other.status_code == 200  # nothing was taken of the address by what was refused
        assert '"address";r=29' in other.headers["ratelimit"]


async def test_tokens_that_do_not_hold_use_up_the_address(valkey: str) -> None:
    async with limited(valkey, **PROXIED) as served:
        bad = {"Authorization": "Bearer no.such.token", "X-Forwarded-For": "203.0.113.9"}
        statuses = [
            (await served.http.get("/v1/schemas/types", headers=bad)).status_code
            for _attempt in range(5)
        ]
        assert statuses[:2] == [401, 401]
        assert statuses[-1] == 429
        good = {"X-Forwarded-For": "203.0.113.10"}
        assert (await served.get("/v1/schemas/types", headers=good)).status_code == 200


async def test_address_is_the_sockets_unless_a_trusted_proxy_tells_another(valkey: str) -> None:
    async with limited(valkey, gateway_address_burst=3, **PROXIED) as proxied:
        for spoofed in ("198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.4"):
            told = {"X-Forwarded-For": f"{spoofed}, 203.0.113.20, 127.0.0.1"}
            last = await proxied.get("/v1/schemas/types", headers=told)
        refused(last)  # what a client wrote to the left of its own address counts for nothing
        network = ("2001:db8::1", "[2001:db8::2]:443", "2001:db8::3", "2001:db8::4")
        statuses = [
            (await proxied.get("/v1/schemas/types", headers={"X-Forwarded-For": told})).status_code
            for told in (*network, "2001:db8:0:1::1")
        ]
        assert statuses == [200, 200, 200, 429, 200]  # a /64 has one bucket
    async with limited(valkey, gateway_address_burst=3) as plain:
        for spoofed in ("198.51.100.5", "198.51.100.6", "198.51.100.7", "198.51.100.8"):
            last = await plain.get("/v1/schemas/types", headers={"X-Forwarded-For": spoofed})
        refused(last)


async def test_zero_is_no_limit(valkey: str) -> None:
    changes = {"gateway_rate": 0.0, "gateway_address_rate": 0.0}
    async with limited(valkey, **changes) as served:
        for _request in range(100):
            response = await served.get("/v1/schemas/types")
        assert response.status_code == 200
        assert "ratelimit" not in response.headers


async def test_without_redis_the_process_limits_by_itself(tmp_path: Path) -> None:
    with servers.running(servers.valkey_binary(), tmp_path) as server:
        async with limited(server.url) as served:
            server.kill()
            statuses = [
                (await served.get("/v1/schemas/types")).status_code for _request in range(40)
            ]
            assert statuses.count(200) == 30
            assert statuses.count(429) == 10


async def test_handshakes_are_counted_against_the_address(valkey: str) -> None:
    async with limited(valkey, gateway_address_burst=22) as served:
        with pytest.raises(websockets.InvalidStatus) as caught:
            await _connect(served, times=9)
        response = caught.value.response
        assert response.status_code == 429
        assert b"too_many_requests" in (response.body or b"")
        assert int(response.headers["retry-after"]) >= 1


async def test_sessions_of_a_subject_are_counted_over_processes(valkey: str) -> None:
    changes = {"gateway_sessions": 3, "gateway_address_rate": 0.0, "gateway_rate": 0.0}
    async with contextlib.AsyncExitStack() as stack:
        both = [await stack.enter_async_context(limited(valkey, **changes)) for _process in "ab"]
        for number in range(3):
            await stack.enter_async_context(both[number % 2].client())
        for served in both:
            async with served.client(is_authenticated=False) as one:
                await one.send("auth", token=served.token())
                assert await one.closed() == 4409
        async with both[0].client(is_authenticated=False) as other:
            told = await other.ask("auth", token=both[0].token(subject="another"))
            assert told["type"] == "ack"


async def test_session_that_ends_makes_room(valkey: str) -> None:
    async with limited(valkey, gateway_sessions=1, gateway_address_rate=0.0) as served:
        async with served.client() as client:
            assert (await client.ask("auth", token=served.token()))["type"] == "ack"  # no second
        async with asyncio.timeout(gateway.WAIT_S):
            while not await _may_enter(served):
                await asyncio.sleep(0.02)


async def _connect(served: Gateway, *, times: int) -> None:
    for _handshake in range(times):
        async with served.client(is_authenticated=False):
            pass


async def _may_enter(served: Gateway) -> bool:
    async with served.client(is_authenticated=False) as client:
        await client.send("auth", token=served.token())
        asked = asyncio.create_task(_acknowledged(client))
        try:
            return await asked
        finally:
            await cancel(asked)


async def _acknowledged(client: Client) -> bool:
    try:
        await client.until(lambda message: message["type"] == "ack")
    except websockets.ConnectionClosed:
        return False
    return True


async def test_operations_on_sockets_are_counted_like_requests(valkey: str) -> None:
    async with limited(valkey, gateway_address_burst=200) as served, served.client() as client:
        before = left(await served.get("/v1/underlyings"))
        await client.ask("ping")
        names = [f"underlying:U{number}" for number in range(25)]
        await client.ask("subscribe", channels=names)
        after = left(await served.get("/v1/underlyings"))
        assert before - after == 1 + 3 + 1  # ping, subscribe, and the question itself
        answers = [await client.ask("subscribe", channels=names) for _ in range(10)]
        refusal = answers[-1]
        assert (refusal["type"], refusal["code"]) == ("error", "too_many_requests")
        assert "due in" in refusal["detail"]
        assert answers[0]["type"] == "ack"  # of the 30 units of the subject some were left
        assert (await served.get("/v1/underlyings")).status_code == 429  # one bucket for both
