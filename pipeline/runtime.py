"""A worker's life: settings, telemetry, Redis, heartbeat, and a drain on SIGTERM.

A worker is one coroutine function that takes a `Context` and returns when it has drained; this
room gives it everything else. It never knows what a worker does.
"""

import asyncio
import contextlib
import os
import random
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import redis.asyncio as redis_client
import uvloop
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from pipeline import config, layout, topics
from pipeline.clock import Clock
from pipeline.cluster import ClusterRedis, Nodes, primaries
from pipeline.config import Settings
from pipeline.errors import BusUnavailable, ConfigError
from pipeline.telemetry import Telemetry
from pipeline.topics import Topics

Redis = redis_client.Redis
HEARTBEAT_S = 2.0
LAST_WORD_S = 0.5  # for taking the heartbeat back; a process that is killed is missed by its TTL
LAYOUT_S = 2.0  # how soon a worker leaves streams that are no longer in use
SOCKET_TIMEOUT_S = 5.0  # above every BLOCK, so that a quiet stream is no time-out
CANCEL_AGAIN_S = 1.0
DRAIN_S = 15.0  # a worker that has not drained by then is cut; what it held stays pending


@dataclass(frozen=True, slots=True)
class Context:
    """What a worker is given. `stopping` is set when it shall drain and return."""

    name: str
    settings: Settings
    clock: Clock
    telemetry: Telemetry
    redis: Redis
    topics: Topics
    stopping: asyncio.Event


Worker = Callable[[Context], Awaitable[None]]


class _Sending:
    """Says how a connection ended, and loses no cancellation.

    uvloop says RuntimeError of a socket that was reset; redis-py has no writer any more when
    another call on the same connection has met its end. And it writes under `asyncio.wait_for`,
    which before Python 3.12 now and then answers in place of being cancelled: who had a deadline
    would wait for ever.
    """

    _writer: Any
    disconnect: Any

    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        task = asyncio.current_task()
        cancelled = task.cancelling() if task else 0
        try:
            await super().send_packed_command(command, check_health)  # type: ignore[misc]
        except RuntimeError as error:
            if "closed" not in str(error):
                raise
            raise RedisConnectionError(str(error)) from error
        except AttributeError as error:
            if self._writer is not None:
                raise
            raise RedisConnectionError("this connection has ended") from error
        if task and task.cancelling() > cancelled:
            await self.disconnect(nowait=True)  # nobody waits for the answer
            raise asyncio.CancelledError


class _Connection(_Sending, redis_client.Connection):
    """A connection in plain text."""


class _EncryptedConnection(_Sending, redis_client.SSLConnection):
    """A connection over TLS."""


def connect(settings: Settings, *, retries: int = 3, name: str = "") -> Redis:
    """A client of the instance's Redis, one server or a cluster; values are bytes.

    `retries=0` is for calls that must not be sent twice. Raises ConfigError without a URL.
    """
    url = first_url(settings)
    if not settings.redis_cluster:
        return connect_to(url, retries=retries, name=name)
    nodes = Nodes(settings.redis_urls())
    return ClusterRedis(nodes, lambda node: connect_to(node, retries=0, name=name), retries)


def connect_to(url: str, *, retries: int, name: str = "", single: bool = False) -> Redis:
    """A client of one server, or one node of a cluster; `single` keeps to one connection."""
    backoff = ExponentialBackoff(cap=1.0, base=0.05) if retries else NoBackoff()
    client = redis_client.Redis.from_url(
        url,
        retry=Retry(backoff, retries),
        socket_timeout=SOCKET_TIMEOUT_S,
        socket_connect_timeout=SOCKET_TIMEOUT_S,
        single_connection_client=single,
        client_name=f"stockify-{name}" if name else None,
    )
    pool = client.connection_pool
    encrypted = issubclass(pool.connection_class, redis_client.SSLConnection)
    pool.connection_class = _EncryptedConnection if encrypted else _Connection
    return client


def first_url(settings: Settings) -> str:
    """The URL of Redis, of a cluster that of the first node named. Raises ConfigError."""
    urls = settings.redis_urls()
    if not urls:
        raise ConfigError("STOCKIFY_REDIS_URL is not set, and no instance is running")
    return urls[0]


def run(name: str, worker: Worker, *, needs_redis: bool = True) -> None:
    """Run a worker until it returns; exit 0 when it drained, 1 when it failed.

    It starts once Redis answers, or at once where it can do without.
    """
    try:
        settings = config.load()
        clock = Clock(settings.clock)
    except ConfigError as error:
        sys.exit(f"stockify {name}: {error}")
    telemetry = Telemetry(name, settings)
    try:
        uvloop.run(_live(name, settings, clock, telemetry, worker, needs_redis))
    except ConfigError as error:
        telemetry.log.error("refused", error=str(error))
        code = 1
    except Exception:
        telemetry.log.exception("failed")
        code = 1
    else:
        telemetry.log.info("stopped")
        code = 0
    telemetry.close()
    sys.exit(code)


