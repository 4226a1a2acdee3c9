"""Subscriptions that stand: made again wherever the server is lost or becomes another.

What a server publishes is handed over as it is read, with nothing between it and the socket; what
it means is not known here. Whoever listens is told of each (re)subscription, since something may
have gone by before it.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, cast

import hiredis
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
BUFFER_BYTES = 1 << 20
NAMES_AT_ONCE = 1_000

# What came for a symbol; None where it was (re)subscribed to.
Heard = Callable[[str, bytes | None], None]
Lost = Callable[[str, int], None]


class Ear(asyncio.BufferedProtocol):
    """A connection taken over from a pool; calls `hear` with each message that it brings.

    `end` is done when it has ended.
    """

    def __init__(self, connection: Any, hear: Callable[[list[Any]], None]) -> None:
        writer = connection._writer
        if writer is None:
            raise ConnectionError("this connection has ended")
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._heard_at = time.monotonic()
        self._hear = hear
        self._buffer = bytearray(BUFFER_BYTES)
        self._reader = hiredis.Reader(protocolError=_broken, replyError=_refused)
        self._reader.setmaxbuf(0)
        self._transport = cast(asyncio.Transport, writer.transport)
        # Reading has to begin anew for the transport to see that the buffer is now ours.
        self._transport.pause_reading()
        self._transport.set_protocol(self)
        self._transport.resume_reading()
        if self._transport.is_closing():
            self._finish(None)

    @property
    def silent_s(self) -> float:
        """How long nothing has come."""
        return time.monotonic() - self._heard_at

    def tell(self, command: str, names: Iterable[str] = ()) -> None:
        """Send a command whose answer comes as a message. Does nothing once it has ended."""
        if not self.end.done():
            self._transport.write(cast(bytes, hiredis.pack_command((command, *names))))  # type: ignore[arg-type]

    def abort(self) -> None:
        """End it now."""
        self._finish(None)
        self._transport.abort()

    def get_buffer(self, sizehint: int) -> bytearray:
        """Where the next bytes go."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Some bytes have come."""
        self._heard_at = time.monotonic()
        try:
            self._reader.feed(self._buffer, 0, nbytes)  # type: ignore[arg-type]
            while (message := self._reader.gets()) is not False:
                if isinstance(message, list):
                    self._hear(message)
                elif isinstance(message, Exception):
                    raise message
        except Exception as error:  # nobody above would hear of it
            self._finish(error)
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self._finish(exc)

    def _finish(self, error: Exception | None) -> None:
        if not self.end.done():
            self.end.set_exception(error or ConnectionError("the server closed the connection"))
            self.end.exception()  # seen, whether or not somebody waits


