"""One active member a shard: others stand by, and one that was taken for dead writes nothing."""

import asyncio
import time

from pipeline import topics
from pipeline.entries import Entry
from pipeline.streams import Consumer
from tests.support import bus
from tests.support.conformance import Target

TAKEOVER_S = 5.0


async def read_one(consumer: Consumer, deadline_s: float = 10.0) -> Entry:
    (entry,) = await bus.take(consumer, 1, deadline_s=deadline_s)
    return entry


async def test_second_member_stands_by_and_takes_over_at_once_when_the_first_leaves(
    server: Target, stream: str
) -> None:
    async with bus.context(server.url, "a") as one, bus.context(server.url, "b") as two:
        await bus.append_numbered(one, stream, 1)
        first, second = bus.consumer(one, stream), bus.consumer(two, stream)
        entry = await read_one(first)
        waiting = asyncio.ensure_future(read_one(second))
        await bus.until(lambda: second.name == "group-1")
        assert not second.is_active
        assert await first.ack([entry]) == 1
        await bus.append(one, stream, bus.entry(7))
        began = time.monotonic()
        await first.close()
        assert (await waiting).id == "id-7"
        assert time.monotonic() - began < 2.0
        await second.close()


async def test_standby_takes_over_from_a_dead_owner_and_the_fenced_off_owner_writes_nothing(
    server: Target, stream: str
) -> None:
    async with bus.context(server.url, "a") as one, bus.context(server.url, "b") as two:
        await bus.append_numbered(one, stream, 4)
        first, second = bus.consumer(one, stream), bus.consumer(two, stream)
        held = await bus.take(first, 2)
        waiting = asyncio.ensure_future(bus.take(second, 2))
        await bus.until(lambda: second.name == "group-1")
        await bus.silence(first)
        began = time.monotonic()
        inherited = await waiting
        assert time.monotonic() - began < TAKEOVER_S
        assert [entry.id for entry in inherited] == ["id-0", "id-1"]
        assert [entry.attempts for entry in inherited] == [2, 2]

        target = f"{stream}:out"
        assert await first.finish(target, [(held[0], bus.entry(100))]) == [None]
        assert await first.ack(held[1:]) == 0
        await first.dead_letter(held[1], "late", "")
        assert await two.redis.exists(target, f"{stream}:dead") == 0
        (place,) = await second.finish(target, [(inherited[0], bus.entry(200))])
        assert place is not None
        assert await second.ack(inherited[1:]) == 1
        assert await two.redis.xlen(target) == 1
        await first.close()
        await second.close()


async def test_former_owner_whose_read_still_waits_is_given_nothing(
    server: Target, stream: str
) -> None:
    async with bus.context(server.url, "a") as one, bus.context(server.url, "b") as two:
        await bus.append_numbered(one, stream, 1)
        first, second = bus.consumer(one, stream), bus.consumer(two, stream)
        await first.ack([await read_one(first)])
        blocked = asyncio.ensure_future(anext(first.batches(count=8, block_ms=4_500)))
        waiting = asyncio.ensure_future(read_one(second))
        await bus.until(lambda: second.name == "group-1")
        await bus.silence(first)
        await bus.until(lambda: second.is_active)
        await bus.append(two, stream, bus.entry(9))
        assert (await waiting).id == "id-9"
        assert not blocked.done()
        await bus.ended(blocked)
        await first.close()
        await second.close()


async def test_takeovers_under_load_keep_the_order_and_write_each_result_once(
    server: Target, stream: str
) -> None:
    count, target = 120, f"{stream}:out"
    async with bus.context(server.url, "a") as one, bus.context(server.url, "b") as two:
        await bus.append_numbered(one, stream, count)

        async def work(consumer: Consumer, most: int) -> None:
            done = 0
            async for batch in consumer.batches(count=7, block_ms=50):
                results = [(entry, bus.entry(1_000 + entry.seq)) for entry in batch]
                done += sum(place is not None for place in await consumer.finish(target, results))
                if done >= most:
                    return

        for turn in range(4):
            owner = bus.consumer(one if turn % 2 else two, stream)
            await work(owner, count // 6)
            await bus.take(owner, 3)  # handed out, and never finished by this one
            await owner.close()
        last = bus.consumer(one, stream)
        working = asyncio.ensure_future(work(last, count))
        async with asyncio.timeout(10):
            while await one.redis.xlen(target) < count:
                await asyncio.sleep(0.02)
        await bus.ended(working)
        await last.close()
        written = [fields[b"id"] for _, fields in await one.redis.xrange(target)]
        assert written == [b"id-%d" % (1_000 + seq) for seq in range(1, count + 1)]


async def test_names_are_slots_and_a_dead_member_is_removed_only_when_it_holds_nothing(
    server: Target, stream: str
) -> None:
    async with bus.context(server.url, claim_idle_ms=60_000) as context:
        await bus.append_numbered(context, stream, 2)
        empty, holding, third = (bus.consumer(context, stream, exclusive=False) for _ in range(3))
        await empty.ack(await bus.take(empty, 1))
        await bus.take(holding, 1)
        assert (empty.name, holding.name) == ("group-0", "group-1")
        joining = asyncio.ensure_future(bus.take(third, 1))
        await bus.until(lambda: third.name == "group-2")
        for gone in (empty, holding):
            await bus.silence(gone)
        async with asyncio.timeout(TAKEOVER_S):
            while await third._member.reap(context.redis) != ["group-0"]:
                await asyncio.sleep(0.1)
        consumers = await context.redis.xinfo_consumers(stream, "group")
        assert b"group-1" in {found["name"] for found in consumers}
        await bus.ended(joining)
        for one in (empty, holding, third):
            await one.close()


async def test_a_clock_that_was_put_back_does_not_keep_a_dead_owner_in_office(
    server: Target, stream: str
) -> None:
    async with bus.context(server.url) as context:
        await bus.append_numbered(context, stream, 1)
        lease = topics.lease(stream, "group")
        far_ms = int(time.time() * 1_000) + 3_600_000
        ghost = {"owner": "ghost", "fence": "4:ghost", "until": str(far_ms)}
        await context.redis.hset(
            lease, mapping={f"{stream}|{name}": text for name, text in ghost.items()}
        )
        heir = bus.consumer(context, stream)
        assert (await read_one(heir, TAKEOVER_S)).id == "id-0"
        fence = await context.redis.hget(lease, f"{stream}|fence") or b""
        assert fence.endswith(b":" + (await context.redis.hget(lease, f"{stream}|owner") or b"?"))
        await heir.close()
