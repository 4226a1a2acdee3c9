"""A gateway whose database is slow, silent, away or busy: answers come all the same, in time."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import httpx
import psycopg
import pytest
import pytest_asyncio

from api.gateway import Limits
from pipeline.credentials import issue_token
from tests.support import gateway, servers
from tests.support.cutting_proxy import CuttingProxy
from tests.support.gateway import CHAIN, Gateway, moved
from tests.support.gateway_process import answer, process, settings
from tests.support.postgres import PostgresServer, open_database
from tests.support.servers import free_port
from tests.support.storing import write

pytestmark = pytest.mark.asyncio(loop_scope="module")

HISTORY = "/v1/contracts/NIFTY-20260127-25000-CE/history"
HURRIED = replace(Limits(), statement_s=0.4, reading_s=1.0, export_s=2.0, silent_s=0.7)
CONNECTIONS = 4  # of the pool that answers are read through
WAIT_S = 3.0  # that a request waits for one of them
LEEWAY_S = 5.0  # of a machine that is busy
LONG_LEGS = """
INSERT INTO option_contracts (
    ts, instrument_id, volume, last, rev, iv_status, price_source, greeks_source
)
SELECT
    '2026-01-20T04:00:00Z'::timestamptz + (n / 100) * interval '5 s',
    (SELECT min(instrument_id) FROM instruments) + n % 100,
    nullif(n % 7, 0), (1 + n % 1000)::real, 1, 0, 1, 1
