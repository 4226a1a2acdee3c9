"""A Redis Cluster: which node owns a key, and a client that sends each command to that node.

Calls on the keys of one slot only, which is what the tags in `topics` are for. It opens no
subscription and queues no transaction: those are asked of the owning node's own client.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline, PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    ConnectionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)

from pipeline.errors import ConfigError

# Refused before anything was carried out, because another node is to be asked, or soon will be.
# MOVED is an ASK to redis-py. A slot on its way between two nodes is waited for, not followed.
ELSEWHERE = (AskError, TryAgainError, ClusterDownError, ReadOnlyError)
_LOST = (ConnectionError, TimeoutError, OSError)

ASK_TIMEOUT_S = 1.0  # a node that does not say at once who owns what is passed over
OTHERS_S = 0.1  # how long the others are waited for once one has answered
MOST_ASKED = 7
FIRST_WAIT_S = 0.05
LONGEST_WAIT_S = 1.0

_KEY_AFTER_COUNT = ("EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO", "FCALL", "FCALL_RO")
_KEYLESS = ("CLIENT", "CLUSTER", "CONFIG", "ECHO", "INFO", "PING", "SCRIPT", "TIME")


class _View(NamedTuple):
    """A cluster as one node sees it; `epoch` grows with each election that it has heard of."""

    ranges: tuple[tuple[int, int, str], ...]
    nodes: list[str]
    is_well: bool
    epoch: int


class Nodes:
    """What the nodes of a cluster last said about who owns which slots.

    `urls` are seeds: any nodes, of which one must answer; user, password and TLS are those of the
    first. `version` grows whenever an owner has changed.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        self.version = 0
        self._seeds = tuple(urls)
        self._known: list[str] = []
        self._ranges: tuple[tuple[int, int, str], ...] = ()
        self._is_stale = True
        self._turn = asyncio.Lock()

    async def owner(self, key: str | bytes) -> str:
        """The URL of the node that owns a key. Raises ConnectionError where none is known."""
        if self._is_stale:
            await self.refresh()
        slot = key_slot(key.encode() if isinstance(key, str) else key)
        for first, last, url in self._ranges:
            if first <= slot <= last:
                return url
        raise ConnectionError(f"nobody owns slot {slot} of the cluster")

    async def primaries(self) -> list[str]:
        """The URL of every node that owns slots, each once. Raises ConnectionError."""
        if self._is_stale:
            await self.refresh()
        return list(dict.fromkeys(url for _, _, url in self._ranges))

    def forget(self) -> None:
        """Have the next question asked anew."""
        self._is_stale = True

    async def refresh(self) -> None:
        """Ask who owns what; callers at the same time share one answer. Raises ConnectionError.

        Several nodes are asked at once. The one believed finds the cluster well and has heard of
        the latest election: one that was away, or is slow to hear, tells of owners long gone.
        """
        if self._turn.locked():
            async with self._turn:
                return
        async with self._turn:
            known = random.sample(self._known, min(MOST_ASKED, len(self._known)))
            urls = list(dict.fromkeys((*known, *(() if known else self._seeds))))
            views = await _views(urls, self._seeds[0])
            if not views and known:
                views = await _views(self._seeds, self._seeds[0])
            if not views:
                raise ConnectionError("no node of the cluster answers")
            best = max(views, key=lambda view: (view.is_well, view.epoch))
            self._keep(best.ranges, best.nodes)

    def _keep(self, ranges: tuple[tuple[int, int, str], ...], known: list[str]) -> None:
        self._known = known or self._known
        self._is_stale = False
        if ranges != self._ranges:
            self._ranges = ranges
            self.version += 1


