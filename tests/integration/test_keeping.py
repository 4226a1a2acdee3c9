"""What one storage process does now and then: candles, days ahead, retention."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from pipeline.clock import SECOND_NS
from pipeline.database import Database
from pipeline.runtime import Context, cancel
from tests.support import bus, chains
from tests.support.postgres import open_database
from tests.support.storing import write
from workers.storage.keeping import Chore, Keeper

DAY_NS = 86_400 * SECOND_NS
START = chains.TS_INGEST
TODAY = datetime.fromtimestamp(START // SECOND_NS, UTC).date()
CLOCK = datetime.fromtimestamp(START // SECOND_NS, UTC).isoformat()


@asynccontextmanager
async def keeping(valkey: str, url: str, **settings: Any) -> AsyncIterator[tuple[Keeper, Database]]:
    async with (
        bus.context(valkey, "storage", database_url=url, clock=CLOCK, **settings) as context,
        open_database(url) as database,
    ):
        yield Keeper(context, database), database


async def chore(keeper: Keeper, name: str) -> int:
    (found,) = (one for one in keeper.chores() if one.name == name)
    return await found.call()


def ask(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()


async def store_days(database: Database, *ago: int) -> None:
    for days in ago:
        await write(database, chains.enriched(5, ts_ingest=START - days * DAY_NS))


async def test_days_before_retention_go_and_later_ones_stay(valkey: str, database_url: str) -> None:
    async with keeping(valkey, database_url, retention_days=5) as (keeper, database):
        await store_days(database, 9, 7, 6, 5, 1, 0)
        assert await chore(keeper, "retention") > 0
        assert await chore(keeper, "retention") == 0
    kept = {TODAY - timedelta(days=ago) for ago in (5, 1, 0)}
    for table, column in (
        ("market_snapshots", "ts"),
        ("option_contracts", "ts"),
        ("ledger", "ts"),
        ("coverage", "minute"),
    ):
        days = ask(
            database_url,
            f"SELECT DISTINCT ({column} AT TIME ZONE 'UTC')::date FROM {table}",  # noqa: S608
        )
        assert {day for (day,) in days} == kept, table


async def test_without_retention_everything_stays(valkey: str, plain_database_url: str) -> None:
    async with keeping(valkey, plain_database_url) as (keeper, database):
        await store_days(database, 900, 0)
        assert await chore(keeper, "retention") == 0
    assert ask(plain_database_url, "SELECT count(*) FROM market_snapshots") == [(2,)]


async def test_line_whose_entry_may_come_again_stays_in_the_ledger(
    valkey: str, plain_database_url: str
) -> None:
    async with keeping(valkey, plain_database_url, retention_days=5) as (keeper, database):
        await store_days(database, 19, 16, 15, 0)
        context: Context = keeper._context
        # Something received sixteen days ago is in the stream still: it may be delivered once more.
        await context.redis.xadd(context.topics.enriched(), {"ts": START - 16 * DAY_NS})
        await chore(keeper, "retention")
        assert ask(plain_database_url, "SELECT count(*) FROM ledger") == [(3,)]
        await context.redis.delete(context.topics.enriched())
        await chore(keeper, "retention")
        assert ask(plain_database_url, "SELECT count(*) FROM ledger") == [(1,)]
    assert ask(plain_database_url, "SELECT count(*) FROM market_snapshots") == [(1,)]


async def test_reader_of_an_old_day_puts_retention_off_at_once(
    valkey: str, plain_database_url: str
) -> None:
    async with keeping(valkey, plain_database_url, retention_days=5) as (keeper, database):
        await store_days(database, 9, 0)
        retention = [one for one in keeper.chores() if one.name == "retention"]
        with psycopg.connect(plain_database_url) as reader:
            reader.execute("SELECT count(*) FROM market_snapshots")
            began = time.monotonic()
            await keeper.run(retention, {})
            assert time.monotonic() - began < 5
            assert reader.execute("SELECT count(*) FROM market_snapshots").fetchone() == (2,)
        await keeper.run(retention, {})
    assert ask(plain_database_url, "SELECT count(*) FROM market_snapshots") == [(1,)]


async def test_stored_minutes_become_candles(valkey: str, database_url: str) -> None:
    minutes = [START - ago * 60 * SECOND_NS for ago in (3, 2, 1)]
    async with keeping(valkey, database_url) as (keeper, database):
        for ts_ingest in minutes:
            await write(database, chains.enriched(5, ts_ingest=ts_ingest))
        assert await chore(keeper, "candles") >= 2
    assert ask(database_url, "SELECT count(*) > 0 FROM contract_candles_1m") == [(True,)]


async def test_chore_that_fails_is_said_once_and_done_again(
    valkey: str, plain_database_url: str
) -> None:
    calls = 0

    async def fail_twice() -> int:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise ZeroDivisionError
        return 1

    async with keeping(valkey, plain_database_url) as (keeper, _):
        for _ in range(4):
            await keeper.run([Chore("odd", 0.0, fail_twice)], {})
    assert calls == 4


async def test_one_of_two_keeps_and_the_other_follows_when_it_ends(
    valkey: str, plain_database_url: str
) -> None:
    async with (
        keeping(valkey, plain_database_url) as (first, _),
        keeping(valkey, plain_database_url) as (second, _),
    ):
        one = asyncio.create_task(first.work())
        await until_keeps(first)
        other = asyncio.create_task(second.work())
        assert not second._keeps()
        await cancel(one)
        await until_keeps(second)
        await cancel(other)


async def until_keeps(keeper: Keeper) -> None:
    async with asyncio.timeout(20):
        while not keeper._keeps():
            await asyncio.sleep(0.02)
