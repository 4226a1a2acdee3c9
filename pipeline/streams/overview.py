"""Which streams an instance has, and how they stand: what commands and the gateway show of the bus.

Reads only; how it looks is the caller's matter.
"""

import msgspec
from redis.exceptions import RedisError

from pipeline import layout
from pipeline.cluster import primaries
from pipeline.errors import BusUnavailable
from pipeline.runtime import Redis
from pipeline.streams.state import Memory, StreamState, read_memory, read_state
from pipeline.topics import Topics

_SCANNED_AT_ONCE = 1_000


class View(msgspec.Struct, frozen=True):
    """Streams with their groups, and the servers' memory. `keep_bytes` is a stream's budget."""

    streams: tuple[StreamState, ...]
    servers: tuple[Memory, ...]
    keep_bytes: int
    budgeted: frozenset[str]  # of these streams the trimmer keeps to it

    def headroom(self, stream: StreamState) -> int | None:
        """Bytes until a stream's kept time is cut short; None for one that nobody trims."""
        return self.keep_bytes - stream.bytes if stream.name in self.budgeted else None


def plain(view: View) -> dict[str, object]:
    """The view as a program reads it."""
    return {
        "streams": [
            msgspec.to_builtins(stream) | {"headroom": view.headroom(stream)}
            for stream in view.streams
        ],
        "servers": [
            msgspec.to_builtins(server) | {"headroom": server.headroom} for server in view.servers
        ],
        "keep_bytes": view.keep_bytes,
    }


class Overview:
    """How the bus of one instance stands. Its calls raise BusUnavailable."""

    def __init__(self, redis: Redis, topic_map: Topics, keep_bytes: int) -> None:
        self._redis = redis
        self._topics = topic_map
        self._keep_bytes = keep_bytes

    async def look(self, *, everything: bool = False) -> View:
        """Our own streams, or with `everything` all there are, which goes over every key."""
        try:
            if everything:
                streams = await all_streams(self._redis, self._topics)
            else:
                streams = [*trimmed_streams(self._topics), *_dead(self._topics)]
            return await look(self._redis, self._topics, streams, self._keep_bytes)
        except (RedisError, OSError) as error:
            raise BusUnavailable(f"Redis is away: {type(error).__name__}") from error


async def look(redis: Redis, topic_map: Topics, streams: list[str], keep_bytes: int) -> View:
    """How these streams stand, those that never were left out. Raises what redis-py raises."""
    states = [await read_state(redis, stream) for stream in streams]
    return View(
        streams=tuple(state for state in states if state.is_there or state.head_seq),
        servers=tuple([await read_memory(server) for server in await primaries(redis)]),
        keep_bytes=keep_bytes,
        budgeted=frozenset(trimmed_streams(topic_map)),
    )


def trimmed_streams(topic_map: Topics) -> list[str]:
    """The streams that the trimmer keeps to their budget."""
    return [
        name(shard)
        for name in (topic_map.raw, topic_map.enriched, topic_map.contracts)
        for shard in range(topic_map.shards)
    ]


async def all_streams(redis: Redis, topic_map: Topics) -> list[str]:
    """Every stream there is at the servers, and of ours also those that are not."""
    own, dead = trimmed_streams(topic_map), _dead(topic_map)
    found = set()
    for server in await primaries(redis):
        async for key in server.scan_iter(count=_SCANNED_AT_ONCE, _type="stream"):
            found.add(key.decode())
    return [*own, *sorted(found - {*own, *dead}), *dead]


async def cuts(redis: Redis, topic_map: Topics) -> list[Topics]:
    """The names in use, then those of earlier cuts into other numbers of shards."""
    record = await layout.read(redis)
    return [topic_map, *(cut.topics for cut in reversed(record.past if record else ()))]


async def dead_streams(redis: Redis, topic_map: Topics) -> list[str]:
    """The streams of dead letters, those of earlier cuts too."""
    found = await cuts(redis, topic_map)
    return list(dict.fromkeys(name for cut in found for name in _dead(cut)))


def successor(topic_map: Topics, stream: str, key: str) -> str:
    """The stream that stands in the place of one of an earlier cut, for entries of a key."""
    return topic_map.stream(short_name(stream), topic_map.shard_of_key(key))


def short_name(stream: str) -> str:
    """A stream's name without its shard and what all begin with."""
    return stream.removeprefix(Topics().stream("")).partition(":{")[0]


def _dead(topic_map: Topics) -> list[str]:
    return [topic_map.dead(shard) for shard in range(topic_map.shards)]
