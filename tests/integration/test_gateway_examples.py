"""The clients that the documents show run as they stand, against a real gateway."""

import asyncio
import contextlib
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from pyarrow import ipc, parquet

from stockify.page import node_program
from tests.support import feed, surface
from tests.support.cutting_proxy import CuttingProxy
from tests.support.feed import Market
from tests.support.gateway import Gateway
from tests.support.postgres import PostgresServer
from tests.support.rooms import CHECKOUT

pytestmark = pytest.mark.asyncio(loop_scope="module")

DAY = "2026-01-25"
DEADLINE_S = 20.0
STORED = 5  # snapshots, of 42 contracts each


class Fixture:
    """A gateway with a past and a live market, and how a client reaches it."""

    def __init__(self, served: Gateway, market: Market, key: str) -> None:
        self.served = served
        self.market = market
        self.proxy = CuttingProxy(f"http://127.0.0.1:{served.settings.gateway_port}")
        self.environment = {
            "STOCKIFY_KEY": key,
            "STOCKIFY_URL": f"http://{self.proxy.address}",
        }


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def fixture(
    tmp_path_factory: pytest.TempPathFactory, wheel_server: PostgresServer
) -> AsyncIterator[Fixture]:
    directory = tmp_path_factory.mktemp("examples")
    async with surface.running(directory, wheel_server) as running:
        served = running.gateway
        async with feed.market(served.settings.redis_url) as market:
            made = Fixture(served, market, running.key)
            async with made.proxy.running():
                yield made


class Client:
    """An example that runs in a folder of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.shown = ""

    async def until(self, text: str) -> None:
        """Read what it prints up to a line that holds the text."""
        assert self._process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            while text not in (line := (await self._process.stdout.readline()).decode()):
                self.shown += line
                assert line, self.shown
            self.shown += line

    async def stopped(self) -> None:
        """Ask it to end, and wait until it did."""
        self._process.terminate()
        async with asyncio.timeout(DEADLINE_S):
            await self._process.communicate()


@contextlib.asynccontextmanager
async def running(fixture: Fixture, folder: Path, *command: str) -> AsyncIterator[Client]:
    shutil.copytree(CHECKOUT / "docs/examples", folder, dirs_exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=os.environ | fixture.environment | {"SECONDS_OF_FEED": "2", "TMPDIR": str(folder)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield Client(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


def token_files(folder: Path) -> list[Path]:
    return list(folder.glob("tmp.*"))


async def test_python_client_reads_all_and_resumes_after_a_break(
    fixture: Fixture, tmp_path: Path
) -> None:
    (first,) = await fixture.market.append(100)
    command = (sys.executable, "-W", "error", "client.py", "NIFTY", DAY)
    async with running(fixture, tmp_path, *command) as client:
        await client.until("export")
        assert client.shown.count("chain NIFTY-20260127-") == 6
        assert f"history {STORED} rows;" in client.shown
        with ipc.open_stream(tmp_path / "day.arrow") as exported:
            assert exported.read_all().num_rows == STORED * 42
        await client.until(f"snapshot {first}")
        (second,) = await fixture.market.append(101)
        await client.until(f"update {second}")

        fixture.proxy.cut_all()
        missed = await fixture.market.append(102, 103, 104)
        await client.until("again:")
        await client.until('"recovered": {"underlying:NIFTY": true}')
        for seq in missed:
            await client.until(f"update {seq}")
    assert client.shown.count("snapshot") == 1


async def test_javascript_client_reads_all_and_shows_a_band_also_after_a_break(
    fixture: Fixture, tmp_path: Path
) -> None:
    (first,) = await fixture.market.append(200)
    node = str(node_program())
    async with running(fixture, tmp_path, node, "client.mjs", "NIFTY", DAY) as client:
        await client.until(f"snapshot {first} NIFTY-20260127-")
        assert client.shown.count("chain NIFTY-20260127-") == 6
        assert f"history {STORED} rows;" in client.shown
        assert (tmp_path / "day.csv").read_text().count("\n") == STORED * 42 + 1
        (second,) = await fixture.market.append(201)
        await client.until(f"update {second}")
        fixture.proxy.cut_all()
        await client.until("closed")
        (third,) = await fixture.market.append(202)
        await client.until(f"{third} NIFTY-20260127-")


async def test_curl_client_gets_all_and_leaves_no_token_behind(
    fixture: Fixture, tmp_path: Path
) -> None:
    await fixture.market.append(300)
    async with running(fixture, tmp_path, "sh", "client.sh", "NIFTY", DAY) as client:
        await client.until("data: [")
        lines = client.shown.splitlines()
        assert sum(line.startswith("NIFTY-20260127-") for line in lines) == 6
        assert sum(line.startswith("{") for line in lines) == STORED
        assert parquet.read_table(tmp_path / "day.parquet").num_rows == STORED * 42
        assert '"type":"snapshot"' in client.shown
        assert token_files(tmp_path)
        await client.stopped()
    assert not token_files(tmp_path)
