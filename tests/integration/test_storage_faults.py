"""The storage worker while Postgres fails in its several ways: nothing lost, nothing double."""

import asyncio
import contextlib
from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
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
from tests.support.cutting_proxy import Cut, CuttingProxy
from tests.support.postgres import PostgresServer
from tests.support.servers import free_port
from workers.storage.__main__ import store
from workers.storage.intake import READ_ENTRIES


async def append(context: Context, *numbers: int) -> None:
    await bus.append(context, "stream:enriched", *(enriched_entry(chain_at(n)) for n in numbers))


def is_degraded(context: Context, reason: str) -> bool:
    report = context.telemetry.report()
    return report["state"] == "degraded" and reason in report["reason"]


@pytest.mark.parametrize("cut", Cut)
async def test_connection_cut_at_a_step_loses_and_doubles_nothing(
    valkey: str, plain_database_url: str, cut: Cut
) -> None:
    proxy = CuttingProxy(plain_database_url, cut, times=2)
    async with (
        proxy.running(),
        storage_context(valkey, proxy.url, storage_batch_rows=50) as context,
        bus.working(context, store),
    ):
        await append(context, *range(20))
        await until(lambda: is_settled(context, 20))
        known = context.telemetry.report()["counters"]["entries_known"]
        assert context.telemetry.report()["state"] == "ready"
    assert proxy.cuts == 2
    assert counts(plain_database_url) == (20, 200, 20)
    # Committed without its answer: found in the ledger by the next attempt.
    assert (known > 0) == (cut is Cut.AFTER_COMMIT)


@contextlib.contextmanager
def read_only(server: PostgresServer) -> Iterator[None]:
    """A server that takes no writes for a while, whoever is connected."""
    _set_read_only(server, "on")
    try:
        yield
    finally:
        _set_read_only(server, "off")


def _set_read_only(server: PostgresServer, value: str) -> None:
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}".encode())
        connection.execute("SELECT pg_reload_conf()")
    found = ""
    while found != value:  # the suite's time limit ends what never comes
        with psycopg.connect(server.url, autocommit=True) as connection:
            row = connection.execute("SHOW default_transaction_read_only").fetchone()
        assert row is not None
        found = row[0]


async def test_server_that_became_read_only_is_waited_for_and_told_of_once(
    valkey: str, wheel_server: PostgresServer, capfd: pytest.CaptureFixture[str]
) -> None:
    with wheel_server.database() as url:
        async with storage_context(valkey, url) as context, bus.working(context, store):
            await append(context, *range(10))
            await until(lambda: is_settled(context, 10))
            attempts = 0
            with read_only(wheel_server):
                capfd.readouterr()
                await append(context, *range(10, 20))
                await bus.until(lambda: is_degraded(context, "25006"))
                while attempts < 20:  # some two seconds, several attempts
                    await asyncio.sleep(0.1)
                    attempts += 1
                    assert is_degraded(context, "25006")
                logged = capfd.readouterr()
            assert (logged.out + logged.err).count("degraded") == 1
            await until(lambda: is_settled(context, 20))
            assert context.telemetry.report()["state"] == "ready"
        assert counts(url) == (20, 200, 20)


async def test_keeper_lets_go_of_a_server_that_became_read_only_and_keeps_again(
    valkey: str, wheel_server: PostgresServer
) -> None:
    with wheel_server.database() as url:
        async with storage_context(valkey, url) as context, bus.working(context, store):

            def keeps() -> bool:
                return context.telemetry.report()["gauges"].get("keeper") == 1

            await bus.until(keeps)
            with read_only(wheel_server):
                await bus.until(lambda: not keeps())
            await bus.until(keeps)


async def test_second_host_of_the_url_is_used_where_the_first_is_dead(
    valkey: str, plain_database_url: str
) -> None:
    parts = urlsplit(plain_database_url)
    account, _, alive = parts.netloc.rpartition("@")
    url = (
        f"postgresql://{account}@127.0.0.1:{free_port()},{alive}{parts.path}"
        "?target_session_attrs=read-write"
    )
    async with storage_context(valkey, url) as context, bus.working(context, store):
        await append(context, *range(10))
        await until(lambda: is_settled(context, 10))
    assert counts(plain_database_url) == (10, 100, 10)


async def test_what_is_held_while_postgres_is_away_is_bounded(
    valkey: str, plain_database_url: str
) -> None:
    frame_bytes = len(enriched_entry(chain_at(0)).data)
    most_entries, total = 10, 200
    proxy = CuttingProxy(plain_database_url)  # which does not run yet: nobody answers there
    async with (
        storage_context(valkey, proxy.url, storage_max_bytes=most_entries * frame_bytes) as context,
        bus.working(context, store),
    ):
        await append(context, *range(total // 2))
        await bus.until(lambda: is_degraded(context, "Postgres"))
        await append(context, *range(total // 2, total))
        held = context.telemetry.report()["counters"]["entries_read"]
        assert held <= most_entries + READ_ENTRIES
        await asyncio.sleep(0.5)  # in which it could read what has come since many times over
        assert context.telemetry.report()["counters"]["entries_read"] == held
        async with proxy.running():
            await until(lambda: is_settled(context, total))
            assert context.telemetry.report()["state"] == "ready"
            context.stopping.set()
    assert counts(plain_database_url) == (total, total * 10, total)
