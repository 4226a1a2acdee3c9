"""Changes of latest keys, as the servers tell of them: the gateway's wake-up calls.

A server tells of its own keys alone, so there is one subscription, or one for each shard on a
cluster, made again wherever the shard's owner is lost or becomes another. What was missed in
between is told as a possible change. It reads no value.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError, RedisError

from pipeline.cluster import ClusterRedis, owner_of
from pipeline.errors import BusUnavailable
from pipeline.latest import shard_of
from pipeline.runtime import Redis, jittered, side_by_side
from pipeline.topics import Topics

PING_AFTER_S = 5.0  # a quiet subscription is asked whether it still lives
SILENT_AFTER_S = 15.0  # and given up when it did not answer
POLL_S = 1.0
OWNERS_S = 2.0  # a demoted owner that still lives goes on as a copy, and would not be noticed
STEADY_S = 5.0  # a subscription that stood so long was no failed attempt

Changed = Callable[[str, int], None]
Lost = Callable[[str, int], None]


class Watch:
    """Tells which symbols changed, through restarts and failovers, for as long as `run` runs.

    The client given is used for subscriptions alone, and should not retry on its own. Every
    (re)subscription reports its symbol as changed, so that nothing in between goes unseen.
    """

    def __init__(self, redis: Redis, topics: Topics) -> None:
        self._redis = redis
        self._topics = topics
        self._is_cluster = isinstance(redis, ClusterRedis)
        parts = range(topics.shards if self._is_cluster else 1)
        self._parts = [_Subscription(redis, topics, shard) for shard in parts]

    @property
    def is_connected(self) -> bool:
        """Whether every subscription stands."""
        return all(part.is_connected for part in self._parts)

    async def add(self, symbols: Iterable[str]) -> None:
        """Watch these as well."""
        for part, own in self._by_part(symbols).items():
            await part.add(own)

    async def remove(self, symbols: Iterable[str]) -> None:
        """Watch these no longer."""
        for part, own in self._by_part(symbols).items():
            await part.remove(own)

    async def run(self, changed: Changed, lost: Lost) -> None:
        """Call `changed(symbol, times)` for every change, 0 times where it may have changed.

        Never returns. A lost subscription is tried again and again by itself, while the others
        stand: `lost(why, attempt)` is called each time.
        """
        kept = (_kept(part, changed, lost) for part in self._parts)
        await side_by_side(*kept, self._follow_owners())

    def _by_part(self, symbols: Iterable[str]) -> "dict[_Subscription, list[str]]":
        found: dict[_Subscription, list[str]] = {}
        for symbol in symbols:
            number = shard_of(self._topics, symbol) if self._is_cluster else 0
            found.setdefault(self._parts[number], []).append(symbol)
        return found

    async def _follow_owners(self) -> None:
        """Keep up with who owns what; each subscription looks whether it is still at its owner."""
        while True:
            await asyncio.sleep(OWNERS_S)
            if isinstance(self._redis, ClusterRedis):
                try:
                    await self._redis.nodes.refresh()
                except ConnectionError:
                    continue  # whoever is away is noticed by its own subscription


class _Subscription:
    """The subscription to one server: all of it, or the owner of one shard."""

    def __init__(self, redis: Redis, topics: Topics, shard: int) -> None:
        self._redis = redis
        self._topics = topics
        self._key = topics.catalog(shard)
        # Never in use by a symbol: it keeps the subscription alive when nobody watches anything.
        self._anchor = topics.keyspace_event(self._key)
        self._symbols: dict[str, str] = {}
        self._pubsub: PubSub | None = None

    @property
    def is_connected(self) -> bool:
        return self._pubsub is not None

    async def add(self, symbols: Iterable[str]) -> None:
        channels = {self._channel(symbol): symbol for symbol in symbols}
        self._symbols |= channels
        await self._tell("subscribe", channels)

    async def remove(self, symbols: Iterable[str]) -> None:
        channels = [self._channel(symbol) for symbol in symbols]
        for channel in channels:
            self._symbols.pop(channel, None)
        await self._tell("unsubscribe", channels)

    async def run(self, changed: Changed) -> None:
        """Listen until the server is lost: BusUnavailable."""
        pubsub: PubSub | None = None
        try:
            server = await owner_of(self._redis, self._key)
            pubsub = server.pubsub()
            early = set(self._symbols)
            await pubsub.subscribe(self._anchor, *early)
            self._pubsub = pubsub
            await self._tell("subscribe", self._symbols.keys() - early)  # came meanwhile
            await self._listen(server, pubsub, changed)
        except (RedisError, OSError) as error:
            if isinstance(self._redis, ClusterRedis):
                self._redis.nodes.forget()
            raise BusUnavailable(f"subscription lost: {type(error).__name__}") from error
        finally:
            self._pubsub = None
            if pubsub is not None:
                await _closed(pubsub)

    async def _listen(self, server: Redis, pubsub: PubSub, changed: Changed) -> None:
        heard = pinged = time.monotonic()
        while True:
            message: Any = await pubsub.get_message(timeout=POLL_S)
            if await owner_of(self._redis, self._key) is not server:
                raise BusUnavailable("subscription lost: another node owns the shard")
            now = time.monotonic()
            if message is None:
                if now - heard > SILENT_AFTER_S:
                    raise BusUnavailable("subscription lost: the server went silent")
                if now - max(heard, pinged) > PING_AFTER_S:
                    pinged = now
                    await pubsub.ping()
                continue
            heard = now
            channel = message["channel"]
            symbol = self._symbols.get(channel.decode()) if channel else None
            if symbol is None:
                continue
            if message["type"] == "subscribe":
                changed(symbol, 0)
            elif message["type"] == "message" and message["data"] == b"set":
                changed(symbol, 1)

    async def _tell(self, command: str, channels: Iterable[str]) -> None:
        """Change the standing subscription; if that fails, the listener starts anew with all."""
        pubsub, names = self._pubsub, tuple(channels)
        if pubsub is None or not names:
            return
        try:
            await (pubsub.subscribe if command == "subscribe" else pubsub.unsubscribe)(*names)
        except (RedisError, OSError):
            await _closed(pubsub)

    def _channel(self, symbol: str) -> str:
        topics = self._topics
        return topics.keyspace_event(topics.latest(symbol, shard_of(topics, symbol)))


async def _kept(part: _Subscription, changed: Changed, lost: Lost) -> None:
    """One subscription, made again whenever it is lost."""
    attempt = 0
    while True:
        started = time.monotonic()
        try:
            await part.run(changed)
        except BusUnavailable as error:
            attempt = 0 if time.monotonic() - started > STEADY_S else attempt + 1
            lost(str(error), attempt)
        await asyncio.sleep(jittered(attempt, cap_s=1.0))


async def _closed(pubsub: Any) -> None:  # redis-py leaves its aclose untyped
    try:
        await pubsub.aclose()
    except (RedisError, OSError):
        return
