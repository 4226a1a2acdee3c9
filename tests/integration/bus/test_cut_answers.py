"""Answers that never arrive: what the server did is not lost, and not done twice."""

import asyncio

from pipeline.entries import Entry
from pipeline.streams import Consumer, Producer
from stockify.bench.faults.proxy import proxied
from tests.support import bus, servers


async def wait_for_pending(context: bus.Context, stream: str, count: int) -> None:
    async with asyncio.timeout(5):
        while (await context.redis.xpending(stream, "group"))["pending"] < count:
            await asyncio.sleep(0.01)


async def taken(consumer: Consumer, count: int) -> list[Entry]:
    entries = await bus.take(consumer, count)
    assert await consumer.ack(entries) == count
    return entries


async def test_entries_in_an_answer_that_was_cut_off_come_again_in_order(
    own_server: servers.RedisServer, stream: str
) -> None:
    async with (
        bus.context(own_server.url) as direct,
        proxied(own_server.port) as proxy,
        bus.context(f"redis://127.0.0.1:{proxy.port}/0") as context,
    ):
        await bus.append_numbered(direct, stream, 1)
        reader = bus.consumer(context, stream)
        batches = reader.batches(count=8, block_ms=200)
        await reader.ack(await anext(batches))
        following = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0.05)
        proxy.hold_answers()
        await bus.append(direct, stream, bus.entry(1))
        await wait_for_pending(direct, stream, 1)
        await bus.append(direct, stream, bus.entry(2))
        proxy.reset()
        async with asyncio.timeout(8):
            entries = await following
            while len(entries) < 2:
                entries += await anext(batches)
        assert [entry.id for entry in entries] == ["id-1", "id-2"]
        assert await reader.ack(entries) == 2
        await batches.aclose()
        await reader.close()


async def test_append_whose_answer_was_cut_off_is_settled_to_one_entry(
    own_server: servers.RedisServer, stream: str
) -> None:
    async with bus.context(own_server.url) as direct, proxied(own_server.port) as proxy:
        await bus.append_numbered(direct, stream, 1)
        settings = direct.settings.__class__(redis_url=f"redis://127.0.0.1:{proxy.port}/0")
        producer = Producer(settings, "producer")
        await producer.append(stream, bus.entry(1))
        proxy.hold_answers()
        appending = asyncio.ensure_future(producer.append(stream, bus.entry(2)))
        async with asyncio.timeout(5):
            while await direct.redis.xlen(stream) < 3:
                await asyncio.sleep(0.01)
        proxy.reset()
        assert isinstance((await asyncio.gather(appending, return_exceptions=True))[0], Exception)
        settled = await producer.settle(stream, [bus.entry(2)])
        assert [place.seq for place in settled] == [3]
        assert await direct.redis.xlen(stream) == 3
        await producer.close()
