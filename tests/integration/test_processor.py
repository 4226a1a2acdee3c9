"""Raw to enriched on a real server: every kind of bad body ends where it should."""

import asyncio
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from pipeline import bodies, frames, models, polls
from pipeline.entries import NewEntry, decode_entry
from pipeline.models import IvStatus
from pipeline.runtime import Context
from tests.support import bus, chains, worker_process
from workers import processor


@pytest.fixture(scope="module", autouse=True)
def compiled_kernels() -> None:
    processor.warmup()


async def processed(context: Context, entries: list[NewEntry]) -> None:
    """Append the entries and run the worker until each is enriched or a dead letter."""
    await bus.append(context, context.topics.raw(), *entries)
    written = context.telemetry.counter("entries_written", "")
    dead = context.telemetry.counter("dead_letters", "")
    async with bus.working(context, processor.process) as work:
        await bus.until(lambda: written.value + dead.value >= len(entries) or work.done(), 60)


async def enriched(context: Context) -> list[models.EnrichedChain]:
    found = await context.redis.xrange(context.topics.enriched())
    return [frames.decode_frame(decode_entry(*item).data) for item in found]


async def dead_letters(context: Context) -> list[dict[bytes, bytes]]:
    return [fields for _id, fields in await context.redis.xrange(context.topics.dead())]


def raw(body: bytes, number: int = 0, **context: Any) -> NewEntry:
    request = chains.request_context(**context)
    return bodies.raw_entry(models.RAW_CHAIN_TYPE, request, body, chains.TS_INGEST + number)


async def test_chain_becomes_one_frame_with_volatility_and_greeks(valkey: str) -> None:
    async with bus.context(valkey) as context:
        entry = raw(chains.encoded(chains.body(21)))
        await processed(context, [entry])
        (item,) = await context.redis.xrange(context.topics.enriched())
        result = decode_entry(*item)
        assert result.id == f"{entry.id}:r{models.CALCULATION_REVISION}"
        assert (result.type, result.key) == (models.ENRICHED_CHAIN_TYPE, "NIFTY-20260127")
        assert result.ts == chains.TS_INGEST
        assert result.te is not None
        chain = frames.decode_frame(result.data)
        assert chain.header.n == 42
        assert chain.header.forward == pytest.approx(chains.FORWARD, abs=0.5)
        assert chain.legs["iv_status"].tolist() == [IvStatus.OK] * 42
        near = np.abs(chain.legs["strike"] - chains.FORWARD) < 200
        assert chain.legs["iv"][near] == pytest.approx(0.12, abs=0.005)
        assert (await context.redis.xpending(context.topics.raw(), "processor"))["pending"] == 0


async def test_expiry_list_is_passed_on_ascending(valkey: str) -> None:
    async with bus.context(valkey) as context:
        body = b'{"data":["2026-02-03","2026-01-27"],"status":"success"}'
        request = chains.request_context(expiry=None)
        await processed(context, [bodies.raw_entry(models.RAW_EXPIRIES_TYPE, request, body, 5)])
        (item,) = await context.redis.xrange(context.topics.enriched())
        listed = frames.decode_expiries(decode_entry(*item).data)
        assert [day.isoformat() for day in listed.expiries] == ["2026-01-27", "2026-02-03"]


async def test_report_of_polls_is_passed_on_under_an_id_that_no_revision_changes(
    valkey: str,
) -> None:
    gap = models.PollGap(10, 20, 3, "us", "token")
    report = models.PollReport(
        chain="NIFTY-20260127", provider="dhan", since=5, until=20, answered=1, gaps=(gap,)
    )
    async with bus.context(valkey) as context:
        await processed(context, [polls.raw_report(report, 25)])
        (item,) = await context.redis.xrange(context.topics.enriched())
    passed = decode_entry(*item)
    assert polls.decode_report(passed.data) == report
    assert passed.type == models.ENRICHED_POLLS_TYPE
    assert (passed.id, passed.ts) == ("dhan:NIFTY-20260127:5:polls:r1", 25)


NAN_STRIKE = chains.body(3)
NAN_STRIKE["data"]["oc"]["nan"] = {"ce": chains.leg(1.0), "pe": chains.leg(1.0)}
UNREADABLE = {
    "truncated": chains.encoded(chains.body(21))[:-200],
    "html": b"<html><h1>502 Bad Gateway</h1></html>",
    "error with 200": b'{"data":{"807":"Access token is expired"},"status":"failed"}',
    "nan strike": chains.encoded(NAN_STRIKE),
    "empty": b"",
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE.keys())
async def test_unreadable_body_is_a_dead_letter_and_the_group_goes_on(
    valkey: str, body: bytes
) -> None:
    async with bus.context(valkey) as context:
        bad, good = raw(body), raw(chains.encoded(chains.body(5)), 1)
        await processed(context, [bad, good])
        (letter,) = await dead_letters(context)
        assert letter[b"reason"] == b"undecodable"
        assert letter[b"error"]
        assert letter[b"id"].decode() == bad.id
        assert letter[b"data"] == bad.data
        assert letter[b"meta"] == bad.meta
        (chain,) = await enriched(context)
        assert chain.header.ts_ingest == good.ts
        assert (await context.redis.xpending(context.topics.raw(), "processor"))["pending"] == 0


