"""The storage worker: each frame once, nothing acknowledged before its commit."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import msgspec
import numpy as np
import psycopg
import pytest

from pipeline import history
from pipeline.clock import SECOND_NS
from pipeline.database import Database
from pipeline.entries import NewEntry
from pipeline.errors import RowsRejected
from pipeline.frames import encode_expiries, encode_frame
from pipeline.models import (
    ENRICHED_CHAIN_TYPE,
    ENRICHED_EXPIRIES_TYPE,
    EnrichedChain,
    Expiries,
)
from pipeline.runtime import Context
from tests.support import bus, chains
from tests.support.postgres import PostgresServer, open_database
from tests.support.storing import arrived, write
from workers.storage.__main__ import store
from workers.storage.writer import Arrived, Writer

START = chains.TS_INGEST
DEADLINE_S = 20.0
COUNTS = (
    "SELECT (SELECT count(*) FROM market_snapshots), (SELECT count(*) FROM option_contracts), "
    "(SELECT count(*) FROM ledger)"
)


def counts(url: str) -> tuple[int, int, int]:
    """Snapshots, legs, ledger lines."""
    with psycopg.connect(url) as connection:
        row = connection.execute(COUNTS.encode()).fetchone()
    assert row is not None
    return row


def chain_at(number: int, strikes: int = 5, **changes: Any) -> EnrichedChain:
    return chains.enriched(strikes, ts_ingest=START + number * SECOND_NS, **changes)


def with_column(chain: EnrichedChain, name: str, value: float) -> EnrichedChain:
    column = chain.legs[name].copy()
    column[0] = value
    return EnrichedChain(chain.header, {**chain.legs, name: column})


def writer(database: Database) -> Writer:
    return Writer(database, lambda: START)


# The writer alone: frames in, a transaction out.


async def test_rows_snapshot_and_ledger_are_committed_together(database_url: str) -> None:
    async with open_database(database_url) as database:
        written = await write(database, chain_at(0), chain_at(1))
    assert (written.snapshots, written.rows, written.known) == (2, 20, 0)
    assert counts(database_url) == (2, 20, 2)


async def test_entry_in_the_ledger_is_skipped(database_url: str) -> None:
    async with open_database(database_url) as database:
        await write(database, chain_at(0))
        # Made again after a loss: another stream id, the same message id.
        again = await write(database, chain_at(1), chain_at(0))
    assert (again.snapshots, again.known) == (1, 1)
    assert counts(database_url) == (2, 20, 2)


async def test_entry_that_stands_twice_in_a_batch_is_stored_once(database_url: str) -> None:
    async with open_database(database_url) as database:
        written = await write(database, chain_at(0), chain_at(0))
    assert (written.snapshots, written.known) == (1, 1)
    assert counts(database_url) == (1, 10, 1)


async def test_rejected_row_leaves_nothing_of_its_batch(database_url: str) -> None:
    negative = with_column(chain_at(1), "bid", -1.0)
    async with open_database(database_url) as database:
        with pytest.raises(RowsRejected, match="option_contracts_prices"):
            await write(database, chain_at(0), negative)
    assert counts(database_url) == (0, 0, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("strike", np.nan),
        ("strike", -5.0),
        ("kind", 7),
        ("open_interest", 2**40),
        ("gamma", np.inf),
        ("iv_status", 77),
        ("volume", -3),
    ],
)
async def test_value_out_of_range_is_rejected(
    plain_database_url: str, name: str, value: float
) -> None:
    async with open_database(plain_database_url) as database:
        with pytest.raises(RowsRejected):
            await write(database, with_column(chain_at(0), name, value))


async def test_contract_that_stands_twice_in_a_chain_is_rejected(plain_database_url: str) -> None:
    chain = chain_at(0)
    strikes = chain.legs["strike"].copy()
    strikes[2] = strikes[0]
    async with open_database(plain_database_url) as database:
        with pytest.raises(RowsRejected, match="twice"):
            await write(database, EnrichedChain(chain.header, {**chain.legs, "strike": strikes}))


async def test_other_values_at_a_stored_instant_are_rejected(database_url: str) -> None:
    async with open_database(database_url) as database:
        await write(database, chain_at(0))
        with pytest.raises(RowsRejected, match="23505"):
            await write(database, with_column(chain_at(0), "last", 1.5))


async def test_another_revision_stands_beside_the_first(database_url: str) -> None:
    chain = chain_at(0)
    rev = chain.header.rev + 1
    newer = EnrichedChain(msgspec.structs.replace(chain.header, rev=rev), chain.legs)
    async with open_database(database_url) as database:
        await write(database, chain, newer)
        found = await history.chain_as_of(database, "NIFTY", chains.EXPIRY, START)
    assert counts(database_url) == (2, 20, 2)
    assert found is not None
    assert (found[0]["rev"], len(found[1])) == (rev, 10)


async def test_old_days_get_their_place_from_several_writers_at_once(database_url: str) -> None:
    async def write_days(shift_s: int) -> None:
        async with open_database(database_url) as database:
            own = writer(database)
            for day in range(8):
                await own.write([arrived(chain_at(shift_s - day * 86_400))])

    await asyncio.gather(*(write_days(n) for n in range(3)))
    assert counts(database_url) == (24, 240, 24)


async def test_two_writers_of_the_same_entry_store_it_once(database_url: str) -> None:
    batch = [arrived(chain_at(n)) for n in range(4)]

    async def attempt() -> int:
        async with open_database(database_url) as database:
            own = writer(database)
            with contextlib.suppress(RowsRejected):  # the other was first between look and copy
                return (await own.write(batch)).snapshots
            return (await own.write(batch)).snapshots

    assert sum(await asyncio.gather(attempt(), attempt())) == 4
    assert counts(database_url) == (4, 40, 4)


async def test_dropped_day_is_made_again_once_forgotten(plain_database_url: str) -> None:
    async with open_database(plain_database_url) as database:
        own = writer(database)
        await own.write([arrived(chain_at(0))])
        with psycopg.connect(plain_database_url) as connection:
            connection.execute("DROP TABLE option_contracts_20260125")
        with pytest.raises(RowsRejected, match="no partition"):
            await own.write([arrived(chain_at(1))])
        own.forget()
        await own.write([arrived(chain_at(1))])


# The worker on the bus.


@contextlib.asynccontextmanager
async def storage_context(
    redis_url: str, database_url: str, **settings: Any
) -> AsyncIterator[Context]:
    chosen = {"database_url": database_url, "storage_max_age_ms": 50} | settings
    async with bus.context(redis_url, "storage", **chosen) as context:
        yield context


def enriched_entry(chain: EnrichedChain, *, id: str = "") -> NewEntry:
    coming: Arrived = arrived(chain, id=id)
    return NewEntry(
        id=coming.id,
        type=ENRICHED_CHAIN_TYPE,
        key=chain.header.chain,
        ts=chain.header.ts_ingest,
        te=chain.header.ts_ingest,
        data=encode_frame(chain),
    )


async def until(claim: Callable[[], Awaitable[bool]], *, deadline_s: float = DEADLINE_S) -> None:
    end = time.monotonic() + deadline_s
    while not await claim():
        assert time.monotonic() < end, "not so in time"
        await asyncio.sleep(0.02)


async def pending(context: Context) -> int:
    summary = await context.redis.xpending(context.topics.enriched(), "storage")
    return int(summary["pending"])


async def is_settled(context: Context, read: int) -> bool:
    counters = context.telemetry.report()["counters"]
    return counters.get("entries_read") == read and await pending(context) == 0


async def test_frames_are_stored_and_acknowledged(valkey: str, database_url: str) -> None:
    async with storage_context(valkey, database_url) as context, bus.working(context, store):
        await bus.append(
            context, "stream:enriched", *(enriched_entry(chain_at(n)) for n in range(30))
        )
        await until(lambda: is_settled(context, 30))
        counters = context.telemetry.report()["counters"]
    assert counts(database_url) == (30, 300, 30)
    assert (counters["snapshots_written"], counters["rows_written"]) == (30, 300)


async def test_list_of_expiries_is_acknowledged_and_not_stored(
    valkey: str, plain_database_url: str
) -> None:
    listed = Expiries(underlying="NIFTY", provider="dhan", ts_ingest=START, expiries=())
    entry = NewEntry(
        id="x", type=ENRICHED_EXPIRIES_TYPE, key="NIFTY", ts=START, data=encode_expiries(listed)
    )
    async with storage_context(valkey, plain_database_url) as context, bus.working(context, store):
        await bus.append(context, "stream:enriched", entry)
        await until(lambda: is_settled(context, 1))
        assert await context.redis.xlen(context.topics.dead()) == 0
    assert counts(plain_database_url) == (0, 0, 0)


async def test_undecodable_entry_becomes_a_dead_letter_and_the_group_goes_on(
    valkey: str, plain_database_url: str
) -> None:
    good = enriched_entry(chain_at(0))
    torn = msgspec.structs.replace(good, id="torn", data=good.data[:99])
    nameless = msgspec.structs.replace(good, id="")
    async with storage_context(valkey, plain_database_url) as context, bus.working(context, store):
        await bus.append(context, "stream:enriched", torn, nameless, good)
        await until(lambda: is_settled(context, 3))
        letters = await context.redis.xrange(context.topics.dead())
    assert [fields[b"reason"] for _, fields in letters] == [b"undecodable", b"undecodable"]
    assert counts(plain_database_url) == (1, 10, 1)


async def test_poison_becomes_a_dead_letter_and_its_batch_is_stored(
    valkey: str, database_url: str
) -> None:
    poison = [
        enriched_entry(with_column(chain_at(7), "ask", -1.0)),
        enriched_entry(with_column(chain_at(8), "open_interest", 2**40)),
        enriched_entry(with_column(chain_at(9), "strike", np.nan)),
    ]
    good = [enriched_entry(chain_at(n)) for n in range(4)]
    async with storage_context(valkey, database_url) as context, bus.working(context, store):
        await bus.append(context, "stream:enriched", *good[:2], *poison, *good[2:])
        await until(lambda: is_settled(context, 7))
        letters = await context.redis.xrange(context.topics.dead())
    assert [fields[b"id"].decode() for _, fields in letters] == [one.id for one in poison]
    assert {fields[b"reason"] for _, fields in letters} == {b"rejected"}
    assert counts(database_url) == (4, 40, 4)


async def test_batch_is_committed_when_it_is_full(valkey: str, plain_database_url: str) -> None:
    patient = {"storage_max_age_ms": 600_000, "storage_batch_rows": 20}
    async with (
        storage_context(valkey, plain_database_url, **patient) as context,
        bus.working(context, store),
    ):
        await bus.append(
            context, "stream:enriched", *(enriched_entry(chain_at(n)) for n in range(2))
        )
        await until(lambda: is_settled(context, 2))


async def test_what_was_read_is_committed_when_stopping(
    valkey: str, plain_database_url: str
) -> None:
    patient = {"storage_max_age_ms": 600_000, "storage_batch_rows": 10**9}
    async with storage_context(valkey, plain_database_url, **patient) as context:
        async with bus.working(context, store):
            await bus.append(
                context, "stream:enriched", *(enriched_entry(chain_at(n)) for n in range(5))
            )

            async def is_read() -> bool:
                return context.telemetry.report()["counters"].get("entries_read") == 5

            await until(is_read)
            assert counts(plain_database_url) == (0, 0, 0)
        assert counts(plain_database_url) == (5, 50, 5)
        assert await pending(context) == 0


async def test_postgres_killed_under_load_loses_and_doubles_nothing(
    valkey: str, wheel_server: PostgresServer
) -> None:
    total = 120
    with wheel_server.database() as url:
        async with (
            storage_context(valkey, url, storage_batch_rows=100) as context,
            bus.working(context, store),
        ):
            await bus.append(
                context,
                "stream:enriched",
                *(enriched_entry(chain_at(n)) for n in range(total // 2)),
            )
            wheel_server.kill()

            async def is_degraded() -> bool:
                report = context.telemetry.report()
                return report["state"] == "degraded" and "Postgres" in report["reason"]

            try:
                await bus.append(
                    context,
                    "stream:enriched",
                    *(enriched_entry(chain_at(n)) for n in range(total // 2, total)),
                )
                await until(is_degraded)
                assert await pending(context) > 0
            finally:
                wheel_server.start()
            await until(lambda: is_settled(context, total), deadline_s=30.0)
            assert context.telemetry.report()["state"] == "ready"
        assert counts(url) == (total, total * 10, total)


async def test_stopping_without_postgres_leaves_entries_pending(
    valkey: str, wheel_server: PostgresServer
) -> None:
    with wheel_server.database() as url:
        wheel_server.kill()
        try:
            async with storage_context(valkey, url) as context:
                async with bus.working(context, store):
                    await bus.append(context, "stream:enriched", enriched_entry(chain_at(0)))

                    async def is_read() -> bool:
                        return context.telemetry.report()["counters"].get("entries_read") == 1

                    await until(is_read)
                assert await pending(context) == 1
        finally:
            wheel_server.start()
        async with storage_context(valkey, url) as context, bus.working(context, store):
            await until(lambda: is_settled(context, 1))
        assert counts(url) == (1, 10, 1)
