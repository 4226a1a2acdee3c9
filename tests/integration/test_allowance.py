"""What callers may use, on a real server: exact over several connections, and without Redis."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pipeline.config import Settings
from pipeline.limits import Allowance, Bucket, Rate, Sessions
from pipeline.limits import sessions as sessions_room
from pipeline.runtime import cancel, connect
from pipeline.streams.links import Link
from pipeline.topics import Topics
from tests.support import servers
from tests.support.servers import free_port

SLOW = Rate(0.5, 40)  # gives nothing back while a test runs
WAIT_S = 10.0


@contextlib.asynccontextmanager
async def allowance(url: str) -> AsyncIterator[Allowance]:
    """One process's part, with a connection of its own."""
    settings, topics = Settings(redis_url=url), Topics()
    part = Allowance(Link(settings, topics.client_limit("", ""), "tester"), topics)
    try:
        yield part
    finally:
        await part.close()


def buckets(subject: str = "asha", address: str = "192.0.2.7") -> tuple[Bucket, ...]:
    return (Bucket("subject", subject, SLOW), Bucket("address", address, Rate(0.5, 100)))


async def test_two_processes_allow_together_exactly_the_burst(valkey: str) -> None:
    async with allowance(valkey) as one, allowance(valkey) as other:
        verdicts = await asyncio.gather(
            *((one, other)[number % 2].take(buckets(), 1) for number in range(200))
        )
    assert sum(verdict.wait_s == 0 for verdict in verdicts) == SLOW.burst


async def test_cost_is_taken_and_what_remains_is_told(valkey: str) -> None:
    async with allowance(valkey) as part:
        first = await part.take(buckets(), 30)
        assert [standing.remaining for standing in first.standings] == [10, 70]
        assert first.standings[0].full_s == pytest.approx(60, abs=0.1)
        refused = await part.take(buckets(), 30)
        assert refused.wait_s == pytest.approx(40, abs=0.5)


async def test_call_that_is_too_much_for_one_bucket_takes_from_none(valkey: str) -> None:
    async with allowance(valkey) as part:
        await part.take(buckets(), 40)
        await part.take(buckets("ravi"), 30)
        assert (await part.take(buckets(), 5)).wait_s > 0
        after = await part.take(buckets("ravi"), 1)
        assert [standing.remaining for standing in after.standings] == [9, 29]


async def test_cost_above_the_burst_needs_a_full_bucket(valkey: str) -> None:
    async with allowance(valkey) as part:
        assert (await part.take(buckets(), 5_000)).wait_s == 0
        assert (await part.take(buckets(), 1)).wait_s > 0


async def test_bucket_fills_at_its_rate(valkey: str) -> None:
    bucket = (Bucket("subject", "quick", Rate(50, 10)),)
    due_s = (40 - 10) / 50
    async with allowance(valkey) as part:
        began, waited_s = time.monotonic(), 0.0
        for _request in range(40):
            while (wait_s := (await part.take(bucket, 1)).wait_s) > 0:
                waited_s += wait_s
                await asyncio.sleep(wait_s)
        elapsed_s = time.monotonic() - began
    assert waited_s <= due_s + 0.02
    assert elapsed_s >= due_s - 0.02


async def test_forced_call_empties_a_bucket_and_goes_ahead(valkey: str) -> None:
    async with allowance(valkey) as part:
        bucket = (Bucket("address", "198.51.100.1", SLOW),)
        for _attempt in range(3):
            part.charge(bucket, 20)
        await part.close()
        assert part.empty_s(bucket[0]) == pytest.approx(2, abs=0.1)
        assert (await part.take(bucket, 1)).wait_s > 1
        assert (await part.take(bucket, 1, forced=True)).wait_s == 0


async def test_bucket_that_is_full_again_is_forgotten(valkey: str) -> None:
    async with allowance(valkey) as part:
        await part.take((Bucket("subject", "brief", Rate(1_000, 10)),), 1)
        client = connect(Settings(redis_url=valkey))
        try:
            async with asyncio.timeout(WAIT_S):
                while await client.keys("limit:*"):
                    await asyncio.sleep(0.01)
        finally:
            await client.aclose()


async def test_without_redis_each_process_limits_for_itself() -> None:
    async with allowance(f"redis://127.0.0.1:{free_port()}/0") as part:
        verdicts = [await part.take(buckets(), 1) for _request in range(60)]
        assert part.is_local
    assert sum(verdict.wait_s == 0 for verdict in verdicts) == SLOW.burst
    assert verdicts[0].standings[0].remaining == SLOW.burst - 1


async def test_redis_that_hangs_holds_nobody_for_long(tmp_path: Path) -> None:
    with servers.running(servers.valkey_binary(), tmp_path) as server:
        async with allowance(server.url) as part:
            assert (await part.take(buckets(), 1)).wait_s == 0
            assert server.process is not None
            os.kill(server.process.pid, signal.SIGSTOP)
            try:
                began = time.monotonic()
                for _request in range(50):
                    await part.take(buckets(), 1)
                assert time.monotonic() - began < 1.5
                assert part.is_local
            finally:
                os.kill(server.process.pid, signal.SIGCONT)


@contextlib.asynccontextmanager
async def sessions(url: str, most: int) -> AsyncIterator[Sessions]:
    """One process's sessions, told to the others."""
    client = connect(Settings(redis_url=url), retries=0)
    part = Sessions(client, Topics(), most)
    telling = asyncio.create_task(part.run())
    try:
        yield part
        await part.close()
    finally:
        await cancel(telling)
        await client.aclose()


async def test_sessions_are_counted_over_all_processes(valkey: str) -> None:
    async with sessions(valkey, 5) as one, sessions(valkey, 5) as other:
        entered = [await (one, other)[number % 2].enter("asha") for number in range(8)]
        assert entered == [True] * 5 + [False] * 3
        assert await one.enter("ravi")
        other.leave("asha")
        async with asyncio.timeout(WAIT_S):
            while not await one.enter("asha"):
                await asyncio.sleep(0.01)
        assert not await other.enter("asha")


async def test_sessions_of_a_process_that_ends_are_given_back(valkey: str) -> None:
    async with sessions(valkey, 2) as one:
        async with sessions(valkey, 2) as other:
            assert [await other.enter("asha"), await other.enter("asha")] == [True, True]
            assert not await one.enter("asha")
        assert await one.enter("asha")


async def test_without_redis_each_process_counts_its_own_sessions() -> None:
    async with sessions(f"redis://127.0.0.1:{free_port()}/0", 2) as part:
        assert [await part.enter("asha") for _session in range(3)] == [True, True, False]


async def test_sessions_of_a_killed_process_are_forgotten(
    valkey: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions_room, "TTL_S", 0.3)
    client = connect(Settings(redis_url=valkey), retries=0)
    try:
        assert await Sessions(client, Topics(), 1).enter("asha")  # and nothing is heard of it again
        other = Sessions(client, Topics(), 1)
        assert not await other.enter("asha")
        async with asyncio.timeout(WAIT_S):
            while not await other.enter("asha"):
                await asyncio.sleep(0.02)
    finally:
        await client.aclose()