async def test_unknown_type_encoding_and_context_are_dead_letters(valkey: str) -> None:
    async with bus.context(valkey) as context:
        good = chains.encoded(chains.body(3))
        fields = {"key": "NIFTY", "ts": 1, "data": good}
        meta = raw(good).meta
        entries = [
            NewEntry(id="1", type="chain.raw.v9", meta=meta, **fields),
            NewEntry(id="2", type=models.RAW_CHAIN_TYPE, meta=meta, enc="lz4", **fields),
            NewEntry(id="3", type=models.RAW_CHAIN_TYPE, meta=b"", **fields),
        ]
        await processed(context, entries)
        letters = await dead_letters(context)
        assert [letter[b"id"] for letter in letters] == [b"1", b"2", b"3"]
        assert b"chain.raw.v9" in letters[0][b"error"]
        assert b"lz4" in letters[1][b"error"]


async def test_chain_of_zeros_has_nulls_with_a_status(valkey: str) -> None:
    zeros = chains.body(
        5,
        **dict.fromkeys(("last_price", "top_bid_price", "top_ask_price", "implied_volatility"), 0),
    )
    zeros["data"]["last_price"] = 0
    async with bus.context(valkey) as context:
        await processed(context, [raw(chains.encoded(zeros))])
        (chain,) = await enriched(context)
        assert chain.header.spot is None
        assert chain.header.forward is None
        assert chain.legs["iv_status"].tolist() == [IvStatus.NO_PRICE] * 10
        assert np.isnan(chain.legs["iv"]).all()
        assert np.isnan(chain.legs["last"]).all()


async def test_missing_side_leaves_the_other_legs_whole(valkey: str) -> None:
    body = chains.body(21)
    del body["data"]["oc"]["25000.000000"]["pe"]
    async with bus.context(valkey) as context:
        await processed(context, [raw(chains.encoded(body))])
        (chain,) = await enriched(context)
        assert chain.header.n == 41
        assert chain.legs["iv_status"].tolist() == [IvStatus.OK] * 41


async def test_expired_chain_has_no_volatility_and_says_why(valkey: str) -> None:
    expiry = chains.EXPIRY - timedelta(days=7)
    async with bus.context(valkey) as context:
        await processed(context, [raw(chains.encoded(chains.body(5)), expiry=expiry)])
        (chain,) = await enriched(context)
        assert chain.legs["iv_status"].tolist() == [IvStatus.EXPIRED] * 10
        assert np.isnan(chain.legs["delta"]).all()


async def test_reprocessing_after_a_restart_enriches_to_the_same_bytes(valkey: str) -> None:
    async with bus.context(valkey) as context:
        entries = [raw(chains.encoded(chains.body(21)), number) for number in range(3)]
        await processed(context, entries)
        first = [item[1][b"data"] for item in await context.redis.xrange("stream:enriched")]
        await context.redis.xgroup_setid("stream:raw", "processor", "0")
    async with bus.context(valkey) as context:
        await processed(context, [raw(chains.encoded(chains.body(21)), 3)])
        both = [item[1][b"data"] for item in await context.redis.xrange("stream:enriched")]
        assert both[3:6] == first


async def enriched_ids(context: Context) -> list[str]:
    return [decode_entry(*item).id for item in await context.redis.xrange("stream:enriched")]


async def test_results_stand_in_the_order_of_their_entries_over_many_batches(valkey: str) -> None:
    async with bus.context(valkey) as context:
        bad = raw(b"{}", 1_000)
        entries = [raw(chains.encoded(chains.body(3)), number) for number in range(75)]
        await processed(context, [*entries[:20], bad, *entries[20:]])
        revision = models.CALCULATION_REVISION
        assert await enriched_ids(context) == [f"{entry.id}:r{revision}" for entry in entries]
        assert [letter[b"id"].decode() for letter in await dead_letters(context)] == [bad.id]
        assert (await context.redis.xpending(context.topics.raw(), "processor"))["pending"] == 0


async def test_killed_in_the_middle_it_leaves_nothing_out_and_nothing_twice(valkey: str) -> None:
    async with bus.context(valkey, max_attempts=100) as context:
        entries = [raw(chains.encoded(chains.body(101)), number) for number in range(240)]
        await bus.append(context, context.topics.raw(), *entries)
        finished = 0
        while finished < len(entries):
            with worker_process.running("workers.processor", context.settings) as process:
                goal = min(finished + 100, len(entries))
                async with asyncio.timeout(60):
                    while finished < goal:
                        assert process.poll() is None
                        finished = await context.redis.xlen("stream:enriched")
                process.kill()
            finished = await context.redis.xlen("stream:enriched")
        revision = models.CALCULATION_REVISION
        found = await enriched_ids(context)
        assert sorted(found) == sorted(f"{entry.id}:r{revision}" for entry in entries)
        assert (await context.redis.xpending(context.topics.raw(), "processor"))["pending"] == 0
