"""Durable producing: what was put once is in its stream once, whatever is lost on the way."""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import redis

from pipeline import config, topics
from pipeline.config import Settings
from pipeline.entries import NewEntry, decode_entry
from pipeline.errors import ConfigError
from pipeline.runtime import Context
from pipeline.streams import Outbox, Producer, lane
from pipeline.streams.offers import Fate
from pipeline.streams.segments import EMPTY_SLOT, SLOT_BYTES, Place, Segment
from tests.support import bus, servers
from tests.support.conformance import Target

ROOM = 64 * 1024 * 1024
FOREVER_S = 3_600.0


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.runtime.SOCKET_TIMEOUT_S", 1.0)
    monkeypatch.setattr(lane, "LOOK_S", 0.05)
    monkeypatch.setattr(lane, "HOLD_S", 0.3)
    monkeypatch.setattr(lane, "LONGEST_PAUSE_S", 0.2)


@contextlib.asynccontextmanager
async def opened(
    url: str,
    directory: Path,
    limit_bytes: int = ROOM,
    route: Callable[[str, str], str] | None = None,
) -> AsyncIterator[tuple[Outbox, Context]]:
    async with (
        bus.context(url) as context,
        Outbox(
            Producer(context.settings, "outbox"), directory, limit_bytes, context.telemetry, route
        ) as outbox,
    ):
        yield outbox, context


async def put(outbox: Outbox, stream: str, *numbers: int) -> list[Fate]:
    return [await outbox.put(stream, bus.entry(number)) for number in numbers]


async def ids(context: Context, stream: str) -> list[int]:
    """The numbers of the entries in a stream, whose own numbering has no gap and no double."""
    entries = [decode_entry(*item) for item in await context.redis.xrange(stream)]
    first = entries[0].seq if entries else 0
    assert [entry.seq for entry in entries] == list(range(first, first + len(entries)))
    return [entry.ts for entry in entries]


def count(context: Context, name: str) -> int:
    return int(context.telemetry.report()["counters"][name])


def gauge(context: Context, name: str) -> float:
    return float(context.telemetry.report()["gauges"][name])


async def register(context: Context, stream: str) -> None:
    """A critical group that has finished nothing."""
    await context.redis.hset(topics.group_cards(stream), "slow", '{"class":"critical"}')


async def test_entries_put_at_once_keep_the_order_of_their_calls(
    server: Target, stream: str, tmp_path: Path
) -> None:
    async with opened(server.url, tmp_path) as (outbox, context):
        fates = await asyncio.gather(*(outbox.put(stream, bus.entry(n)) for n in range(300)))
        assert set(fates) == {"appended"}
        assert await ids(context, stream) == list(range(300))
        await bus.until(lambda: gauge(context, "unconfirmed") == 0)
        assert count(context, "entries_appended") == 300


