"""The servers of a session: one Valkey, emptied before each test, and a Postgres of each kind."""

import os
from collections.abc import Iterator

import pytest
import redis

from tests.support import postgres, servers
from tests.support.postgres import PostgresServer


@pytest.fixture(scope="session")
def valkey_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.RedisServer]:
    with servers.running(servers.valkey_binary(), tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def valkey(valkey_process: servers.RedisServer) -> str:
    """The URL of an empty Valkey."""
    with redis.Redis.from_url(valkey_process.url) as client:
        client.flushall()
    return valkey_process.url


@pytest.fixture(scope="session")
def wheel_server() -> Iterator[PostgresServer]:
    with postgres.running_wheel() as server:
        yield server


@pytest.fixture(scope="session")
def timescale_server() -> Iterator[PostgresServer]:
    with postgres.running_timescale() as server:
        yield server


@pytest.fixture(scope="session")
def given_server() -> Iterator[PostgresServer]:
    with postgres.given_server() as server:
        yield server


KINDS = {"plain": "wheel_server", "timescale": "timescale_server"}
if postgres.GIVEN_URL in os.environ:
    KINDS["given"] = "given_server"


@pytest.fixture(params=KINDS)
def postgres_server(request: pytest.FixtureRequest) -> PostgresServer:
    """Each kind of server in turn; a third where STOCKIFY_TEST_TIMESCALE_URL gives one."""
    name = KINDS[request.param]
    server: PostgresServer = request.getfixturevalue(name)
    return server


@pytest.fixture
def database_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A migrated database without rows, on each kind of server in turn."""
    with postgres_server.database() as url:
        yield url


@pytest.fixture
def plain_database_url(wheel_server: PostgresServer) -> Iterator[str]:
    """A migrated database without rows, on the wheel's server."""
    with wheel_server.database() as url:
        yield url
