"""A worker's context against a real server, without the process around it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from pipeline.clock import Clock
from pipeline.config import Settings
from pipeline.entries import Entry, NewEntry
from pipeline.runtime import Context, connect
from pipeline.streams import Consumer
from pipeline.telemetry import Telemetry
from pipeline.topics import Topics


@contextlib.asynccontextmanager
async def context(url: str, name: str = "tester", **settings: Any) -> AsyncIterator[Context]:
    chosen = Settings(redis_url=url, **{"claim_idle_ms": 200, **settings})
    telemetry = Telemetry(name, chosen)
    client = connect(chosen, name=name)
    try:
        yield Context(
            name,
            chosen,
            Clock(chosen.clock),
            telemetry,
            client,
            Topics(chosen.shards),
            asyncio.Event(),
        )
    finally:
        await client.aclose()
        telemetry.close()


def entry(number: int, kind: str = "test.v1") -> NewEntry:
    return NewEntry(id=f"id-{number}", type=kind, key="NIFTY", ts=number, data=b"%d" % number)


async def take(consumer: Consumer, wanted: int, *, deadline_s: float = 8.0) -> list[Entry]:
    """The next `wanted` entries of a consumer; fails when they do not come in time."""
    taken: list[Entry] = []
    async with asyncio.timeout(deadline_s):
        async for batch in consumer.batches(count=wanted, block_ms=50):
            taken += batch
            if len(taken) >= wanted:
                break
    return taken