@contextlib.asynccontextmanager
async def attach(
    name: str, settings: Settings, clock: Clock, telemetry: Telemetry, stopping: asyncio.Event
) -> AsyncIterator[Context]:
    """A context with a client of its own and a heartbeat under that name. Raises ConfigError."""
    client = connect(settings, name=name)
    topic_map = Topics(shards=settings.shards, tagged=settings.redis_cluster)
    context = Context(name, settings, clock, telemetry, client, topic_map, stopping)
    heartbeat = asyncio.create_task(_heartbeat(context))
    try:
        yield context
    finally:
        await cancel(heartbeat)
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            await asyncio.wait_for(client.delete(_heartbeat_key(context)), LAST_WORD_S)
        await client.aclose()


class Heartbeat(msgspec.Struct, frozen=True):
    """What a process last said of itself; one that fell silent says nothing any more."""

    service: str
    state: str
    reason: str = ""
    host: str = ""
    pid: int = 0


_decode_heartbeat = msgspec.json.Decoder(Heartbeat).decode


async def heartbeats(redis: Redis) -> list[Heartbeat]:
    """Every process there is, by service. Raises BusUnavailable."""
    found: list[Heartbeat] = []
    try:
        for server in await primaries(redis):
            async for key in server.scan_iter(match=topics.HEARTBEATS, count=1_000):
                data = await redis.get(key)
                if data is not None:
                    found.append(_decode_heartbeat(data))
    except (RedisError, OSError) as error:
        raise BusUnavailable(f"Redis is away: {type(error).__name__}") from error
    return sorted(found, key=lambda one: (one.service, one.host, one.pid))


async def check_bus(context: Context) -> None:
    """Raises ConfigError where Redis is not what the settings say, RedisError where it is away."""
    if not context.settings.redis_cluster:  # the client of a cluster asks for the slots by itself
        found: Mapping[str, Any] = await context.redis.info("cluster")
        if found.get("cluster_enabled"):
            raise ConfigError("Redis is a cluster: set STOCKIFY_REDIS_CLUSTER=true")
    await layout.agree(context.redis, context.topics)


async def until_replaced(context: Context) -> None:
    """Ends with a ConfigError when this process's streams are not, or no longer, those in use."""
    while True:
        with contextlib.suppress(RedisError, OSError):
            await check_bus(context)
        await asyncio.sleep(LAYOUT_S)


async def pause(stopping: asyncio.Event, seconds: float) -> None:
    """Wait that long, or until `stopping` is set."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stopping.wait(), seconds)


async def cancel(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel tasks and wait until each has ended, whatever it ended with.

    Asks again where a cancellation got lost: Python 3.11's `wait_for` drops one that meets a call
    just finished, and redis-py writes every command through it.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # seen, so that asyncio does not report it


async def side_by_side(*parts: Coroutine[Any, Any, None]) -> None:
    """Run parts none of which ends by itself; raises what ended one, once the others have ended."""
    tasks = [asyncio.create_task(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            await task
    finally:
        await cancel(*tasks)


def jittered(attempt: int, *, first_s: float = 0.1, cap_s: float = 5.0) -> float:
    """Seconds before a further attempt: doubling, capped, half of it at random."""
    whole = min(cap_s, first_s * 2.0 ** min(attempt, 16))
    return whole * (0.5 + random.random() / 2)


async def _live(
    name: str,
    settings: Settings,
    clock: Clock,
    telemetry: Telemetry,
    worker: Worker,
    needs_redis: bool,
) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with attach(name, settings, clock, telemetry, stopping) as context:
        if not needs_redis or await _reachable(context):
            await _until_drained(context, worker)


async def _until_drained(context: Context, worker: Worker) -> None:
    """Await the worker; once stopping, give it DRAIN_S and then cut it.

    One whose streams are not those in use any more is drained as well. Raises ConfigError then.
    """
    work = asyncio.ensure_future(worker(context))
    stop = asyncio.ensure_future(context.stopping.wait())
    replaced = asyncio.ensure_future(until_replaced(context))
    await asyncio.wait((work, stop, replaced), return_when=asyncio.FIRST_COMPLETED)
    context.stopping.set()
    stop.cancel()
    if not work.done():
        context.telemetry.set_state("draining")
    try:
        await asyncio.wait_for(work, DRAIN_S)
    except TimeoutError:
        raise TimeoutError(f"not drained within {DRAIN_S:g} s") from None
    finally:
        reason = replaced.exception() if replaced.done() else None
        await cancel(replaced)
    if reason is not None:
        raise reason


async def _reachable(context: Context) -> bool:
    """Wait until Redis answers; False when asked to stop before it did.

    Raises ConfigError where it is not the one that the settings describe.
    """
    attempt = 0
    while not context.stopping.is_set():
        try:
            await context.redis.ping()
            await check_bus(context)
        except (RedisError, OSError) as error:
            context.telemetry.set_state("starting", f"waiting for Redis: {type(error).__name__}")
            await pause(context.stopping, jittered(attempt))
            attempt += 1
        else:
            return True
    return False


def _heartbeat_key(context: Context) -> str:
    return topics.heartbeat(f"{context.name}@{socket.gethostname()}:{os.getpid()}")


async def _heartbeat(context: Context) -> None:
    key = _heartbeat_key(context)
    process = {"host": socket.gethostname(), "pid": os.getpid(), "shards": context.topics.shards}
    while True:
        report = context.telemetry.report() | process
        with contextlib.suppress(RedisError, OSError):
            await context.redis.set(key, msgspec.json.encode(report), ex=topics.HEARTBEAT_TTL_S)
        await asyncio.sleep(HEARTBEAT_S)
