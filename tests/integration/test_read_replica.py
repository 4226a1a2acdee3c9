"""A gateway with a replica: history comes from it alone, and readiness tells of both servers."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from pipeline.database import Database
from pipeline.runtime import attach
from tests.support import bus, chains, gateway
from tests.support.gateway import Gateway
from tests.support.postgres import PostgresServer, open_database
from tests.support.servers import free_port
from tests.support.storing import write

HISTORY = "/v1/contracts/NIFTY-20260127-25000-CE/history"


@pytest.fixture
def primary_url(wheel_server: PostgresServer) -> Iterator[str]:
    with wheel_server.database() as url:
        yield url


@pytest.fixture
async def replica_url(wheel_server: PostgresServer) -> AsyncIterator[str]:
    """A database with a snapshot that the primary lacks, so that one sees who answered."""
    with wheel_server.database() as url:
        async with open_database(url) as database:
            await write(database, chains.enriched(5))
        yield url


def nowhere() -> str:
    return f"postgresql://stockify@127.0.0.1:{free_port()}/stockify"


async def readiness(running: Gateway) -> tuple[int, dict[str, Any]]:
    ready = await running.http.get("/readyz")
    return ready.status_code, ready.json()


async def test_history_is_read_from_the_replica(
    valkey: str, primary_url: str, replica_url: str
) -> None:
    async with gateway.running(valkey, primary_url, database_read_url=replica_url) as running:
        await running.publish(chains.enriched(5), 1)
        rows = (await running.get(HISTORY)).json()["data"]
        assert [row["ts_ingest"] for row in rows] == ["2026-01-25T10:00:00.000000Z"]
        status, report = await readiness(running)
    assert (status, report["status"], report["reasons"]) == (200, "ready", [])
    assert report["checks"]["database"] == {"is_up": True}
    assert report["checks"]["replica"] == {"is_up": True, "is_standby": False, "behind_s": None}


async def test_without_a_replica_the_primary_is_read_and_nothing_else_is_shown(
    valkey: str, primary_url: str
) -> None:
    async with gateway.running(valkey, primary_url) as running:
        assert (await running.get(HISTORY)).status_code == 404
        _, report = await readiness(running)
    assert report["checks"].keys() == {"redis", "database", "notifications", "workers"}


async def test_replica_that_is_away_is_an_error_and_not_the_load_of_the_primary(
    valkey: str, replica_url: str
) -> None:
    async with gateway.running(valkey, replica_url, database_read_url=nowhere()) as running:
        refused = await running.get(HISTORY)
        status, report = await readiness(running)
    assert (refused.status_code, refused.json()["code"]) == (503, "database_unavailable")
    assert (status, report["status"]) == (503, "not_ready")
    assert report["reasons"][0] == "the replica that history is read from does not answer"
    assert report["checks"]["database"] == {"is_up": True}


async def test_gateway_serves_history_while_the_primary_is_away(
    valkey: str, replica_url: str
) -> None:
    async with gateway.running(valkey, nowhere(), database_read_url=replica_url) as running:
        await running.publish(chains.enriched(5), 1)
        assert len((await running.get(HISTORY)).json()["data"]) == 1
        status, report = await readiness(running)
    assert (status, report["status"]) == (200, "degraded")
    assert report["reasons"] == ["Postgres does not answer"]


async def test_standing_of_a_server_that_follows_none_has_no_delay(primary_url: str) -> None:
    async with open_database(primary_url) as database:
        assert await standing(database) == {"is_standby": False, "behind_s": None}


async def standing(database: Database) -> dict[str, Any]:
    (row,) = await database.fetch("replica_standing")
    return row


async def test_readiness_tells_of_a_worker_that_is_in_trouble(
    valkey: str, primary_url: str
) -> None:
    async with (
        gateway.running(valkey, primary_url) as running,
        bus.context(valkey, "storage") as context,
        attach("storage", context.settings, context.clock, context.telemetry, context.stopping),
    ):
        await running.publish(chains.enriched(5), 1)
        context.telemetry.set_state("degraded", "Postgres: 25006 cannot execute COPY FROM")
        async with asyncio.timeout(15):
            while not (await readiness(running))[1]["reasons"]:
                await asyncio.sleep(0.05)
        status, report = await readiness(running)
    assert (status, report["status"]) == (200, "degraded")
    assert report["reasons"] == ["storage is degraded: Postgres: 25006 cannot execute COPY FROM"]
    assert {"service": "storage", "state": "degraded"} in report["checks"]["workers"]
