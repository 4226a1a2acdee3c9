"""The servers of the bus's conformance suite: three of ours, or one that its user points at.

Every key of the suite carries a prefix of its own, and at a server that is not ours all of them are
removed afterwards.
"""

import contextlib
import os
import secrets
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis

from tests.support import cluster, servers

URL = "STOCKIFY_TEST_REDIS_URL"
NOT_EMPTY = "STOCKIFY_TEST_REDIS_NOT_EMPTY"  # "allow": also where other keys live
GIVEN = "given"
KINDS = (GIVEN,) if os.environ.get(URL) else ("valkey", "redis8", "redis7")
CLUSTER = "cluster"
SHARED_KINDS = KINDS if GIVEN in KINDS else (*KINDS, CLUSTER)


@dataclass(frozen=True)
class Target:
    """A server under test, and what every key of the suite there has in its name."""

    url: str
    prefix: str = field(default_factory=lambda: f"conformance-{secrets.token_hex(4)}")
    is_cluster: bool = False

    def stream(self, name: str) -> str:
        """A stream's name; on a cluster with a shard's tag, so that its keys are together."""
        tag = f":{{{zlib.crc32(name.encode()) % cluster.SHARDS}}}" if self.is_cluster else ""
        return f"stream:{self.prefix}:{name}{tag}"


def server_of(kind: str, directory: Path) -> servers.RedisServer:
    """One of our servers, not started. Skips the test where this machine does not have it."""
    if kind == GIVEN:
        pytest.skip(f"stops and starts its server, which {URL} points at: that is not ours to stop")
    if kind == "valkey":
        return servers.RedisServer(servers.valkey_binary(), directory)
    if kind == "redis8":
        return servers.RedisServer(servers.redis8_binary(), directory)
    found = servers.redis7_binary()
    if found is None:
        pytest.skip("no redis-server 7 on this machine")
    return servers.RedisServer(found[0], directory, found[1])


@contextlib.contextmanager
def target(kind: str) -> Iterator[Target]:
    """A server to run the suite on; a given one is left without a key of the suite."""
    if kind == GIVEN:
        given = Target(os.environ[URL])
        _refuse_foreign_keys(given.url)
        yield given
        sweep(given)
        return
    with tempfile.TemporaryDirectory(prefix="stockify-bus-") as directory:
        if kind == CLUSTER:
            with cluster.running(Path(directory)) as nodes:
                yield Target(nodes.urls, is_cluster=True)
            return
        server = server_of(kind, Path(directory))
        server.start()
        try:
            yield Target(server.url)
        finally:
            server.stop()


def sweep(target: Target) -> None:
    """Remove every key of the suite, and its fields in keys that groups of all streams share."""
    with redis.Redis.from_url(target.url) as client:
        for key in client.scan_iter(match=f"*{target.prefix}*", count=1_000):
            client.delete(key)
        for key in client.scan_iter(match="lease:*", count=1_000):
            fields = [name for name in client.hkeys(key) if target.prefix.encode() in name]
            if fields:
                client.hdel(key, *fields)


def _refuse_foreign_keys(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        keys = client.dbsize()
    if keys and os.environ.get(NOT_EMPTY) != "allow":
        pytest.exit(
            f"the database that {URL} points at holds {keys} keys; point at an empty one, or set "
            f"{NOT_EMPTY}=allow: the suite touches only keys with a prefix of its own",
            returncode=2,
        )
