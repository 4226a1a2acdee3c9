"""One Valkey for the tests of a module that ask for it; emptied before each test."""

from collections.abc import Iterator

import pytest
import redis

from tests.support import servers


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
