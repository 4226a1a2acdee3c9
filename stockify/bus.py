"""The bus as a command sees it: a connection to the instance's Redis, and which streams are meant.

A short name (`raw`, `signals`) means every shard of that stream; a whole key means itself.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from redis.exceptions import RedisError

from pipeline import layout
from pipeline.attached import attached_settings
from pipeline.clock import Clock
from pipeline.cluster import primaries
from pipeline.config import Settings
from pipeline.errors import BusUnavailable, ConfigError
from pipeline.runtime import Redis, connect
from pipeline.streams.state import Memory, StreamState, read_memory, read_state
from pipeline.topics import Topics

_SCANNED_AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class Bus:
    """What a command works with. `redis` sends nothing twice."""

    settings: Settings
    redis: Redis
    topics: Topics
    clock: Clock

    def shards(self) -> range:
        """The numbers of the shards."""
        return range(self.settings.shards)

    def trimmed(self) -> list[str]:
        """The streams that the trimmer keeps to their budget."""
        return [
            name(shard)
            for name in (self.topics.raw, self.topics.enriched, self.topics.contracts)
            for shard in self.shards()
        ]

    async def streams(self) -> list[str]:
        """Every stream there is at the servers, and of ours also those that are not."""
        own = self.trimmed()
        dead = [self.topics.dead(shard) for shard in self.shards()]
        found = set()
        for server in await primaries(self.redis):
            async for key in server.scan_iter(count=_SCANNED_AT_ONCE, _type="stream"):
                found.add(key.decode())
        return [*own, *sorted(found - {*own, *dead}), *dead]

    async def named(self, text: str) -> list[str]:
        """The streams that a text means, those that exist. Raises ConfigError where none does."""
        short = text.removeprefix(Topics().stream(""))
        wanted = [text, *(self.topics.stream(short, shard) for shard in self.shards())]
        wanted.append(Topics().stream(short))
        found = [name for name in dict.fromkeys(wanted) if await self.redis.exists(name)]
        if not found:
            known = ", ".join(await self.streams())
            raise ConfigError(f"no stream {text!r}; there are: {known}")
        return found

    async def cuts(self) -> list[Topics]:
        """The names in use, then those of earlier cuts into other numbers of shards."""
        record = await layout.read(self.redis)
        return [self.topics, *(cut.topics for cut in reversed(record.past if record else ()))]

    def successor(self, stream: str, key: str) -> str:
        """The stream that stands in the place of one of an earlier cut, for entries of a key."""
        name = stream.removeprefix(Topics().stream("")).partition(":{")[0]
        return self.topics.stream(name, self.topics.shard_of_key(key))

    async def states(self, streams: Sequence[str]) -> list[StreamState]:
        """How these streams stand."""
        return [await read_state(self.redis, stream) for stream in streams]

    async def memory(self) -> list[Memory]:
        """What each server uses and may use."""
        return [await read_memory(server) for server in await primaries(self.redis)]


@contextlib.asynccontextmanager
async def attached(name: str) -> AsyncIterator[Bus]:
    """The running instance's bus. Raises ConfigError without one, BusUnavailable if it is away."""
    settings = attached_settings()
    redis = connect(settings, retries=0, name=name)
    topics = Topics(shards=settings.shards, tagged=settings.redis_cluster)
    try:
        yield Bus(settings, redis, topics, Clock(settings.clock))
    except (RedisError, OSError) as error:
        raise BusUnavailable(f"Redis: {error}") from error
    finally:
        await redis.aclose()
