"""A stretch of a stream is found by its number, at the server, wherever it begins."""

import pytest

from pipeline.entries import Entry, NewEntry
from pipeline.runtime import Redis
from pipeline.streams.stretch import PAGE, stretch
from tests.support import bus
from tests.support.conformance import Target

COUNT = 3 * PAGE + 7


def numbered(number: int) -> NewEntry:
    """Of two keys in turn."""
    key = f"NIFTY-2026012{number % 2}"
    return NewEntry(id=f"id-{number}", type="t.v1", key=key, ts=number, data=b"%d" % number)


async def found(redis: Redis, stream: str, epoch: str, seq: int, key: str) -> list[Entry]:
    parts = stretch(redis, stream, epoch=epoch, seq=seq, key=key)
    return [entry async for part in parts for entry in part.entries]


async def test_stretch_begins_at_its_number_and_keeps_to_its_key(
    server: Target, stream: str
) -> None:
    async with bus.context(server.url) as context:
        await bus.append(context, stream, *map(numbered, range(COUNT)))
        ((_id, fields),) = await context.redis.xrevrange(stream, count=1)
        epoch = fields[b"epoch"].decode()
        for first in (1, 2, PAGE, PAGE + 1, COUNT - 1, COUNT):
            entries = await found(context.redis, stream, epoch, first, "NIFTY-")
            assert [entry.seq for entry in entries] == list(range(first, COUNT + 1))
        own = await found(context.redis, stream, epoch, 2, "NIFTY-20260121")
        assert [entry.seq for entry in own] == list(range(2, COUNT + 1, 2))
        assert [int(entry.data) for entry in own] == [entry.seq - 1 for entry in own]


@pytest.mark.parametrize("epoch", ["", "1"], ids=["no epoch", "another epoch"])
async def test_number_that_is_not_there_gives_nothing(
    server: Target, stream: str, epoch: str
) -> None:
    async with bus.context(server.url) as context:
        assert await found(context.redis, stream, "1", 1, "") == []
        await bus.append(context, stream, *map(numbered, range(10)))
        ((_id, fields),) = await context.redis.xrevrange(stream, count=1)
        right = fields[b"epoch"].decode()
        assert await found(context.redis, stream, epoch, 5, "") == []
        await context.redis.xtrim(stream, maxlen=4, approximate=False)
        for seq in (0, 6, 11):
            assert await found(context.redis, stream, right, seq, "") == []
        assert len(await found(context.redis, stream, right, 7, "")) == 4
