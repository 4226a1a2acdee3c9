"""What a worker's connections to Redis say when they are lost, on the loop that workers run on."""

import asyncio

import pytest
import uvloop
from redis.exceptions import ConnectionError

from pipeline.runtime import connect_to
from stockify.bench.faults.proxy import proxied
from tests.support import servers


async def use_after_reset(port: int) -> None:
    async with proxied(port) as proxy:
        client = connect_to(f"redis://127.0.0.1:{proxy.port}/0", retries=0, single=True)
        await client.ping()
        proxy.reset()
        await asyncio.sleep(0.1)  # the loop learns of the reset while nobody uses the connection
        try:
            with pytest.raises(ConnectionError):
                await client.ping()
            assert await client.ping()
        finally:
            await client.aclose()


def test_use_of_a_connection_that_was_reset_meanwhile_is_a_lost_connection(
    valkey_process: servers.RedisServer,
) -> None:
    uvloop.run(use_after_reset(valkey_process.port))
