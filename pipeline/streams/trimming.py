"""Trims streams below what every critical group has finished with."""

import msgspec

from pipeline import topics
from pipeline.runtime import Redis
from pipeline.streams import scripts


class Trimmed(msgspec.Struct, frozen=True):
    """What a trim did: entries removed, the group that held it back, the oldest id left.

    The last two are empty where there is none.
    """

    removed: int
    holder: str
    oldest: str


async def trim(redis: Redis, stream: str, keep_ms: int) -> Trimmed:
    """Trim a stream as far as every critical group has finished and `keep_ms` allows."""
    keys = (stream, topics.group_cards(stream))
    removed, holder, oldest = await redis.eval(scripts.TRIM, len(keys), *keys, keep_ms)
    return Trimmed(int(removed), holder.decode(), oldest.decode())


async def stream_bytes(redis: Redis, stream: str) -> int:
    """What a stream occupies at the server, about."""
    return int(await redis.memory_usage(stream, samples=20) or 0)
