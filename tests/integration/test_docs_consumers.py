"""The consumers that the documents show run as they stand, on a real server."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline import models
from pipeline.entries import NewEntry
from pipeline.frames import encode_frame
from pipeline.streams import Producer
from pipeline.topics import Topics
from tests.support import bus, chains, documents, servers
from tests.support.rooms import CHECKOUT

PAGE = CHECKOUT / "docs/consumers.md"
STREAM = Topics().enriched()
DEADLINE_S = 20.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[servers.RedisServer]:
    with servers.running(servers.valkey_binary(), tmp_path) as running:
        yield running


async def append_chain(url: str, number: int) -> str:
    """Append an enriched chain; gives its symbol."""
    chain = chains.enriched(ts_ingest=chains.TS_INGEST + number)
    async with bus.context(url) as context:
        producer = Producer(context.settings, "test")
        entry = NewEntry(
            id=f"id-{number}",
            type=models.ENRICHED_CHAIN_TYPE,
            key=chain.header.chain,
            ts=chain.header.ts_ingest,
            data=encode_frame(chain),
        )
        await producer.append(STREAM, entry)
        await producer.close()
    return chain.header.chain


def start(arguments: list[str], folder: Path, url: str) -> subprocess.Popen[bytes]:
    own = {"STOCKIFY_REDIS_URL": url, "STOCKIFY_STATE_DIR": str(folder / "state")}
    with (folder / "out").open("wb") as out:
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=os.environ | own | {"PYTHONUNBUFFERED": "1"},
        )


def wait_for(process: subprocess.Popen[bytes], folder: Path, text: str, times: int = 1) -> str:
    """The output, once it holds the text that often."""
    deadline = time.monotonic() + DEADLINE_S
    while (shown := (folder / "out").read_text()).count(text) < times:
        assert process.poll() is None, shown
        assert time.monotonic() < deadline, shown
        time.sleep(0.02)
    return shown


async def wait_for_group(url: str, group: str, *, pending: int | None = None) -> None:
    """Until the group exists and, if asked, has that many pending entries."""
    deadline = time.monotonic() + DEADLINE_S
    async with bus.context(url) as context:
        while True:
            exists = await context.redis.exists(STREAM)
            groups = await context.redis.xinfo_groups(STREAM) if exists else []
            held = {found["name"].decode(): found["pending"] for found in groups}
            if group in held and pending in (None, held[group]):
                return
            assert time.monotonic() < deadline, held
            await asyncio.sleep(0.02)


def stop(process: subprocess.Popen[bytes]) -> int:
    process.terminate()
    return process.wait(DEADLINE_S)


async def test_plain_consumer_reads_each_chain_and_goes_on_after_a_restart(
    server: servers.RedisServer, tmp_path: Path
) -> None:
    (tmp_path / "plain.py").write_text(documents.example(PAGE, "plain"))
    process = start(["plain.py"], tmp_path, server.url)
    try:
        await wait_for_group(server.url, "my-strategy")
        symbol = await append_chain(server.url, 1)
        shown = wait_for(process, tmp_path, symbol)
        await wait_for_group(server.url, "my-strategy", pending=0)
    finally:
        stop(process)
    chain = chains.enriched()
    assert f"{symbol} {chain.header.n} legs 25000 0.12" in shown

    await append_chain(server.url, 2)  # while it is away
    process = start(["plain.py"], tmp_path, server.url)
    try:
        wait_for(process, tmp_path, symbol)
        await wait_for_group(server.url, "my-strategy", pending=0)
    finally:
        stop(process)


async def test_kit_consumer_runs_by_name_and_drains_on_sigterm(
    server: servers.RedisServer, tmp_path: Path
) -> None:
    (tmp_path / "my_consumer.py").write_text(documents.example(PAGE, "kit"))
    symbol = await append_chain(server.url, 1)
    process = start(["-m", "stockify", "run", "my_consumer:watcher"], tmp_path, server.url)
    try:
        shown = wait_for(process, tmp_path, '"event":"chain"')
        await wait_for_group(server.url, "my-watcher", pending=0)
        assert symbol in shown
    finally:
        code = stop(process)
    assert code == 0, (tmp_path / "out").read_text()
