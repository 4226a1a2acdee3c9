"""Producers and consumers of some shards, in a process of their own, told what to do line by line.

A worker like any other: settings from its environment, telemetry, lag, leases, tally, all on. Never
compares: it answers each line `{"do", "count"}` of stdin with what that took, until stdin ends.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from pipeline.cluster import owner_of
from pipeline.entries import Entry, NewEntry
from pipeline.frames import decode_frame
from pipeline.runtime import Context, run
from pipeline.streams import Consumer, Producer
from stockify.bench.bus import frames
from stockify.bench.bus.children import Taken

AT_ONCE = 8  # entries of one call; one call of a stream at a time, since two may append to it
BATCH = 32
KEY = "NIFTY"


class Client:
    """The shards of this process."""

    def __init__(self, context: Context, sample: frames.Sample, shards: list[int]) -> None:
        self._context = context
        self._sample = sample
        self._streams = [context.topics.enriched(shard) for shard in shards]
        self._producer = Producer(context.settings, context.name)
        self._numbers = 0
        self._readers = {
            stream: Consumer(
                context, stream, "bench", dead_stream=context.topics.dead(shard), start="earliest"
            )
            for stream, shard in zip(self._streams, shards, strict=True)
        }
        self._batches: dict[str, AsyncIterator[list[Entry]]] = {}

    async def work(self, do: str, count: int) -> Taken:
        """Do it that often, shared out over the shards."""
        began = time.perf_counter(), time.process_time()
        if do in ("get", "get_direct"):
            redis, key = self._context.redis, self._context.topics.latest(KEY)
            client = redis if do == "get" else await owner_of(redis, key)
            for _ in range(count):
                await client.get(key)
            done = count
        elif do == "clear":
            for stream in self._streams:
                await self._context.redis.xtrim(stream, maxlen=0, approximate=False)
            done = 0
        else:
            work = self._produce if do == "produce" else self._consume
            each = count // len(self._streams)
            done = sum(await asyncio.gather(*(work(stream, each) for stream in self._streams)))
        wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
        return Taken(wall, cpu, done, done * frames.LEGS)

    async def close(self) -> None:
        """Leave the groups, close the connections."""
        for reader in self._readers.values():
            await reader.close()
        await self._producer.close()

    async def _produce(self, stream: str, count: int) -> int:
        for _ in range(0, count, AT_ONCE):
            entries = [self._entry() for _ in range(AT_ONCE)]
            await self._producer.append_many(stream, entries)
        return count

    async def _consume(self, stream: str, count: int) -> int:
        reader = self._readers[stream]
        if stream not in self._batches:
            self._batches[stream] = reader.batches(count=BATCH)
        done = 0
        while done < count:
            batch = await anext(self._batches[stream])
            for entry in batch:
                decode_frame(entry.data)
            done += await reader.ack(batch)
        return done

    def _entry(self) -> NewEntry:
        self._numbers += 1
        like = self._sample.entries[self._numbers % len(self._sample.entries)]
        return msgspec.structs.replace(like, id=f"{os.getpid()}-{self._numbers}")


async def serve(context: Context) -> None:
    """Answer lines until there are no more."""
    shards = [int(text) for text in sys.argv[2].split(",")]
    client = Client(context, frames.load(Path(sys.argv[1])), shards)
    loop = asyncio.get_running_loop()
    try:
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            asked = msgspec.json.decode(line)
            taken = await client.work(asked["do"], asked["count"])
            os.write(_ANSWERS, msgspec.json.encode(taken) + b"\n")
    finally:
        await client.close()


_ANSWERS = os.dup(1)

if __name__ == "__main__":
    os.dup2(2, 1)  # the log goes elsewhere: stdout carries answers
    run("bench", serve)
