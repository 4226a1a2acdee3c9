"""Trimming: nothing goes that a critical group has not finished."""

from pipeline.streams import Consumer, trim
from tests.support import bus
from tests.support.conformance import Target


async def test_trim_stops_at_what_a_critical_group_has_not_finished(
    server: Target, stream: str
) -> None:
    async with bus.context(server.url) as context:
        await bus.append_numbered(context, stream, 10)
        reader = bus.consumer(context, stream)
        entries = await bus.take(reader, 6)
        trimmed = await trim(context.redis, stream, 0)
        assert (trimmed.removed, trimmed.holder) == (0, "group")
        assert trimmed.oldest == trimmed.cut == entries[0].stream_id
        await reader.ack(entries[:4])
        trimmed = await trim(context.redis, stream, 0)
        assert (trimmed.removed, trimmed.oldest) == (4, entries[4].stream_id)
        await reader.ack(entries[4:])
        rest = await bus.take(reader, 4)
        await reader.ack(rest)
        await trim(context.redis, stream, 60_000)
        assert await context.redis.xlen(stream) == 6  # finished, but still within the kept time
        await trim(context.redis, stream, -1_000)
        assert await context.redis.xlen(stream) == 0
        await reader.close()


async def test_best_effort_group_does_not_hold_the_trim_back(server: Target, stream: str) -> None:
    async with bus.context(server.url) as context:
        await bus.append_numbered(context, stream, 3)
        reader = Consumer(
            context, stream, "group", dead_stream="stream:d", critical=False, start="earliest"
        )
        assert len(await bus.take(reader, 1)) == 1
        trimmed = await trim(context.redis, stream, -1_000)
        assert (trimmed.removed, trimmed.holder, trimmed.oldest) == (3, "", "")
        await reader.close()
