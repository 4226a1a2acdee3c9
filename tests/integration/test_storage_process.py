"""The storage process killed again and again: every frame once all the same."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator

import psycopg

from pipeline import config
from pipeline.config import Settings
from pipeline.entries import NewEntry
from pipeline.frames import encode_frame
from pipeline.models import ENRICHED_CHAIN_TYPE
from pipeline.streams import Producer
from pipeline.topics import Topics
from tests.support import bus, chains
from tests.support.storing import arrived

KILLS = 4
FRAMES = 240
LEGS = 42
DEADLINE_S = 60.0


@contextlib.contextmanager
def worker(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "workers.storage"],
        env=os.environ | config.environment(settings),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def stored(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM ledger").fetchone()
    assert row is not None
    return int(row[0])


async def until_stored(url: str, count: int) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while stored(url) < count:
        assert time.monotonic() < deadline, f"{stored(url)} of {count}"
        await asyncio.sleep(0.005)


async def append(settings: Settings, first: int, count: int) -> None:
    producer = Producer(settings, "producer")
    for number in range(first, first + count):
        chain = chains.enriched(LEGS // 2, ts_ingest=chains.TS_INGEST + number * 1_000_000)
        entry = NewEntry(
            id=arrived(chain).id,
            type=ENRICHED_CHAIN_TYPE,
            key=chain.header.chain,
            ts=chain.header.ts_ingest,
            te=chain.header.ts_ingest,
            data=encode_frame(chain),
        )
        await producer.append(Topics().enriched(), entry)
    await producer.close()


async def test_killed_process_stores_every_frame_once(valkey: str, plain_database_url: str) -> None:
    url = plain_database_url
    # Small batches, so that a kill falls between commits and acks; no delivery is one too many.
    settings = Settings(
        redis_url=valkey,
        lease_ms=600,
        database_url=url,
        storage_batch_rows=4 * LEGS,
        storage_max_age_ms=20,
        max_attempts=100,
    )
    share = FRAMES // (KILLS + 1)
    for round_number in range(KILLS):
        with worker(settings):
            await append(settings, round_number * share, share)
            # Killed with part of the round stored, part read, part not.
            await until_stored(url, round_number * share + share // 3)
    with worker(settings) as last:
        await append(settings, KILLS * share, FRAMES - KILLS * share)
        await until_stored(url, FRAMES)
        async with bus.context(valkey, "looker") as context:
            deadline = time.monotonic() + DEADLINE_S
            while (await context.redis.xpending(Topics().enriched(), "storage"))["pending"]:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.02)
            assert await context.redis.xlen(Topics().dead()) == 0
        last.terminate()
        assert last.wait(20) == 0
    with psycopg.connect(url) as connection:
        counts = connection.execute(
            "SELECT (SELECT count(*) FROM market_snapshots), "
            "(SELECT count(*) FROM option_contracts)"
        ).fetchone()
    assert counts == (FRAMES, FRAMES * LEGS)
