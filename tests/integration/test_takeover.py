"""Two processes of one group: the second takes over within seconds of a kill -9 of the first."""

import asyncio
import time

import psutil

from pipeline import models, topics
from pipeline.config import Settings
from pipeline.entries import NewEntry
from pipeline.frames import encode_frame
from pipeline.runtime import Context
from tests.support import bus, chains, worker_process

TAKEOVER_S = 5.0
START_S = 30.0


def chain_entry(number: int) -> NewEntry:
    chain = chains.enriched(1, ts_ingest=chains.TS_INGEST + number)
    return NewEntry(
        id=f"chain-{number}",
        type=models.ENRICHED_CHAIN_TYPE,
        key=chain.header.chain,
        ts=chain.header.ts_ingest,
        data=encode_frame(chain),
    )


async def owner_pid(context: Context, stream: str) -> int:
    """The process that owns the splitter's lease on a stream, 0 for none."""
    lease = topics.lease(stream, "splitter")
    owner = await context.redis.hget(lease, f"{stream}|owner")
    return int(owner.split(b":")[1]) if owner else 0


async def split_by(context: Context, wanted: int, deadline_s: float) -> float:
    """Seconds until that many contracts are written."""
    began = time.monotonic()
    async with asyncio.timeout(deadline_s):
        while await context.redis.xlen(context.topics.contracts()) < wanted:
            await asyncio.sleep(0.01)
    return time.monotonic() - began


async def test_standby_process_takes_over_within_five_seconds_of_a_kill(valkey: str) -> None:
    settings = Settings(redis_url=valkey)
    async with bus.context(valkey) as context:
        stream = context.topics.enriched()
        await bus.append(context, stream, chain_entry(0))
        with (
            worker_process.running("workers.splitter", settings) as one,
            worker_process.running("workers.splitter", settings) as two,
        ):
            await split_by(context, 2, START_S)
            lease = topics.lease(stream, "splitter")
            async with asyncio.timeout(START_S):
                while not await context.redis.hexists(lease, f"{stream}|slot|1"):
                    await asyncio.sleep(0.02)
            owner = await owner_pid(context, stream)
            assert owner in (one.pid, two.pid)
            await bus.append(context, stream, chain_entry(1))
            psutil.Process(owner).kill()
            await bus.append(context, stream, chain_entry(2))
            assert await split_by(context, 6, 3 * TAKEOVER_S) < TAKEOVER_S
            assert await owner_pid(context, stream) == ({one.pid, two.pid} - {owner}).pop()
        written = [fields for _, fields in await context.redis.xrange(context.topics.contracts())]
        assert [int(fields[b"seq"]) for fields in written] == [1, 2, 3, 4, 5, 6]
        times = [int(fields[b"ts_ingest"]) for fields in written]
        assert times == sorted(times)
