import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pipeline.errors import BusUnavailable
from stockify import processes
from stockify.engines import valkey
from stockify.engines.valkey import Valkey
from stockify.logs import RotatingLog
from stockify.plan import Ports
from stockify.processes import Child


@pytest.fixture
def engine(tmp_path: Path) -> Valkey:
    return Valkey(tmp_path / 'a "quoted" place', Ports().free(), "s3cr3t")


@pytest.fixture
async def child(engine: Valkey, tmp_path: Path) -> AsyncIterator[Child]:
    started = await start(engine, tmp_path)
    yield started
    await started.stop(asyncio.Event())


async def start(engine: Valkey, directory: Path) -> Child:
    marks = directory / "marks"
    marks.mkdir(exist_ok=True)
    log = RotatingLog(directory / "valkey.log")
    child = await processes.start(engine.prepare(dict(os.environ)), log, marks)
    async with asyncio.timeout(10):
        while not await answers(engine):  # it listens before it has read its data
            await asyncio.sleep(0.01)
    return child


async def answers(engine: Valkey) -> bool:
    try:
        await valkey.ask(engine.url, ("PING",))
    except BusUnavailable:
        return False
    return True


async def test_embedded_server_passes_its_own_examination(engine: Valkey, child: Child) -> None:
    assert child.is_running
    assert await valkey.findings(engine.url) == []


@pytest.mark.parametrize("url", ["redis://127.0.0.1:{}/0", "redis://:wrong@127.0.0.1:{}/0"])
async def test_nobody_gets_in_without_the_password(engine: Valkey, child: Child, url: str) -> None:
    assert child.is_running
    port = engine.url.rpartition(":")[2].split("/")[0]
    with pytest.raises(BusUnavailable, match=r"NOAUTH|WRONGPASS"):
        await valkey.ask(url.format(port), ("PING",))


async def test_changed_settings_of_a_server_are_found(engine: Valkey, child: Child) -> None:
    assert child.is_running
    await valkey.ask(
        engine.url,
        ("CONFIG", "SET", "maxmemory-policy", "allkeys-lru"),
        ("CONFIG", "SET", "notify-keyspace-events", ""),
    )
    found = await valkey.findings(engine.url)
    assert [finding.is_fatal for finding in found] == [True, False]


async def test_what_was_written_just_before_the_stop_is_there_again(
    engine: Valkey, tmp_path: Path
) -> None:
    first = await start(engine, tmp_path)
    entries = [("XADD", "s", "*", "n", str(number)) for number in range(1_000)]
    await valkey.ask(engine.url, *entries)
    assert await first.stop(asyncio.Event()) == 0
    second = await start(engine, tmp_path)
    assert await valkey.ask(engine.url, ("XLEN", "s")) == [1_000]
    await second.stop(asyncio.Event())


async def test_server_that_is_away_is_unavailable_and_no_crash(
    engine: Valkey, child: Child
) -> None:
    os.kill(child.pid, signal.SIGKILL)
    await child.exit
    assert await engine.probe() is None
    with pytest.raises(BusUnavailable):
        await valkey.findings(engine.url)
