"""The storage worker through a real failover: the primary dies, its standby is promoted."""

from collections.abc import Iterator

import pytest

from pipeline.runtime import Context
from tests.integration.test_storage import (
    chain_at,
    counts,
    enriched_entry,
    is_settled,
    storage_context,
    until,
)
from tests.support import bus
from tests.support.failover import either, promote, running_pair
from tests.support.postgres import PostgresServer, open_database
from workers.storage.__main__ import store

HALF = 40


@pytest.fixture
def pair() -> Iterator[tuple[PostgresServer, PostgresServer]]:
    with running_pair() as servers:
        yield servers


async def append(context: Context, first: int) -> None:
    entries = (enriched_entry(chain_at(n)) for n in range(first, first + HALF))
    await bus.append(context, "stream:enriched", *entries)


def is_degraded(context: Context) -> bool:
    return context.telemetry.report()["state"] == "degraded"


async def is_begun(context: Context) -> bool:
    return context.telemetry.report()["counters"].get("rows_written", 0) > 0


async def test_failover_to_a_synchronous_standby_loses_and_doubles_nothing(
    valkey: str, pair: tuple[PostgresServer, PostgresServer]
) -> None:
    primary, standby = pair
    with primary.database() as url:
        promoted_url = standby.database_url(url.rpartition("/")[2])
        both = either(primary, standby, url)
        async with (
            storage_context(valkey, both, storage_batch_rows=50) as context,
            bus.working(context, store),
        ):
            await append(context, 0)
            await until(lambda: is_begun(context))
            async with open_database(promoted_url) as database:
                standing = (await database.fetch("replica_standing"))[0]
            assert standing["is_standby"]
            primary.kill()
            await append(context, HALF)
            await bus.until(lambda: is_degraded(context))
            promote(standby)
            await until(lambda: is_settled(context, 2 * HALF), deadline_s=40.0)
            assert context.telemetry.report()["state"] == "ready"
        assert counts(promoted_url) == (2 * HALF, 20 * HALF, 2 * HALF)
