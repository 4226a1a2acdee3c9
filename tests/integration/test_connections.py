"""What a worker's connections to Redis say when they are lost, on the loop that workers run on."""

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop
from redis.exceptions import ConnectionError

from pipeline.cluster import Nodes
from pipeline.runtime import cancel, connect_to
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


async def cancel_as_the_write_ends(port: int) -> None:
    client = connect_to(f"redis://127.0.0.1:{port}/0", retries=0, single=True)
    try:
        await client.ping()
        connection: Any = client.connection
        is_written = asyncio.Event()

        async def write(_command: object) -> None:
            await is_written.wait()

        connection._send_packed_command = write
        task = asyncio.create_task(connection.send_packed_command(b"PING", check_health=False))
        for _ in range(5):
            await asyncio.sleep(0)
        is_written.set()  # the write ends in the next round of the loop, and then it is cancelled
        asyncio.get_running_loop().call_soon(task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not connection.is_connected
        del connection._send_packed_command
        assert await client.ping()
    finally:
        await client.aclose()


@pytest.mark.parametrize("run", [uvloop.run, asyncio.run], ids=["uvloop", "asyncio"])
def test_cancellation_in_the_moment_in_which_a_command_is_written_is_not_lost(
    valkey_process: servers.RedisServer, run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    run(cancel_as_the_write_ends(valkey_process.port))


async def test_question_to_a_node_that_is_cancelled_at_any_step_leaves_no_connection(
    valkey: str,
) -> None:
    async with connect_to(valkey, retries=0, single=True) as observer:
        for steps in itertools.count():
            asking = asyncio.create_task(Nodes([valkey]).refresh())
            for _ in range(steps):
                await asyncio.sleep(0)
            is_done = asking.done()
            await cancel(asking)
            async with asyncio.timeout(5):
                while len(await observer.client_list()) > 1:
                    await asyncio.sleep(0.001)
            if is_done:
                return
