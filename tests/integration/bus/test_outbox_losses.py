"""Durable producing: what was put once is in its stream once, whatever is lost on the way."""

import asyncio
import random
import shutil
from pathlib import Path
from urllib.parse import quote

import pytest

from pipeline import topics
from pipeline.config import Settings
from pipeline.streams import lane
from pipeline.streams.spool import Spool
from tests.support import bus, outboxes, servers
from tests.support.conformance import Target


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    outboxes.hurry(monkeypatch)


@pytest.mark.parametrize("pause_s", [0, 0.1], ids=["unnoticed", "noticed"])
async def test_what_a_crash_of_the_server_takes_is_appended_again_in_order(
    own_server: servers.RedisServer,
    stream: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pause_s: float,
) -> None:
    monkeypatch.setattr(lane, "LOOK_S", outboxes.FOREVER_S)  # nothing is confirmed before the crash
    async with outboxes.opened(own_server.url, tmp_path / "spool") as (outbox, context):
        await outboxes.put(outbox, stream, *range(5))
        with outboxes.forgetting(own_server):
            await outboxes.put(outbox, stream, *range(5, 9))
        await asyncio.sleep(pause_s)  # whether the end of the connection is known before the next
        fates = await outboxes.put(outbox, stream, 9)
        await bus.until(lambda: outboxes.gauge(context, "spool_entries") == 0)
        assert fates == ["spooled"]  # it came after the others
        assert await outboxes.ids(context, stream) == list(range(10))
        assert outboxes.count(context, "entries_lost_by_server") == 4
        assert outboxes.count(context, "entries_appended") == 10
        assert outboxes.count(context, "entries_restored") == 0


async def test_quiet_outbox_notices_a_crash_of_its_server(
    own_server: servers.RedisServer, stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "LOOK_S", 0.7)
    async with outboxes.opened(own_server.url, tmp_path / "spool") as (outbox, context):
        await outboxes.put(outbox, stream, 0)
        with outboxes.forgetting(own_server):
            await outboxes.put(outbox, stream, 1, 2, 3)
        await bus.until(lambda: outboxes.count(context, "entries_lost_by_server") == 3)
        assert await outboxes.ids(context, stream) == [0, 1, 2, 3]


async def test_server_put_back_to_before_what_it_confirmed_gets_it_again(
    own_server: servers.RedisServer, stream: str, tmp_path: Path
) -> None:
    async with outboxes.opened(own_server.url, tmp_path / "spool") as (outbox, context):
        await outboxes.register(context, stream)
        await outboxes.put(outbox, stream, 0, 1, 2)
        with outboxes.forgetting(own_server):
            await outboxes.put(outbox, stream, 3, 4, 5)
            await bus.until(lambda: outboxes.gauge(context, "unconfirmed") == 0)
        await outboxes.put(outbox, stream, 6)
        await bus.until(lambda: outboxes.count(context, "entries_lost_by_server") == 3)
        await bus.until(lambda: outboxes.gauge(context, "spool_entries") == 0)
        assert await outboxes.ids(context, stream) == list(range(7))


async def test_lost_stream_gets_back_what_no_critical_group_has_finished(
    server: Target, stream: str, tmp_path: Path
) -> None:
    async with outboxes.opened(server.url, tmp_path) as (outbox, context):
        reader = bus.consumer(context, stream)
        taking = asyncio.create_task(bus.take(reader, 6))
        while not await context.redis.exists(topics.cursors(stream)):
            await asyncio.sleep(0.01)
        await outboxes.put(outbox, stream, *range(10))
        entries = await taking
        await reader.ack(entries[:4])
        await reader.close()
        await bus.until(lambda: outboxes.gauge(context, "unconfirmed") == 0)
        await context.redis.delete(stream)
        await bus.until(lambda: outboxes.count(context, "entries_restored") == 6)
        assert await outboxes.put(outbox, stream, 10) == ["appended"]
        assert await outboxes.ids(context, stream) == list(range(4, 11))
        assert outboxes.count(context, "entries_lost_by_server") == 0


