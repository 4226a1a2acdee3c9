"""Appends entries to streams: numbered, and never twice.

It looks into no entry; what one means is its `type`.
"""

import asyncio
import contextlib
from typing import Any

from redis.exceptions import BusyLoadingError, RedisError, ResponseError

from pipeline import topics
from pipeline.config import Settings
from pipeline.entries import Appended, NewEntry
from pipeline.errors import BusUnavailable, OutcomeUnknown
from pipeline.runtime import Redis, connect
from pipeline.streams import scripts
from pipeline.streams.links import AWAY, new_epoch

TAIL_LENGTH = 512  # how far back an append of unknown outcome is looked for


class Producer:
    """Appends to streams over one connection, never twice.

    An append that was sent and not answered is settled at the next call: the old connection is
    killed at the server, and the entry goes in only if its message id is not in the tail.
    """

    def __init__(self, settings: Settings, name: str) -> None:
        self._settings = settings
        self._name = name
        self._client: Redis | None = None
        self._client_id: int | None = None
        self._epoch_seed = new_epoch()

    async def append(self, stream: str, entry: NewEntry) -> Appended:
        """Append an entry. Raises BusUnavailable (not sent) or OutcomeUnknown (settle it)."""
        keys = (stream, topics.sequence(stream))
        return await self._call(scripts.APPEND, keys, (self._epoch_seed, *entry.fields()))

    async def settle(self, stream: str, entry: NewEntry) -> Appended:
        """Append an entry unless it is there already. Raises as `append` does."""
        keys = (stream, topics.sequence(stream))
        arguments = (self._epoch_seed, entry.id, TAIL_LENGTH, *entry.fields())
        return await self._call(scripts.APPEND_ABSENT, keys, arguments)

    async def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _call(
        self, script: str, keys: tuple[str, ...], arguments: tuple[Any, ...]
    ) -> Appended:
        client = await self._connected()
        try:
            stream_id, seq, epoch = await client.eval(script, len(keys), *keys, *arguments)
        except BusyLoadingError as error:
            raise BusUnavailable(str(error)) from error
        except ResponseError as error:
            raise BusUnavailable(f"refused: {error}") from error
        except AWAY as error:
            await self.close()
            raise OutcomeUnknown(f"no answer to an append: {type(error).__name__}") from error
        except asyncio.CancelledError:
            await self.close()
            raise
        return Appended(stream_id.decode(), int(seq), epoch.decode())

    async def _connected(self) -> Redis:
        """The one connection; a new one first makes sure that the last can do nothing more."""
        if self._client is not None:
            return self._client
        client = connect(self._settings, retries=0, name=self._name, single=True)
        try:
            await client.initialize()
            if self._client_id is not None:
                with contextlib.suppress(ResponseError):  # it is gone already
                    await client.client_kill_filter(_id=str(self._client_id))
            self._client_id = int(await client.client_id())
        except (RedisError, OSError) as error:
            await client.aclose()
            raise BusUnavailable(f"Redis is away: {type(error).__name__}") from error
        self._client = client
        return client
