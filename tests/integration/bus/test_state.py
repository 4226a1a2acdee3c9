"""What is told of streams and groups, also where the server's own figures are wrong."""

import msgspec
import pytest

from pipeline import topics
from pipeline.runtime import Redis
from pipeline.streams.groups import Card
from pipeline.streams.state import GroupState, read_memory, read_state
from tests.support import bus
from tests.support.conformance import Target


async def plain_read(redis: Redis, stream: str, group: str, count: int) -> list[bytes]:
    """As somebody reads who has nothing but redis-py; gives the stream ids."""
    answer = await redis.xreadgroup(group, "me", {stream: ">"}, count=count)
    return [stream_id for _stream, entries in answer for stream_id, _fields in entries]


async def only_group(redis: Redis, stream: str) -> GroupState:
    (group,) = (await read_state(redis, stream)).groups
    return group


async def test_a_group_lags_by_what_was_not_delivered_to_it(server: Target, stream: str) -> None:
    async with bus.context(server.url) as context:
        await bus.append_numbered(context, stream, 10)
        await context.redis.xgroup_create(stream, "plain", "0")
        assert (await only_group(context.redis, stream)).lag == 10
        taken = await plain_read(context.redis, stream, "plain", 4)
        await context.redis.xack(stream, "plain", *taken[1:])
        group = await only_group(context.redis, stream)
        assert (group.lag, group.lag_is_exact, group.delivered_seq) == (6, True, 4)
        assert (group.pending, group.oldest_pending) == (1, taken[0].decode())
        assert (group.missed, group.consumers, group.owner) == (0, 1, "")
        assert 0 <= group.oldest_pending_age_s < 30
        assert group.card == Card()  # nothing said of itself: critical
        await plain_read(context.redis, stream, "plain", 99)
        assert (await only_group(context.redis, stream)).lag == 0


async def test_lag_is_right_where_a_trim_went_past_a_group(server: Target, stream: str) -> None:
    async with bus.context(server.url) as context:
        await bus.append_numbered(context, stream, 100)
        await context.redis.xgroup_create(stream, "plain", "0")
        await plain_read(context.redis, stream, "plain", 10)
        await context.redis.xtrim(stream, maxlen=50, approximate=False)
        group = await only_group(context.redis, stream)
        assert group.lag == 50
        assert group.missed == 40 + 10  # never delivered, and delivered but unfinished
        await plain_read(context.redis, stream, "plain", 1)
        assert (await only_group(context.redis, stream)).lag == 49  # a server says 89
        await context.redis.xtrim(stream, maxlen=0, approximate=False)
        state = await read_state(context.redis, stream)
        assert (state.length, state.head_seq, state.oldest) == (0, 100, "")
        assert state.groups[0].lag == 0


async def test_stream_tells_its_numbering_its_size_and_its_age(server: Target, stream: str) -> None:
    async with bus.context(server.url) as context:
        assert not (await read_state(context.redis, stream)).is_there
        await bus.append_numbered(context, stream, 3)
        state = await read_state(context.redis, stream)
        entries = await context.redis.xrange(stream)
        epoch = await context.redis.hget(topics.sequence(stream), "epoch")
        assert (state.epoch, state.head_seq, state.length) == (epoch.decode(), 3, 3)
        assert (state.oldest, state.newest) == (entries[0][0].decode(), entries[-1][0].decode())
        assert state.bytes > 100
        assert 0 <= state.oldest_age_s < 30
        memory = await read_memory(context.redis)
        assert memory.used > state.bytes
        assert (memory.headroom is None) == (memory.limit == 0)


async def test_group_that_was_lost_is_told_of_with_what_it_will_come_back_to(
    server: Target, stream: str
) -> None:
    async with bus.context(server.url) as context:
        await bus.append_numbered(context, stream, 6)
        reader = bus.consumer(context, stream)
        await reader.ack(await bus.take(reader, 4))
        await reader.close()
        await context.redis.xgroup_destroy(stream, "group")
        group = await only_group(context.redis, stream)
        assert (group.is_there, group.lag, group.cursor_seq, group.missed) == (False, 2, 4, 0)


async def test_owner_of_a_lease_is_told_while_it_holds(server: Target, stream: str) -> None:
    async with bus.context(server.url) as context:
        await bus.append_numbered(context, stream, 2)
        reader = bus.consumer(context, stream)
        await bus.take(reader, 1)
        group = await only_group(context.redis, stream)
        await reader.close()
        assert group.owner
        assert 0 < group.owner_for_s <= 3.0
        assert (await only_group(context.redis, stream)).owner == ""


@pytest.mark.parametrize("text", ["", "{}", "no JSON"], ids=["none", "empty", "broken"])
async def test_card_that_says_nothing_counts_as_critical(
    server: Target, stream: str, text: str
) -> None:
    async with bus.context(server.url) as context:
        await context.redis.hset(topics.group_cards(stream), "group", text)
        assert (await only_group(context.redis, stream)).card.is_critical


async def test_card_and_bookmark_are_told(server: Target, stream: str) -> None:
    async with bus.context(server.url) as context:
        card = {"class": "best_effort", "promise_s": 60}
        mark = {"id": "1-0", "seq": 7, "at_ms": 5, "reason": "bytes", "skipped": 3}
        await context.redis.hset(topics.group_cards(stream), "g", msgspec.json.encode(card))
        await context.redis.hset(topics.bookmarks(stream), "g", msgspec.json.encode(mark))
        group = await only_group(context.redis, stream)
        assert group.card == Card(kind="best_effort", promise_s=60)
        assert group.bookmark is not None
        assert (group.bookmark.skipped, group.bookmark.reason) == (3, "bytes")


async def test_entries_of_strangers_have_the_servers_own_lag(server: Target, stream: str) -> None:
    async with bus.context(server.url) as context:
        await context.redis.xgroup_create(stream, "plain", "0", mkstream=True)
        for number in range(5):
            await context.redis.xadd(stream, {"n": number})
        await plain_read(context.redis, stream, "plain", 2)
        group = await only_group(context.redis, stream)
        assert (group.lag, group.lag_is_exact) == (3, False)
