"""The same pipeline on a cluster: six shards on three primaries, each with a replica.

A primary is killed under load, its replica elected, and the killed one brought back as a replica.
What Redis had acknowledged and not replicated is gone then, and must come out all the same.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from pipeline.config import Settings
from pipeline.topics import Topics
from stockify.bench.faults.rig import Rig, at_work, prepare
from stockify.bench.faults.scenes import Dose, Fault, NotAvailable, Strike
from stockify.engines.cluster import Node, ValkeyCluster, until

SHARDS = 6


@contextlib.asynccontextmanager
async def running_on_cluster(directory: Path, rate: float) -> AsyncIterator[Rig]:
    """A rig as `running` gives it, on a cluster; all of it is stopped afterwards."""
    await prepare(directory)
    nodes = ValkeyCluster(directory / "cluster")
    settings = Settings(redis_url=nodes.urls, redis_cluster=True, shards=SHARDS)
    try:
        await asyncio.to_thread(nodes.start)
        async with at_work(directory, settings, None, rate) as rig:
            rig.cluster = nodes
            yield rig
    finally:
        await asyncio.to_thread(nodes.stop)


@contextlib.asynccontextmanager
async def scene(rig: Rig) -> AsyncIterator[Strike]:
    """The fault's scene; at its end every node runs again. Raises NotAvailable off a cluster."""
    if rig.cluster is None:
        raise NotAvailable("this rig runs on one server")
    failover = _Failover(rig.cluster, rig.topics)
    try:
        yield failover.strike
    finally:
        await failover.over()


class _Failover:
    """What strikes the cluster: the owner of one shard after the other."""

    def __init__(self, nodes: ValkeyCluster, topics: Topics) -> None:
        self._nodes = nodes
        self._topics = topics
        self._returning: asyncio.Task[None] | None = None

    async def strike(self, run: int, seconds: float) -> None:
        """Kill an owner; while all go on, it comes back some seconds after it was replaced."""
        await self.over()
        key = self._topics.raw(2 * run % SHARDS)
        owner = await asyncio.to_thread(self._nodes.owner_of, key)
        owner.kill()
        self._returning = asyncio.create_task(self._bring_back(owner, key, seconds))

    async def over(self) -> None:
        """Wait until all is well again: a replica for every primary."""
        if self._returning is not None:
            await self._returning
            self._returning = None

    async def _bring_back(self, killed: Node, key: str, seconds: float) -> None:
        def is_replaced() -> bool:
            return self._nodes.owner_of(key) is not killed

        await asyncio.to_thread(until, is_replaced, "no replica took over")
        await asyncio.sleep(seconds)
        killed.start()
        await asyncio.to_thread(until, self._nodes.is_well, "the killed node did not come back")


FAULT = Fault(
    name="failover",
    says="kill -9 of a cluster's primary, its replica elected, the node brought back",
    scene=scene,
    full=Dose(6, 1.0),
    short=Dose(1, 0.5),
)
