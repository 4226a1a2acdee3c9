"""What is counted, what is unfinished, and copies that are counted apart."""

from pipeline import topics
from pipeline.streams import Producer, glances
from pipeline.streams.tallies import UNFINISHED_LOOKED_AT, Count, Stage, Tally, prune, read_stage
from pipeline.streams.tally import identity
from tests.support import bus
from tests.support.conformance import Target

BUCKET = (0, "test")


async def stage(context: bus.Context, stream: str) -> Stage:
    return await read_stage(context.redis, stream, "group")


def total(*numbers: int) -> Count:
    return Count(len(numbers), sum(identity(f"id-{number}") for number in numbers))


async def test_every_append_is_counted_and_unfinished_until_it_is_finished(
    server: Target, stream: str
) -> None:
    async with bus.context(server.url) as context:
        assert await stage(context, stream) == Stage(Tally({}, {}, {}), {}, True)
        await bus.append_numbered(context, stream, 6)
        found = await stage(context, stream)
        assert found.tally.counted == {BUCKET: total(*range(6))}
        assert found.unfinished == {BUCKET: total(*range(6))}  # nobody reads it yet
        reader = bus.consumer(context, stream)
        taken = await bus.take(reader, 4)
        await reader.ack(taken[:1])
        assert (await stage(context, stream)).unfinished == {BUCKET: total(*range(1, 6))}
        await reader.ack(taken[1:])
        await reader.close()
        assert (await stage(context, stream)).unfinished == {BUCKET: total(4, 5)}
        await context.redis.xgroup_destroy(stream, "group")
        found = await stage(context, stream)
        assert found.unfinished == {BUCKET: total(4, 5)}  # where its cursor stands
        assert found.is_whole


async def test_long_backlog_is_looked_at_only_so_far(server: Target, stream: str) -> None:
    count = UNFINISHED_LOOKED_AT + 200
    async with bus.context(server.url) as context:
        producer = Producer(context.settings, "producer")
        await producer.append_many(stream, [bus.entry(number) for number in range(count)])
        await producer.close()
        found = await stage(context, stream)
        assert not found.is_whole
        assert UNFINISHED_LOOKED_AT < found.unfinished[BUCKET].n < count
        assert found.tally.counted[BUCKET] == total(*range(count))
        await context.redis.xgroup_create(stream, "group", "0")
        await context.redis.xreadgroup("group", "me", {stream: ">"}, count=count)
        assert not (await stage(context, stream)).is_whole


async def test_copy_is_numbered_anew_and_counted_apart(server: Target, stream: str) -> None:
    target = f"{stream}:copies"
    async with bus.context(server.url) as context:
        await bus.append_numbered(context, stream, 2)
        (page,) = [page async for page in glances.glance(context.redis, stream)]
        for entry in page:
            assert await glances.copy(context.redis, entry, target, ttl_s=60)
        for name in (target, topics.sequence(target)):
            assert 0 < await context.redis.ttl(name) <= 60
        assert not await context.redis.exists(topics.tally(target))
        copies = await context.redis.xrange(target)
        assert [(fields[b"seq"], fields[b"id"], fields[b"data"]) for _id, fields in copies] == [
            (b"1", b"id-0", b"0"),
            (b"2", b"id-1", b"1"),
        ]
        await glances.copy(context.redis, page[0], stream, counts=True)
        tally = (await stage(context, stream)).tally
        assert tally.counted == {BUCKET: total(0, 1)}
        assert tally.again == {BUCKET: {"": total(0)}}
        await context.redis.xdel(stream, page[1].stream_id)
        assert await glances.copy(context.redis, page[1], target) is None


async def test_glance_leaves_long_values_at_the_server(server: Target, stream: str) -> None:
    async with bus.context(server.url) as context:
        for number in range(2 * glances.PAGE + 1):
            await context.redis.xadd(stream, {"n": number, "data": b"x" * (5_000 + number)})
        pages = [page async for page in glances.glance(context.redis, stream, newest_first=True)]
        assert [len(page) for page in pages] == [glances.PAGE, glances.PAGE, 1]
        newest, oldest = pages[0][0], pages[-1][0]
        assert (newest.number("n"), oldest.number("n")) == (2 * glances.PAGE, 0)
        assert (oldest.fields, oldest.left, oldest.size) == ({"n": "0"}, {"data": 5_000}, 5_001)
        (one,) = [
            page
            async for page in glances.glance(
                context.redis, stream, start=oldest.stream_id, end=oldest.stream_id
            )
        ]
        assert one == [oldest]


async def test_only_old_minutes_are_pruned(server: Target, stream: str) -> None:
    async with bus.context(server.url) as context:
        key = topics.tally(stream)
        held = {f"{minute}:chain:{what}": 1 for minute in (5, 6, 7) for what in "nhc"}
        await context.redis.hset(key, mapping={**held, "5:chain:dead:storage:n": 1})
        assert await prune(context.redis, stream, 6) == 4
        assert await prune(context.redis, stream, 6) == 0
        names = await context.redis.hkeys(key)
        assert {name.partition(b":")[0] for name in names} == {b"6", b"7"}
