"""The bus is cut into another number of shards while in use: nothing is lost or re-ordered."""

import asyncio
import contextlib
import itertools
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline import config, layout, topics
from pipeline.clock import Clock
from pipeline.config import Settings
from pipeline.entries import Entry, NewEntry
from pipeline.errors import ConfigError, StreamRetired
from pipeline.latest import Latest
from pipeline.runtime import Context, connect
from pipeline.streams import Consumer, Producer
from pipeline.topics import Topics
from stockify.bus import Bus
from stockify.engines.cluster import ValkeyCluster
from stockify.reshard import Reshard, names
from tests.support import bus, chains, cluster
from tests.support.gateway import publish

UNDERLYINGS = ("NIFTY", "BANKNIFTY", "FINNIFTY", "SENSEX", "MIDCPNIFTY", "NIFTYNXT50", "SBIN")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyCluster]:
    with cluster.running(tmp_path_factory.mktemp("cluster")) as started:
        yield started


class Pipeline:
    """Feeds every underlying and works both streams, as the workers of one cut do."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.out: dict[str, list[int]] = {name: [] for name in UNDERLYINGS}
        self.fed = dict.fromkeys(UNDERLYINGS, 0)

    def of(self, shards: int) -> Settings:
        return msgspec.structs.replace(self.settings, shards=shards)

    async def feed(self, shards: int, rounds: int) -> None:
        """Append to every underlying in turn. Raises BusUnavailable when it is refused."""
        settings = self.of(shards)
        names_of = Topics(shards, settings.redis_cluster)
        producer = Producer(settings, "feeder")
        try:
            for _ in range(rounds):
                for name in UNDERLYINGS:
                    entry = new_entry(name, self.fed[name])
                    await producer.append(names_of.raw(names_of.shard_of(name)), entry)
                    self.fed[name] += 1
        finally:
            await producer.close()

    async def feed_until_refused(self, shards: int) -> str:
        """Go on feeding until an append is refused; gives what was said then."""
        while True:
            try:
                await self.feed(shards, 1)
            except StreamRetired as error:
                return str(error)

    async def rest(self) -> None:
        """Wait until all that was fed has come out."""
        async with asyncio.timeout(15):
            while any(len(self.out[name]) < fed for name, fed in self.fed.items()):
                await asyncio.sleep(0.02)

    @contextlib.asynccontextmanager
    async def working(self, shards: int, *, slowly_s: float = 0.0) -> AsyncIterator[None]:
        async with bus.context(**given(self.of(shards))) as context:
            tasks = [
                asyncio.create_task(work)
                for n in range(shards)
                for work in (self._process(context, n, slowly_s), self._store(context, n))
            ]
            try:
                yield
            finally:
                context.stopping.set()
                await asyncio.gather(*tasks)

    async def _process(self, context: Context, shard: int, slowly_s: float) -> None:
        made = context.topics
        reader = member(context, made.raw(shard), "processor")
        async for batch in reader.batches(count=16, block_ms=50):
            await asyncio.sleep(slowly_s)
            results = [(entry, new_entry(entry.key, entry.ts)) for entry in batch]
            await reader.finish(made.enriched(shard), results)
        await reader.close()

    async def _store(self, context: Context, shard: int) -> None:
        reader = member(context, context.topics.enriched(shard), "storage")
        async for batch in reader.batches(count=16, block_ms=50):
            if await reader.ack(batch) == len(batch):
                self.note(batch)
        await reader.close()

    def note(self, batch: list[Entry]) -> None:
        for entry in batch:
            self.out[entry.key].append(entry.ts)

    def check(self) -> None:
        """Every entry came out, once, in the order in which its underlying was fed."""
        assert self.out == {name: list(range(fed)) for name, fed in self.fed.items()}


def new_entry(name: str, number: int) -> NewEntry:
    return NewEntry(id=f"{name}-{number}", type="test.v1", key=name, ts=number, data=b"x")


def given(settings: Settings) -> dict[str, Any]:
    return {
        "url": settings.redis_url,
        "shards": settings.shards,
        "redis_cluster": settings.redis_cluster,
    }


def member(context: Context, stream: str, group: str) -> Consumer:
    return Consumer(context, stream, group, dead_stream=f"{stream}:dead", start="earliest")


@contextlib.asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Bus]:
    redis = connect(settings)
    try:
        yield Bus(settings, redis, Topics(settings.shards, settings.redis_cluster), Clock())
    finally:
        await redis.aclose()


async def cut(settings: Settings, shards: int, wait_s: float = 20.0) -> list[str]:
    """Change the number of shards; gives what was said."""
    said: list[str] = []
    async with opened(settings) as found:
        record = await layout.read(found.redis)
        assert record is not None
        await Reshard(found, record, shards, ()).run(said.append, wait_s)
    return said


async def journey(settings: Settings, steps: tuple[int, ...]) -> None:
    """From one number of shards to the next, each time under load."""
    pipeline = Pipeline(settings)
    async with opened(pipeline.of(steps[0])) as found:
        await layout.agree(found.redis, found.topics)
    for before, after in itertools.pairwise(steps):
        async with pipeline.working(before, slowly_s=0.05):
            await pipeline.feed(before, 20)
            changing = asyncio.create_task(cut(pipeline.of(before), after))
            refusal = await pipeline.feed_until_refused(before)
            assert "retired" in refusal
            await changing
        async with opened(pipeline.of(after)) as found:
            await layout.agree(found.redis, found.topics)
            old = Topics(before, settings.redis_cluster)
            with pytest.raises(ConfigError, match=f"has {after} shard"):
                await layout.agree(found.redis, old)
            for stream in set(names(old)) - set(names(found.topics)):
                assert await found.redis.ttl(stream) != -1
        async with pipeline.working(after):
            await pipeline.feed(after, 5)
            await pipeline.rest()
    pipeline.check()


async def test_one_server_goes_from_one_shard_to_six_to_four_and_back(valkey: str) -> None:
    await journey(Settings(redis_url=valkey), (1, 6, 4, 1))


async def test_cluster_goes_from_six_shards_to_nine(nodes: ValkeyCluster) -> None:
    await journey(cluster.settings(nodes), (6, 9))


async def test_groups_that_do_not_finish_leave_all_as_it_was(valkey: str) -> None:
    pipeline = Pipeline(Settings(redis_url=valkey))
    async with opened(pipeline.settings) as found:
        await layout.agree(found.redis, found.topics)
        async with pipeline.working(1):
            await pipeline.feed(1, 2)
            await pipeline.rest()
        await pipeline.feed(1, 1)  # nobody works it
        with pytest.raises(TimeoutError, match="processor of stream:raw: 7 unread, 0 in work"):
            await cut(pipeline.settings, 2, wait_s=0.5)
        record = await layout.read(found.redis)
        assert record is not None
        assert (record.current.shards, record.coming) == (1, None)
        await pipeline.feed(1, 1)
        async with pipeline.working(1):
            await pipeline.rest()
    pipeline.check()


async def test_streams_of_ones_own_are_cut_as_well_if_they_are_numbered(valkey: str) -> None:
    settings = Settings(redis_url=valkey)
    async with bus.context(valkey) as context, opened(settings) as found:
        await layout.agree(found.redis, found.topics)
        mine = context.topics.stream("signals")
        await bus.append(context, mine, new_entry("NIFTY", 1))
        await found.redis.xadd(context.topics.stream("foreign"), {"a": "b"})
        reader = member(context, mine, "reader")
        await reader.ack(await bus.take(reader, 1))
        await bus.append(context, mine, new_entry("NIFTY", 2))
        with pytest.raises(TimeoutError, match=r"reader of stream:signals: \d unread"):
            await cut(settings, 2, wait_s=0.5)
        await reader.ack(await bus.take(reader, 1))
        await reader.close()
        await cut(settings, 2)
        with pytest.raises(StreamRetired):
            await bus.append(context, mine, new_entry("NIFTY", 3))
        for shard in range(2):
            (group,) = await found.redis.xinfo_groups(Topics(2).stream("signals", shard))
            assert group["name"] == b"reader"
        assert await found.redis.ttl(mine) == -1  # nobody but its user removes it
        assert await found.redis.exists(topics.sequence(context.topics.stream("foreign"))) == 0


async def test_latest_values_are_where_the_new_shards_have_them(valkey: str) -> None:
    settings = Settings(redis_url=valkey)
    made = [chains.enriched(3, underlying=name) for name in UNDERLYINGS[:4]]
    symbols = [symbol for chain in made for symbol in (chain.header.chain, chain.header.underlying)]
    async with opened(settings) as found:
        await layout.agree(found.redis, found.topics)
        for number, chain in enumerate(made):
            await publish(found.redis, found.topics, chain, number)
        before = await Latest(found.redis, found.topics).texts(symbols)
        catalog = await Latest(found.redis, found.topics).catalog()
        assert f"{4 * 8:,} latest values copied" in await cut(settings, 3)
        after = Latest(found.redis, Topics(3))
        assert await after.texts(symbols) == before
        assert await after.catalog() == catalog


async def test_command_says_what_it_would_do_and_does_nothing(valkey: str, tmp_path: Path) -> None:
    settings = Settings(redis_url=valkey, state_dir=str(tmp_path))
    async with opened(settings) as found:
        await layout.agree(found.redis, found.topics)
        pipeline = Pipeline(settings)
        await pipeline.feed(1, 1)
        answer = await asyncio.to_thread(command, settings, "--shards", "4", "--plan")
        assert answer.returncode == 0, answer.stderr
        assert "from 1 (stream:raw, …) to 4 (stream:raw:{0}, …)" in answer.stdout
        assert "the latest values of 0 chains are copied" in answer.stdout
        assert await found.redis.hget(topics.sequence(found.topics.raw()), "retired") is None
        answer = await asyncio.to_thread(command, settings, "--shards", "4")
        assert answer.returncode == 0, answer.stderr
        assert "start every process with STOCKIFY_SHARDS=4" in answer.stdout
        record = await layout.read(found.redis)
        assert record is not None
        assert (record.current.shards, [past.shards for past in record.past]) == (4, [1])


def command(settings: Settings, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "stockify", "bus", "reshard", *arguments],
        env=config.environment(settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
