"""The storage worker while the disk of Postgres is full: it waits, then stores all."""

from collections.abc import Iterator

import pytest

from tests.integration.test_storage import (
    chain_at,
    counts,
    enriched_entry,
    is_settled,
    pending,
    storage_context,
    until,
)
from tests.support import bus
from tests.support.postgres import PostgresServer
from tests.support.small_disk import SmallDisk, database_on, small_disk
from workers.storage.__main__ import store

COUNT = 40  # more than the pages that are there have room for


@pytest.fixture
def small(wheel_server: PostgresServer) -> Iterator[tuple[SmallDisk, str]]:
    with small_disk() as disk, database_on(wheel_server, disk) as url:
        yield disk, url


async def test_full_disk_is_waited_for_and_then_all_is_stored(
    valkey: str, small: tuple[SmallDisk, str]
) -> None:
    disk, url = small
    async with storage_context(valkey, url) as context, bus.working(context, store):

        def is_degraded() -> bool:
            report = context.telemetry.report()
            return report["state"] == "degraded" and "53100" in report["reason"]

        await bus.append(context, "stream:enriched", enriched_entry(chain_at(0)))
        await until(lambda: is_settled(context, 1))
        disk.fill()  # now that it is connected: a session begun on a full disk may be refused
        try:
            entries = (enriched_entry(chain_at(n)) for n in range(1, COUNT + 1))
            await bus.append(context, "stream:enriched", *entries)
            await bus.until(is_degraded)
            assert await pending(context) > 0
        finally:
            disk.free()
        await until(lambda: is_settled(context, COUNT + 1))
        assert context.telemetry.report()["state"] == "ready"
    assert counts(url) == (COUNT + 1, 10 * (COUNT + 1), COUNT + 1)
