"""Gateways and servers that end under their clients: the feed goes on, and nothing is lost."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import websockets

from pipeline.config import Settings
from pipeline.credentials import issue_token
from tests.support import gateway, gateway_process, servers
from tests.support.feed import CHANNEL, CONTRACT, Held, Market, market
from tests.support.gateway import SECRET, Client


async def test_killed_gateway_is_replaced_by_the_other_without_a_gap(
    valkey_process: servers.RedisServer, valkey: str, tmp_path: Path
) -> None:
    """Two say the same, and a client of the one that is killed goes on at the other."""
    settings = [gateway_process.settings(valkey_process.port) for _ in range(2)]
    with contextlib.ExitStack() as stack:
        processes = [
            stack.enter_context(gateway_process.process(one, tmp_path / f"{number}.log"))
            for number, one in enumerate(settings)
        ]
        for one in settings:
            url = f"http://127.0.0.1:{one.gateway_port}/healthz"
            await asyncio.to_thread(gateway_process.answer, url, 200)
        async with market(valkey) as trading:
            first = await trading.open()
            moving, staying = Held(), Held()
            async with _client(settings[0]) as one, _client(settings[1]) as other:
                for client in (one, other):
                    await client.ask("subscribe", channels=[CHANNEL, CONTRACT], interval_ms=0)
                await asyncio.gather(moving.follow(one, first), staying.follow(other, first))
                expected = await trading.append(*range(1, 9))
                await asyncio.gather(
                    moving.follow(one, expected[-1]), staying.follow(other, expected[-1])
                )
                assert moving.seqs == staying.seqs == expected
                processes[0].kill()
                await _lost(one)
                expected += await _appended_slowly(trading, range(9, 21))
                async with _client(settings[1]) as again:
                    ack = await again.ask(
                        "subscribe", channels=[CHANNEL], interval_ms=0, since=moving.since
                    )
                    assert ack["recovered"] == {CHANNEL: True}
                    expected += await _appended_slowly(trading, range(21, 25))
                    await moving.follow(again, expected[-1])
                await staying.follow(other, expected[-1])
                assert moving.seqs == staying.seqs == expected
                assert moving.rows == staying.rows
                assert (moving.snapshots, moving.merged, moving.skipped) == (1, 0, 0)


async def test_feed_goes_on_by_itself_when_redis_is_back(tmp_path: Path) -> None:
    with servers.running(servers.valkey_binary(), tmp_path) as server:
        async with market(server.url) as trading, gateway.running(server.url) as served:
            first = await trading.open()
            async with served.client() as client, served.client() as other:
                held, slower = Held(), Held(CONTRACT)
                await client.ask("subscribe", channels=[CHANNEL], interval_ms=0)
                await other.ask("subscribe", channels=[CONTRACT], interval_ms=100)
                expected = [first, *await trading.append(1, 2)]
                await held.follow(client, expected[-1])
                await slower.follow(other, expected[-1])
                await asyncio.to_thread(server.stop)
                await asyncio.to_thread(server.start)
                expected += await trading.append(3, 4, 5)
                await held.follow(client, expected[-1])
                await slower.follow(other, expected[-1])
                assert held.seqs == [seq for seq in expected if seq > held.first]
                assert (held.snapshots, held.merged, held.skipped) == (1, 0, 0)
                assert slower.snapshots == 1


@contextlib.asynccontextmanager
async def _client(settings: Settings) -> AsyncIterator[Client]:
    url = f"ws://127.0.0.1:{settings.gateway_port}/v1/ws"
    headers = {"Authorization": f"Bearer {issue_token(SECRET, scopes=('live',))}"}
    async with websockets.connect(
        url, additional_headers=headers, subprotocols=[websockets.Subprotocol("stockify.v1")]
    ) as socket:
        client = Client(socket)
        await client.until(lambda message: message["type"] == "ack")
        yield client


async def _lost(client: Client) -> None:
    """Read until the connection has ended."""
    with contextlib.suppress(websockets.ConnectionClosed):
        await client.until(lambda message: False)


async def _appended_slowly(trading: Market, numbers: range) -> list[int]:
    """One after the other, as a market does it."""
    return [seq for number in numbers for seq in await trading.append(number)]