async def test_entry_is_confirmed_by_the_server_or_after_a_hold(
    own_server: servers.RedisServer, stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with redis.Redis.from_url(own_server.url) as client:
        can_tell = "waitaof" in client.command()
    monkeypatch.setattr(lane, "HOLD_S", FOREVER_S)
    async with opened(own_server.url, tmp_path) as (outbox, context):
        await put(outbox, stream, 1, 2, 3)
        if can_tell:
            await bus.until(lambda: gauge(context, "unconfirmed") == 0)
        else:
            with pytest.raises(TimeoutError):
                await bus.until(lambda: gauge(context, "unconfirmed") < 3, deadline_s=0.5)
            monkeypatch.setattr(lane, "HOLD_S", 0.3)
            await bus.until(lambda: gauge(context, "unconfirmed") == 0)


async def test_what_a_crash_of_the_server_takes_is_appended_again_in_order(
    own_server: servers.RedisServer, stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "LOOK_S", FOREVER_S)  # nothing is confirmed before the crash
    async with opened(own_server.url, tmp_path / "spool") as (outbox, context):
        await put(outbox, stream, *range(5))
        with forgetting(own_server):
            await put(outbox, stream, *range(5, 9))
        fates = await put(outbox, stream, 9)
        await bus.until(lambda: gauge(context, "spool_entries") == 0)
        assert fates == ["spooled"]  # it came after the others
        assert await ids(context, stream) == list(range(10))
        assert count(context, "entries_lost_by_server") == 4
        assert count(context, "entries_appended") == 10
        assert count(context, "entries_restored") == 0


async def test_quiet_outbox_notices_a_crash_of_its_server(
    own_server: servers.RedisServer, stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "LOOK_S", 0.7)
    async with opened(own_server.url, tmp_path / "spool") as (outbox, context):
        await put(outbox, stream, 0)
        with forgetting(own_server):
            await put(outbox, stream, 1, 2, 3)
        await bus.until(lambda: count(context, "entries_lost_by_server") == 3)
        assert await ids(context, stream) == [0, 1, 2, 3]


async def test_server_put_back_to_before_what_it_confirmed_gets_it_again(
    own_server: servers.RedisServer, stream: str, tmp_path: Path
) -> None:
    async with opened(own_server.url, tmp_path / "spool") as (outbox, context):
        await register(context, stream)
        await put(outbox, stream, 0, 1, 2)
        with forgetting(own_server):
            await put(outbox, stream, 3, 4, 5)
            await bus.until(lambda: gauge(context, "unconfirmed") == 0)
        await put(outbox, stream, 6)
        await bus.until(lambda: count(context, "entries_lost_by_server") == 3)
        await bus.until(lambda: gauge(context, "spool_entries") == 0)
        assert await ids(context, stream) == list(range(7))


async def test_lost_stream_gets_back_what_no_critical_group_has_finished(
    server: Target, stream: str, tmp_path: Path
) -> None:
    async with opened(server.url, tmp_path) as (outbox, context):
        reader = bus.consumer(context, stream)
        taking = asyncio.create_task(bus.take(reader, 6))
        while not await context.redis.exists(topics.cursors(stream)):
            await asyncio.sleep(0.01)
        await put(outbox, stream, *range(10))
        entries = await taking
        await reader.ack(entries[:4])
        await reader.close()
        await bus.until(lambda: gauge(context, "unconfirmed") == 0)
        await context.redis.delete(stream)
        await bus.until(lambda: count(context, "entries_restored") == 6)
        assert await put(outbox, stream, 10) == ["appended"]
        assert await ids(context, stream) == list(range(4, 11))
        assert count(context, "entries_lost_by_server") == 0


@pytest.mark.parametrize("noticed_by", ["group", "outbox"])
async def test_lost_stream_does_not_get_back_what_was_finished_a_moment_before(
    server: Target,
    stream: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    noticed_by: str,
) -> None:
    monkeypatch.setattr(lane, "LOOK_S", FOREVER_S)  # the outbox has not seen that it is finished
    async with opened(server.url, tmp_path) as (outbox, context):
        reader = bus.consumer(context, stream)
        batches = reader.batches(count=6, block_ms=50)
        taking = asyncio.ensure_future(anext(batches))
        while not await context.redis.exists(topics.cursors(stream)):
            await asyncio.sleep(0.01)
        await put(outbox, stream, *range(6))
        entries = await taking
        while len(entries) < 6:
            entries += await anext(batches)
        await reader.ack(entries[:4])
        await context.redis.delete(stream)
        if noticed_by == "outbox":
            await put(outbox, stream, 6)
        following = asyncio.ensure_future(anext(batches))
        while noticed_by == "group" and not await context.redis.exists(stream):
            await asyncio.sleep(0.01)  # it is made again, in a new epoch
        if noticed_by == "group":
            await put(outbox, stream, 6)
        await bus.until(lambda: gauge(context, "spool_entries") == 0)
        assert await ids(context, stream) == [4, 5, 6]
        assert (await following)[0].id == "id-4"
        await batches.aclose()
        await reader.close()


async def test_loss_of_the_stream_is_made_good_before_anything_new(
    server: Target, stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "LOOK_S", FOREVER_S)  # the next append is what notices it
    async with opened(server.url, tmp_path) as (outbox, context):
        await put(outbox, stream, *range(6))
        await context.redis.delete(stream)
        await put(outbox, stream, 6)
        await bus.until(lambda: gauge(context, "spool_entries") == 0)
        assert await ids(context, stream) == list(range(7))
        assert count(context, "entries_restored") == 6


async def test_entries_wait_on_disk_while_the_server_is_away_and_follow_in_order(
    own_server: servers.RedisServer, stream: str, tmp_path: Path
) -> None:
    async with opened(own_server.url, tmp_path) as (outbox, context):
        await put(outbox, stream, 0, 1)
        await asyncio.to_thread(own_server.stop)
        assert set(await put(outbox, stream, 2, 3, 4)) == {"spooled"}
        assert gauge(context, "spool_entries") == 3
        assert context.telemetry.state == "degraded"
        assert "spooling to disk" in context.telemetry.reason
    async with opened(own_server.url, tmp_path) as (outbox, context):
        assert await put(outbox, stream, 5) == ["spooled"]  # by another process, server still away
        await asyncio.to_thread(own_server.start)
        await bus.until(lambda: gauge(context, "spool_entries") == 0)
        assert await put(outbox, stream, 6) == ["appended"]
        assert await ids(context, stream) == list(range(7))
        assert context.telemetry.state == "ready"


async def test_append_to_a_stalled_server_is_in_the_stream_once(
    own_server: servers.RedisServer, stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.runtime.SOCKET_TIMEOUT_S", 0.3)
    async with opened(own_server.url, tmp_path) as (outbox, context):
        await put(outbox, stream, 0)
        assert own_server.process is not None
        os.kill(own_server.process.pid, signal.SIGSTOP)
        try:
            assert await put(outbox, stream, 1, 2) == ["spooled", "spooled"]
        finally:
            os.kill(own_server.process.pid, signal.SIGCONT)
        await bus.until(lambda: gauge(context, "spool_entries") == 0)
        await put(outbox, stream, 3)
        assert await ids(context, stream) == [0, 1, 2, 3]
        assert count(context, "entries_lost_by_server") == 0


async def test_full_memory_holds_entries_back_and_loses_none(
    own_server: servers.RedisServer, stream: str, tmp_path: Path
) -> None:
    async with opened(own_server.url, tmp_path) as (outbox, context):
        await put(outbox, stream, 0)
        await context.redis.config_set("maxmemory", "1mb")
        assert await put(outbox, stream, 1, 2) == ["spooled", "spooled"]
        assert context.telemetry.state == "degraded"
        assert "maxmemory" in context.telemetry.reason
        await context.redis.config_set("maxmemory", "0")
        await bus.until(lambda: gauge(context, "spool_entries") == 0)
        assert context.telemetry.state == "ready"
        assert await ids(context, stream) == [0, 1, 2]


async def test_full_spool_drops_the_new_entry_and_says_how_many(
    own_server: servers.RedisServer,
    stream: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with opened(own_server.url, tmp_path, limit_bytes=2_000) as (outbox, context):
        await put(outbox, stream, 0)
        await asyncio.to_thread(own_server.stop)
        fates = await put(outbox, stream, *range(1, 40))
        kept = fates.count("spooled")
        assert fates == ["spooled"] * kept + ["dropped"] * (39 - kept)
        assert kept > 5
        assert count(context, "entries_dropped") == 39 - kept
        assert gauge(context, "spool_bytes") <= 2_000
        assert '"event":"spool_full"' in capsys.readouterr().out
        await asyncio.to_thread(own_server.start)
        await bus.until(lambda: gauge(context, "spool_entries") == 0)
        assert await put(outbox, stream, 40) == ["appended"]
        assert await ids(context, stream) == [*range(kept + 1), 40]


async def test_spool_without_room_lets_confirmed_entries_go_and_drops_none(
    server: Target, stream: str, tmp_path: Path
) -> None:
    async with opened(server.url, tmp_path, limit_bytes=8_000) as (outbox, context):
        await register(context, stream)
        for number in range(90):
            assert await put(outbox, stream, number) == ["appended"]
            if number in (40, 80):
                await bus.until(lambda: gauge(context, "unconfirmed") == 0)
        assert gauge(context, "spool_bytes") <= 8_000
        assert count(context, "entries_let_go") > 20
        assert count(context, "entries_dropped") == 0
        assert await ids(context, stream) == list(range(90))


async def test_spool_full_of_unconfirmed_entries_still_appends_new_ones(
    server: Target, stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "LOOK_S", FOREVER_S)
    async with opened(server.url, tmp_path, limit_bytes=1_000) as (outbox, context):
        assert set(await put(outbox, stream, *range(30))) == {"appended"}
        assert gauge(context, "spool_bytes") <= 1_000
        assert await ids(context, stream) == list(range(30))
        assert count(context, "entries_dropped") == 0


async def test_stream_that_takes_nothing_does_not_hold_back_another(
    server: Target, stream: str, tmp_path: Path
) -> None:
    async with opened(server.url, tmp_path) as (outbox, context):
        await context.redis.set(f"{stream}:bad", "no stream")
        assert await put(outbox, f"{stream}:bad", 0, 1) == ["spooled", "spooled"]
        assert await put(outbox, stream, 0, 1) == ["appended", "appended"]
        assert "WRONGTYPE" in outbox.trouble
        await context.redis.delete(f"{stream}:bad")
        await bus.until(lambda: gauge(context, "spool_entries") == 0)
        assert outbox.trouble == ""
        assert await ids(context, f"{stream}:bad") == [0, 1]


async def test_what_a_retired_stream_lacks_goes_to_the_one_in_its_place(
    server: Target, stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "LOOK_S", FOREVER_S)
    async with opened(server.url, tmp_path) as (outbox, context):
        await put(outbox, stream, 0, 1, 2)
        await context.redis.hset(topics.sequence(stream), "retired", "1")
        assert await put(outbox, stream, 3, 4) == ["spooled", "spooled"]
        assert "is retired" in outbox.trouble
    renamed = {stream: f"{stream}:new"}
    async with opened(server.url, tmp_path, route=lambda old, _key: renamed[old]) as (
        outbox,
        context,
    ):
        await bus.until(lambda: gauge(context, "spool_entries") == 0)
        assert await put(outbox, f"{stream}:new", 5) == ["appended"]
        assert await ids(context, stream) == [0, 1, 2]
        assert await ids(context, f"{stream}:new") == [3, 4, 5]
        assert outbox.trouble == ""


async def test_process_killed_at_any_step_appends_nothing_twice_and_loses_nothing(
    server: Target, stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "LOOK_S", FOREVER_S)
    async with opened(server.url, tmp_path / "spool") as (outbox, context):
        for number in range(5):
            await put(outbox, stream, number)
            shutil.copytree(tmp_path / "spool", tmp_path / f"after-{number}")
    for number in range(5):
        forgetful = tmp_path / f"unanswered-{number}"  # killed before the answer was noted
        shutil.copytree(tmp_path / f"after-{number}", forgetful)
        forget_acknowledgements(forgetful)
        for directory in (tmp_path / f"after-{number}", forgetful):
            async with opened(server.url, directory) as (outbox, context):
                await bus.until(lambda: gauge(context, "spool_entries") == 0)
                assert await ids(context, stream) == list(range(5))
                assert count(context, "entries_lost_by_server") == 0


async def test_finished_and_trimmed_entries_are_not_appended_by_the_next_process(
    server: Target, stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "LOOK_S", FOREVER_S)
    async with opened(server.url, tmp_path) as (outbox, context):
        reader = bus.consumer(context, stream)
        await put(outbox, stream, *range(6))
        await reader.ack(await bus.take(reader, 4))
        await context.redis.xtrim(stream, maxlen=2, approximate=False)
        await reader.close()
    async with opened(server.url, tmp_path) as (outbox, context):
        await bus.until(lambda: gauge(context, "spool_entries") == 0)
        assert await ids(context, stream) == [4, 5]
        assert count(context, "entries_lost_by_server") == 0


async def test_directory_of_a_living_outbox_is_refused(server: Target, tmp_path: Path) -> None:
    async with opened(server.url, tmp_path):
        with pytest.raises(ConfigError, match="in use by another process"):
            async with opened(server.url, tmp_path):
                pass


async def test_long_backlog_is_not_held_in_memory(valkey: str, tmp_path: Path) -> None:
    body = os.urandom(20_000)
    async with opened("redis://127.0.0.1:1/0", tmp_path) as (outbox, context):
        for number in range(1_500):
            entry = NewEntry(id=f"{number}", type="t", key="k", ts=number, data=body)
            assert await outbox.put("stream:long", entry) == "spooled"
    tracemalloc.start()
    try:
        async with opened(valkey, tmp_path) as (outbox, context):
            await bus.until(lambda: gauge(context, "spool_entries") == 0)
            _now, peak = tracemalloc.get_traced_memory()
            assert await context.redis.xlen("stream:long") == 1_500
    finally:
        tracemalloc.stop()
    assert peak < 8 * 1024 * 1024  # of thirty


async def test_no_put_that_returned_is_lost_by_kills_at_random(valkey: str, tmp_path: Path) -> None:
    settings = Settings(redis_url=valkey, state_dir=str(tmp_path), metrics_port=0)
    chance = random.Random(4)
    promised: set[int] = set()
    for run in range(5):
        promised |= await asyncio.to_thread(killed_while_putting, settings, run, chance.random())
    async with opened(valkey, tmp_path / "spool" / "putting") as (_outbox, context):
        await bus.until(lambda: gauge(context, "spool_entries") == 0)
        found = await ids(context, "stream:killed")
    assert len(promised) > 20
    assert promised <= set(found)
    assert found == sorted(set(found))


def killed_while_putting(settings: Settings, run: int, after_s: float) -> set[int]:
    """The numbers whose put had returned when the process was killed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.putting", "stream:killed", str(run * 1_000_000)],
        env=config.environment(settings),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    assert process.stderr is not None
    first = process.stderr.readline()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(0.05 + 0.1 * after_s)
    process.kill()
    lines = (first + process.stderr.read()).decode().split("\n")[:-1]
    process.stderr.close()
    process.wait(10)
    assert all(line.isdigit() for line in lines), "\n".join(lines)
    return {int(line) for line in lines}


@contextlib.contextmanager
def forgetting(server: servers.RedisServer) -> Iterator[None]:
    """What is written inside is acknowledged by the server, and lost in a crash at the end."""
    log = server.directory / "appendonlydir"
    kept = server.directory / "kept"
    shutil.copytree(log, kept)
    yield
    server.kill()
    shutil.rmtree(log)
    kept.rename(log)
    server.start()


def forget_acknowledgements(directory: Path) -> None:
    """The spool as a kill leaves it that comes before any answer is noted."""
    for path in directory.glob("*/*.v1"):
        segment = Segment(path)
        place = Place(segment.first, 0)
        while place.number < segment.end.number:
            following, _stands = segment.head(place)
            os.pwrite(
                segment.file,
                EMPTY_SLOT,
                following.offset - len(segment.data(place, following)) - SLOT_BYTES,
            )
            place = following
        segment.close()
