"""Our producer and consumers at work in a process of their own, told what to do line by line.

A worker like any other: settings from its environment, telemetry, lag, leases, tally, all on. Never
compares: it answers each line `{"do", "count"}` of stdin with what that took, until stdin ends.
"""

import asyncio
import os
import sys
import time
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from pipeline.entries import Entry, NewEntry
from pipeline.frames import decode_frame, legs_of
from pipeline.runtime import Context, run
from pipeline.streams import Consumer, Producer
from stockify.bench.bus import DEPTH, UNDER_WAY, frames
from stockify.bench.bus.children import Taken
from stockify.bench.bus.server import PLAIN_STREAM

BATCH = 32


class Client:
    """The producer, and one member of a group for each way of decoding."""

    def __init__(self, context: Context, sample: frames.Sample) -> None:
        self._context = context
        self._sample = sample
        self._stream = context.topics.enriched(0)
        self._producer = Producer(context.settings, "bench")
        self._numbers = 0
        self._readers = {
            group: Reader(context, self._stream, group) for group in ("columns", "structs")
        }

    async def work(self, do: str, count: int) -> Taken:
        """Do it that often."""
        began = time.perf_counter(), time.process_time()
        if do == "produce":
            contracts = await self._produce(count)
        elif do == "plain":
            contracts = await self._plain(count)
        else:
            contracts = await self._readers[do].read(count, as_structs=do == "structs")
        wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
        return Taken(wall, cpu, count, contracts)

    async def join(self) -> None:
        """Become the member of each group, so that a turn does not begin with it."""
        for reader in self._readers.values():
            await reader.join()

    async def close(self) -> None:
        """Leave the groups, close the connections."""
        for reader in self._readers.values():
            await reader.close()
        await self._producer.close()

    async def _produce(self, count: int) -> int:
        under_way: deque[asyncio.Task[object]] = deque()
        for _ in range(0, count, DEPTH):
            entries = [self._entry() for _ in range(DEPTH)]
            call = self._producer.append_many(self._stream, entries)
            under_way.append(asyncio.create_task(call))
            await asyncio.sleep(0)  # it is sent
            if len(under_way) >= UNDER_WAY:
                await under_way.popleft()
        while under_way:
            await under_way.popleft()
        return count * frames.LEGS

    async def _plain(self, count: int) -> int:
        """The same fields by redis-py's pipeline, without any of the promises."""
        client = self._context.redis
        for _ in range(0, count, DEPTH):
            pipeline = client.pipeline(transaction=False)
            for _ in range(DEPTH):
                flat = iter(("seq", self._numbers, "epoch", "0", *self._entry().fields()))
                fields = dict(zip(flat, flat, strict=True))
                pipeline.xadd(PLAIN_STREAM, fields)  # type: ignore[arg-type]
            await pipeline.execute()
        return count * frames.LEGS

    def _entry(self) -> NewEntry:
        self._numbers += 1
        like = self._sample.entries[self._numbers % len(self._sample.entries)]
        return msgspec.structs.replace(like, id=f"{like.id[:-12]}{self._numbers:012d}")


class Reader:
    """A member of a critical group."""

    def __init__(self, context: Context, stream: str, group: str) -> None:
        self._consumer = Consumer(
            context, stream, group, dead_stream=context.topics.dead(0), start="earliest"
        )
        self._batches: AsyncIterator[list[Entry]] = self._consumer.batches(count=BATCH)

    async def join(self) -> None:
        """Take the lease, by reading the one entry that is there."""
        await self.read(1, as_structs=False)

    async def read(self, count: int, *, as_structs: bool) -> int:
        """Read, decode and acknowledge; gives the contracts."""
        contracts = 0
        while count > 0:
            batch = await anext(self._batches)
            for entry in batch:
                chain = decode_frame(entry.data)
                contracts += len(legs_of(chain)) if as_structs else len(chain.legs["strike"])
            if await self._consumer.ack(batch) != len(batch):
                raise RuntimeError("an entry was somebody else's")
            count -= len(batch)
        return contracts

    async def close(self) -> None:
        """Leave the group."""
        await self._consumer.close()


async def serve(context: Context) -> None:
    """Answer on what was stdout, until stdin ends; logs go to stderr."""
    client = Client(context, frames.load(Path(sys.argv[1])))
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        asked = msgspec.json.decode(line)
        if asked["do"] == "join":
            await client.join()
            answer: object = {}
        else:
            answer = await client.work(asked["do"], asked["count"])
        os.write(_ANSWERS, msgspec.json.encode(answer) + b"\n")
    context.stopping.set()
    await client.close()


_ANSWERS = os.dup(1)

if __name__ == "__main__":
    os.dup2(2, 1)
    run("bench", serve)
