"""Enriched frames to latest keys and live channels on a real server."""

import asyncio
import json

import pytest

from pipeline import frames, models
from pipeline.entries import NewEntry
from tests.support import bus, chains
from workers import realtime

SECOND_NS = 1_000_000_000


def frame(seconds: int) -> NewEntry:
    chain = chains.enriched(5, ts_ingest=chains.TS_INGEST + seconds * SECOND_NS)
    return NewEntry(
        id=f"frame-{seconds}",
        type=models.ENRICHED_CHAIN_TYPE,
        key=chain.header.chain,
        ts=chain.header.ts_ingest,
        te=chain.header.ts_ingest + 1_000_000,
        data=frames.encode_frame(chain),
    )


async def test_chain_underlying_and_contracts_get_their_latest_values(valkey: str) -> None:
    async with bus.context(valkey) as context, bus.working(context, realtime.publish):
        await bus.append(context, "stream:enriched", frame(0))
        written = context.telemetry.counter("latest_written", "")
        await bus.until(lambda: written.value == 12)
        chain = json.loads(await context.redis.get("latest:NIFTY-20260127"))
        assert chain["header"]["n"] == len(chain["rows"]) == 10
        assert chain["position"]["seq"] == 1
        contract = json.loads(await context.redis.get("latest:NIFTY-20260127-25000-CE"))
        assert contract["row"]["symbol"] == "NIFTY-20260127-25000-CE"
        underlying = json.loads(await context.redis.get("latest:NIFTY"))
        assert underlying["snapshot"]["spot"] == chains.SPOT
        assert await context.redis.ttl("latest:NIFTY-20260127") > 7 * 86_400


async def test_older_frame_never_overwrites_a_newer_one(valkey: str) -> None:
    async with bus.context(valkey) as context, bus.working(context, realtime.publish):
        read = context.telemetry.counter("entries_read", "")
        await bus.append(context, "stream:enriched", frame(10))
        await bus.until(lambda: read.value == 1)
        await bus.append(context, "stream:enriched", frame(5))
        await bus.until(lambda: read.value == 2)
        pending = {"pending": 1}
        while pending["pending"]:
            pending = await context.redis.xpending("stream:enriched", "realtime")
        chain = json.loads(await context.redis.get("latest:NIFTY-20260127"))
        assert chain["header"]["ts_ingest"] == chains.TS_INGEST + 10 * SECOND_NS


async def test_live_channel_carries_the_text_of_the_latest_key(valkey: str) -> None:
    async with bus.context(valkey) as context:
        subscription = context.redis.pubsub()
        await subscription.subscribe("live:NIFTY-20260127-25000-PE")
        async with bus.working(context, realtime.publish):
            await bus.append(context, "stream:enriched", frame(0))
            message = None
            async with asyncio.timeout(10):
                while message is None:
                    message = await subscription.get_message(
                        ignore_subscribe_messages=True, timeout=1.0
                    )
        assert message["data"] == await context.redis.get("latest:NIFTY-20260127-25000-PE")
        await subscription.aclose()


async def test_unreadable_frame_is_a_dead_letter_and_the_group_goes_on(valkey: str) -> None:
    async with bus.context(valkey) as context, bus.working(context, realtime.publish):
        bad = NewEntry(id="bad", type=models.ENRICHED_CHAIN_TYPE, key="X-20260127", ts=1, data=b"?")
        await bus.append(context, "stream:enriched", bad, frame(0))
        written = context.telemetry.counter("latest_written", "")
        await bus.until(lambda: written.value == 12)
        ((_id, letter),) = await context.redis.xrange("stream:dead")
        assert (letter[b"id"], letter[b"group"]) == (b"bad", b"realtime")


@pytest.mark.parametrize(
    ("times", "kept"),
    [((1, 2, 3), [3]), ((3, 1, 2), [3])],
    ids=["in order", "late ones last"],
)
async def test_of_a_batch_only_the_newest_of_a_chain_is_written(
    valkey: str, times: tuple[int, ...], kept: list[int]
) -> None:
    async with bus.context(valkey) as context:
        await bus.append(context, "stream:enriched", *(frame(seconds) for seconds in times))
        async with bus.working(context, realtime.publish):
            read = context.telemetry.counter("entries_read", "")
            written = context.telemetry.counter("latest_written", "")
            await bus.until(lambda: read.value == 3 and written.value >= 12)
        assert written.value == 12 * len(kept)
        chain = json.loads(await context.redis.get("latest:NIFTY-20260127"))
        assert chain["header"]["ts_ingest"] == chains.TS_INGEST + kept[-1] * SECOND_NS
