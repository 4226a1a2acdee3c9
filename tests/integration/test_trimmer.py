"""The trimmer as a worker, on a real server."""

import asyncio
import re

import pytest

from pipeline import topics
from pipeline.streams import Consumer
from tests.support import bus
from workers import trimmer


async def test_finished_entries_go_and_unfinished_ones_stay(valkey: str) -> None:
    async with bus.context(valkey, keep_s=0) as context:
        await bus.append(context, context.topics.raw(), *map(bus.entry, range(6)))
        reader = Consumer(
            context, context.topics.raw(), "group", dead_stream="stream:dead", start="earliest"
        )
        entries = await bus.take(reader, 6)
        await reader.ack(entries[:4])
        trimmed = context.telemetry.counter("entries_trimmed", "")
        async with bus.working(context, trimmer.trim_streams):
            await bus.until(lambda: trimmed.value >= 4)
        await reader.close()
        left = await context.redis.xrange(context.topics.raw())
    assert [fields[b"id"] for _id, fields in left] == [b"id-4", b"id-5"]
    assert trimmed.value == 4


async def test_contracts_are_trimmed_as_far_as_their_reader_has_come(valkey: str) -> None:
    async with bus.context(valkey, keep_s=0) as context:
        stream = context.topics.contracts()
        for number in range(6):
            await context.redis.xadd(stream, {"symbol": f"NIFTY-20260127-{number}-CE"})
        await context.redis.xgroup_create(stream, "reader", "0")  # and nothing said of itself
        ((_stream, read),) = await context.redis.xreadgroup("reader", "me", {stream: ">"}, count=4)
        await context.redis.xack(stream, "reader", *(stream_id for stream_id, _fields in read[:3]))
        work = asyncio.create_task(trimmer.trim_streams(context))
        trimmed = context.telemetry.counter("entries_trimmed", "")
        async with asyncio.timeout(10):
            while trimmed.value < 3:
                await asyncio.sleep(0.02)
        context.stopping.set()
        await work
        assert await context.redis.xlen(stream) == 3
        assert context.telemetry.report()["gauges"]["stream_contracts_bytes"] > 0


def metric(text: str, name: str, group: str) -> float:
    """The value of a gauge of a group of stream:raw."""
    found = re.search(rf'^{name}{{group="{group}",.*stream="stream:raw"}} (\S+)$', text, re.M)
    assert found is not None, text
    return float(found[1])


async def test_every_group_is_told_apart_in_the_metrics(valkey: str) -> None:
    async with bus.context(valkey) as context:
        stream = context.topics.raw()
        await bus.append(context, stream, *map(bus.entry, range(5)))
        for group, count in (("one", 2), ("other", 5)):
            await context.redis.xgroup_create(stream, group, "0")
            await context.redis.xreadgroup(group, "me", {stream: ">"}, count=count)
        await context.redis.hset(topics.tally(stream), "17:chain:n", 3)
        async with bus.working(context, trimmer.trim_streams):
            await bus.until(lambda: b'group="other"' in context.telemetry.metrics_text())
            shown = context.telemetry.metrics_text().decode()
        assert metric(shown, "stockify_group_lag", "one") == 3
        assert metric(shown, "stockify_group_lag", "other") == 0
        assert 0 < metric(shown, "stockify_group_oldest_pending_age_seconds", "one") < 30
        assert context.telemetry.report()["gauges"]["group_pending{stream:raw,other}"] == 5
        # A minute of 1970 is beyond what the tally keeps.
        assert not await context.redis.hexists(topics.tally(stream), "17:chain:n")


@pytest.mark.parametrize(
    ("size", "kept_ms"),
    [
        pytest.param(0, 900_000, id="empty: the whole while"),
        pytest.param(1_000, 900_000, id="within its bytes: the whole while"),
        pytest.param(2_000, 450_000, id="twice its bytes: half the while"),
    ],
)
def test_stream_that_outgrows_its_bytes_keeps_a_shorter_while(size: int, kept_ms: int) -> None:
    assert trimmer.kept_ms(900, size, 1_000) == kept_ms
