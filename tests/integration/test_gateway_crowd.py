"""Many clients and many channels in one gateway: nobody pays for what another does."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator

import psutil
import pytest

from api.gateway import Limits
from pipeline import frames
from pipeline.models import market_snapshot
from tests.support import chains, feed, gateway
from tests.support.feed import CHANNEL, CONTRACT, Held
from tests.support.gateway import CHAIN, Client, Gateway, moved, until_true

HEALTHY = 200
UPDATES = 40
PARTING = 100
BIG = chains.enriched(81)  # so that its updates soon are more than a connection takes unread
SESSIONS, EACH = 10, 1_000
SUBSCRIBED_S = 10.0  # a fifth of that where nothing else runs
SUBSCRIPTION_BYTES = 12_000


@pytest.fixture
async def served(valkey: str) -> AsyncIterator[Gateway]:
    limits = Limits(stalled_s=1.5, backlog_bytes=100_000)
    async with gateway.running(valkey, limits=limits, **UNLIMITED) as running:
        await running.publish(BIG, 5)
        yield running


UNLIMITED = {"gateway_sessions": 0, "gateway_address_rate": 0.0}


async def test_slow_and_stalled_clients_cost_the_healthy_ones_nothing(served: Gateway) -> None:
    """Two hundred get every update, beside one that reads seldom and one that never does."""
    async with asyncio.TaskGroup() as opening:
        sockets = [opening.create_task(_opened(served, CONTRACT)) for _ in range(HEALTHY)]
    healthy = [task.result() for task in sockets]
    stalled = await feed.stalled(served)
    slow = await _opened(served, CHANNEL, max_queue=1)
    try:
        following = [
            asyncio.create_task(Held(CONTRACT).follow(one, 5 + UPDATES)) for one in healthy
        ]
        chain, legs = BIG, range(len(BIG.legs["strike"]))
        for seq in range(6, 6 + UPDATES):
            chain = moved(chain, seconds=1, last=dict.fromkeys(legs, float(seq)))
            await served.publish(chain, seq)
        for held in await asyncio.gather(*following):
            assert held.seqs == list(range(6, 6 + UPDATES))
            assert (held.skipped, held.merged, held.snapshots) == (0, 0, 1)
        late = await Held().follow(slow, 5 + UPDATES)
        assert late.skipped + len(late.seqs) == UPDATES
        await until_true(lambda: _sessions(served) == HEALTHY + 1)
    finally:
        stalled.close()
        await asyncio.gather(*(one.socket.close() for one in (*healthy, slow)))


async def test_crowd_is_told_of_a_restart_whoever_stalls(valkey: str) -> None:
    limits = Limits(backlog_bytes=100_000)
    async with gateway.running(valkey, limits=limits, **UNLIMITED) as served:
        await served.publish(BIG, 5)
        async with asyncio.TaskGroup() as opening:
            sockets = [opening.create_task(_opened(served, CONTRACT)) for _ in range(PARTING)]
        stalled = await feed.stalled(served)
        try:
            await until_true(lambda: _sessions(served) == PARTING + 1)
            legs = range(len(BIG.legs["strike"]))
            for seq in range(6, 6 + UPDATES):
                last = dict.fromkeys(legs, float(seq))
                await served.publish(moved(BIG, seconds=seq, last=last), seq)
            served.stopping.set()
            codes = await asyncio.gather(*(one.result().closed() for one in sockets))
            assert set(codes) == {1012}
            await until_true(lambda: _sessions(served) == 0)
        finally:
            stalled.close()


async def test_ten_thousand_subscriptions_stay_within_bounds(served: Gateway) -> None:
    symbols = [f"NIFTY-20260127-{strike}-{kind}" for strike in range(1, 5_001) for kind in _KINDS]
    await _publish_contracts(served, symbols)
    gc.collect()
    before = psutil.Process().memory_info().rss
    started = time.monotonic()
    clients = [await _opened(served) for _ in range(SESSIONS)]
    try:
        for number, client in enumerate(clients):
            names = [f"contract:{one}" for one in symbols[number * EACH : (number + 1) * EACH]]
            seen = set()
            await client.send("subscribe", channels=names, interval_ms=0 if number % 2 else 250)
            while len(seen) < EACH:
                message = await client.next()
                if message["type"] == "snapshot":
                    seen.add(message["channel"])
                assert message.get("refused", []) == []
        assert time.monotonic() - started < SUBSCRIBED_S
        used = psutil.Process().memory_info().rss - before
        assert used / (SESSIONS * EACH) < SUBSCRIPTION_BYTES
        started = time.monotonic()
        for number in (0, 1):
            symbol = symbols[number * EACH]
            await _publish_contracts(served, [symbol], seq=8)
            update = await clients[number].of("update", f"contract:{symbol}")
            assert (update["prev"], update["seq"]) == (7, 8)
        assert time.monotonic() - started < 2.0
    finally:
        for client in clients:
            await client.socket.close()
    await until_true(lambda: _sessions(served) == 0)


_KINDS = ("CE", "PE")


async def _opened(served: Gateway, channel: str = "", *, max_queue: int = 64) -> Client:
    """A client that is let in, and subscribed to a channel."""
    client = await feed.opened(served, max_queue=max_queue)
    if channel:
        ack = await client.ask("subscribe", channels=[channel], interval_ms=0)
        assert ack["refused"] == []
    return client


async def _publish_contracts(served: Gateway, symbols: list[str], seq: int = 7) -> None:
    """Write and publish contracts with the values of one."""
    chain = moved(CHAIN, seconds=seq)
    position = frames.Position("e1", seq, chain.header.ts_ingest)
    texts = frames.encode_client_json(chain, market_snapshot(chain.header), position)
    known, text = next(iter(texts.contracts.items()))
    async with served.redis.pipeline(transaction=False) as calls:
        for symbol in symbols:
            own = text.replace(known.encode(), symbol.encode())
            calls.set(served.topics.latest(symbol), own)
            calls.publish(served.topics.live(symbol), own)
        await calls.execute()


def _sessions(served: Gateway) -> float:
    count: float = served.telemetry.report()["gauges"]["clients"]
    return count
