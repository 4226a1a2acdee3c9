"""Finishing: what came of an entry and its acknowledgement are one step, done once."""

from pipeline.entries import NewEntry, decode_entry
from pipeline.streams import Producer
from tests.support import bus
from tests.support.conformance import Target


async def test_finishing_twice_writes_once(server: Target, stream: str) -> None:
    async with bus.context(server.url) as context:
        await bus.append_numbered(context, stream, 3)
        reader = bus.consumer(context, stream)
        entries = await bus.take(reader, 3)
        results = [(entry, bus.entry(100 + entry.seq)) for entry in entries]
        first = await reader.finish(f"{stream}:out", results)
        second = await reader.finish(f"{stream}:out", results)
        await reader.close()
        assert [place.seq for place in first if place] == [1, 2, 3]
        assert second == [None, None, None]
        assert await context.redis.xlen(f"{stream}:out") == 3
        assert (await context.redis.xpending(stream, "group"))["pending"] == 0


async def test_entry_claimed_away_is_left_out_of_a_batch_and_of_the_numbering(
    server: Target, stream: str
) -> None:
    async with bus.context(server.url) as context:
        await bus.append_numbered(context, stream, 3)
        reader = bus.consumer(context, stream)
        entries = await bus.take(reader, 3)
        await context.redis.xack(stream, "group", entries[1].stream_id)
        # Fields of unlike number and length, with bytes that are no text.
        results = [
            (entries[0], NewEntry(id="a", type="t", key="k", ts=1, te=2, data=b"\xff\0\r\n")),
            (entries[1], NewEntry(id="b", type="t", key="k", ts=1)),
            (entries[2], NewEntry(id="c", type="t", key="k", ts=1, meta=b"m" * 100_000)),
        ]
        first, second, third = await reader.finish(f"{stream}:out", results)
        await reader.close()
        assert first is not None
        assert second is None
        assert third is not None
        assert (first.seq, third.seq) == (1, 2)
        items = await context.redis.xrange(f"{stream}:out")
        written = [decode_entry(*item) for item in items]
        assert [(one.id, one.seq, one.data, len(one.meta)) for one in written] == [
            ("a", 1, b"\xff\0\r\n", 0),
            ("c", 2, b"", 100_000),
        ]
        assert [one.stream_id for one in written] == [first.stream_id, third.stream_id]


async def test_finishing_an_entry_of_which_many_come_is_one_step_done_once(
    server: Target, stream: str
) -> None:
    async with bus.context(server.url) as context:
        await bus.append_numbered(context, stream, 3)
        reader = bus.consumer(context, stream)
        first, second, third = await bus.take(reader, 3)
        target = f"{stream}:out"
        parts = [["n", str(number), *(["even", "yes"] * (1 - number % 2))] for number in range(500)]
        assert await reader.finish_many(target, first, parts) == 500
        assert await reader.finish_many(target, first, parts) is None
        assert await reader.finish_many(target, second, []) == 0
        assert await reader.finish_many(target, third, parts[:1]) == 1
        await reader.close()
        written = [fields for _id, fields in await context.redis.xrange(target)]
        assert [int(fields[b"seq"]) for fields in written] == list(range(1, 502))
        assert [fields[b"n"] for fields in written] == [b"%d" % n for n in (*range(500), 0)]
        assert sum(b"even" in fields for fields in written) == 251
        assert (await context.redis.xpending(stream, "group"))["pending"] == 0


async def test_thousands_of_entries_are_acknowledged_by_one_call(
    server: Target, stream: str
) -> None:
    count = 9_000
    async with bus.context(server.url) as context:
        producer = Producer(context.settings, "producer")
        for first in range(0, count, 1_000):
            await producer.append_many(stream, [bus.entry(first + n) for n in range(1_000)])
        await producer.close()
        reader = bus.consumer(context, stream)
        entries = await bus.take(reader, 8_000)
        assert await reader.ack(entries) == len(entries)
        assert (await context.redis.xpending(stream, "group"))["pending"] == 0
        await reader.close()
