"""Connections of the bus: to the server that owns a stream's keys, and what tells it is away.

A link never sends anything twice: whether a call may be repeated is for its caller to know.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

import msgspec
from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,
    MasterDownError,
    MovedError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from pipeline.cluster import Nodes, close
from pipeline.config import Settings
from pipeline.errors import BusUnavailable
from pipeline.runtime import Redis, connect_to, first_url
from pipeline.streams.wire import Wire

# Errors after which the same call may succeed on another connection, perhaps to another server.
AWAY = (
    *(ConnectionError, RedisTimeoutError, BusyLoadingError, OSError),
    *(MovedError, ClusterDownError, MasterDownError, ReadOnlyError, TryAgainError),
)


class Identity(msgspec.Struct, frozen=True):
    """A connection as its server knows it; `server` is the run that would end with the server."""

    id: str
    address: str
    server: str


class Link:
    """One connection to the owner of a key, opened when first asked for.

    After an error the caller drops it; the next call finds the owner anew. `generation` counts
    those that ended, so that a caller can tell, before it sends anything on the next one, that it
    may lead to a server that forgot.
    """

    def __init__(self, settings: Settings, key: str, name: str) -> None:
        self._settings = settings
        self._key = key
        self._name = name
        self._nodes = Nodes(settings.redis_urls()) if settings.redis_cluster else None
        self._client: Redis | None = None
        self._wire: Wire | None = None
        self._opening = asyncio.Lock()  # several tasks of a worker may ask at once
        self.identity: Identity | None = None
        self.generation = 0

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self._client is not None

    async def client(self) -> Redis:
        """The connection. Raises BusUnavailable where none can be had."""
        async with self._opening:
            return self._client or await self._open()

    async def wire(self) -> Wire:
        """The connection for calls of the data path, and from then on for nothing else.

        Raises BusUnavailable where none can be had, and ConnectionError where it has just ended.
        """
        async with self._opening:
            client = self._client or await self._open()
            if self._wire is None:
                self._wire = Wire(client)
            return self._wire

    async def drop(self, wire: Wire | None = None) -> None:
        """Close the connection, or do nothing where it is not the one of that wire any more.

        The next one is a new one. Whoever waits for an answer, or to send, gets one of AWAY.
        """
        if wire is not None and wire is not self._wire:
            return
        client, self._client = self._client, None
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.abort()
        if client is not None:
            self.generation += 1
            with contextlib.suppress(RedisError, OSError):
                await asyncio.shield(_end(client))

    async def _open(self) -> Redis:
        client = None
        try:
            client = connect_to(await self._owner(), retries=0, name=self._name, single=True)
            await client.initialize()
            self.identity = await _identify(client)
        except (RedisError, OSError) as error:
            if client is not None:
                await close(client)
            raise BusUnavailable(f"Redis is away: {type(error).__name__}") from error
        except BaseException:
            if client is not None:
                await close(client)
            raise
        self._client = client
        return client

    async def _owner(self) -> str:
        """The URL of the server; on a cluster asked anew, since the last one may have lost it."""
        if self._nodes is None:
            return first_url(self._settings)
        await self._nodes.refresh()
        return await self._nodes.owner(self._key)


async def _end(client: Redis) -> None:
    """End a client's one connection under the calls that are using it, then close the client.

    Closing it first would take the connection from them, and they fail with a KeyError when they
    give it back; one that still waits for its turn would open it again.
    """
    connection = client.connection
    if connection is not None:
        connection.redis_connect_func = _refuse
        await connection.disconnect(nowait=True)
        with contextlib.suppress(RedisError, OSError):
            await client.ping()  # it fails in its turn, after everybody that waits has failed
    await client.aclose()


async def _refuse(connection: Any) -> None:
    raise ConnectionError("this connection was given up")


def is_lost_group(error: ResponseError) -> bool:
    """Whether an error says that the group or the stream of a call is not there."""
    return str(error).startswith(("NOGROUP", "UNBLOCKED"))


async def kill(client: Redis, identity: Identity) -> None:
    """End another connection at its server, so that nothing it sent can happen any more.

    Does nothing where the server is another run, or the connection is gone already.
    """
    if (await _identify(client)).server != identity.server:
        return
    with contextlib.suppress(ResponseError):
        await client.client_kill_filter(_id=identity.id, addr=identity.address)


async def _identify(client: Redis) -> Identity:
    info: Mapping[str, Any] = await client.client_info()
    server: Mapping[str, Any] = await client.info("server")
    return Identity(str(info["id"]), str(info["addr"]), str(server["run_id"]))
