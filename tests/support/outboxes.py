"""An outbox against a real server, and what the tests of its losses do to both."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from pipeline import config, topics
from pipeline.config import Settings
from pipeline.entries import decode_entry
from pipeline.runtime import Context
from pipeline.streams import Outbox, Producer, lane
from pipeline.streams.offers import Fate
from pipeline.streams.segments import EMPTY_SLOT, SLOT_BYTES, Place, Segment
from tests.support import bus, servers

ROOM = 64 * 1024 * 1024
FOREVER_S = 3_600.0


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter waits; a test that wants none of a kind sets it to `FOREVER_S`."""
    monkeypatch.setattr("pipeline.runtime.SOCKET_TIMEOUT_S", 1.0)
    monkeypatch.setattr(lane, "LOOK_S", 0.05)
    monkeypatch.setattr(lane, "HOLD_S", 0.3)
    monkeypatch.setattr(lane, "LONGEST_PAUSE_S", 0.2)


@contextlib.asynccontextmanager
async def opened(
    url: str,
    directory: Path,
    limit_bytes: int = ROOM,
    route: Callable[[str, str], str] | None = None,
) -> AsyncIterator[tuple[Outbox, Context]]:
    async with (
        bus.context(url) as context,
        Outbox(
            Producer(context.settings, "outbox"), directory, limit_bytes, context.telemetry, route
        ) as outbox,
    ):
        yield outbox, context


async def put(outbox: Outbox, stream: str, *numbers: int) -> list[Fate]:
    return [await outbox.put(stream, bus.entry(number)) for number in numbers]


async def ids(context: Context, stream: str) -> list[int]:
    """The numbers of the entries in a stream, whose own numbering has no gap and no double."""
    entries = [decode_entry(*item) for item in await context.redis.xrange(stream)]
    first = entries[0].seq if entries else 0
    assert [entry.seq for entry in entries] == list(range(first, first + len(entries)))
    return [entry.ts for entry in entries]


def count(context: Context, name: str) -> int:
    return int(context.telemetry.report()["counters"][name])


def gauge(context: Context, name: str) -> float:
    return float(context.telemetry.report()["gauges"][name])


async def register(context: Context, stream: str) -> None:
    """A critical group that has finished nothing."""
    await context.redis.hset(topics.group_cards(stream), "slow", '{"class":"critical"}')


def killed_while_putting(settings: Settings, run: int, after_s: float) -> set[int]:
    """The numbers whose put had returned when the process was killed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.putting", "stream:killed", str(run * 1_000_000)],
        env=config.environment(settings),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    assert process.stderr is not None
    first = process.stderr.readline()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(0.05 + 0.1 * after_s)
    process.kill()
    lines = (first + process.stderr.read()).decode().split("\n")[:-1]
    process.stderr.close()
    process.wait(10)
    assert all(line.isdigit() for line in lines), "\n".join(lines)
    return {int(line) for line in lines}


@contextlib.contextmanager
def forgetting(server: servers.RedisServer) -> Iterator[None]:
    """What is written inside is acknowledged by the server, and lost in a crash at the end."""
    _until_written(server)
    log = server.directory / "appendonlydir"
    kept = server.directory / "kept"
    shutil.copytree(log, kept)
    yield
    server.kill()
    shutil.rmtree(log)
    kept.rename(log)
    server.start()


def _until_written(server: servers.RedisServer) -> None:
    """Until the file has all that was acknowledged: a slow sync holds back what comes after it."""
    deadline = time.monotonic() + servers.START_S
    with redis.Redis.from_url(server.url) as client:
        ask: Any = client.info  # redis-py leaves it untyped
        while ask("persistence")["aof_buffer_length"]:
            assert time.monotonic() < deadline, "the server does not write its file"
            time.sleep(0.01)


def forget_acknowledgements(directory: Path) -> None:
    """The spool as a kill leaves it that comes before any answer is noted."""
    for path in directory.glob("*/*.v1"):
        segment = Segment(path)
        place = Place(segment.first, 0)
        while place.number < segment.end.number:
            following, _stands = segment.head(place)
            os.pwrite(
                segment.file,
                EMPTY_SLOT,
                following.offset - len(segment.data(place, following)) - SLOT_BYTES,
            )
            place = following
        segment.close()
