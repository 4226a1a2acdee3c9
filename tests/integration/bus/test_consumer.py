"""What a consumer gets: its entries in order, once more after a crash, and those of the dead."""

import asyncio

import pytest

from tests.support import bus
from tests.support.conformance import Target


async def test_entries_arrive_in_order_with_sequence_and_epoch(server: Target, stream: str) -> None:
    async with bus.context(server.url) as context:
        await bus.append_numbered(context, stream, 5)
        reader = bus.consumer(context, stream)
        entries = await bus.take(reader, 5)
        await reader.close()
    assert [entry.id for entry in entries] == [f"id-{n}" for n in range(5)]
    assert [entry.seq for entry in entries] == [1, 2, 3, 4, 5]
    assert len({entry.epoch for entry in entries}) == 1
    assert {entry.attempts for entry in entries} == {1}


async def test_unacked_entry_comes_again_after_a_restart_of_its_consumer(
    server: Target, stream: str
) -> None:
    async with bus.context(server.url) as context:
        await bus.append_numbered(context, stream, 4)
        first = bus.consumer(context, stream)
        entries = await bus.take(first, 4)
        await first.ack(entries[:2])
        await first.close()
    async with bus.context(server.url) as context:
        second = bus.consumer(context, stream)
        again = await bus.take(second, 2)
        await second.close()
    assert [entry.id for entry in again] == ["id-2", "id-3"]
    assert {entry.attempts for entry in again} == {2}


async def test_idle_entries_of_a_dead_consumer_are_reclaimed_and_its_own_are_not(
    server: Target, stream: str
) -> None:
    async with (
        bus.context(server.url, "dies") as dying,
        bus.context(server.url, "lives") as living,
    ):
        await bus.append_numbered(dying, stream, 2)
        dead = bus.consumer(dying, stream)
        assert len(await bus.take(dead, 2)) == 2
        await dead.close()
        heir = bus.consumer(living, stream)
        batches = heir.batches(count=2, block_ms=50)
        async with asyncio.timeout(8):
            inherited = await anext(batches)
        assert [entry.id for entry in inherited] == ["id-0", "id-1"]
        # They are in work now: however long that takes, they do not come a second time.
        await bus.nothing(batches, 1.0)
        await heir.close()


async def test_entry_delivered_too_often_becomes_a_dead_letter(server: Target, stream: str) -> None:
    for _crash in range(3):
        async with bus.context(server.url, max_attempts=3) as context:
            if _crash == 0:
                await bus.append_numbered(context, stream, 1)
            reader = bus.consumer(context, stream)
            assert len(await bus.take(reader, 1)) == 1
            await reader.close()
    async with bus.context(server.url, max_attempts=3) as context:
        reader = bus.consumer(context, stream)
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