FROM generate_series(0, 119999) AS n
"""
LONG = "/v1/exports/option_contracts?start=2026-01-20&end=2026-01-21"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stored(wheel_server: PostgresServer) -> AsyncIterator[str]:
    """A database of three snapshots, and of 120,000 legs of another day."""
    with wheel_server.database() as url:
        async with open_database(url) as database:
            await write(database, *(moved(CHAIN, seconds=n) for n in range(3)))
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("SELECT make_day('2026-01-20')")
            connection.execute(LONG_LEGS)
            connection.execute("ANALYZE option_contracts")
        yield url


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def redis_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    directory = tmp_path_factory.mktemp("outages")
    with servers.running(servers.valkey_binary(), directory) as server:
        yield server.url


def check_away(response: httpx.Response) -> None:
    assert (response.status_code, response.json()["code"]) == (503, "database_unavailable")
    assert int(response.headers["retry-after"]) > 0
    assert response.headers["content-type"] == "application/problem+json"


def export_headers(served: Gateway) -> dict[str, str]:
    return {"Authorization": f"Bearer {served.token('export')}"}


@contextlib.contextmanager
def locked(url: str, table: str) -> Iterator[None]:
    """Whoever reads the table waits for as long as the block lasts."""
    with psycopg.connect(url) as connection:
        connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield


async def waiting_statements(url: str) -> int:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        found = await connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND state = 'active' AND pid <> pg_backend_pid() AND wait_event_type = 'Lock'"
        )
        return int((await found.fetchone() or (0,))[0])


async def test_slow_database_is_given_up_and_nothing_piles_up(stored: str, redis_url: str) -> None:
    async with gateway.running(redis_url, stored, limits=HURRIED) as served:
        with locked(stored, "market_snapshots"):
            began = time.monotonic()
            answers = [asyncio.create_task(served.get(HISTORY)) for _ in range(30)]
            most = 0
            while not all(answer.done() for answer in answers):
                most = max(most, await waiting_statements(stored))
                assert (await served.get("/v1/underlyings")).status_code == 200
                await asyncio.sleep(0.05)
            took_s = time.monotonic() - began
            for answer in answers:
                check_away(answer.result())
            assert 1 <= most <= CONNECTIONS
            assert took_s < WAIT_S + HURRIED.reading_s + LEEWAY_S
            assert await waiting_statements(stored) == 0
        assert (await served.get(HISTORY)).status_code == 200


async def test_silent_database_is_given_up(stored: str, redis_url: str) -> None:
    proxy = CuttingProxy(stored)
    async with proxy.running(), gateway.running(redis_url, proxy.url, limits=HURRIED) as served:
        assert (await served.get(HISTORY)).status_code == 200
        with locked(stored, "market_snapshots"):
            asked = asyncio.create_task(served.get(HISTORY))
            while not await waiting_statements(stored):
                await asyncio.sleep(0.01)
            proxy.fall_silent()
            began = time.monotonic()
            check_away(await asked)
            assert time.monotonic() - began < HURRIED.reading_s + LEEWAY_S
        assert (await served.get(HISTORY)).status_code == 200


async def test_database_that_is_away_is_told_at_once_to_everybody(redis_url: str) -> None:
    nowhere = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"
    async with gateway.running(redis_url, nowhere) as served:
        began = time.monotonic()
        headers = export_headers(served)
        answers = await asyncio.gather(
            *(served.get(HISTORY) for _ in range(20)),
            served.get("/v1/gaps"),
            served.get("/v1/symbols?q=nifty"),
            served.http.get("/v1/exports/gaps", headers=headers),
        )
        for answer in answers:
            check_away(answer)
        assert time.monotonic() - began < WAIT_S + LEEWAY_S
        ready = await served.http.get("/readyz")
        assert ready.status_code == 503


async def test_exports_take_no_connection_from_histories(stored: str, redis_url: str) -> None:
    async with gateway.running(redis_url, stored) as served:
        headers = export_headers(served)
        async with (
            served.http.stream("GET", LONG, headers=headers) as first,
            served.http.stream("GET", LONG, headers=headers) as second,
        ):
            assert first.status_code == second.status_code == 200
            with locked(stored, "ticks"):  # each takes one connection
                ticks = f"{HISTORY.removesuffix('history')}ticks"
                waiting = [asyncio.create_task(served.get(ticks)) for _ in range(CONNECTIONS - 1)]
                while await waiting_statements(stored) < CONNECTIONS - 1:
                    await asyncio.sleep(0.01)
                assert (await served.get(HISTORY)).status_code == 200
            for answer in await asyncio.gather(*waiting):
                assert answer.status_code == 200


async def read_all(pieces: AsyncIterator[bytes]) -> None:
    async for _piece in pieces:
        pass


async def test_export_of_a_database_that_falls_silent_breaks_off(
    stored: str, redis_url: str
) -> None:
    proxy = CuttingProxy(stored)
    async with proxy.running(), gateway.running(redis_url, proxy.url, limits=HURRIED) as served:
        headers = export_headers(served)
        async with served.http.stream("GET", LONG, headers=headers) as response:
            pieces = response.aiter_raw()
            await anext(pieces)
            began = time.monotonic()
            proxy.fall_silent()
            with pytest.raises(httpx.RemoteProtocolError):
                await read_all(pieces)
            assert time.monotonic() - began < HURRIED.silent_s + LEEWAY_S
        again = await served.http.get("/v1/exports/gaps", headers=headers)
        assert again.status_code == 200


async def is_broken_off(pieces: AsyncIterator[bytes]) -> bool:
    try:
        await read_all(pieces)
    except httpx.RemoteProtocolError:
        return True
    return False


@pytest.mark.parametrize(
    ("limits", "bound_s"),
    [
        pytest.param(HURRIED, HURRIED.export_s, id="takes-a-little"),
        pytest.param(replace(Limits(), stalled_s=0.5), 0.5, id="takes-nothing"),
    ],
)
async def test_client_that_is_too_slow_is_cut(
    stored: str, redis_url: str, limits: Limits, bound_s: float
) -> None:
    async with gateway.running(redis_url, stored, limits=limits) as served:
        headers = export_headers(served)
        began = time.monotonic()
        async with (
            served.http.stream("GET", LONG, headers=headers) as first,
            served.http.stream("GET", LONG, headers=headers) as second,
        ):
            pieces = [response.aiter_raw(4_096) for response in (first, second)]
            busy = True
            while busy:
                if bound_s == limits.export_s:
                    await asyncio.gather(*map(anext, pieces))
                await asyncio.sleep(0.05)
                again = await served.http.get("/v1/exports/gaps", headers=headers)
                busy = again.status_code == 503
                assert not busy or again.json()["code"] == "exports_busy"
                assert time.monotonic() - began < bound_s + LEEWAY_S
            assert time.monotonic() - began > bound_s * 0.5
            # Whichever was cut first gave its place; the other may be in time if it is read now.
            assert any([await is_broken_off(each) for each in pieces])


async def test_export_of_a_silent_database_is_a_problem(stored: str, redis_url: str) -> None:
    proxy = CuttingProxy(stored)
    async with proxy.running(), gateway.running(redis_url, proxy.url, limits=HURRIED) as served:
        with locked(stored, "option_contracts"):
            path = LONG.replace("option_contracts?", "option_contracts?format=csv&")
            asked = asyncio.create_task(served.http.get(path, headers=export_headers(served)))
            while not await waiting_statements(stored):
                await asyncio.sleep(0.01)
            proxy.fall_silent()
            check_away(await asked)


async def test_export_of_a_gateway_that_is_killed_is_seen_to_be_broken(
    stored: str, redis_url: str
) -> None:
    chosen = settings(0, redis_url=redis_url, database_url=stored)
    base = f"http://127.0.0.1:{chosen.gateway_port}"
    token = {"Authorization": f"Bearer {issue_token(gateway.SECRET, scopes=('export',))}"}
    with process(chosen) as started:
        await asyncio.to_thread(answer, f"{base}/healthz", 200)
        async with (
            httpx.AsyncClient(base_url=base, verify=gateway.NO_TLS) as http,
            http.stream("GET", LONG, headers=token) as response,
        ):
            pieces = response.aiter_raw()
            await anext(pieces)
            started.kill()
            with pytest.raises(httpx.TransportError):
                await read_all(pieces)
