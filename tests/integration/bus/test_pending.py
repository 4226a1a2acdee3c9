"""What was delivered and not finished comes again, and one bad entry takes no others with it."""

import asyncio

from tests.support import bus
from tests.support.conformance import Target


async def test_entry_that_kills_its_worker_is_set_aside_and_its_neighbours_are_not(
    server: Target, stream: str
) -> None:
    finished: list[str] = []
    async with bus.context(server.url, max_attempts=3) as context:
        await bus.append_numbered(context, stream, 6)
        for _crash in range(8):
            reader = bus.consumer(context, stream)
            try:
                async with asyncio.timeout(10):
                    async for batch in reader.batches(count=4, block_ms=50):
                        if any(entry.id == "id-2" for entry in batch):
                            break  # dies with the whole batch in its hands
                        finished += [entry.id for entry in batch]
                        await reader.ack(batch)
                        if "id-5" in finished:
                            break
            finally:
                await reader.close()
            if "id-5" in finished:
                break
        assert finished == ["id-0", "id-1", "id-3", "id-4", "id-5"]
        letters = await context.redis.xrange(f"{stream}:dead")
        assert [fields[b"id"] for _, fields in letters] == [b"id-2"]


async def test_long_work_of_a_competing_member_is_not_claimed_from_it(
    server: Target, stream: str
) -> None:
    async with (
        bus.context(server.url, "a", claim_idle_ms=1_500) as one,
        bus.context(server.url, "b", claim_idle_ms=1_500) as two,
    ):
        await bus.append_numbered(one, stream, 2)
        busy = bus.consumer(one, stream, exclusive=False)
        idle = bus.consumer(two, stream, exclusive=False)
        held = await bus.take(busy, 2)
        claiming = asyncio.ensure_future(bus.take(idle, 2, deadline_s=20))
        done, _ = await asyncio.wait([claiming], timeout=2.6)
        assert not done
        await bus.silence(busy)  # now it is as good as dead
        assert [entry.id for entry in await claiming] == ["id-0", "id-1"]
        assert await busy.finish(f"{stream}:out", [(held[0], bus.entry(9))]) != []
        await busy.close()
        await idle.close()


async def test_entry_that_was_deleted_while_pending_leaves_the_pending_list(
    server: Target, stream: str
) -> None:
    async with bus.context(server.url) as context:
        await bus.append_numbered(context, stream, 2)
        reader = bus.consumer(context, stream)
        first, _ = await bus.take(reader, 2)
        await reader.close()
        await context.redis.xdel(stream, first.stream_id)
        again = bus.consumer(context, stream)
        (left,) = await bus.take(again, 1)
        assert left.id == "id-1"
        await again.ack([left])
        assert (await context.redis.xpending(stream, "group"))["pending"] == 0
        await again.close()
