"""A member that works its shard alone asks for the next batch while it works on this one."""

import asyncio
from collections.abc import AsyncIterator

from pipeline.entries import Entry
from pipeline.runtime import Context
from pipeline.streams import Consumer
from tests.support import bus
from tests.support.conformance import Target

QUIET = {"claim_idle_ms": 60_000}  # nobody looks for stale entries meanwhile


async def delivered(context: Context, consumer: Consumer) -> int:
    """How many entries are pending, in work or read ahead."""
    summary = await context.redis.xpending(consumer.stream, consumer.group)
    return int(summary["pending"])


async def until_delivered(context: Context, consumer: Consumer, wanted: int) -> None:
    async with asyncio.timeout(8.0):
        while await delivered(context, consumer) != wanted:
            await asyncio.sleep(0.01)


async def two_batches(batches: AsyncIterator[list[Entry]]) -> list[Entry]:
    """The first two batches: with the second, the third is asked for."""
    return [*await anext(batches), *await anext(batches)]


def ids(entries: list[Entry]) -> list[str]:
    return [entry.id for entry in entries]


async def test_one_batch_is_read_ahead_and_no_more(server: Target, stream: str) -> None:
    async with bus.context(server.url, **QUIET) as context:
        await bus.append_numbered(context, stream, 10)
        consumer = bus.consumer(context, stream)
        batches = consumer.batches(count=2, block_ms=50)
        taken = await two_batches(batches)
        await until_delivered(context, consumer, 6)
        await consumer.ack(taken)
        taken += [entry for _ in range(3) for entry in await anext(batches)]
        assert ids(taken) == [f"id-{number}" for number in range(10)]
        assert {entry.attempts for entry in taken} == {1}
        await consumer.close()


async def test_members_that_compete_take_no_more_than_they_work_on(
    server: Target, stream: str
) -> None:
    async with bus.context(server.url, **QUIET) as context:
        await bus.append_numbered(context, stream, 10)
        consumer = bus.consumer(context, stream, exclusive=False)
        await two_batches(consumer.batches(count=2, block_ms=50))
        await asyncio.sleep(0.1)
        assert await delivered(context, consumer) == 4
        await consumer.close()


async def test_batch_read_ahead_of_a_seek_is_not_handed_out(server: Target, stream: str) -> None:
    async with bus.context(server.url, **QUIET) as context:
        await bus.append_numbered(context, stream, 10)
        consumer = bus.consumer(context, stream)
        batches = consumer.batches(count=2, block_ms=50)
        taken = await two_batches(batches)
        await until_delivered(context, consumer, 6)
        await consumer.seek(taken[-1].stream_id)
        again = [entry for _ in range(3) for entry in await anext(batches)]
        assert ids(again) == [f"id-{number}" for number in range(4, 10)]
        await consumer.close()


async def test_successor_is_handed_what_the_one_before_had_read_ahead(
    server: Target, stream: str
) -> None:
    async with (
        bus.context(server.url, "a", **QUIET) as one,
        bus.context(server.url, "b", **QUIET) as two,
    ):
        await bus.append_numbered(one, stream, 10)
        first, second = bus.consumer(one, stream), bus.consumer(two, stream)
        batches = first.batches(count=2, block_ms=50)
        taken = await two_batches(batches)
        await until_delivered(one, first, 6)
        await first.ack(taken)
        await first.close()
        assert ids(await bus.take(second, 6)) == [f"id-{number}" for number in range(4, 10)]
        await second.close()


async def test_former_owner_does_not_hand_out_what_it_had_read_ahead(
    server: Target, stream: str
) -> None:
    async with (
        bus.context(server.url, "a", **QUIET) as one,
        bus.context(server.url, "b", **QUIET) as two,
    ):
        await bus.append_numbered(one, stream, 10)
        first, second = bus.consumer(one, stream), bus.consumer(two, stream)
        batches = first.batches(count=2, block_ms=50)
        await two_batches(batches)
        await until_delivered(one, first, 6)
        waiting = asyncio.ensure_future(bus.take(second, 10))
        await bus.until(lambda: second.name == "group-1")
        await bus.silence(first)
        inherited = await waiting
        assert ids(inherited) == [f"id-{number}" for number in range(10)]
        assert await second.ack(inherited) == 10
        late = asyncio.ensure_future(anext(batches))
        await asyncio.wait((late,), timeout=0.5)
        assert not late.done() or late.result() == []
        await bus.ended(late)
        await first.close()
        await second.close()
