"""A server without memory for writes: back-pressure for consumers, and nothing lost."""

import asyncio

from tests.support import bus, servers


async def test_finish_waits_for_memory_and_is_done_once(
    own_server: servers.RedisServer, stream: str
) -> None:
    async with bus.context(own_server.url) as context:
        await bus.append_numbered(context, stream, 2)
        reader = bus.consumer(context, stream)
        entries = await bus.take(reader, 2)
        await context.redis.config_set("maxmemory", 1)
        results = [(entry, bus.entry(100 + entry.seq)) for entry in entries]
        finishing = asyncio.create_task(reader.finish(f"{stream}:out", results))
        await bus.until(lambda: context.telemetry.state == "degraded")
        assert not finishing.done()
        assert await context.redis.exists(f"{stream}:out") == 0
        await context.redis.config_set("maxmemory", 0)
        async with asyncio.timeout(8):
            assert [place.seq for place in await finishing if place] == [1, 2]
        assert await context.redis.xlen(f"{stream}:out") == 2
        await reader.close()


async def test_consumer_that_starts_without_memory_begins_when_there_is_some(
    own_server: servers.RedisServer, stream: str
) -> None:
    async with bus.context(own_server.url) as context:
        await bus.append_numbered(context, stream, 2)
        await context.redis.config_set("maxmemory", 1)
        reader = bus.consumer(context, stream)
        taking = asyncio.create_task(bus.take(reader, 2, deadline_s=15))
        await bus.until(lambda: context.telemetry.state == "degraded")
        await context.redis.config_set("maxmemory", 0)
        assert [entry.id for entry in await taking] == ["id-0", "id-1"]
        assert context.telemetry.state == "ready"
        await reader.close()