class ClusterRedis(Redis):
    """A client of a whole cluster: each command goes to the node that owns its first key.

    Commands without a key go to some node. A command that was refused because its slot is
    elsewhere is sent again, once who owns what is known again; one without an answer only while
    `retries` allows it. What still fails then is a ConnectionError.
    """

    def __init__(self, nodes: Nodes, connect: Callable[[str], Redis], retries: int) -> None:
        super().__init__()
        self.nodes = nodes
        self._connect = connect
        self._retries = retries
        self._clients: dict[str, Redis] = {}

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """The answer of the node that owns the command's key."""
        key = key_of(args)
        attempt = 0
        while True:
            try:
                client = await (self.owner_of(key) if key is not None else self._any_owner())
                execute: Any = client.execute_command  # redis-py leaves it untyped
                return await execute(*args, **options)
            except ELSEWHERE as error:
                if attempt >= max(1, self._retries):
                    raise ConnectionError(f"the cluster changes: {error}") from error
            except _LOST:
                if attempt >= self._retries:
                    self.nodes.forget()  # this one's caller waits no longer
                    raise
            await asyncio.sleep(min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0**attempt))
            attempt += 1
            with contextlib.suppress(ConnectionError):  # the next attempt says it again
                await self.nodes.refresh()

    async def owner_of(self, key: str | bytes) -> Redis:
        """A client of the node that owns a key, shared and closed with this one."""
        return self._client(await self.nodes.owner(key))

    async def primaries(self) -> list[Redis]:
        """A client of every node that owns slots."""
        return [self._client(url) for url in await self.nodes.primaries()]

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close the connections to all nodes."""
        clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            await client.aclose(close_connection_pool)
        await super().aclose(close_connection_pool)

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """Raises TypeError: its commands could belong to several nodes."""
        raise TypeError("no pipeline over a cluster: use that of owner_of(key)")

    def pubsub(self, **kwargs: Any) -> PubSub:
        """Raises TypeError: each node tells of its own keys alone."""
        raise TypeError("no subscription over a cluster: use that of owner_of(key)")

    def _client(self, url: str) -> Redis:
        if url not in self._clients:
            self._clients[url] = self._connect(url)
        return self._clients[url]

    async def _any_owner(self) -> Redis:
        return (await self.primaries())[0]


async def owner_of(redis: Redis, key: str) -> Redis:
    """The client for what must be asked of the very server that owns a key."""
    return await redis.owner_of(key) if isinstance(redis, ClusterRedis) else redis


async def primaries(redis: Redis) -> list[Redis]:
    """A client of every server that owns keys; the one given where there is no cluster."""
    return await redis.primaries() if isinstance(redis, ClusterRedis) else [redis]


def key_of(command: Sequence[Any]) -> str | bytes | None:
    """The first key of a command; None where it has none. Raises ValueError for SCAN and KEYS."""
    words = str(command[0]).upper().split()
    name = words[0]
    if name in ("SCAN", "KEYS"):
        raise ValueError(f"{name} tells of one node: ask each of primaries()")
    if name in _KEYLESS:
        return None
    if name in _KEY_AFTER_COUNT:
        return _as_key(command[3]) if int(command[2]) else None
    if name in ("XREAD", "XREADGROUP"):
        streams = next(
            place for place, word in enumerate(command) if word in (b"STREAMS", "STREAMS")
        )
        return _as_key(command[streams + 1])
    return _as_key(command[1])


def _as_key(word: Any) -> str | bytes:
    return word if isinstance(word, bytes) else str(word)


async def _views(urls: Sequence[str], credentials: str) -> list[_View]:
    """What nodes answer; those that are slower than the first by more than a little are left out.

    Raises ConfigError where one is no cluster's.
    """
    asked = {asyncio.create_task(_view(url, credentials)) for url in urls}
    views: list[_View] = []
    deadline: float | None = None
    try:
        while asked:
            done, asked = await asyncio.wait(
                asked, timeout=deadline, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                break
            for task in done:
                with contextlib.suppress(RedisError, OSError):
                    views.append(task.result())
                    deadline = OTHERS_S
    finally:
        for task in asked:
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    return views


async def _view(url: str, credentials: str) -> _View:
    client = Redis.from_url(
        url,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=ASK_TIMEOUT_S,
        socket_connect_timeout=ASK_TIMEOUT_S,
        single_connection_client=True,
    )
    execute: Any = client.execute_command
    try:
        slots = await execute("CLUSTER SLOTS")
        state = await execute("CLUSTER INFO")
    except ResponseError as error:
        if "cluster support disabled" in str(error):
            raise ConfigError("Redis is no cluster: unset STOCKIFY_REDIS_CLUSTER") from error
        raise ConnectionError(f"the cluster does not say who owns what: {error}") from error
    finally:
        await close(client)
    host = urlsplit(url).hostname or "127.0.0.1"
    ranges, known = [], []
    for first, last, *nodes in slots:
        urls = [
            _url(credentials, bytes(node[0] or b"").decode() or host, node[1]) for node in nodes
        ]
        ranges.append((int(first), int(last), urls[0]))
        known += urls
    return _View(
        tuple(sorted(ranges)),
        list(dict.fromkeys(known)),
        state["cluster_state"] == "ok",
        int(state["cluster_current_epoch"]),
    )


async def close(client: Redis) -> None:
    """Close a client's connections before anything else runs.

    `aclose` leaves that to tasks, and one that is cancelled before it has begun closes nothing.
    """
    pool: Any = client.connection_pool
    for connection in [*pool._available_connections, *pool._in_use_connections]:
        await connection.disconnect(nowait=True)
    await client.aclose()


def _url(credentials: str, host: str, port: int) -> str:
    parts = urlsplit(credentials)
    user_info = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    bracketed = f"[{host}]" if ":" in host else host
    return urlunsplit((parts.scheme, f"{user_info}{bracketed}:{port}", "", parts.query, ""))
