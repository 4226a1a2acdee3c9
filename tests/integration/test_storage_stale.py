"""The writer where what it looked up is no longer so: nothing is stored by what it remembers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import psycopg
import pytest

from pipeline.clock import to_datetime
from pipeline.database import Database
from pipeline.errors import RowsRejected, StoreUnavailable
from pipeline.frames import open_frame
from pipeline.models import EnrichedChain
from tests.integration.test_storage import (
    chain_at,
    counts,
    enriched_entry,
    is_settled,
    storage_context,
    until,
    writer,
)
from tests.support import bus
from tests.support.cutting_proxy import CuttingProxy
from tests.support.postgres import open_database
from tests.support.storing import arrived
from workers.storage import __main__ as process
from workers.storage.contracts import add_contract, letter_of
from workers.storage.writer import Arrived, Refused

TABLES = ("instruments", "option_contracts", "market_snapshots", "ledger", "coverage")
NAMELESS = (
    "SELECT count(*) FROM option_contracts AS leg WHERE NOT EXISTS ("
    "SELECT FROM instruments WHERE instruments.instrument_id = leg.instrument_id)"
)


def number_of(url: str, query: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])


async def test_two_revisions_in_batches_that_overlap_count_as_one_snapshot(
    plain_database_url: str,
) -> None:
    chain = chain_at(0)
    rev = chain.header.rev + 1
    newer = EnrichedChain(msgspec.structs.replace(chain.header, rev=rev), chain.legs)
    async with open_database(plain_database_url) as database:
        own = writer(database)
        first = await own.prepare([msgspec.structs.replace(arrived(chain), id="raw:r1")])
        second = await own.prepare([msgspec.structs.replace(arrived(newer), id="raw:r2")])
        await own.commit(first)
        await own.commit(second)
    assert counts(plain_database_url) == (2, 20, 2)
    assert number_of(plain_database_url, "SELECT sum(present) FROM coverage") == 1


async def test_entry_in_two_batches_that_overlap_is_known_to_the_second(
    plain_database_url: str,
) -> None:
    async with open_database(plain_database_url) as database:
        own = writer(database)
        first = await own.prepare([arrived(chain_at(0))])
        second = await own.prepare([arrived(chain_at(0)), arrived(chain_at(1))])
        assert (await own.commit(first)).snapshots == 1
        written = await own.commit(second)
    assert (written.snapshots, written.known) == (1, 1)
    assert counts(plain_database_url) == (2, 20, 2)


@pytest.mark.parametrize("is_prepared", [False, True])
async def test_server_that_has_lost_instruments_is_given_them_again(
    plain_database_url: str, is_prepared: bool
) -> None:
    """As a standby that lagged has, once it is promoted, or a restored copy."""
    url = plain_database_url
    async with open_database(url) as database:
        own = writer(database)
        await own.write([arrived(chain_at(0))])
        prepared = await own.prepare([arrived(chain_at(1))])
        with psycopg.connect(url, autocommit=True) as connection:
            for table in TABLES:
                connection.execute(f"DELETE FROM {table}".encode())  # noqa: S608 - our names
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        if is_prepared:
            await own.commit(prepared)
        else:
            await own.write([arrived(chain_at(1))])
    assert counts(url) == (1, 10, 1)
    assert number_of(url, NAMELESS) == 0


async def test_leg_that_a_trigger_refuses_costs_that_leg(plain_database_url: str) -> None:
    with psycopg.connect(plain_database_url) as connection:
        connection.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$BEGIN IF NEW.volume = 4242 THEN RAISE EXCEPTION 'too round'; END IF; "
            "RETURN NEW; END$$;"
            "CREATE TRIGGER refuse BEFORE INSERT ON option_contracts "
            "FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
    chain = chain_at(0)
    volumes = chain.legs["volume"].copy()
    volumes[3] = 4242
    one = arrived(EnrichedChain(chain.header, {**chain.legs, "volume": volumes}))
    async with open_database(plain_database_url) as database:
        own = writer(database)
        with pytest.raises(RowsRejected, match="too round"):
            await own.write([one])
        refused = await own.refused_by_server(one)
        assert list(refused) == [3]
        await own.write([one], {one.id: refused})
    assert counts(plain_database_url) == (1, 9, 1)


async def test_chains_that_a_frozen_owner_commits_after_all_are_no_dead_letters(
    valkey: str, plain_database_url: str
) -> None:
    """It holds their rows in open transactions, and lets go of one after the other."""
    url = plain_database_url
    held = [chain_at(number * 60) for number in range(2)]  # each in a minute of its own
    async with contextlib.AsyncExitStack() as stack:
        databases = [await stack.enter_async_context(open_database(url)) for _ in held]
        for number, database in enumerate(databases):
            await writer(database).write([arrived(chain_at(number * 60 + 1))])
        frozen = [await stack.enter_async_context(frozen_minute(url, chain)) for chain in held]
        theirs = [
            asyncio.create_task(writer(database).write([arrived(chain)]))
            for database, chain in zip(databases, held, strict=True)
        ]
        await until(lambda: waiting_for(url, "UPDATE|INSERT", 2))
        context = await stack.enter_async_context(storage_context(valkey, url))
        await bus.append(context, "stream:enriched", *map(enriched_entry, held))
        async with bus.working(context, process.store):
            for minute, their in zip(frozen, theirs, strict=True):
                await until(lambda: waiting_for(url, "COPY", 1))
                await minute.rollback()
                assert (await their).snapshots == 1
            await until(lambda: is_settled(context, 2))
        assert await context.redis.xlen(context.topics.dead()) == 0
    assert counts(url) == (4, 40, 4)


async def test_contract_that_a_frozen_owner_stores_after_all_is_no_dead_letter(
    valkey: str, plain_database_url: str
) -> None:
    url, one = plain_database_url, arrived(chain_at(0))
    letter, _ = letter_of(Refused(one, 3, "held back"))
    alone = Arrived(letter.id, "1-0", "epoch", 1, None, *open_frame(letter.data))
    async with (
        open_database(url) as database,
        storage_context(valkey, url) as context,
        await psycopg.AsyncConnection.connect(url) as other,
    ):
        await writer(database).write([one], {one.id: {3: "held back"}})
        await other.execute("LOCK TABLE option_contracts IN SHARE ROW EXCLUSIVE MODE")
        theirs = asyncio.create_task(add_contract(database, alone))
        await until(lambda: waiting_for(url, "COPY", 1))
        await bus.append(context, "stream:enriched", letter)
        async with bus.working(context, process.store):
            await until(lambda: waiting_for(url, "UPDATE ledger", 1))
            await other.rollback()
            assert await theirs
            await until(lambda: is_settled(context, 1))
        assert await context.redis.xlen(context.topics.dead()) == 0
    assert counts(url) == (1, 10, 1)


@contextlib.asynccontextmanager
async def frozen_minute(
    url: str, chain: EnrichedChain
) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """A session that keeps a minute's coverage, the last that a commit writes, until it ends."""
    async with await psycopg.AsyncConnection.connect(url) as other:
        minute = to_datetime(chain.header.ts_ingest)
        await other.execute(
            "UPDATE coverage SET present = present WHERE minute = date_trunc('minute', %s, 'UTC')",
            (minute,),
        )
        yield other


