"""The same pipeline on a cluster: six shards on three primaries, each with a replica.

A primary is killed under load, its replica elected, and the killed one brought back as a replica.
What Redis had acknowledged and not replicated is gone then, and must come out all the same.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from pipeline.config import Settings
from stockify.bench.faults.rig import Rig, at_work, prepare
from stockify.bench.faults.scenes import Dose, Fault, Strike
from stockify.engines.cluster import Node, ValkeyCluster, until

SHARDS = 6


@contextlib.asynccontextmanager
async def running_on_cluster(
    directory: Path, rate: float
) -> AsyncIterator[tuple[Rig, ValkeyCluster]]:
    """A rig as `running` gives it, and the cluster under it; all of it is stopped afterwards."""
    await prepare(directory)
    nodes = ValkeyCluster(directory / "cluster")
    settings = Settings(redis_url=nodes.urls, redis_cluster=True, shards=SHARDS)
    try:
        await asyncio.to_thread(nodes.start)
        async with at_work(directory, settings, None, rate) as rig:
            yield rig, nodes
    finally:
        await asyncio.to_thread(nodes.stop)


class Failover:
    """What strikes the cluster; a node stays dead until the next strike or the end."""

    def __init__(self, nodes: ValkeyCluster, rig: Rig) -> None:
        self._nodes = nodes
        self._rig = rig
        self._killed: Node | None = None

    @contextlib.asynccontextmanager
    async def scene(self, _rig: Rig) -> AsyncIterator[Strike]:
        """The fault's scene; at its end every node runs again."""
        yield self.strike
        await self._bring_back()

    async def strike(self, run: int, _seconds: float) -> None:
        """Kill the owner of one shard after the other."""
        await self._bring_back()
        key = self._rig.topics.raw(2 * run % SHARDS)
        self._killed = await asyncio.to_thread(self._nodes.owner_of, key)
        self._killed.kill()

    async def _bring_back(self) -> None:
        """Start what was killed, and wait until all is well: a replica for every primary."""
        killed, self._killed = self._killed, None
        if killed is not None:
            killed.start()
            came_back = "the killed node did not come back"
            await asyncio.to_thread(until, self._nodes.is_well, came_back)


def fault(nodes: ValkeyCluster, rig: Rig) -> Fault:
    """A primary killed under load; the recovery is until all that was promised has come out."""
    return Fault(
        name="failover",
        says="kill -9 of a cluster's primary, its replica elected, the node brought back",
        scene=Failover(nodes, rig).scene,
        full=Dose(6),
        short=Dose(1),
    )
