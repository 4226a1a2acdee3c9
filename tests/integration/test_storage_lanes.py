"""Two batches at once on their way into Postgres, and a server that is slow to take them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec
import psycopg

from pipeline.errors import StoreUnavailable
from pipeline.models import EnrichedChain
from tests.integration.test_storage import (
    chain_at,
    counts,
    enriched_entry,
    is_settled,
    pending,
    storage_context,
    until,
    writer,
)
from tests.support import bus
from tests.support.postgres import open_database
from tests.support.storing import arrived
from workers.storage.__main__ import store
from workers.storage.intake import READ_ENTRIES
from workers.storage.outage import Outage

LEGS = 10


def legs_stored(url: str) -> int:
    return counts(url)[1]


@contextlib.asynccontextmanager
async def holding(url: str, text: str) -> AsyncIterator[None]:
    """Have a session of somebody else's keep what a statement locks."""
    async with await psycopg.AsyncConnection.connect(url) as other:
        await other.execute(text.encode())
        yield
        await other.rollback()


async def test_batches_that_share_a_snapshot_are_committed_one_after_the_other(
    plain_database_url: str,
) -> None:
    first = chain_at(0)
    newer = msgspec.structs.replace(first.header, rev=first.header.rev + 1)
    async with open_database(plain_database_url) as database:
        own = writer(database)
        batches = [
            [msgspec.structs.replace(arrived(first), id="raw:r1"), arrived(chain_at(1))],
            [msgspec.structs.replace(arrived(first), id="raw:r1"), arrived(chain_at(2))],
            [msgspec.structs.replace(arrived(EnrichedChain(newer, first.legs)), id="raw:r2")],
        ]
        prepared = [await own.prepare(batch) for batch in batches]
        written = await asyncio.gather(*map(own.commit, prepared))
        with psycopg.connect(plain_database_url) as connection:
            present = connection.execute("SELECT sum(present) FROM coverage").fetchone()
    assert (sum(one.snapshots for one in written), sum(one.known for one in written)) == (4, 1)
    assert counts(plain_database_url) == (4, 4 * LEGS, 4)
    assert present == (3,)


async def test_batch_is_committed_beside_one_that_waits_and_acknowledged_after_it(
    valkey: str, plain_database_url: str
) -> None:
    first, second = (enriched_entry(chain_at(number)) for number in range(2))
    line = (
        "INSERT INTO ledger (id, stream_id, ts, n, rejected) "  # noqa: S608 - our own id
        f"VALUES ('{first.id}', '0-1', '2026-01-01Z', 0, 0)"
    )
    async with (
        storage_context(valkey, plain_database_url, storage_batch_rows=LEGS) as context,
        bus.working(context, store),
    ):
        async with holding(plain_database_url, line):
            await bus.append(context, "stream:enriched", first)
            await until(lambda: _is(pending(context), 1))
            await bus.append(context, "stream:enriched", second)
            await until(lambda: _is(asyncio.to_thread(legs_stored, plain_database_url), LEGS))
            assert await pending(context) == 2
        await until(lambda: is_settled(context, 2))
    assert counts(plain_database_url) == (2, 2 * LEGS, 2)


async def test_slow_server_bounds_what_is_held_and_is_told_of(
    valkey: str, plain_database_url: str
) -> None:
    entries = [enriched_entry(chain_at(number)) for number in range(6 * READ_ENTRIES)]
    most_bytes = 8 * len(entries[0].data)
    async with (
        storage_context(valkey, plain_database_url, storage_max_bytes=most_bytes) as context,
        bus.working(context, store),
    ):
        async with holding(plain_database_url, "LOCK TABLE ledger"):
            await bus.append(context, "stream:enriched", *entries)
            await until(lambda: _says(context.telemetry.report(), "Postgres: no answer for 5 s"))
            assert 0 < await pending(context) <= 8 + READ_ENTRIES
        await until(lambda: is_settled(context, len(entries)))
        assert context.telemetry.report()["state"] == "ready"
    assert counts(plain_database_url) == (len(entries), len(entries) * LEGS, len(entries))


async def test_process_is_degraded_until_every_call_is_answered(valkey: str) -> None:
    away: dict[str, str] = {"one": "it restarts", "two": "it is full"}

    async def call(name: str) -> str:
        if name in away:
            raise StoreUnavailable(away[name])
        return name

    async with storage_context(valkey, "postgresql://unused/unused") as context:
        outage = Outage(context.telemetry, context.stopping)
        said: list[tuple[str, str]] = []

        async def has_said(state: str, reason: str) -> bool:
            said.append((context.telemetry.state, context.telemetry.reason))
            return said[-1] == (state, reason)

        calls = [
            asyncio.create_task(outage.until_answered(lambda name=name: call(name)))
            for name in tuple(away)
        ]
        await until(lambda: has_said("degraded", "Postgres: it restarts"))
        del away["one"]
        await until(lambda: has_said("degraded", "Postgres: it is full"))
        del away["two"]
        assert await asyncio.gather(*calls) == ["one", "two"]
        assert context.telemetry.state == "ready"


async def _is(count: "asyncio.Future[int]", wanted: int) -> bool:
    return await count == wanted


async def _says(report: dict[str, object], reason: str) -> bool:
    return (report["state"], report["reason"]) == ("degraded", reason)
