"""Raw entries to files on a real server: each on the disk before it is acknowledged, and once."""

import asyncio
import resource
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline import bodies, models
from pipeline.archive import read_archive
from pipeline.config import Settings
from pipeline.entries import Entry, NewEntry, decode_entry
from pipeline.runtime import Context, cancel
from pipeline.streams import Consumer, trim
from tests.support import bus, chains, worker_process
from workers import archiver, processor

DAY = "2026-01-25"


def raw(number: int = 0, strikes: int = 5, **asked: object) -> NewEntry:
    body = chains.encoded(chains.body(strikes, last_price=float(number + 1)))
    request = chains.request_context(**asked)
    return bodies.raw_entry(models.RAW_CHAIN_TYPE, request, body, chains.TS_INGEST + number)


def expiry_list() -> NewEntry:
    body = b'{"data":["2026-02-03","2026-01-27"],"status":"success"}'
    request = chains.request_context(expiry=None)
    return bodies.raw_entry(models.RAW_EXPIRIES_TYPE, request, body, chains.TS_INGEST)


async def of_stream(context: Context, stream: str) -> list[Entry]:
    return [decode_entry(*item) for item in await context.redis.xrange(stream)]


async def left(context: Context) -> int:
    """Entries of the raw stream that the group has not finished with."""
    for group in await context.redis.xinfo_groups(context.topics.raw()):
        if group["name"] == b"archiver":
            return int(group["pending"]) + int(group["lag"])
    return await context.redis.xlen(context.topics.raw())


async def until_done(context: Context, deadline_s: float = 20.0) -> None:
    async with asyncio.timeout(deadline_s):
        while await left(context):
            await asyncio.sleep(0.02)


async def until_state(context: Context, state: str) -> None:
    async with asyncio.timeout(10):
        while context.telemetry.state != state:
            await asyncio.sleep(0.01)


def files(state: Path) -> dict[str, list[Entry]]:
    root = state / "archive"
    return {str(path.relative_to(root)): list(read_archive(path)) for path in root.rglob("*.raw")}


async def test_day_is_enriched_again_from_its_file_to_the_same_bytes(
    valkey: str, tmp_path: Path
) -> None:
    async with bus.context(valkey, state_dir=str(tmp_path)) as context:
        entries = [expiry_list(), *(raw(number, 5 + number) for number in range(4))]
        await bus.append(context, "stream:raw", *entries)
        work = asyncio.create_task(processor.process(context))
        written = context.telemetry.counter("entries_written", "")
        async with bus.working(context, archiver.archive):
            await until_done(context)
            async with asyncio.timeout(60):
                while written.value < len(entries) and not work.done():
                    await asyncio.sleep(0.02)
        await work
        (found,) = files(tmp_path).values()
        assert found == await of_stream(context, context.topics.raw())
        settings = context.settings
        again = [
            processor.derive(
                entry, te=1, rate=settings.rate, greeks=settings.greeks, traceparent=""
            )[0]
            for entry in found
        ]
        streamed = await of_stream(context, context.topics.enriched())
        assert [(new.id, new.type, new.key, new.ts, new.data) for new in again] == [
            (old.id, old.type, old.key, old.ts, old.data) for old in streamed
        ]


async def test_each_underlying_and_day_has_a_file(valkey: str, tmp_path: Path) -> None:
    day_ns = 24 * chains.HOUR_NS
    async with bus.context(valkey, state_dir=str(tmp_path)) as context:
        await bus.append(
            context,
            "stream:raw",
            raw(0),
            raw(1, underlying="BANKNIFTY"),
            raw(day_ns),
            expiry_list(),
        )
        async with bus.working(context, archiver.archive):
            await until_done(context)
    assert {name: len(entries) for name, entries in files(tmp_path).items()} == {
        f"{DAY}/NIFTY.raw": 2,
        f"{DAY}/BANKNIFTY.raw": 1,
        "2026-01-26/NIFTY.raw": 1,
    }


async def test_entry_without_a_place_is_a_dead_letter(valkey: str, tmp_path: Path) -> None:
    lost = NewEntry(id="lost", type=models.RAW_CHAIN_TYPE, key="../NIFTY", ts=5, data=b"{}")
    async with bus.context(valkey, state_dir=str(tmp_path)) as context:
        await bus.append(context, "stream:raw", lost, raw())
        async with bus.working(context, archiver.archive):
            await until_done(context)
        ((_id, letter),) = await context.redis.xrange(context.topics.dead())
        assert (letter[b"id"], letter[b"group"]) == (b"lost", b"archiver")
    assert list(files(tmp_path)) == [f"{DAY}/NIFTY.raw"]


