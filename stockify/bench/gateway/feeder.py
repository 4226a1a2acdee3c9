"""Writes what realtime writes, through the same code, in a process of its own.

`python -m stockify.bench.gateway.feeder SAMPLE PROGRESS`, settings in its environment. It answers
each line of stdin: `{"do": "prime"}` writes every chain once, `"paced"` writes at a rate,
`"closed"` as fast as the clients take it, never more than `window` writes ahead of them.
"""

import asyncio
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from pipeline import config, latest
from pipeline.runtime import Redis, connect
from pipeline.topics import Topics
from stockify.bench.gateway import texts
from stockify.bench.gateway.progress import Progress

AWAY_S = 20.0  # clients that take nothing for so long take nothing any more


class Fed(msgspec.Struct, frozen=True):
    """What was written: calls, contracts in them, and how long it took on the wall.

    `late_ms` is how late the machine woke the feeder, at worst but for one time in a hundred.
    """

    writes: int
    updates: int
    wall_s: float
    late_ms: float = 0.0


class Feeder:
    """One connection to Redis and the texts to write there."""

    def __init__(self, redis: Redis, sample: texts.Sample, progress: Progress) -> None:
        self._redis = redis
        self._topics = Topics()
        self._sample = sample
        self._progress = progress
        self._number = 0
        self._random = random.Random(1)

    async def prime(self) -> Fed:
        """Write every chain once, so that all have a latest value."""
        began, updates = time.perf_counter(), 0
        for feed in ("batched", "single", "whole"):
            for chain in getattr(self._sample, feed):
                updates += await self._write(chain)
        return Fed(self._number, updates, time.perf_counter() - began)

    async def paced(self, feed: str, writes_per_s: float, seconds: float, drawn: bool) -> Fed:
        """Write at a rate, chains in turn or drawn by lot."""
        began, updates, late_s = time.perf_counter(), 0, []
        count = round(writes_per_s * seconds)
        for index in range(count):
            wait_s = began + index / writes_per_s - time.perf_counter()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
                late_s.append(time.perf_counter() - began - index / writes_per_s)
            updates += await self._write(self._chain(feed, index, drawn))
        late_ms = 1e3 * sorted(late_s)[int(len(late_s) * 0.99)] if late_s else 0.0
        return Fed(count, updates, time.perf_counter() - began, late_ms)

    async def closed(self, feed: str, window: int, clients: int, seconds: float) -> Fed:
        """Write while the clients keep up, up to `window` writes ahead, and wait for the last."""
        began, updates, writes = time.perf_counter(), 0, 0
        each: int = len(getattr(self._sample, feed)[0][0].texts.contracts)
        while time.perf_counter() < began + seconds:
            await self._until((updates - (window - 1) * each) * clients)
            updates += await self._write(self._chain(feed, writes, drawn=False))
            writes += 1
        await self._until(updates * clients)
        return Fed(writes, updates, time.perf_counter() - began)

    async def _until(self, received: int) -> None:
        deadline = time.monotonic() + AWAY_S
        while self._progress.count < received:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self._progress.count} of {received} messages came")
            await asyncio.sleep(0.0001)

    def _chain(self, feed: str, index: int, drawn: bool) -> list[texts.Text]:
        chains: list[list[texts.Text]] = getattr(self._sample, feed)
        return self._random.choice(chains) if drawn else chains[index % len(chains)]

    async def _write(self, chain: list[texts.Text]) -> int:
        self._number += 1
        text = chain[self._number % len(chain)]
        now_ns = time.time_ns()
        header, filled = text.at(now_ns, self._number)
        at = texts.position(self._number, now_ns)
        await latest.write_chain(self._redis, self._topics, 0, filled, header, at)
        return len(filled.contracts)


async def serve(sample: texts.Sample, progress: Progress) -> None:
    """Answer on stdout until stdin ends."""
    redis = connect(config.load(), name="bench-feeder")
    feeder = Feeder(redis, sample, progress)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        asked: dict[str, Any] = msgspec.json.decode(line)
        fed: Fed = await getattr(feeder, asked.pop("do"))(**asked)
        os.write(1, msgspec.json.encode(fed) + b"\n")
    await redis.aclose()


if __name__ == "__main__":
    uvloop.run(serve(texts.load(Path(sys.argv[1])), Progress(Path(sys.argv[2]))))
