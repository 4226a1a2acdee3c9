"""Into how many shards the bus is cut: recorded in Redis, and the same for every process.

Who starts with another number than the recorded one would read streams that nobody writes, so it
is refused. `stockify bus reshard` changes the record when the old streams are worked off.
"""

import time

import msgspec
from redis.asyncio import Redis

from pipeline import topics
from pipeline.errors import ConfigError
from pipeline.topics import Topics


class Layout(msgspec.Struct, frozen=True):
    """The names that are in use since `since_ms`, the servers' wall time."""

    shards: int
    tagged: bool
    since_ms: int = 0

    @property
    def topics(self) -> Topics:
        """The names themselves."""
        return Topics(self.shards, self.tagged)


class Record(msgspec.Struct, frozen=True):
    """What is recorded: the layout in use, those before it, and the one that is being made."""

    current: Layout
    past: tuple[Layout, ...] = ()
    coming: Layout | None = None


async def read(redis: Redis) -> Record | None:
    """What is recorded; None before the first start. Raises RedisError."""
    text = await redis.get(topics.LAYOUT)
    return msgspec.json.decode(text, type=Record) if text else None


async def write(redis: Redis, record: Record) -> None:
    """Record it. Raises RedisError."""
    await redis.set(topics.LAYOUT, msgspec.json.encode(record))


async def agree(redis: Redis, own: Topics) -> None:
    """Make sure that the names of this process are those in use; the first to start says so.

    Raises ConfigError where they are not, RedisError.
    """
    known = await read(redis)
    if known is None:
        await _check_empty(redis, own)
        mine = Record(Layout(own.shards, own.tagged, time.time_ns() // 1_000_000))
        if await redis.set(topics.LAYOUT, msgspec.json.encode(mine), nx=True):
            return
    await check(redis, own)


async def check(redis: Redis, own: Topics) -> None:
    """Make sure that no other names than these are recorded.

    Raises ConfigError where there are, RedisError.
    """
    known = await read(redis)
    if known is None or _is_same(known.current.topics, own):
        return
    shards = known.current.shards
    raise ConfigError(
        f"the bus has {_shards(shards)} and STOCKIFY_SHARDS is {own.shards}: set it to {shards}, "
        f"or cut the bus anew with stockify bus reshard --shards {own.shards}"
    )


def _is_same(one: Topics, other: Topics) -> bool:
    return one.raw() == other.raw() and one.shards == other.shards


async def _check_empty(redis: Redis, own: Topics) -> None:
    """Streams from before anything was recorded say by their names how the bus was cut."""
    whole = Topics()
    if own.raw() != whole.raw() and await redis.exists(whole.raw()):
        raise ConfigError(
            f"the bus has 1 shard and STOCKIFY_SHARDS is {own.shards}: set it to 1, or cut the bus "
            f"anew with stockify bus reshard --shards {own.shards}"
        )


def _shards(count: int) -> str:
    return "1 shard" if count == 1 else f"{count} shards"
