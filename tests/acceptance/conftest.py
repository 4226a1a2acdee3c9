"""What the page is shown by: a gateway on a real Valkey and Postgres, and a Chromium."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest
import pytest_asyncio
import redis
from playwright.async_api import Browser

from pipeline.database import Database
from pipeline.models import EnrichedChain
from tests.support import browser, chains, postgres, servers, storing
from tests.support import gateway as gateways
from tests.support.gateway import Gateway, moved
from tests.support.page import CHAIN, FIRST_SPOT


@pytest.fixture(scope="module")
def valkey_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.RedisServer]:
    with servers.running(servers.valkey_binary(), tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="module")
def database_url() -> Iterator[str]:
    """A database with ten minutes of the price, a snapshot every twenty seconds."""
    with postgres.running_wheel() as server, server.database() as url:
        asyncio.run(remember(url))
        yield url


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Browser]:
    async with browser.launched() as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def gateway(valkey_process: servers.RedisServer, database_url: str) -> AsyncIterator[Gateway]:
    """A gateway with one chain."""
    with redis.Redis.from_url(valkey_process.url) as client:
        client.flushall()
    async with gateways.running(valkey_process.url, database_url) as running:
        await running.publish(CHAIN, 1)
        yield running


async def remember(database_url: str) -> None:
    """Store the past of both underlyings: NIFTY began the day at 24,950."""
    small = [chains.enriched(3, underlying=name) for name in ("NIFTY", "BANKNIFTY")]
    past = []
    for number, seconds in enumerate(range(-600, 0, 20)):
        for chain in small:
            then = moved(chain, seconds=seconds)
            spot = FIRST_SPOT + 3 * (number % 7) + number
            header = msgspec.structs.replace(then.header, spot=spot)
            past.append(EnrichedChain(header, then.legs))
    database = Database(database_url)
    await database.open()
    try:
        await storing.write(database, *past)
    finally:
        await database.close()