@pytest.mark.parametrize("noticed_by", ["group", "outbox"])
async def test_lost_stream_does_not_get_back_what_was_finished_a_moment_before(
    server: Target,
    stream: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    noticed_by: str,
) -> None:
    monkeypatch.setattr(
        lane, "LOOK_S", outboxes.FOREVER_S
    )  # the outbox has not seen that it is finished
    async with outboxes.opened(server.url, tmp_path) as (outbox, context):
        reader = bus.consumer(context, stream)
        batches = reader.batches(count=6, block_ms=50)
        taking = asyncio.ensure_future(anext(batches))
        while not await context.redis.exists(topics.cursors(stream)):
            await asyncio.sleep(0.01)
        await outboxes.put(outbox, stream, *range(6))
        entries = await taking
        while len(entries) < 6:
            entries += await anext(batches)
        await reader.ack(entries[:4])
        await context.redis.delete(stream)
        if noticed_by == "outbox":
            await outboxes.put(outbox, stream, 6)
        following = asyncio.ensure_future(anext(batches))
        while noticed_by == "group" and not await context.redis.exists(stream):
            await asyncio.sleep(0.01)  # it is made again, in a new epoch
        if noticed_by == "group":
            await outboxes.put(outbox, stream, 6)
        await bus.until(lambda: outboxes.gauge(context, "spool_entries") == 0)
        assert await outboxes.ids(context, stream) == [4, 5, 6]
        assert (await following)[0].id == "id-4"
        await batches.aclose()
        await reader.close()


async def test_loss_of_the_stream_is_made_good_before_anything_new(
    server: Target, stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "LOOK_S", outboxes.FOREVER_S)  # the next append is what notices it
    async with outboxes.opened(server.url, tmp_path) as (outbox, context):
        await outboxes.put(outbox, stream, *range(6))
        await context.redis.delete(stream)
        await outboxes.put(outbox, stream, 6)
        await bus.until(lambda: outboxes.gauge(context, "spool_entries") == 0)
        assert await outboxes.ids(context, stream) == list(range(7))
        assert outboxes.count(context, "entries_restored") == 6
        items = await context.redis.xrange(stream)
    spool = Spool(tmp_path / quote(stream, safe=""))
    noted = [stands.stream_id for _place, stands in spool.acknowledged(spool.head, 7) if stands]
    spool.close()
    assert noted == [item.decode() for item, _fields in items]


async def test_process_killed_at_any_step_appends_nothing_twice_and_loses_nothing(
    server: Target, stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "LOOK_S", outboxes.FOREVER_S)
    async with outboxes.opened(server.url, tmp_path / "spool") as (outbox, context):
        for number in range(5):
            await outboxes.put(outbox, stream, number)
            shutil.copytree(tmp_path / "spool", tmp_path / f"after-{number}")
    for number in range(5):
        forgetful = tmp_path / f"unanswered-{number}"  # killed before the answer was noted
        shutil.copytree(tmp_path / f"after-{number}", forgetful)
        outboxes.forget_acknowledgements(forgetful)
        for directory in (tmp_path / f"after-{number}", forgetful):
            async with outboxes.opened(server.url, directory) as (outbox, context):
                await bus.until(lambda: outboxes.gauge(context, "spool_entries") == 0)
                assert await outboxes.ids(context, stream) == list(range(5))
                assert outboxes.count(context, "entries_lost_by_server") == 0


async def test_finished_and_trimmed_entries_are_not_appended_by_the_next_process(
    server: Target, stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "LOOK_S", outboxes.FOREVER_S)
    async with outboxes.opened(server.url, tmp_path) as (outbox, context):
        reader = bus.consumer(context, stream)
        await outboxes.put(outbox, stream, *range(6))
        await reader.ack(await bus.take(reader, 4))
        await context.redis.xtrim(stream, maxlen=2, approximate=False)
        await reader.close()
    async with outboxes.opened(server.url, tmp_path) as (outbox, context):
        await bus.until(lambda: outboxes.gauge(context, "spool_entries") == 0)
        assert await outboxes.ids(context, stream) == [4, 5]
        assert outboxes.count(context, "entries_lost_by_server") == 0


async def test_no_put_that_returned_is_lost_by_kills_at_random(valkey: str, tmp_path: Path) -> None:
    settings = Settings(redis_url=valkey, state_dir=str(tmp_path), metrics_port=0)
    chance = random.Random(4)
    promised: set[int] = set()
    for run in range(5):
        promised |= await asyncio.to_thread(
            outboxes.killed_while_putting, settings, run, chance.random()
        )
    async with outboxes.opened(valkey, tmp_path / "spool" / "putting") as (_outbox, context):
        await bus.until(lambda: outboxes.gauge(context, "spool_entries") == 0)
        found = await outboxes.ids(context, "stream:killed")
    assert len(promised) > 20
    assert promised <= set(found)
    assert found == sorted(set(found))
