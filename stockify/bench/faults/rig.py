"""A pipeline of its own to break: engines, workers in pairs, and a feeder, under one directory.

Every process is real and is started again at once when it ends unasked. There are two processors
and two storages, so that a fault finds one at work and one standing by.
"""

import asyncio
import contextlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import redis.asyncio as redis_client
from redis.exceptions import RedisError

from pipeline import migrations
from pipeline.config import Settings
from pipeline.database import Database
from pipeline.runtime import Redis, cancel, connect
from pipeline.topics import Topics
from stockify import plan, warm
from stockify.bench.faults import chains, feeder
from stockify.bench.faults.audits import Audits
from stockify.bench.faults.books import Books
from stockify.bench.faults.feeder import Order
from stockify.bench.faults.journal import JournalReader
from stockify.bench.faults.members import Member
from stockify.bench.faults.progress import BEGIN, Positions, Progress, place
from stockify.engines.cluster import ValkeyCluster
from stockify.engines.postgres import Postgres
from stockify.engines.valkey import Valkey
from stockify.health import Health, over_http
from stockify.processes import Launch

ROLES = ("processor", "processor", "storage", "storage", "realtime", "trimmer")
START_S = 120.0  # with a first compilation of every kernel
RECOVERY_S = 60.0  # beyond it a fault counts as not recovered from
STORAGE_MAX_AGE_MS = 200  # batches are small here, and nobody waits for long ones
POLL_S = 0.05
ASK_S = 2.0


