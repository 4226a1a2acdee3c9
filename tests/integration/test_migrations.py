"""Migrations on real servers, with TimescaleDB and without."""

import asyncio
import os
import subprocess
import sys

import psycopg
import pytest

from pipeline import history, migrations
from pipeline.errors import MigrationError, StoreError, StoreUnavailable
from pipeline.migrations import Migration
from tests.support.postgres import PostgresServer, open_database
from tests.support.servers import free_port

SIDE_BY_SIDE = 4
LAST_WITHOUT_SMILE = 5
OLD_SNAPSHOT = b"""
INSERT INTO market_snapshots (
    ts, seq, spot, years, rate, expiry, forward_pairs, n, rev, underlying, provider, epoch, model,
    forward_source
) VALUES (
    '2026-01-25 10:00Z', 1, 25000, 0.005, 0.065, '2026-01-27', 0, 0, 1, 'NIFTY', 'dhan', 'e1',
    'black76', 'none'
)
"""


def rows(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(statement.encode()).fetchall()


def numbers(applied: list[Migration]) -> list[int]:
    return [migration.number for migration in applied]


async def test_plan_is_what_migrate_then_does(postgres_server: PostgresServer) -> None:
    with postgres_server.empty_database() as url:
        planned = (await migrations.plan(url)).pending
        assert rows(url, "SELECT to_regclass('schema_migrations')") == [(None,)]
        assert numbers(await migrations.migrate(url)) == numbers(planned) != []
        assert (await migrations.plan(url)).pending == await migrations.migrate(url) == []


def command(url: str, *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        (sys.executable, "-m", "stockify", "migrate", *options),
        env={**os.environ, "STOCKIFY_DATABASE_URL": url},
        capture_output=True,
        text=True,
        check=False,
    )


def test_plan_says_how_each_file_stands_to_the_server(wheel_server: PostgresServer) -> None:
    with wheel_server.database() as url:
        with psycopg.connect(url) as connection:
            connection.execute("DELETE FROM schema_migrations WHERE number = 12")
        said = command(url, "--plan")
        assert rows(url, "SELECT * FROM schema_migrations WHERE number = 12") == []
    assert said.returncode == 0, said.stderr
    lines = said.stdout.splitlines()
    assert lines[0] == "the server: PostgreSQL with native partitions"
    assert len(lines) == 1 + len(migrations.load())
    assert {
        "not for it 0001_timescaledb",
        "applied    0003_snapshots",
        "pending    0012_tick_partitions",
    } <= set(lines)


def test_command_refuses_a_changed_file_and_exits_1(wheel_server: PostgresServer) -> None:
    with wheel_server.database() as url:
        with psycopg.connect(url) as connection:
            connection.execute("UPDATE schema_migrations SET checksum = 'x' WHERE number = 3")
        for options in ((), ("--plan",)):
            said = command(url, *options)
            assert said.returncode == 1
            assert "migration 0003_snapshots was changed after it was applied" in said.stderr
            assert "Traceback" not in said.stderr


async def test_each_server_gets_its_own_kind_of_table(
    wheel_server: PostgresServer, timescale_server: PostgresServer
) -> None:
    kind = "SELECT relkind FROM pg_class WHERE oid = 'option_contracts'::regclass"
    with wheel_server.database() as url:
        assert rows(url, kind) == [("p",)]
        assert await migrations.server_edition(url) == "plain"
    with timescale_server.database() as url:
        hypertables = (
            "SELECT hypertable_name FROM timescaledb_information.hypertables "
            "WHERE hypertable_name NOT LIKE '%candles%' ORDER BY 1"
        )
        assert rows(url, hypertables) == [("market_snapshots",), ("option_contracts",), ("ticks",)]
        assert await migrations.server_edition(url) == "apache"


async def test_columns_and_checks_are_the_same_on_both(
    wheel_server: PostgresServer, timescale_server: PostgresServer
) -> None:
    columns = (
        "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns "
        "WHERE table_schema = 'public' AND table_name IN ('market_snapshots', 'option_contracts', "
        "'instruments', 'ledger') ORDER BY 1, ordinal_position"
    )
    checks = (
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE contype = 'c' AND connamespace = 'public'::regnamespace ORDER BY 1, 2"
    )
    with wheel_server.database() as plain, timescale_server.database() as timescale:
        assert rows(plain, columns) == rows(timescale, columns)
        assert rows(plain, checks) == rows(timescale, checks)


async def test_many_at_once_apply_each_file_once(postgres_server: PostgresServer) -> None:
    with postgres_server.empty_database() as url:
        done = await asyncio.gather(*(migrations.migrate(url) for _ in range(SIDE_BY_SIDE)))
        applied = sorted(numbers([one for each in done for one in each]))
        assert applied == [n for (n,) in rows(url, "SELECT number FROM schema_migrations")]


async def test_changed_file_is_refused_and_nothing_is_done(wheel_server: PostgresServer) -> None:
    with wheel_server.empty_database() as url:
        first = migrations.parse([("0001_one.sql", "CREATE TABLE one ();")])
        await migrations.migrate(url, first)
        changed = migrations.parse(
            [("0001_one.sql", "CREATE TABLE uno ();"), ("0002_two.sql", "CREATE TABLE two ();")]
        )
        with pytest.raises(MigrationError, match="0001_one was changed"):
            await migrations.migrate(url, changed)
        assert rows(url, "SELECT to_regclass('two')") == [(None,)]


async def test_failed_file_leaves_nothing_and_can_be_mended(wheel_server: PostgresServer) -> None:
    with wheel_server.empty_database() as url:
        broken = "CREATE TABLE half (); SELECT nothing_of_that_name();"
        with pytest.raises(StoreError, match="42883"):
            await migrations.migrate(url, migrations.parse([("0001_half.sql", broken)]))
        assert rows(url, "SELECT to_regclass('half')") == [(None,)]
        mended = migrations.parse([("0001_half.sql", "CREATE TABLE half ();")])
        assert numbers(await migrations.migrate(url, mended)) == [1]


async def test_marked_file_runs_outside_a_transaction(wheel_server: PostgresServer) -> None:
    text = (
        "-- not transactional\nCREATE TABLE t (a int);\nCREATE INDEX CONCURRENTLY t_a ON t (a);\n"
    )
    with wheel_server.empty_database() as url:
        assert numbers(await migrations.migrate(url, migrations.parse([("0001_t.sql", text)])))
        assert rows(url, "SELECT to_regclass('t_a')") == [("t_a",)]


async def test_native_partitions_stay_where_timescale_comes_later(
    timescale_server: PostgresServer,
) -> None:
    plain_only = [one for one in migrations.load() if one.suits("plain")]
    with timescale_server.empty_database() as url:
        # As a server without the extension would have begun.
        begun = [msg for msg in plain_only if msg.number > 1]
        await migrations.migrate(url, [as_unmarked(one) for one in begun])
        assert await migrations.server_edition(url) == "plain"


async def test_rows_of_before_stay_and_have_no_smile(postgres_server: PostgresServer) -> None:
    before = [one for one in migrations.load() if one.number <= LAST_WITHOUT_SMILE]
    with postgres_server.empty_database() as url:
        await migrations.migrate(url, before)
        with psycopg.connect(url) as connection:
            connection.execute("SELECT make_day('2026-01-25')")
            connection.execute(OLD_SNAPSHOT)
        assert numbers(await migrations.migrate(url)) != []
        async with open_database(url) as database:
            (row,) = await history.underlying_history(database, "NIFTY", None, 0, 2**62, 10)
    assert (row["spot"], row["expected_move"], row["smile"]) == (25_000.0, None, None)


def as_unmarked(migration: Migration) -> Migration:
    return Migration(migration.number, migration.name, migration.text, "", True)


async def test_server_that_is_away_is_unavailable() -> None:
    with pytest.raises(StoreUnavailable):
        await migrations.plan(f"postgresql://nobody@127.0.0.1:{free_port()}/none")