async def waiting_for(url: str, begins: str, sessions: int) -> bool:
    """Whether so many sessions wait for another one in a statement that begins so."""
    async with await psycopg.AsyncConnection.connect(url) as other:
        found = await other.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND cardinality(pg_blocking_pids(pid)) > 0 AND query ~* %s",
            (rf"^\s*({begins})",),
        )
        return await found.fetchone() == (sessions,)


async def test_session_with_a_server_that_fell_silent_is_cut_off(plain_database_url: str) -> None:
    proxy = CuttingProxy(plain_database_url)
    async with proxy.running():
        database = Database(proxy.url, session_s=0.5)
        await database.open()
        try:
            async with database.session() as session:
                proxy.fall_silent()
                with pytest.raises(StoreUnavailable):
                    await asyncio.wait_for(session.fetch("ledger_known", ids=["x"]), 10)
            await database.ping()  # by a connection made anew
        finally:
            await database.close()


async def test_connections_that_fell_silent_at_rest_keep_nobody_waiting(
    plain_database_url: str,
) -> None:
    proxy = CuttingProxy(plain_database_url)
    async with proxy.running():
        database = Database(proxy.url)
        await database.open()
        try:
            async with contextlib.AsyncExitStack() as stack:
                for _ in range(4):  # as many as there may be
                    session = await stack.enter_async_context(database.session())
                    await session.fetch("ping")
            proxy.fall_silent()
            await database.ping()
            assert database.connections > 4
        finally:
            await database.close()


async def test_connection_that_fell_silent_is_given_up_and_all_is_stored(
    valkey: str, plain_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "SESSION_S", 1.0)
    proxy = CuttingProxy(plain_database_url)
    async with (
        proxy.running(),
        storage_context(valkey, proxy.url) as context,
        bus.working(context, process.store),
    ):
        entries = [enriched_entry(chain_at(number)) for number in range(20)]
        await bus.append(context, "stream:enriched", *entries[:10])
        await until(lambda: is_settled(context, 10))
        proxy.fall_silent()
        await bus.append(context, "stream:enriched", *entries[10:])
        await until(lambda: is_settled(context, 20))
        assert context.telemetry.report()["state"] == "ready"
    assert counts(plain_database_url) == (20, 200, 20)
