"""Trimming: nothing goes that a critical group has not finished."""

import asyncio

import msgspec

from pipeline import topics
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


async def test_critical_group_past_its_promise_is_reported_and_never_passed(
    server: Target, stream: str
) -> None:
    async with bus.context(server.url) as context:
        await bus.append_numbered(context, stream, 3)
        late = Consumer(
            context, stream, "late", dead_stream="stream:d", promise_s=1, start="earliest"
        )
        entries = await bus.take(late, 3)
        await asyncio.sleep(1.1)
        trimmed = await trim(context.redis, stream, -1_000)
        assert (trimmed.removed, trimmed.holder) == (0, "late")
        (behind,) = trimmed.behind
        assert (behind.group, behind.is_critical, behind.skipped) == ("late", True, 0)
        assert behind.stream_id == entries[0].stream_id
        mark = msgspec.json.decode(
            await context.redis.hget(topics.bookmarks(stream), "late") or b"{}"
        )
        assert (mark["id"], mark["reason"]) == (entries[0].stream_id, "late")
        await late.ack(entries)
        await trim(context.redis, stream, -1_000)
        assert await context.redis.hget(topics.bookmarks(stream), "late") is None
        await late.close()


async def test_best_effort_group_is_waited_for_within_its_promise_and_then_bookmarked(
    server: Target, stream: str
) -> None:
    async with bus.context(server.url) as context:
        await bus.append_numbered(context, stream, 4)
        slow = Consumer(
            context,
            stream,
            "slow",
            dead_stream="stream:d",
            critical=False,
            promise_s=1,
            start="earliest",
        )
        (first,) = await bus.take(slow, 1)
        await slow.ack([first])
        within = await trim(context.redis, stream, -1_000)
        assert (within.removed, within.holder) == (1, "slow")
        planned = await trim(context.redis, stream, -1_000, plan=True)
        assert planned.removed == 0
        await asyncio.sleep(1.1)
        beyond = await trim(context.redis, stream, -1_000)
        assert beyond.removed == 3
        assert [(one.group, one.skipped) for one in beyond.behind] == [("slow", 3)]
        mark = msgspec.json.decode(
            await context.redis.hget(topics.bookmarks(stream), "slow") or b"{}"
        )
        assert (mark["seq"], mark["skipped"], mark["reason"]) == (2, 3, "passed")
        await bus.append(context, stream, bus.entry(9))
        seen: list[str] = []
        async with asyncio.timeout(8):
            async for batch in slow.batches(count=1, block_ms=50):
                seen += [entry.id for entry in batch]  # what it held already comes first
                if "id-9" in seen:
                    break
        missed = context.telemetry.report()["counters"]["entries_missed"]
        assert len(seen) + missed == 4
        assert missed > 0
        await slow.close()
