"""Latest values on a real Valkey: newest wins, one call writes all, and changes are told."""

import asyncio
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path

import pytest

from pipeline import latest
from pipeline.config import Settings
from pipeline.errors import DecodeError
from pipeline.frames import LatestChain, LatestContract, LatestUnderlying
from pipeline.latest import Latest
from pipeline.models import Expiries
from pipeline.runtime import Redis, cancel, connect
from pipeline.topics import LATEST_TTL_S, Topics
from pipeline.watch import Watch
from tests.support import chains, servers
from tests.support.gateway import CHAIN, moved, publish, until_true

TOPICS = Topics()
CHAIN_ID = "NIFTY-20260127"
ATM = "NIFTY-20260127-25000-CE"


@pytest.fixture
async def redis(valkey: str) -> AsyncIterator[Redis]:
    client = connect(Settings(redis_url=valkey))
    yield client
    await client.aclose()


def expiries(ts_ingest: int, *days: date) -> Expiries:
    return Expiries(underlying="NIFTY", provider="dhan", ts_ingest=ts_ingest, expiries=days)


async def position(redis: Redis, symbol: str) -> int:
    (text,) = await Latest(redis, TOPICS).texts([symbol])
    assert text is not None
    return latest.decode_latest(symbol, text).position.seq


async def test_one_call_writes_chain_underlying_and_contracts(redis: Redis) -> None:
    assert await publish(redis, TOPICS, CHAIN, 5) == CHAIN.header.n + 2
    texts = await Latest(redis, TOPICS).texts([CHAIN_ID, "NIFTY", ATM, "NIFTY-20260127-1-CE"])
    assert texts[3] is None
    kinds = (LatestChain, LatestUnderlying, LatestContract)
    for symbol, text, kind in zip((CHAIN_ID, "NIFTY", ATM), texts, kinds, strict=False):
        assert text is not None
        assert isinstance(latest.decode_latest(symbol, text), kind)
        assert LATEST_TTL_S - 60 < await redis.ttl(TOPICS.latest(symbol)) <= LATEST_TTL_S


@pytest.mark.parametrize(
    ("seconds", "seq", "written"),
    [(-1, 9, 0), (0, 4, 0), (0, 5, 0), (0, 6, 44), (1, 4, 44)],
    ids=["older", "same time, lower seq", "the same", "same time, higher seq", "newer"],
)
async def test_newest_position_wins(redis: Redis, seconds: int, seq: int, written: int) -> None:
    await publish(redis, TOPICS, CHAIN, 5)
    assert await publish(redis, TOPICS, moved(CHAIN, seconds=seconds), seq) == written
    expected = seq if written else 5
    for symbol in (CHAIN_ID, "NIFTY", ATM):
        assert await position(redis, symbol) == expected


async def test_nanoseconds_decide(redis: Redis) -> None:
    late = chains.enriched(3, ts_ingest=chains.TS_INGEST + 1)
    early = chains.enriched(3, ts_ingest=chains.TS_INGEST)
    assert await publish(redis, TOPICS, late, 1) == 8
    assert await publish(redis, TOPICS, early, 2) == 0


async def test_older_chain_of_another_expiry_leaves_the_underlying_alone(redis: Redis) -> None:
    await publish(redis, TOPICS, CHAIN, 5)
    other = moved(chains.enriched(3, expiry=date(2026, 2, 3)), seconds=-60)
    assert await publish(redis, TOPICS, other, 6) == 7
    assert await position(redis, "NIFTY") == 5
    assert await position(redis, "NIFTY-20260203") == 6


async def test_every_value_is_published_on_its_live_channel(redis: Redis) -> None:
    async with redis.pubsub() as pubsub:
        await pubsub.subscribe(*(TOPICS.live(symbol) for symbol in (CHAIN_ID, "NIFTY", ATM)))
        await publish(redis, TOPICS, CHAIN, 5)
        told = {}
        while len(told) < 3:
            message = await pubsub.get_message(timeout=5)
            assert message is not None
            if message["type"] == "message":
                told[message["channel"].decode()] = message["data"]
    for symbol in (CHAIN_ID, "NIFTY", ATM):
        assert told[TOPICS.live(symbol)] == await redis.get(TOPICS.latest(symbol))


async def test_catalog_has_chains_and_listed_expiries(redis: Redis) -> None:
    await publish(redis, TOPICS, CHAIN, 5)
    listed = expiries(10, chains.EXPIRY, date(2026, 2, 3))
    assert await latest.write_expiries(redis, TOPICS, 0, listed) == 1
    catalog = await Latest(redis, TOPICS).catalog()
    assert catalog.chains[CHAIN_ID].n == CHAIN.header.n
    assert catalog.chains[CHAIN_ID].ts_ingest == chains.TS_INGEST
    assert catalog.listed["NIFTY"].expiries == ("2026-01-27", "2026-02-03")
    assert catalog.underlyings() == ["NIFTY"]
    assert await latest.write_expiries(redis, TOPICS, 0, expiries(9, chains.EXPIRY)) == 0
    assert len((await Latest(redis, TOPICS).catalog()).listed["NIFTY"].expiries) == 2


