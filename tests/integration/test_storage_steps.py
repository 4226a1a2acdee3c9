"""The storage process killed between any two of its steps: each frame is stored once."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psycopg
import pytest

from pipeline import config
from pipeline.config import Settings
from pipeline.entries import NewEntry
from pipeline.frames import encode_frame
from pipeline.models import ENRICHED_CHAIN_TYPE, EnrichedChain
from pipeline.streams import Producer
from pipeline.topics import Topics
from tests.support import bus, chains

CHECKOUT = Path(__file__).parents[2]
POINTS = (
    *("read", "decoded", "encoded", "begun", "snapshots_copied", "contracts_copied"),
    *("ledger_copied", "coverage_counted", "committed", "acknowledged"),
)
FRAMES, LEGS = 6, 10
DEADLINE_S = 30.0


def entry(number: int, *, is_poisoned: bool = False) -> NewEntry:
    """A frame; a poisoned one has a leg that Postgres cannot hold."""
    chain = chains.enriched(LEGS // 2, ts_ingest=chains.TS_INGEST + number * 1_000_000)
    if is_poisoned:
        asks = chain.legs["ask"].copy()
        asks[4] = -1.0
        chain = EnrichedChain(chain.header, {**chain.legs, "ask": asks})
    return NewEntry(
        id=f"test:{chain.header.chain}:{number}:r1",
        type=ENRICHED_CHAIN_TYPE,
        key=chain.header.chain,
        ts=chain.header.ts_ingest,
        data=encode_frame(chain),
    )


async def append(settings: Settings, first: int) -> None:
    producer = Producer(settings, "producer")
    for number in range(first, first + FRAMES):
        await producer.append(Topics().enriched(), entry(number, is_poisoned=number % 3 == 2))
    await producer.close()


def start(settings: Settings, *argv: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", *argv],
        env=os.environ | config.environment(settings),
        cwd=CHECKOUT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def stored(url: str) -> tuple[int, ...]:
    """Snapshots, legs, ledger lines, legs they count, legs they miss, snapshots in coverage."""
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT (SELECT count(*) FROM market_snapshots), "
            "(SELECT count(*) FROM option_contracts), count(*), coalesce(sum(n), 0), "
            "coalesce(sum(rejected), 0), (SELECT coalesce(sum(present), 0) FROM coverage) "
            "FROM ledger"
        ).fetchone()
    assert found is not None
    return tuple(int(value) for value in found)


async def until_settled(settings: Settings, url: str, expected: tuple[int, ...]) -> list[str]:
    """Wait until all is stored and nothing pending; the ids of the dead letters."""
    async with bus.context(settings.redis_url, "looker") as context:
        deadline = time.monotonic() + DEADLINE_S
        while (
            stored(url) < expected
            or (await context.redis.xpending(Topics().enriched(), "storage"))["pending"]
        ):
            assert time.monotonic() < deadline, f"{stored(url)} of {expected}"
            await asyncio.sleep(0.02)
        letters = await context.redis.xrange(Topics().dead())
    return [fields[b"id"].decode() for _, fields in letters]


def test_named_points_are_those_of_the_code() -> None:
    told = {
        point
        for path in (CHECKOUT / "workers/storage").glob("*.py")
        for point in re.findall(r'sys\.audit\("stockify\.storage", "(\w+)"\)', path.read_text())
    }
    assert told == set(POINTS)


async def test_worker_killed_at_any_point_stores_every_frame_once(
    valkey: str, plain_database_url: str
) -> None:
    url = plain_database_url
    # Batches of two frames, so that a point is passed again and again; no delivery is one too many.
    settings = Settings(
        redis_url=valkey,
        lease_ms=400,
        database_url=url,
        storage_batch_rows=2 * LEGS,
        storage_max_age_ms=20,
        max_attempts=1_000,
    )
    for number, point in enumerate(POINTS):
        await append(settings, number * FRAMES)
        process = start(settings, "tests.support.dying_storage", point, str(1 + number % 2))
        assert await asyncio.to_thread(process.wait, DEADLINE_S) == -signal.SIGKILL, point
    total = len(POINTS) * FRAMES
    poisoned = [number for number in range(total) if number % 3 == 2]
    legs = total * LEGS - len(poisoned)
    last = start(settings, "workers.storage")
    try:
        expected = (total, legs, total, legs, len(poisoned), total)
        letters = await until_settled(settings, url, expected)
        assert stored(url) == expected
        names = [letter.partition("#")[0] for letter in letters]
        assert sorted(names) == sorted(entry(number).id for number in poisoned)
        last.terminate()
        assert await asyncio.to_thread(last.wait, 20) == 0
    finally:
        last.kill()
        last.wait()


@pytest.mark.parametrize("times", [2, 9])
async def test_entry_that_was_appended_again_is_stored_once(
    valkey: str, plain_database_url: str, times: int
) -> None:
    settings = Settings(redis_url=valkey, database_url=plain_database_url, storage_max_age_ms=20)
    producer = Producer(settings, "producer")
    for number in range(times):
        again = msgspec.structs.replace(entry(0), te=chains.TS_INGEST + number)
        await producer.append(Topics().enriched(), again)
    await producer.close()
    worker = start(settings, "workers.storage")
    try:
        expected = (1, LEGS, 1, LEGS, 0, 1)
        assert await until_settled(settings, plain_database_url, expected) == []
        assert stored(plain_database_url) == expected
    finally:
        worker.terminate()
        worker.wait(20)
