"""A stream that is made from another is lost again and again under load: it is made again, whole.

The worker reads a batch ahead while it finishes the last, as the processor does.
"""

import asyncio
import contextlib

from pipeline.entries import Entry, decode_entry
from pipeline.runtime import Context
from pipeline.streams import Consumer, Producer
from tests.support import bus
from tests.support.conformance import Target

ENTRIES = 300
LOSSES = (60, 130, 200)  # at which entry appended


async def make(consumer: Consumer, target: str) -> None:
    """Copy entries, a batch read while the last one is finished."""

    async def finish(batch: list[Entry]) -> None:
        await consumer.finish(target, [(one, bus.entry(int(one.data))) for one in batch])

    finishing: asyncio.Task[None] | None = None
    async for batch in consumer.batches(count=8, block_ms=100):
        if finishing is not None:
            await finishing
        finishing = asyncio.create_task(finish(batch))


async def store(consumer: Consumer, seen: set[str]) -> None:
    async for batch in consumer.batches(count=8, block_ms=100):
        seen |= {entry.id for entry in batch}
        await consumer.ack(batch)


async def append(context: Context, stream: str, target: str) -> None:
    producer = Producer(context.settings, "producer")
    for number in range(ENTRIES):
        await producer.append(stream, bus.entry(number))
        if number in LOSSES:
            await context.redis.delete(target)
        await asyncio.sleep(0.003)
    await producer.close()


async def test_target_lost_under_load_is_made_again_whole_and_in_order(
    server: Target, stream: str
) -> None:
    target, seen = f"{stream}:out", set[str]()
    async with bus.context(server.url) as context:
        maker, keeper = bus.consumer(context, stream), bus.consumer(context, target)
        working = [
            asyncio.create_task(make(maker, target)),
            asyncio.create_task(store(keeper, seen)),
        ]
        await append(context, stream, target)
        with contextlib.suppress(TimeoutError):  # what is missing then is said below
            await bus.until(lambda: len(seen) == ENTRIES)
        context.stopping.set()
        await asyncio.gather(*working)
        for consumer in (maker, keeper):
            await consumer.close()
        assert seen == {f"id-{number}" for number in range(ENTRIES)}
        written = [decode_entry(*item) for item in await context.redis.xrange(target)]
        numbers = [int(entry.data) for entry in written]
        assert numbers == list(range(numbers[0], ENTRIES))
        assert numbers[0] <= LOSSES[-1]
        assert (await context.redis.xpending(stream, "group"))["pending"] == 0