async def test_trimmer_waits_for_what_is_not_yet_on_the_disk(valkey: str, tmp_path: Path) -> None:
    (tmp_path / "archive").write_text("in the way")
    async with bus.context(valkey, state_dir=str(tmp_path)) as context:
        await bus.append(context, "stream:raw", raw(0), raw(1))
        async with bus.working(context, archiver.archive):
            await until_state(context, "degraded")
            held = await trim(context.redis, context.topics.raw(), -1_000)
            assert (held.removed, held.holder) == (0, "archiver")
            (tmp_path / "archive").unlink()
            await until_done(context)
            await until_state(context, "ready")
            assert (await trim(context.redis, context.topics.raw(), -1_000)).removed == 2
    assert [len(entries) for entries in files(tmp_path).values()] == [2]


async def test_full_disk_is_said_and_nothing_is_acknowledged_until_there_is_room(
    valkey: str, tmp_path: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with bus.context(valkey, state_dir=str(tmp_path)) as context:
        await bus.append(context, "stream:raw", *(raw(number) for number in range(3)))
        try:
            # The kernel refuses larger files, in the middle of the second record.
            resource.setrlimit(resource.RLIMIT_FSIZE, (1_500, hard))
            async with bus.working(context, archiver.archive):
                await until_state(context, "degraded")
                assert "NIFTY.raw: File too large" in context.telemetry.reason
                assert await left(context) == 3
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert await left(context) == 3  # also not when told to stop
    # However often that happens, they are no dead letters.
    async with bus.context(valkey, state_dir=str(tmp_path), max_attempts=1) as context:
        async with bus.working(context, archiver.archive):
            await until_done(context)
        assert await context.redis.exists(context.topics.dead()) == 0
        (found,) = files(tmp_path).values()
        assert found == await of_stream(context, context.topics.raw())


async def test_crash_between_disk_and_acknowledgement_writes_no_entry_twice(
    valkey: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = asyncio.Event()

    async def crash(_consumer: Consumer, _entries: Sequence[Entry]) -> None:
        reached.set()
        await asyncio.Event().wait()

    async with bus.context(valkey, state_dir=str(tmp_path)) as context:
        await bus.append(context, "stream:raw", *(raw(number) for number in range(3)))
        monkeypatch.setattr(Consumer, "ack", crash)
        work = asyncio.create_task(archiver.archive(context))
        await asyncio.wait_for(reached.wait(), 10)
        await cancel(work)
        monkeypatch.undo()
        assert await left(context) == 3
        await bus.append(context, "stream:raw", raw(3))
    async with bus.context(valkey, state_dir=str(tmp_path)) as context:
        async with bus.working(context, archiver.archive):
            await until_done(context)
        assert context.telemetry.counter("entries_known", "").value == 3
        (found,) = files(tmp_path).values()
        assert found == await of_stream(context, context.topics.raw())


async def test_killed_process_leaves_every_entry_in_the_file_once(
    valkey: str, tmp_path: Path
) -> None:
    count = 3_000
    settings = Settings(redis_url=valkey, state_dir=str(tmp_path), lease_ms=600)
    path = tmp_path / "archive" / DAY / "NIFTY.raw"
    async with bus.context(valkey) as context:
        await bus.append(context, "stream:raw", *(raw(number, 21) for number in range(count)))
        for _kill in range(3):
            before = path.stat().st_size if path.exists() else 0
            with worker_process.running("workers.archiver", settings) as process:
                async with asyncio.timeout(30):
                    while not path.exists() or path.stat().st_size <= before + 100_000:
                        await asyncio.sleep(0.001)
                process.kill()
        assert await left(context) > 0
        with worker_process.running("workers.archiver", settings) as process:
            await until_done(context, 60)
            assert worker_process.stopped(process) == 0
        found = list(read_archive(path))
        assert found == await of_stream(context, context.topics.raw())
        assert len(found) == count


async def test_second_archiver_stands_by_for_the_first(valkey: str, tmp_path: Path) -> None:
    async with (
        bus.context(valkey, "first", state_dir=str(tmp_path)) as first,
        bus.context(valkey, "second", state_dir=str(tmp_path)) as second,
    ):
        await bus.append(first, "stream:raw", raw(0))
        async with bus.working(first, archiver.archive):
            await until_done(first)
            async with bus.working(second, archiver.archive):
                await bus.append(first, "stream:raw", *(raw(number) for number in range(1, 60)))
                await until_done(second)
                assert "entries_archived" not in second.telemetry.report()["counters"]
                first.stopping.set()
                await bus.append(first, "stream:raw", *(raw(number) for number in range(60, 90)))
                await until_done(second)
                assert second.telemetry.report()["counters"]["entries_archived"] > 0
        (found,) = files(tmp_path).values()
        assert sorted(entry.seq for entry in found) == list(range(1, 91))
