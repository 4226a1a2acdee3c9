"""The bus on real servers: Valkey, Redis 8 and Debian's Redis 7."""

import asyncio
import os
import signal
from collections.abc import Iterator

import pytest

from pipeline import topics
from pipeline.entries import NewEntry, decode_entry
from pipeline.errors import BusUnavailable, OutcomeUnknown
from pipeline.runtime import Context
from pipeline.streams import Consumer, Producer, Trimmed, trim
from tests.support import bus, servers

SERVERS = ("valkey", "redis8", "redis7")


@pytest.fixture(scope="module", params=SERVERS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[servers.RedisServer]:
    environment: dict[str, str] = {}
    if request.param == "valkey":
        binary = servers.valkey_binary()
    elif request.param == "redis8":
        binary = servers.redis8_binary()
    else:
        found = servers.redis7_binary()
        if found is None:
            pytest.skip("no redis-server 7 on this machine")
        binary, environment = found
    with servers.running(binary, tmp_path_factory.mktemp("redis"), environment) as running:
        yield running


@pytest.fixture
def stream(request: pytest.FixtureRequest) -> str:
    return f"stream:{request.node.name}"


def consumer(context: Context, stream: str) -> Consumer:
    return Consumer(context, stream, "group", dead_stream=f"{stream}:dead")


async def append(context: Context, stream: str, count: int) -> None:
    await bus.append(context, stream, *map(bus.entry, range(count)))


async def test_entries_arrive_in_order_with_sequence_and_epoch(
    server: servers.RedisServer, stream: str
) -> None:
    async with bus.context(server.url) as context:
        await append(context, stream, 5)
        reader = consumer(context, stream)
        entries = await bus.take(reader, 5)
        await reader.close()
    assert [entry.id for entry in entries] == [f"id-{n}" for n in range(5)]
    assert [entry.seq for entry in entries] == [1, 2, 3, 4, 5]
    assert len({entry.epoch for entry in entries}) == 1
    assert {entry.attempts for entry in entries} == {1}


async def test_settling_an_append_that_happened_writes_no_second_entry(
    server: servers.RedisServer, stream: str
) -> None:
    async with bus.context(server.url) as context:
        producer = Producer(context.settings, "producer")
        first = await producer.append(stream, bus.entry(1))
        again = await producer.settle(stream, bus.entry(1))
        other = await producer.settle(stream, bus.entry(2))
        await producer.close()
        assert again == first
        assert other.seq == 2
        assert await context.redis.xlen(stream) == 2


async def test_append_to_a_stalled_server_is_settled_to_one_entry(
    server: servers.RedisServer, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.runtime.SOCKET_TIMEOUT_S", 0.3)
    assert server.process is not None
    async with bus.context(server.url) as context:
        producer = Producer(context.settings, "producer")
        await producer.append(stream, bus.entry(0))
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            with pytest.raises(OutcomeUnknown):
                await producer.append(stream, bus.entry(1))
            with pytest.raises(BusUnavailable):
                await producer.settle(stream, bus.entry(1))
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
        await producer.settle(stream, bus.entry(1))
        await producer.close()
        assert await context.redis.xlen(stream) == 2


async def test_finishing_twice_writes_once(server: servers.RedisServer, stream: str) -> None:
    async with bus.context(server.url) as context:
        await append(context, stream, 3)
        reader = consumer(context, stream)
        entries = await bus.take(reader, 3)
        results = [(entry, bus.entry(100 + entry.seq)) for entry in entries]
        first = await reader.finish(f"{stream}:out", results)
        second = await reader.finish(f"{stream}:out", results)
        await reader.close()
        assert [place.seq for place in first if place] == [1, 2, 3]
        assert second == [None, None, None]
        assert await context.redis.xlen(f"{stream}:out") == 3
        assert (await context.redis.xpending(stream, "group"))["pending"] == 0


async def test_entry_claimed_away_is_left_out_of_a_batch_and_of_the_numbering(
    server: servers.RedisServer, stream: str
) -> None:
    async with bus.context(server.url) as context:
        await append(context, stream, 3)
        reader = consumer(context, stream)
        entries = await bus.take(reader, 3)
        await context.redis.xack(stream, "group", entries[1].stream_id)
        # Fields of unlike number and length, with bytes that are no text.
        results = [
            (entries[0], NewEntry(id="a", type="t", key="k", ts=1, te=2, data=b"\xff\0\r\n")),
            (entries[1], NewEntry(id="b", type="t", key="k", ts=1)),
            (entries[2], NewEntry(id="c", type="t", key="k", ts=1, meta=b"m" * 100_000)),
        ]
        first, second, third = await reader.finish(f"{stream}:out", results)
        await reader.close()
        assert first is not None
        assert second is None
        assert third is not None
        assert (first.seq, third.seq) == (1, 2)
        items = await context.redis.xrange(f"{stream}:out")
        written = [decode_entry(*item) for item in items]
        assert [(one.id, one.seq, one.data, len(one.meta)) for one in written] == [
            ("a", 1, b"\xff\0\r\n", 0),
            ("c", 2, b"", 100_000),
        ]
        assert [one.stream_id for one in written] == [first.stream_id, third.stream_id]


async def test_finishing_an_entry_of_which_many_come_is_one_step_done_once(
    server: servers.RedisServer, stream: str
) -> None:
    async with bus.context(server.url) as context:
        await append(context, stream, 3)
        reader = consumer(context, stream)
        first, second, third = await bus.take(reader, 3)
        target = f"{stream}:out"
        parts = [["n", str(number), *(["even", "yes"] * (1 - number % 2))] for number in range(500)]
        assert await reader.finish_many(target, first, parts) == 500
        assert await reader.finish_many(target, first, parts) is None
        assert await reader.finish_many(target, second, []) == 0
        assert await reader.finish_many(target, third, parts[:1]) == 1
        await reader.close()
        written = [fields for _id, fields in await context.redis.xrange(target)]
        assert [int(fields[b"seq"]) for fields in written] == list(range(1, 502))
        assert [fields[b"n"] for fields in written] == [b"%d" % n for n in (*range(500), 0)]
        assert sum(b"even" in fields for fields in written) == 251
        assert (await context.redis.xpending(stream, "group"))["pending"] == 0


async def test_unacked_entry_comes_again_after_a_restart_of_its_consumer(
    server: servers.RedisServer, stream: str
) -> None:
    async with bus.context(server.url) as context:
        await append(context, stream, 4)
        first = consumer(context, stream)
        entries = await bus.take(first, 4)
        await first.ack(entries[:2])
        await first.close()
    async with bus.context(server.url) as context:
        second = consumer(context, stream)
        again = await bus.take(second, 2)
        await second.close()
    assert [entry.id for entry in again] == ["id-2", "id-3"]
    assert {entry.attempts for entry in again} == {2}


async def test_idle_entries_of_a_dead_consumer_are_reclaimed_and_its_own_are_not(
    server: servers.RedisServer, stream: str
) -> None:
    async with (
        bus.context(server.url, "dies") as dying,
        bus.context(server.url, "lives") as living,
    ):
        await append(dying, stream, 2)
        dead = consumer(dying, stream)
        assert len(await bus.take(dead, 2)) == 2
        await dead.close()
        heir = consumer(living, stream)
        batches = heir.batches(count=2, block_ms=50)
        async with asyncio.timeout(8):
            inherited = await anext(batches)
        assert [entry.id for entry in inherited] == ["id-0", "id-1"]
        # They are in work now: however long that takes, they do not come a second time.
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await anext(batches)
        await heir.close()


async def test_entry_delivered_too_often_becomes_a_dead_letter(
    server: servers.RedisServer, stream: str
) -> None:
    for _crash in range(3):
        async with bus.context(server.url, max_attempts=3) as context:
            if _crash == 0:
                await append(context, stream, 1)
            reader = consumer(context, stream)
            assert len(await bus.take(reader, 1)) == 1
            await reader.close()
    async with bus.context(server.url, max_attempts=3) as context:
        reader = consumer(context, stream)
        with pytest.raises(TimeoutError):
            await bus.take(reader, 1, deadline_s=0.7)
        await reader.close()
        letters = await context.redis.xrange(f"{stream}:dead")
        assert len(letters) == 1
        letter = letters[0][1]
        assert letter[b"reason"] == b"attempts"
        assert letter[b"id"] == b"id-0"
        assert letter[b"data"] == b"0"
        assert (await context.redis.xpending(stream, "group"))["pending"] == 0


async def test_lost_stream_gets_its_group_back(server: servers.RedisServer, stream: str) -> None:
    async with bus.context(server.url) as context:
        await append(context, stream, 1)
        reader = consumer(context, stream)
        batches = reader.batches(count=1, block_ms=50)
        await reader.ack(await anext(batches))
        following = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0)
        await context.redis.delete(stream, topics.sequence(stream))
        while not await context.redis.exists(stream):  # the group's new creation brings it back
            await asyncio.sleep(0.02)
        await append(context, stream, 1)
        async with asyncio.timeout(5):
            assert [entry.id for entry in await following] == ["id-0"]
        await batches.aclose()
        await reader.close()


async def test_trim_stops_at_what_a_critical_group_has_not_finished(
    server: servers.RedisServer, stream: str
) -> None:
    async with bus.context(server.url) as context:
        await append(context, stream, 10)
        reader = consumer(context, stream)
        entries = await bus.take(reader, 6)
        assert await trim(context.redis, stream, 0) == Trimmed(0, "group", entries[0].stream_id)
        await reader.ack(entries[:4])
        assert await trim(context.redis, stream, 0) == Trimmed(4, "group", entries[4].stream_id)
        await reader.ack(entries[4:])
        rest = await bus.take(reader, 4)
        await reader.ack(rest)
        await trim(context.redis, stream, 60_000)
        assert await context.redis.xlen(stream) == 6  # finished, but still within the kept time
        await trim(context.redis, stream, -1_000)
        assert await context.redis.xlen(stream) == 0
        await reader.close()


async def test_best_effort_group_does_not_hold_the_trim_back(
    server: servers.RedisServer, stream: str
) -> None:
    async with bus.context(server.url) as context:
        await append(context, stream, 3)
        reader = Consumer(context, stream, "group", dead_stream="stream:d", critical=False)
        assert len(await bus.take(reader, 1)) == 1
        assert await trim(context.redis, stream, -1_000) == Trimmed(3, "", "")
        await reader.close()


async def test_consumer_outlives_a_restart_of_the_server(
    tmp_path_factory: pytest.TempPathFactory, stream: str
) -> None:
    directory = tmp_path_factory.mktemp("restart")
    with servers.running(servers.valkey_binary(), directory) as server:
        async with bus.context(server.url) as context:
            await append(context, stream, 1)
            reader = consumer(context, stream)
            batches = reader.batches(count=1, block_ms=50)
            await reader.ack(await anext(batches))
            following = asyncio.ensure_future(anext(batches))
            await asyncio.to_thread(server.stop)
            while context.telemetry.state != "degraded":
                await asyncio.sleep(0.01)
            await asyncio.to_thread(server.start)
            await append(context, stream, 1)
            async with asyncio.timeout(8):
                assert [entry.seq for entry in await following] == [2]
            assert context.telemetry.state == "ready"
            await batches.aclose()
            await reader.close()
