"""A server that goes away, and streams that are gone when it is back."""

import asyncio

from pipeline import topics
from tests.support import bus, servers
from tests.support.conformance import Target


async def test_lost_stream_gets_its_group_back(server: Target, stream: str) -> None:
    async with bus.context(server.url) as context:
        await bus.append_numbered(context, stream, 1)
        reader = bus.consumer(context, stream)
        batches = reader.batches(count=1, block_ms=50)
        await reader.ack(await anext(batches))
        following = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0)
        await context.redis.delete(stream, topics.sequence(stream))
        while not await context.redis.exists(stream):  # the group's new creation brings it back
            await asyncio.sleep(0.02)
        await bus.append_numbered(context, stream, 1)
        async with asyncio.timeout(5):
            assert [entry.id for entry in await following] == ["id-0"]
        await batches.aclose()
        await reader.close()


async def test_consumer_outlives_a_restart_of_the_server(
    own_server: servers.RedisServer, stream: str
) -> None:
    async with bus.context(own_server.url) as context:
        await bus.append_numbered(context, stream, 1)
        reader = bus.consumer(context, stream)
        batches = reader.batches(count=1, block_ms=50)
        await reader.ack(await anext(batches))
        following = asyncio.ensure_future(anext(batches))
        await asyncio.to_thread(own_server.stop)
        while context.telemetry.state != "degraded":
            await asyncio.sleep(0.01)
        await asyncio.to_thread(own_server.start)
        await bus.append_numbered(context, stream, 1)
        async with asyncio.timeout(8):
            assert [entry.seq for entry in await following] == [2]
        assert context.telemetry.state == "ready"
        await batches.aclose()
        await reader.close()
