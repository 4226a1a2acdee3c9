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
from pipeline.streams.letters import Filter, read_letters, redrive
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


async def test_leg_that_no_row_can_hold_is_left_out_and_told(database_url: str) -> None:
    negative = with_column(chain_at(1), "bid", -1.0)
    async with open_database(database_url) as database:
        written = await write(database, chain_at(0), negative)
        lines = await database.fetch("ledger_known", ids=[arrived(negative).id])
    assert [(one.leg, one.reason) for one in written.refused] == [(0, "no row can hold bid -1.0")]
    assert counts(database_url) == (2, 19, 2)
    assert [line["rejected"] for line in lines] == [1]


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("strike", np.nan, "no contract's"),
        ("strike", -5.0, "no contract's"),
        ("kind", 7, "no contract's"),
        ("open_interest", 2**40, "open_interest 1099511627776"),
        ("gamma", np.inf, "gamma inf"),
        ("iv_status", 77, "iv_status 77"),
        ("volume", -3, "volume -3"),
        ("last", 1e-50, "last 1e-50"),
    ],
)
async def test_value_out_of_range_costs_its_leg_alone(
    plain_database_url: str, name: str, value: float, reason: str
) -> None:
    async with open_database(plain_database_url) as database:
        written = await write(database, with_column(chain_at(0), name, value))
    assert [one.leg for one in written.refused] == [0]
    assert reason in written.refused[0].reason
    assert counts(plain_database_url) == (1, 9, 1)


async def test_contract_that_stands_twice_in_a_chain_is_stored_once(
    plain_database_url: str,
) -> None:
    chain = chain_at(0)
    strikes = chain.legs["strike"].copy()
    strikes[2] = strikes[0]
    async with open_database(plain_database_url) as database:
        twice = EnrichedChain(chain.header, {**chain.legs, "strike": strikes})
        written = await write(database, twice)
    assert [(one.leg, "twice" in one.reason) for one in written.refused] == [(2, True)]
    assert counts(plain_database_url) == (1, 9, 1)


async def test_leg_that_only_the_server_refuses_is_found_among_the_others(
    database_url: str,
) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "ALTER TABLE market_snapshots ADD CONSTRAINT small CHECK (n < 1000);"
            "ALTER TABLE option_contracts ADD CONSTRAINT own CHECK (volume <> 4242)"
        )
    chain = chain_at(0, 40)
    volumes = chain.legs["volume"].copy()
    volumes[[3, 57]] = 4242
    one = arrived(EnrichedChain(chain.header, {**chain.legs, "volume": volumes}))
    async with open_database(database_url) as database:
        storing = writer(database)
        with pytest.raises(RowsRejected, match="own"):
            await storing.write([one])
        refused = await storing.refused_by_server(one)
        assert sorted(refused) == [3, 57]
        assert "own" in refused[3]
        written = await storing.write([one], {one.id: refused})
    assert sorted(refused.leg for refused in written.refused) == [3, 57]
    assert counts(database_url) == (1, 78, 1)


async def test_snapshots_are_counted_to_their_minute_once_for_all_revisions(
    database_url: str,
) -> None:
    later = chain_at(61)
    async with open_database(database_url) as database:
        await write(database, *(chain_at(number) for number in (0, 1, 60)))
        first = msgspec.structs.replace(arrived(later), id="raw:r1")
        newer = EnrichedChain(
            msgspec.structs.replace(later.header, rev=later.header.rev + 1), later.legs
        )
        second = msgspec.structs.replace(arrived(newer), id="raw:r2")
        await writer(database).write([first])
        await writer(database).write([second, first])
    with psycopg.connect(database_url) as connection:
        found = connection.execute(
            "SELECT symbol, present, expected FROM coverage ORDER BY minute"
        ).fetchall()
    symbol = later.header.chain
    assert sum(present for _, present, _ in found) == 4
    assert {(name, expected) for name, _, expected in found} == {(symbol, 0)}


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


async def test_poisoned_legs_become_dead_letters_and_the_rest_is_stored(
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
    symbol = chain_at(7).header.chain
    assert [fields[b"id"].decode() for _, fields in letters] == [
        f"{one.id}#{symbol}-{strike}-CE"
        for one, strike in zip(poison, ("24900", "24900", "nan"), strict=True)
    ]
    assert {fields[b"type"] for _, fields in letters} == {b"contract.enriched.v1"}
    assert {fields[b"reason"] for _, fields in letters} == {b"rejected"}
    assert counts(database_url) == (7, 67, 7)


async def test_chain_that_contradicts_what_is_stored_is_set_aside_as_a_whole(
    valkey: str, plain_database_url: str
) -> None:
    other = enriched_entry(with_column(chain_at(0), "last", 1.5))
    async with storage_context(valkey, plain_database_url) as context, bus.working(context, store):
        await bus.append(context, "stream:enriched", enriched_entry(chain_at(0)))
        await until(lambda: is_settled(context, 1))
        await bus.append(context, "stream:enriched", other, enriched_entry(chain_at(1)))
        await until(lambda: is_settled(context, 3))
        letters = await context.redis.xrange(context.topics.dead())
    assert [fields[b"id"].decode() for _, fields in letters] == [other.id]
    assert counts(plain_database_url) == (2, 20, 2)


async def test_contract_sent_back_once_it_can_be_stored_stands_beside_its_chain(
    valkey: str, plain_database_url: str
) -> None:
    chain = chain_at(0)
    volumes = chain.legs["volume"].copy()
    volumes[3] = 4242
    entry = enriched_entry(EnrichedChain(chain.header, {**chain.legs, "volume": volumes}))
    with psycopg.connect(plain_database_url) as connection:
        connection.execute("ALTER TABLE option_contracts ADD CONSTRAINT own CHECK (volume <> 4242)")
    async with storage_context(valkey, plain_database_url) as context, bus.working(context, store):
        await bus.append(context, "stream:enriched", entry)
        await until(lambda: is_settled(context, 1))
        assert counts(plain_database_url) == (1, 9, 1)
        with psycopg.connect(plain_database_url) as connection:
            connection.execute("ALTER TABLE option_contracts DROP CONSTRAINT own")
        sent = 0
        async for letter in read_letters(context.redis, context.topics.dead(), Filter()):
            for _ in range(2):  # the second time there is no such letter any more
                sent += await redrive(context.redis, letter) is not None
        assert sent == 1
        await until(lambda: is_settled(context, 2))
        assert await context.redis.xlen(context.topics.dead()) == 0
    assert counts(plain_database_url) == (1, 10, 1)
    with psycopg.connect(plain_database_url) as connection:
        assert connection.execute("SELECT n, rejected FROM ledger").fetchall() == [(10, 0)]


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
