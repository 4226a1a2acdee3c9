"""A worker's context against a real server, without the process around it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from pipeline.clock import Clock
from pipeline.config import Settings
from pipeline.entries import Entry, NewEntry
from pipeline.runtime import DRAIN_S, Context, Worker, cancel, connect
from pipeline.streams import Consumer, Producer
from pipeline.telemetry import Telemetry
from pipeline.topics import Topics


@contextlib.asynccontextmanager
async def context(url: str, name: str = "tester", **settings: Any) -> AsyncIterator[Context]:
    chosen = Settings(redis_url=url, **{"claim_idle_ms": 200, "lease_ms": 600, **settings})
    if len(chosen.redis_urls()) > 1:
        chosen = msgspec.structs.replace(chosen, redis_cluster=True)
    telemetry = Telemetry(name, chosen)
    client = connect(chosen, name=name)
    try:
        yield Context(
            name,
            chosen,
            Clock(chosen.clock),
            telemetry,
            client,
            Topics(chosen.shards, chosen.redis_cluster),
            asyncio.Event(),
        )
    finally:
        await client.aclose()
        telemetry.close()


def entry(number: int, kind: str = "test.v1") -> NewEntry:
    return NewEntry(id=f"id-{number}", type=kind, key="NIFTY", ts=number, data=b"%d" % number)


async def append(context: Context, stream: str, *entries: NewEntry) -> None:
    """Append entries as a producer does."""
    producer = Producer(context.settings, "producer")
    try:
        for one in entries:
            await producer.append(stream, one)
    finally:
        await producer.close()


async def append_numbered(context: Context, stream: str, count: int) -> None:
    """Append entries `id-0`, `id-1`, …"""
    await append(context, stream, *map(entry, range(count)))


def consumer(
    context: Context, stream: str, group: str = "group", *, exclusive: bool = True
) -> Consumer:
    """A member of a critical group that begins at the start of the stream."""
    return Consumer(
        context,
        stream,
        group,
        dead_stream=f"{stream}:dead",
        start="earliest",
        exclusive=exclusive,
    )


@contextlib.asynccontextmanager
async def working(context: Context, worker: Worker) -> AsyncIterator[asyncio.Task[None]]:
    """A worker at work; drained at the end."""
    task = asyncio.ensure_future(worker(context))
    try:
        yield task
    finally:
        context.stopping.set()
        await asyncio.wait_for(task, DRAIN_S)


async def until(holds: Callable[[], bool], deadline_s: float = 15.0) -> None:
    """Wait until it holds; TimeoutError when it does not in time."""
    async with asyncio.timeout(deadline_s):
        while not holds():
            await asyncio.sleep(0.01)


async def begin(consumer: Consumer) -> None:
    """A consumer joins its group and reads, and hands out nothing."""
    reading = asyncio.ensure_future(take(consumer, 1))
    await until(lambda: consumer._beats is not None or reading.done())
    assert not reading.done()
    await cancel(reading)


async def silence(consumer: Consumer) -> None:
    """A consumer tells of itself no more, as one in a process that was stopped."""
    beats, consumer._beats = consumer._beats, None
    assert beats is not None
    await cancel(beats)


async def ended(task: "asyncio.Future[Any]") -> None:
    """A task that is not awaited any more."""
    await cancel(asyncio.ensure_future(task))


async def take(consumer: Consumer, wanted: int, *, deadline_s: float = 8.0) -> list[Entry]:
    """The next `wanted` entries of a consumer; TimeoutError when they do not come in time.

    By a task and not by `asyncio.timeout`, which asks once: Python 3.11's `wait_for`, through which
    redis-py writes, can lose a cancellation, and then this would wait for ever.
    """
    reading = asyncio.ensure_future(_taken(consumer, wanted))
    try:
        await asyncio.wait([reading], timeout=deadline_s)
        if not reading.done():
            raise TimeoutError(f"fewer than {wanted} entries within {deadline_s:g} s")
        return await reading
    finally:
        await cancel(reading)


async def nothing(batches: AsyncIterator[Any], seconds: float) -> None:
    """For so long nothing comes; then it is read no more."""
    coming = asyncio.ensure_future(anext(batches))
    await asyncio.wait([coming], timeout=seconds)
    assert not coming.done()
    await cancel(coming)


async def _taken(consumer: Consumer, wanted: int) -> list[Entry]:
    taken: list[Entry] = []
    async for batch in consumer.batches(count=wanted, block_ms=50):
        taken += batch
        if len(taken) >= wanted:
            break
    return taken
