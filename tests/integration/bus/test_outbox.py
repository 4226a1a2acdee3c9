"""Durable producing: entries in order, on disk first, whatever server and spool do not take."""

import asyncio
import os
import signal
import threading
import tracemalloc
from collections.abc import Iterable
from pathlib import Path

import pytest
import redis

from pipeline import topics
from pipeline.entries import NewEntry
from pipeline.errors import ConfigError
from pipeline.streams import lane, offers
from pipeline.streams.spool import sync
from tests.support import bus, outboxes, servers
from tests.support.conformance import Target


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    outboxes.hurry(monkeypatch)


async def test_entries_put_at_once_keep_the_order_of_their_calls(
    server: Target, stream: str, tmp_path: Path
) -> None:
    async with outboxes.opened(server.url, tmp_path) as (outbox, context):
        fates = await asyncio.gather(*(outbox.put(stream, bus.entry(n)) for n in range(300)))
        assert set(fates) == {"appended"}
        assert await outboxes.ids(context, stream) == list(range(300))
        await bus.until(lambda: outboxes.gauge(context, "unconfirmed") == 0)
        assert outboxes.count(context, "entries_appended") == 300


async def test_put_waits_for_the_disk_and_the_append_does_not(
    server: Target, stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()

    def slow(files: Iterable[int]) -> None:
        gate.wait(10)
        sync(files)

    monkeypatch.setattr(offers, "sync", slow)
    async with outboxes.opened(server.url, tmp_path) as (outbox, context):
        putting = asyncio.create_task(outbox.put(stream, bus.entry(1)))
        await bus.until(lambda: outboxes.count(context, "entries_appended") == 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(putting), 0.1)
        gate.set()
        assert await putting == "appended"


async def test_entry_is_confirmed_by_the_server_or_after_a_hold(
    own_server: servers.RedisServer, stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redis.Redis.from_url(own_server.url) as client:
        can_tell = "waitaof" in client.command()
        client.config_set("appendfsync", "no")
    monkeypatch.setattr(lane, "HOLD_S", outboxes.FOREVER_S)
    async with outboxes.opened(own_server.url, tmp_path) as (outbox, context):
        await outboxes.put(outbox, stream, 1, 2, 3)
        with pytest.raises(TimeoutError):
            await bus.until(lambda: outboxes.gauge(context, "unconfirmed") < 3, deadline_s=0.5)
        if can_tell:
            await context.redis.config_set("appendfsync", "everysec")
        else:
            monkeypatch.setattr(lane, "HOLD_S", 0.3)
        await bus.until(lambda: outboxes.gauge(context, "unconfirmed") == 0)


async def test_entries_wait_on_disk_while_the_server_is_away_and_follow_in_order(
    own_server: servers.RedisServer, stream: str, tmp_path: Path
) -> None:
    async with outboxes.opened(own_server.url, tmp_path) as (outbox, context):
        await outboxes.put(outbox, stream, 0, 1)
        await asyncio.to_thread(own_server.stop)
        assert set(await outboxes.put(outbox, stream, 2, 3, 4)) == {"spooled"}
        assert outboxes.gauge(context, "spool_entries") == 3
        assert context.telemetry.state == "degraded"
        assert "spooling to disk" in context.telemetry.reason
    async with outboxes.opened(own_server.url, tmp_path) as (outbox, context):
        assert await outboxes.put(outbox, stream, 5) == [
            "spooled"
        ]  # by another process, server still away
        await asyncio.to_thread(own_server.start)
        await bus.until(lambda: outboxes.gauge(context, "spool_entries") == 0)
        assert await outboxes.put(outbox, stream, 6) == ["appended"]
        assert await outboxes.ids(context, stream) == list(range(7))
        assert context.telemetry.state == "ready"


async def test_append_to_a_stalled_server_is_in_the_stream_once(
    own_server: servers.RedisServer, stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.runtime.SOCKET_TIMEOUT_S", 0.3)
    async with outboxes.opened(own_server.url, tmp_path) as (outbox, context):
        await outboxes.put(outbox, stream, 0)
        assert own_server.process is not None
        os.kill(own_server.process.pid, signal.SIGSTOP)
        try:
            assert await outboxes.put(outbox, stream, 1, 2) == ["spooled", "spooled"]
        finally:
            os.kill(own_server.process.pid, signal.SIGCONT)
        await bus.until(lambda: outboxes.gauge(context, "spool_entries") == 0)
        await outboxes.put(outbox, stream, 3)
        assert await outboxes.ids(context, stream) == [0, 1, 2, 3]
        assert outboxes.count(context, "entries_lost_by_server") == 0


async def test_full_memory_holds_entries_back_and_loses_none(
    own_server: servers.RedisServer, stream: str, tmp_path: Path
) -> None:
    async with outboxes.opened(own_server.url, tmp_path) as (outbox, context):
        await outboxes.put(outbox, stream, 0)
        await context.redis.config_set("maxmemory", "1mb")
        assert await outboxes.put(outbox, stream, 1, 2) == ["spooled", "spooled"]
        assert context.telemetry.state == "degraded"
        assert "maxmemory" in context.telemetry.reason
        await context.redis.config_set("maxmemory", "0")
        await bus.until(lambda: outboxes.gauge(context, "spool_entries") == 0)
        assert context.telemetry.state == "ready"
        assert await outboxes.ids(context, stream) == [0, 1, 2]


async def test_full_spool_drops_the_new_entry_and_says_how_many(
    own_server: servers.RedisServer,
    stream: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with outboxes.opened(own_server.url, tmp_path, limit_bytes=2_000) as (outbox, context):
        await outboxes.put(outbox, stream, 0)
        await asyncio.to_thread(own_server.stop)
        fates = await outboxes.put(outbox, stream, *range(1, 40))
        kept = fates.count("spooled")
        assert fates == ["spooled"] * kept + ["dropped"] * (39 - kept)
        assert kept > 5
        assert outboxes.count(context, "entries_dropped") == 39 - kept
        assert outboxes.gauge(context, "spool_bytes") <= 2_000
        assert '"event":"spool_full"' in capsys.readouterr().out
        await asyncio.to_thread(own_server.start)
        await bus.until(lambda: outboxes.gauge(context, "spool_entries") == 0)
        assert await outboxes.put(outbox, stream, 40) == ["appended"]
        assert await outboxes.ids(context, stream) == [*range(kept + 1), 40]


async def test_spool_without_room_lets_confirmed_entries_go_and_drops_none(
    server: Target, stream: str, tmp_path: Path
) -> None:
    async with outboxes.opened(server.url, tmp_path, limit_bytes=8_000) as (outbox, context):
        await outboxes.register(context, stream)
        for number in range(90):
            assert await outboxes.put(outbox, stream, number) == ["appended"]
            if number in (40, 80):
                await bus.until(lambda: outboxes.gauge(context, "unconfirmed") == 0)
        assert outboxes.gauge(context, "spool_bytes") <= 8_000
        assert outboxes.count(context, "entries_let_go") > 20
        assert outboxes.count(context, "entries_dropped") == 0
        assert await outboxes.ids(context, stream) == list(range(90))


async def test_spool_full_of_unconfirmed_entries_still_appends_new_ones(
    server: Target, stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "LOOK_S", outboxes.FOREVER_S)
    async with outboxes.opened(server.url, tmp_path, limit_bytes=1_000) as (outbox, context):
        assert set(await outboxes.put(outbox, stream, *range(30))) == {"appended"}
        assert outboxes.gauge(context, "spool_bytes") <= 1_000
        assert await outboxes.ids(context, stream) == list(range(30))
        assert outboxes.count(context, "entries_dropped") == 0


async def test_entry_without_room_that_a_stalled_server_does_not_take_is_dropped_and_counted(
    own_server: servers.RedisServer, stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "LOOK_S", outboxes.FOREVER_S)
    monkeypatch.setattr("pipeline.runtime.SOCKET_TIMEOUT_S", 0.3)
    async with outboxes.opened(own_server.url, tmp_path, limit_bytes=1_000) as (outbox, context):
        await outboxes.put(outbox, stream, *range(12))
        assert own_server.process is not None
        os.kill(own_server.process.pid, signal.SIGSTOP)
        try:
            assert await outboxes.put(outbox, stream, 12) == ["dropped"]
        finally:
            os.kill(own_server.process.pid, signal.SIGCONT)
        assert outboxes.count(context, "entries_dropped") == 1


async def test_stream_that_takes_nothing_does_not_hold_back_another(
    server: Target, stream: str, tmp_path: Path
) -> None:
    async with outboxes.opened(server.url, tmp_path) as (outbox, context):
        await context.redis.set(f"{stream}:bad", "no stream")
        assert await outboxes.put(outbox, f"{stream}:bad", 0, 1) == ["spooled", "spooled"]
        assert await outboxes.put(outbox, stream, 0, 1) == ["appended", "appended"]
        assert "WRONGTYPE" in outbox.trouble
        await context.redis.delete(f"{stream}:bad")
        await bus.until(lambda: outboxes.gauge(context, "spool_entries") == 0)
        assert outbox.trouble == ""
        assert await outboxes.ids(context, f"{stream}:bad") == [0, 1]


async def test_what_a_retired_stream_lacks_goes_to_the_one_in_its_place(
    server: Target, stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "LOOK_S", outboxes.FOREVER_S)
    async with outboxes.opened(server.url, tmp_path) as (outbox, context):
        await outboxes.put(outbox, stream, 0, 1, 2)
        await context.redis.hset(topics.sequence(stream), "retired", "1")
        assert await outboxes.put(outbox, stream, 3, 4) == ["spooled", "spooled"]
        await bus.until(lambda: "is retired" in outbox.trouble)
    renamed = {stream: f"{stream}:new"}
    async with outboxes.opened(server.url, tmp_path, route=lambda old, _key: renamed[old]) as (
        outbox,
        context,
    ):
        await bus.until(lambda: outboxes.gauge(context, "spool_entries") == 0)
        assert await outboxes.put(outbox, f"{stream}:new", 5) == ["appended"]
        assert await outboxes.ids(context, stream) == [0, 1, 2]
        assert await outboxes.ids(context, f"{stream}:new") == [3, 4, 5]
        assert outbox.trouble == ""


async def test_directory_of_a_living_outbox_is_refused(server: Target, tmp_path: Path) -> None:
    async with outboxes.opened(server.url, tmp_path):
        with pytest.raises(ConfigError, match="in use by another process"):
            async with outboxes.opened(server.url, tmp_path):
                pass


async def test_long_backlog_is_not_held_in_memory(valkey: str, tmp_path: Path) -> None:
    body = os.urandom(20_000)
    async with outboxes.opened("redis://127.0.0.1:1/0", tmp_path) as (outbox, context):
        for number in range(1_500):
            entry = NewEntry(id=f"{number}", type="t", key="k", ts=number, data=body)
            assert await outbox.put("stream:long", entry) == "spooled"
    tracemalloc.start()
    try:
        async with outboxes.opened(valkey, tmp_path) as (outbox, context):
            await bus.until(lambda: outboxes.gauge(context, "spool_entries") == 0)
            _now, peak = tracemalloc.get_traced_memory()
            assert await context.redis.xlen("stream:long") == 1_500
    finally:
        tracemalloc.stop()
    assert peak < 8 * 1024 * 1024  # of thirty