class Rig:
    """The running pipeline, and what is known of it; made by `running`."""

    def __init__(
        self, directory: Path, settings: Settings, valkey: Member | None, rate: float
    ) -> None:
        self.directory = directory
        self.settings = settings
        self.redis_port = urlsplit(settings.redis_urls()[0]).port or 0
        self._valkey = valkey
        self.cluster: ValkeyCluster | None = None
        self.topics = Topics(settings.shards, settings.redis_cluster)
        self.redis = _client(settings)
        self._reached = settings
        self.workers: list[Member] = []
        self.feeder: Member | None = None
        self._database = Database(settings.database_url)
        self._order = Order(directory, rate)
        self._journal = JournalReader(self._order.journal)
        self._ports: dict[str, int] = {}
        self._following: asyncio.Task[None] | None = None
        self.progress = Progress(self._journal, self._database, self.redis, self.topics)
        self.audits = Audits(settings, self._database, self.redis, self.topics)
        self.books = Books(self.progress, self._database, self.redis, self.topics)

    @property
    def valkey(self) -> Member:
        """The one server of the bus. Raises RuntimeError on a cluster."""
        if self._valkey is None:
            raise RuntimeError("a cluster is not one server")
        return self._valkey

    async def open(self) -> None:
        """Make the tables and what to feed, and follow what comes out."""
        await migrations.migrate(self.settings.database_url)
        await self._database.open()
        is_cluster = self.settings.redis_cluster
        chains.write(
            self._order.chains, chains.UNDERLYINGS_OF_SIX if is_cluster else chains.UNDERLYINGS
        )
        self._following = asyncio.create_task(self.progress.follow())

    async def close(self) -> None:
        """Stop the processes beside the engines, and close the connections."""
        if self.feeder is not None:
            await self.feeder.stop()
        await self.stop_workers()
        if self._following is not None:
            await cancel(self._following)
        await self._database.close()
        await self.redis.aclose()
        self._journal.close()

    @property
    def members(self) -> list[Member]:
        """Every process beside the engines."""
        return [*self.workers, *([self.feeder] if self.feeder is not None else [])]

    async def restart_redis(self, environment: Mapping[str, str] | None = None) -> None:
        """Start the server again, on what it has on disk, and wait until it answers."""
        await self.valkey.stop()
        await self.valkey.start(environment)
        await self.until(self.redis.ping, START_S, "Valkey to be up")

    async def start_workers(self, redis_port: int = 0) -> None:
        """Start every worker in place of those that run, and wait until each says it is ready.

        `redis_port`: where they reach Redis, if not at its own; what is fed then goes there too.
        """
        before, self.workers = self.workers, []
        settings = self.settings
        if redis_port:
            url = settings.redis_url.replace(f":{self.redis_port}/", f":{redis_port}/")
            settings = msgspec.structs.replace(settings, redis_url=url)
        self._reached = settings
        ports = plan.Ports()
        for number, role in enumerate(ROLES):
            name = f"{role}-{1 + ROLES[:number].count(role)}"
            self._ports[name] = ports.free()
            launch = plan.launch(role, settings, self._ports[name])
            self.workers.append(Member(name, launch, self.directory / f"{name}.log"))
        await asyncio.gather(
            *(worker.stop() for worker in before), *(worker.start() for worker in self.workers)
        )
        await self.until(self._are_ready, START_S, "the workers to be ready")

    async def stop_workers(self) -> None:
        """Ask every worker to leave, and wait."""
        await asyncio.gather(*(worker.stop() for worker in self.workers))
        self.workers.clear()

    async def feed(self, *, poison_every: int = 0) -> None:
        """Start to feed, and wait until rows of it are stored."""
        launch = self._feeder_launch(self._reached, poison_every)
        self.feeder = Member("feeder", launch, self.directory / "feeder.log")
        before = self.progress.promised
        await self.feeder.start()

        async def flows() -> bool:
            return self.progress.promised > before and self.progress.is_kept(before + 1)

        await self.until(flows, START_S, "the first rows")

    async def stop_feeding(self) -> None:
        """Ask the feeder to leave; what it could not hand over stays in its spool."""
        if self.feeder is not None:
            await self.feeder.stop()
            self.feeder = None
        self.progress.note()

    async def recovery(self) -> float | None:
        """Seconds until all promised so far is kept and every group has got past what is there.

        None where that takes longer than RECOVERY_S.
        """
        began = time.monotonic()
        self.progress.note()
        promised = self.progress.promised
        before: Positions = {}

        async def is_over() -> bool:
            nonlocal before
            now = await self.progress.positions()
            if not before:
                before = now
                return False
            return self.progress.is_kept(promised) and _have_advanced(before, now, self.topics)

        try:
            await self.until(is_over, RECOVERY_S, "the recovery")
        except TimeoutError:
            return None
        return time.monotonic() - began

    async def finish(self) -> list[str]:
        """Wait until nothing is left to do anywhere; gives which groups stay behind."""
        behind: list[str] = []

        async def is_finished() -> bool:
            positions = await self.progress.positions()
            behind[:] = [f"{g} of {s}" for (s, g), one in positions.items() if not one.is_done]
            return not behind and self.progress.is_kept(self.progress.promised)

        with contextlib.suppress(TimeoutError):
            await self.until(is_finished, RECOVERY_S, "the end of the work")
        return behind

    async def busiest(self, role: str) -> Member:
        """The worker of that role that reads the most; the other one stands by."""
        members = [worker for worker in self.workers if worker.name.startswith(f"{role}-")]
        before = [await self._entries_read(member) for member in members]
        while True:
            await asyncio.sleep(POLL_S)
            grown = [
                await self._entries_read(member) - read
                for member, read in zip(members, before, strict=True)
            ]
            if max(grown) > 0:
                return members[grown.index(max(grown))]

    async def until_at_most_down(self, count: int) -> None:
        """Wait until no more workers than that are down or still starting. Raises TimeoutError."""

        async def are_up() -> bool:
            healths = [await self._health(worker) for worker in self.workers]
            return sum(health is None for health in healths) <= count

        await self.until(are_up, START_S, "the workers to be up again")

    async def until(self, holds: Callable[[], Awaitable[bool]], seconds: float, what: str) -> None:
        """Wait for something, through outages of Redis. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(RedisError, OSError):
                if await holds():
                    return
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} took more than {seconds:g} s")
            await asyncio.sleep(POLL_S)

    async def _are_ready(self) -> bool:
        healths = [await self._health(worker) for worker in self.workers]
        return all(health is not None and health.state == "ready" for health in healths)

    async def _entries_read(self, member: Member) -> float:
        health = await self._health(member)
        return health.counters.get("entries_read", 0.0) if health is not None else 0.0

    async def _health(self, member: Member) -> Health | None:
        return await over_http(plan.LOOPBACK, self._ports[member.name])()

    def _feeder_launch(self, settings: Settings, poison_every: int) -> Launch:
        arguments = (str(self.directory), str(self._order.rate), str(poison_every))
        return Launch(
            name="feeder",
            argv=(sys.executable, "-m", feeder.__name__, *arguments),
            env=plan.environment(settings, "feeder"),
            cwd=Path("/"),
        )


@contextlib.asynccontextmanager
async def running(directory: Path, rate: float) -> AsyncIterator[Rig]:
    """A whole rig under that directory, fed at `rate` entries/s once it is told to; all of it is
    stopped afterwards.
    """
    await prepare(directory)
    ports = plan.Ports()
    valkey = Valkey(directory / "valkey", ports.free(), secrets.token_urlsafe(24))
    settings = Settings(redis_url=valkey.url, shards=chains.SHARDS)
    launch = valkey.prepare(plan.environment(settings, "rig"))
    server = Member("valkey", launch, directory / "valkey.log")
    try:
        await server.start()
        async with at_work(directory, settings, server, rate) as rig:
            yield rig
    finally:
        await server.stop()


async def prepare(directory: Path) -> None:
    """Let the engines into the directory, and compile what is not."""
    os.chmod(directory, 0o755)  # noqa: S103 - an engine may run as another user than root
    for role in warm.cold_roles():
        filling = warm.launch(role)
        await asyncio.to_thread(subprocess.run, filling.argv, env=dict(filling.env), check=True)


@contextlib.asynccontextmanager
async def at_work(
    directory: Path, redis: Settings, valkey: Member | None, rate: float
) -> AsyncIterator[Rig]:
    """A rig on a Redis that has been started, `valkey` where it is one server of ours."""
    port = plan.Ports().free()
    postgres = Postgres(directory / "postgres", port, system_root=directory / "no-system")
    settings = msgspec.structs.replace(
        redis,
        database_url=postgres.url,
        state_dir=str(directory / "state"),
        storage_max_age_ms=STORAGE_MAX_AGE_MS,
    )
    launch = postgres.prepare(plan.environment(settings, "rig"))
    engine = Member("postgres", launch, directory / "postgres.log")
    rig = Rig(directory, settings, valkey, rate)
    try:
        await engine.start()
        await rig.until(postgres.is_ready, START_S, "Postgres to be up")
        await rig.until(rig.redis.ping, START_S, "Redis to be up")
        await rig.open()
        await rig.start_workers()
        yield rig
    finally:
        await rig.close()
        await engine.stop()


def _client(settings: Settings) -> Redis:
    if settings.redis_cluster:
        return connect(settings, retries=0, name="rig")
    return redis_client.Redis.from_url(
        settings.redis_url, socket_timeout=ASK_S, socket_connect_timeout=ASK_S
    )


def _have_advanced(before: Positions, now: Positions, shards: Topics) -> bool:
    """Whether every group has been given something newer than what was there before."""
    return all(
        one in now
        and place(now[one].delivered) > place(before[one].head if one in before else BEGIN)
        for one in _groups(shards)
    )


def _groups(topics: Topics) -> list[tuple[str, str]]:
    found = []
    for shard in range(topics.shards):
        found.append((topics.raw(shard), "processor"))
        found += [(topics.enriched(shard), group) for group in ("storage", "realtime")]
    return found