class Subscription:
    """The subscription to one server: all of it, or the owner of one shard."""

    def __init__(
        self, redis: Redis, topics: Topics, shard: int, channel_of: Callable[[str], str]
    ) -> None:
        self._redis = redis
        self._key = topics.catalog(shard)
        self._channel_of = channel_of
        self._symbols: dict[bytes, str] = {}
        self._ear: Ear | None = None

    @property
    def is_connected(self) -> bool:
        """Whether it stands."""
        return self._ear is not None

    def add(self, symbols: Iterable[str]) -> None:
        """Listen to these as well."""
        added = {self._channel_of(symbol): symbol for symbol in symbols}
        self._symbols |= {channel.encode(): symbol for channel, symbol in added.items()}
        self._tell("SUBSCRIBE", list(added))

    def remove(self, symbols: Iterable[str]) -> None:
        """Listen to these no longer."""
        removed = [self._channel_of(symbol) for symbol in symbols]
        for channel in removed:
            self._symbols.pop(channel.encode(), None)
        self._tell("UNSUBSCRIBE", removed)

    async def run(self, heard: Heard) -> None:
        """Listen until the server is lost: BusUnavailable."""
        connection: Any = None
        pool: Any = None
        try:
            server = await owner_of(self._redis, self._key)
            pool = server.connection_pool
            connection = await pool.get_connection()
            ear = Ear(connection, partial(self._give, heard))
            self._ear = ear
            self._tell("SUBSCRIBE", [channel.decode() for channel in self._symbols])
            await self._guard(server, ear)
        except (RedisError, OSError) as error:
            if isinstance(self._redis, ClusterRedis):
                self._redis.nodes.forget()
            raise BusUnavailable(f"subscription lost: {type(error).__name__}") from error
        finally:
            ended, self._ear = self._ear, None
            if ended is not None:
                ended.abort()
            if connection is not None:
                await connection.disconnect(nowait=True)
                await pool.release(connection)

    async def _guard(self, server: Redis, ear: Ear) -> None:
        """Look after a subscription; raises when it is lost."""
        pinged = 0.0
        while True:
            await asyncio.wait([ear.end], timeout=POLL_S)
            if ear.end.done():
                ear.end.result()
            if await owner_of(self._redis, self._key) is not server:
                raise BusUnavailable("subscription lost: another node owns the shard")
            now = time.monotonic()
            if ear.silent_s > SILENT_AFTER_S:
                raise BusUnavailable("subscription lost: the server went silent")
            if min(ear.silent_s, now - pinged) > PING_AFTER_S:
                pinged = now
                ear.tell("PING")

    def _give(self, heard: Heard, message: list[Any]) -> None:
        if len(message) != 3:
            return
        kind, channel, data = message
        symbol = self._symbols.get(channel)
        if symbol is None:
            return
        if kind == b"message":
            heard(symbol, data)
        elif kind == b"subscribe":
            heard(symbol, None)

    def _tell(self, command: str, names: list[str]) -> None:
        """Change the standing subscription; one that is made anew is made with all."""
        if self._ear is not None:
            for at in range(0, len(names), NAMES_AT_ONCE):
                self._ear.tell(command, names[at : at + NAMES_AT_ONCE])


class Listening:
    """Subscriptions to the channels of symbols, one a server or one for each shard on a cluster.

    The client given is used for subscriptions alone, and should not retry on its own.
    """

    def __init__(self, redis: Redis, topics: Topics, channel_of: Callable[[str], str]) -> None:
        self._redis = redis
        self._topics = topics
        self._is_cluster = isinstance(redis, ClusterRedis)
        parts = range(topics.shards if self._is_cluster else 1)
        self._parts = [Subscription(redis, topics, shard, channel_of) for shard in parts]

    @property
    def is_connected(self) -> bool:
        """Whether every subscription stands."""
        return all(part.is_connected for part in self._parts)

    async def add(self, symbols: Iterable[str]) -> None:
        """Listen to these as well."""
        for part, own in self._by_part(symbols).items():
            part.add(own)

    async def remove(self, symbols: Iterable[str]) -> None:
        """Listen to these no longer."""
        for part, own in self._by_part(symbols).items():
            part.remove(own)

    async def run(self, heard: Heard, lost: Lost) -> None:
        """Call `heard(symbol, data)` for every message, with None for every (re)subscription.

        Never returns. A lost subscription is tried again and again by itself, while the others
        stand: `lost(why, attempt)` is called each time.
        """
        kept = (_kept(part, heard, lost) for part in self._parts)
        await side_by_side(*kept, self._follow_owners())

    def _by_part(self, symbols: Iterable[str]) -> "dict[Subscription, list[str]]":
        found: dict[Subscription, list[str]] = {}
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


async def _kept(part: Subscription, heard: Heard, lost: Lost) -> None:
    """One subscription, made again whenever it is lost."""
    attempt = 0
    while True:
        started = time.monotonic()
        try:
            await part.run(heard)
        except BusUnavailable as error:
            attempt = 0 if time.monotonic() - started > STEADY_S else attempt + 1
            lost(str(error), attempt)
        await asyncio.sleep(jittered(attempt, cap_s=1.0))


def _broken(text: str) -> Exception:
    return ConnectionError(f"not Redis's protocol: {text}")


def _refused(text: str) -> Exception:
    return RedisError(text)
