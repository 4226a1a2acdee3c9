"""The bus's conformance suite: one set of claims for every server.

It runs on Valkey, Redis 8, Debian's Redis 7 and a Valkey Cluster, or on the server of
STOCKIFY_TEST_REDIS_URL (docs/operations.md). A test takes `server` for its address, `stream` for a
name that is its own and that all its keys have in theirs, and `own_server` where it stops, stalls
or restarts one.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import conformance, servers
from tests.support.conformance import Target


@pytest.fixture(scope="session")
def shared() -> Iterator[Callable[[str], Target]]:
    """Each server by its kind, started when first asked for: a cluster takes three seconds."""
    started: dict[str, Target] = {}
    with contextlib.ExitStack() as stack:

        def server_of(kind: str) -> Target:
            if kind not in started:
                started[kind] = stack.enter_context(conformance.target(kind))
            return started[kind]

        yield server_of


@pytest.fixture(params=conformance.SHARED_KINDS)
def server(request: pytest.FixtureRequest, shared: Callable[[str], Target]) -> Target:
    """Each server in turn, shared by all tests: nobody stops it."""
    return shared(request.param)


@pytest.fixture(params=conformance.KINDS)
def own_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[servers.RedisServer]:
    """Each server in turn, for one test to do with as it likes."""
    running = conformance.server_of(request.param, tmp_path)
    running.start()
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture
def stream(request: pytest.FixtureRequest) -> str:
    """The name of a stream that nobody else has."""
    if "server" in request.fixturenames:
        target: Target = request.getfixturevalue("server")
        return target.stream(f"{request.path.stem}-{request.node.name}")
    return f"stream:own:{request.node.name}"
