"""The bus as a command sees it: a connection to the instance's Redis, and which streams are meant.

A short name (`raw`, `signals`) means every shard of that stream; a whole key means itself.
"""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from redis.exceptions import RedisError

from pipeline.attached import attached_settings
from pipeline.clock import Clock
from pipeline.config import Settings
from pipeline.errors import BusUnavailable, ConfigError
from pipeline.runtime import Redis, connect
from pipeline.streams import overview
from pipeline.topics import Topics


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
        return overview.trimmed_streams(self.topics)

    async def streams(self) -> list[str]:
        """Every stream there is at the servers, and of ours also those that are not."""
        return await overview.all_streams(self.redis, self.topics)

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
