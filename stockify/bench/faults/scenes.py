"""The faults: what each does to the rig, and how hard in a full run and in a short one.

A strike ends when the fault does; what the rig makes of it is seen by `trial`.
"""

import asyncio
import contextlib
import functools
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import msgspec

from stockify.bench.faults import server_clock
from stockify.bench.faults.members import Member
from stockify.bench.faults.proxy import proxied
from stockify.bench.faults.rig import Rig
from stockify.bench.faults.server_clock import ServerClock

HOUR_S = 3_600
POISON_EVERY = 100
CUT_AFTER_S = 0.3  # how long requests pass while their answers are kept


class Dose(msgspec.Struct, frozen=True):
    """How often a fault strikes, and how many seconds each strike lasts."""

    runs: int
    seconds: float = 0.0


Strike = Callable[[int, float], Awaitable[None]]  # which run it is, and its seconds
Scene = Callable[[Rig], AbstractAsyncContextManager[Strike]]


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault: `scene` sets the rig up for it, gives what strikes, and clears up afterwards.

    `overlapping`: the next strike does not wait for the recovery from the last.
    """

    name: str
    says: str
    scene: Scene
    full: Dose
    short: Dose
    overlapping: bool = False
    poison_every: int = 0


class NotAvailable(Exception):
    """A fault cannot be had here; the message says why."""


def on_the_rig(strike: Callable[[Rig, int, float], Awaitable[None]]) -> Scene:
    """The scene of a fault that needs nothing but the rig."""

    @contextlib.asynccontextmanager
    async def scene(rig: Rig) -> AsyncIterator[Strike]:
        yield functools.partial(strike, rig)

    return scene


async def kill_worker(rig: Rig, run: int, _seconds: float) -> None:
    """Kill -9 one process after the other, in an order drawn anew each round.

    No more than two are down at once: a rig that is killed faster than it starts shows nothing.
    """
    drawn = random.Random(run // len(rig.members)).sample(rig.members, len(rig.members))
    await asyncio.sleep(random.Random(run).uniform(0.2, 1.5))
    victim = drawn[run % len(drawn)]
    await rig.until_at_most_down(1)
    await victim.until_running()
    victim.kill()


async def stop_worker(rig: Rig, run: int, seconds: float) -> None:
    """Freeze the worker that has the work; another takes over, and it wakes to find that out."""
    role = ("processor", "storage")[run % 2]
    await _freeze(await rig.busiest(role), seconds)


async def kill_redis(rig: Rig, _run: int, seconds: float) -> None:
    """Kill -9 of the server; it starts again on its append-only file."""
    await rig.valkey.kill_for_good()
    await asyncio.sleep(seconds)
    await rig.restart_redis()


async def stall_redis(rig: Rig, _run: int, seconds: float) -> None:
    """Freeze the server for longer than a lease lasts."""
    await _freeze(rig.valkey, seconds)


@contextlib.asynccontextmanager
async def reset_connections(rig: Rig) -> AsyncIterator[Strike]:
    """Reset every connection; every second time with requests that went through unanswered."""
    async with proxied(rig.redis_port) as proxy:

        async def strike(run: int, _seconds: float) -> None:
            await asyncio.sleep(random.Random(run).uniform(0.3, 1.0))
            if run % 2:
                proxy.hold_answers()
                await asyncio.sleep(CUT_AFTER_S)
            proxy.reset()

        await rig.start_workers(proxy.port)
        try:
            yield strike
        finally:
            await rig.start_workers()


async def out_of_memory(rig: Rig, _run: int, seconds: float) -> None:
    """Leave the server without memory for writes."""
    await rig.redis.config_set("maxmemory", 1)
    try:
        await asyncio.sleep(seconds)
    finally:
        await rig.redis.config_set("maxmemory", 0)


async def delete_raw(rig: Rig, _run: int, _seconds: float) -> None:
    """DEL of every raw stream."""
    await _delete(rig, [rig.topics.raw(shard) for shard in range(rig.topics.shards)])


async def delete_enriched(rig: Rig, _run: int, _seconds: float) -> None:
    """DEL of every enriched stream."""
    await _delete(rig, [rig.topics.enriched(shard) for shard in range(rig.topics.shards)])


async def poison(_rig: Rig, _run: int, seconds: float) -> None:
    """Feed on; what is fed has its poison."""
    await asyncio.sleep(seconds)


@contextlib.asynccontextmanager
async def clock_jump(rig: Rig) -> AsyncIterator[Strike]:
    """The server's clock goes an hour ahead and comes back as those who then had the work die.

    Raises NotAvailable without libfaketime.
    """
    faketime = server_clock.faketime()
    if faketime is None:
        raise NotAvailable("libfaketime is not on this machine; setup/test-needs.sh fetches it")
    clock = ServerClock(faketime, rig.directory / "server-clock")

    async def strike(_run: int, seconds: float) -> None:
        clock.move(HOUR_S)
        await asyncio.sleep(seconds)
        owners = [await rig.busiest(role) for role in ("processor", "storage")]
        for owner in owners:
            owner.kill()
        clock.move(0)

    await rig.restart_redis(clock.environment)
    try:
        yield strike
    finally:
        await rig.restart_redis()


async def _freeze(member: Member, seconds: float) -> None:
    """SIGSTOP, and SIGCONT after so many seconds."""
    member.send(signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        member.send(signal.SIGCONT)


async def _delete(rig: Rig, streams: list[str]) -> None:
    await asyncio.sleep(1.0)  # let something be there to be lost
    await rig.books.read()
    await rig.redis.delete(*streams)
