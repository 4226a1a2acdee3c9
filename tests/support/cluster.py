"""A real Valkey Cluster for tests: three primaries on loopback, each with a replica."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.config import Settings
from stockify.engines import cluster
from stockify.engines.cluster import Node, ValkeyCluster, until
from tests.support import servers

FAILOVER_S = 15.0
SHARDS = 6


@contextlib.contextmanager
def running(directory: Path) -> Iterator[ValkeyCluster]:
    """A cluster in a directory, stopped afterwards; skips where there is no server."""
    servers.valkey_binary()
    with cluster.running(directory) as started:
        yield started


def settings(cluster: ValkeyCluster, **changes: Any) -> Settings:
    """Settings that name two nodes of it, and six shards."""
    seeds = ",".join(node.url for node in cluster.nodes[:2])
    chosen = {"redis_url": seeds, "redis_cluster": True, "shards": SHARDS, **changes}
    return Settings(**chosen)


def fail_over(cluster: ValkeyCluster, key: str) -> Node:
    """Kill the owner of a key and wait until another node owns it; gives the killed one."""
    owner = cluster.owner_of(key)
    owner.kill()
    until(lambda: cluster.owner_of(key) is not owner, "no replica took over", wait_s=FAILOVER_S)
    return owner


def hand_over(cluster: ValkeyCluster, key: str) -> Node:
    """Let the replica of a key's owner take its place, while both live; gives the old owner."""
    owner = cluster.owner_of(key)
    deadline = time.monotonic() + FAILOVER_S
    while cluster.owner_of(key) is owner:  # a hand-over that takes too long is given up by itself
        for node in cluster.nodes:
            if node.process and node.command("ROLE")[:3] == ["slave", "127.0.0.1", owner.port]:
                node.command("CLUSTER FAILOVER")
        with contextlib.suppress(TimeoutError):
            until(lambda: cluster.owner_of(key) is not owner, "not yet", wait_s=3.0)
        assert time.monotonic() < deadline, "no replica took over"
    return owner


def bring_back(cluster: ValkeyCluster, node: Node) -> None:
    """Start a killed node again and wait until the whole cluster is in step."""
    node.start()
    until(lambda: node.is_up() and cluster.is_well(), "the node did not come back")
