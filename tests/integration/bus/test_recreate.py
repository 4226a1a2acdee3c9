"""Groups and streams that are lost: made again where they were, under a new epoch."""

import asyncio

import pytest

from pipeline import topics
from pipeline.errors import EpochChanged
from pipeline.runtime import Redis
from pipeline.streams import Consumer, Producer, trim
from tests.support import bus
from tests.support.conformance import Target


async def tally_of(redis: Redis, stream: str) -> dict[str, int]:
    found = await redis.hgetall(topics.tally(stream))
    return {name.decode(): int(value) for name, value in found.items()}


async def read_until(reader: Consumer, last: str) -> list[str]:
    """The ids of what comes up to that one; what the reader held already may come twice."""
    seen: list[str] = []
    async with asyncio.timeout(10):
        async for batch in reader.batches(count=2, block_ms=50):
            seen += [entry.id for entry in batch]
            if last in seen:
                break
    return list(dict.fromkeys(seen))


async def test_destroyed_group_goes_on_at_its_durable_cursor(server: Target, stream: str) -> None:
    async with bus.context(server.url) as context:
        await bus.append_numbered(context, stream, 4)
        reader = bus.consumer(context, stream)
        await reader.ack(await bus.take(reader, 3))
        await context.redis.xgroup_destroy(stream, "group")
        await trim(context.redis, stream, -1_000)  # what the lost group has not finished stays
        assert await context.redis.xlen(stream) == 1
        assert await read_until(reader, "id-3") == ["id-3"]
        await reader.close()


async def test_group_that_began_at_the_end_misses_nothing_when_it_is_lost(
    server: Target, stream: str
) -> None:
    async with bus.context(server.url) as context:
        await bus.append_numbered(context, stream, 2)
        reader = Consumer(context, stream, "late", dead_stream=f"{stream}:dead", start="latest")
        await bus.begin(reader)
        await context.redis.xgroup_destroy(stream, "late")
        await bus.append(context, stream, bus.entry(5))
        assert [entry.id for entry in await bus.take(reader, 1)] == ["id-5"]
        await reader.close()


async def test_lost_stream_begins_a_new_epoch_which_producer_and_group_are_told_of(
    server: Target, stream: str
) -> None:
    async with bus.context(server.url) as context:
        producer = Producer(context.settings, "producer")
        places = await producer.append_many(stream, [bus.entry(n) for n in range(3)])
        reader = bus.consumer(context, stream)
        await reader.ack(await bus.take(reader, 2))
        counted = await tally_of(context.redis, stream)
        await context.redis.delete(stream)

        with pytest.raises(EpochChanged):
            await producer.append(stream, bus.entry(3))
        (restored,) = await producer.settle(stream, [bus.entry(2)], acked=[places[2]])
        fresh = await producer.append(stream, bus.entry(3))
        assert (restored.seq, fresh.seq) == (4, 5)
        assert restored.epoch == fresh.epoch != places[0].epoch
        assert await read_until(reader, "id-3") == ["id-2", "id-3"]
        again = await tally_of(context.redis, stream)
        assert again["0:test:n"] == counted["0:test:n"] + 1  # the restored one was counted before
        await reader.close()
        await producer.close()


async def test_lost_target_is_made_anew_from_its_source_and_counted_once(
    server: Target, stream: str
) -> None:
    target = f"{stream}:out"
    async with bus.context(server.url) as context:
        await bus.append_numbered(context, stream, 6)
        maker = bus.consumer(context, stream)
        user = bus.consumer(context, target)
        results = [(entry, bus.entry(100 + entry.seq)) for entry in await bus.take(maker, 4)]
        await maker.finish(target, results)
        await user.ack(await bus.take(user, 2))  # of four results two are finished
        counted = await tally_of(context.redis, target)
        await context.redis.delete(target)

        made: list[str] = []
        async with asyncio.timeout(10):
            async for batch in maker.batches(count=3, block_ms=50):
                results = [(entry, bus.entry(100 + entry.seq)) for entry in batch]
                places = await maker.finish(target, results)
                made += [new.id for (_, new), place in zip(results, places, strict=True) if place]
                if len(made) == 4:
                    break
        assert made == ["id-103", "id-104", "id-105", "id-106"]
        assert await read_until(user, "id-106") == made
        again = await tally_of(context.redis, target)
        assert again["0:test:n"] == counted["0:test:n"] + 2 == 6
        await maker.close()
        await user.close()


async def test_seek_goes_back_to_a_place_and_forward_to_the_end(
    server: Target, stream: str
) -> None:
    async with bus.context(server.url) as context:
        await bus.append_numbered(context, stream, 5)
        reader = bus.consumer(context, stream)
        entries = await bus.take(reader, 4)
        await reader.ack(entries[:1])
        await reader.seek(entries[0].stream_id)
        assert [entry.id for entry in await bus.take(reader, 2)] == ["id-1", "id-2"]
        await reader.seek("latest")
        await bus.append(context, stream, bus.entry(9))
        assert [entry.id for entry in await bus.take(reader, 1)] == ["id-9"]
        assert await reader.ack(entries) == 0  # let go by the seek
        await reader.close()