async def test_chains_that_are_gone_leave_the_catalog(redis: Redis) -> None:
    await publish(redis, TOPICS, CHAIN, 5)
    await publish(redis, TOPICS, chains.enriched(3, expiry=date(2026, 2, 3)), 6)
    await redis.delete(TOPICS.latest(CHAIN_ID))
    await latest.write_expiries(redis, TOPICS, 0, expiries(10, date(2026, 2, 3)))
    assert list((await Latest(redis, TOPICS).catalog()).chains) == ["NIFTY-20260203"]


async def test_nearest_is_the_next_to_settle(redis: Redis) -> None:
    for day in (date(2026, 2, 3), chains.EXPIRY):
        await publish(redis, TOPICS, chains.enriched(3, expiry=day), day.day)
    catalog = await Latest(redis, TOPICS).catalog()
    assert catalog.nearest("NIFTY", chains.TS_INGEST) == CHAIN_ID
    assert catalog.nearest("NIFTY", chains.TS_INGEST + 72 * chains.HOUR_NS) == "NIFTY-20260203"
    assert catalog.nearest("NIFTY", chains.TS_INGEST + 999 * chains.HOUR_NS) == "NIFTY-20260203"
    assert catalog.nearest("GOLD", 0) is None


async def test_shards_are_read_as_one(redis: Redis) -> None:
    topics = Topics(shards=3)
    await publish(redis, topics, CHAIN, 5)
    await publish(redis, topics, chains.enriched(3, underlying="SENSEX"), 6)
    reader = Latest(redis, topics)
    texts = await reader.texts(["SENSEX", CHAIN_ID, "GOLD", "NIFTY"])
    assert [text is not None for text in texts] == [True, True, False, True]
    assert (await reader.catalog()).underlyings() == ["NIFTY", "SENSEX"]


async def test_text_of_another_shape_is_a_decode_error() -> None:
    with pytest.raises(DecodeError):
        latest.decode_latest(CHAIN_ID, b"{}")


async def test_watch_survives_a_killed_server_and_reports_what_may_have_changed(
    tmp_path: Path,
) -> None:
    with servers.running(servers.valkey_binary(), tmp_path) as server:
        settings = Settings(redis_url=server.url)
        client, writer = connect(settings, retries=0), connect(settings)
        watch = Watch(client, TOPICS)
        told: list[tuple[str, int]] = []
        lost: list[str] = []
        running = asyncio.create_task(
            watch.run(
                lambda symbol, times: told.append((symbol, times)),
                lambda why, _attempt: lost.append(why),
            )
        )
        await until_true(lambda: watch.is_connected)
        await watch.add(["NIFTY"])
        await until_true(lambda: told == [("NIFTY", 0)])
        await publish(writer, TOPICS, CHAIN, 5)
        await until_true(lambda: told == [("NIFTY", 0), ("NIFTY", 1)])
        await asyncio.to_thread(server.kill)
        await until_true(lambda: len(lost) > 0)
        assert not watch.is_connected
        await watch.add([CHAIN_ID])
        told.clear()
        await asyncio.to_thread(server.start)
        await until_true(lambda: {("NIFTY", 0), (CHAIN_ID, 0)} == set(told))
        await watch.remove(["NIFTY"])
        await publish(writer, TOPICS, moved(CHAIN, seconds=1), 6)
        await until_true(lambda: (CHAIN_ID, 1) in told)
        assert ("NIFTY", 1) not in told
        await cancel(running)
        await client.aclose()
        await writer.aclose()


@pytest.mark.parametrize(
    ("flags", "answer"), [("", False), ("KA", True), ("K$", True), ("E$", False)]
)
async def test_notification_settings_are_read(redis: Redis, flags: str, answer: bool) -> None:
    before = (await redis.config_get("notify-keyspace-events"))["notify-keyspace-events"]
    try:
        await redis.config_set("notify-keyspace-events", flags)
        assert await Latest(redis, TOPICS).is_notifying() is answer
    finally:
        await redis.config_set("notify-keyspace-events", before)


async def test_task_that_writes_to_redis_can_be_cancelled_at_any_step(valkey: str) -> None:
    async def beat(client: Redis) -> None:
        while True:
            await client.set(TOPICS.latest("NIFTY"), b"1")
            await asyncio.sleep(30)

    for step in range(15):
        client = connect(Settings(redis_url=valkey))
        task = asyncio.create_task(beat(client))
        for _ in range(step):
            await asyncio.sleep(0)
        await cancel(task)
        assert task.done()
        await client.aclose()
