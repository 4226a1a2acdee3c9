"""Dead letters of a whole instance: one list over all shards, and what becomes of a letter.

What a letter is, and the steps on one stream, are those of `letters`.
"""

from collections.abc import Awaitable
from typing import NamedTuple, TypeVar

import msgspec
from redis.exceptions import RedisError

from pipeline import topics
from pipeline.config import Settings
from pipeline.entries import Appended
from pipeline.errors import BusUnavailable, StreamRetired
from pipeline.runtime import Redis
from pipeline.streams import letters
from pipeline.streams.glances import PAGE, glance
from pipeline.streams.letters import Filter, Letter
from pipeline.streams.overview import dead_streams, short_name, successor
from pipeline.streams.producer import Producer
from pipeline.topics import Topics

LOOKED_AT = 20 * PAGE  # letters of a stream that one page looks through for those that are meant
_Value = TypeVar("_Value")


class Position(NamedTuple):
    """Where a page ended: a letter's instant in ms, its number in that ms, and its stream."""

    ms: int
    number: int
    stream: str


class Page(msgspec.Struct, frozen=True):
    """Letters, newest first; `following` is where the next page begins, None where none does."""

    letters: tuple[Letter, ...]
    following: Position | None


class DeadLetters:
    """The dead letters of one instance. Its calls raise BusUnavailable.

    `redis` is to send nothing twice.
    """

    def __init__(self, redis: Redis, settings: Settings, topic_map: Topics) -> None:
        self._redis = redis
        self._settings = settings
        self._topics = topic_map

    async def page(
        self, wanted: Filter, limit: int, *, stream: str = "", after: Position | None = None
    ) -> Page:
        """At most `limit` letters that are meant, of a stream's short name only where one is given.

        It has fewer, and one to follow, where many were looked at that are not meant.
        """
        found: list[tuple[Position, Letter]] = []
        seen_to: list[Position] = []
        for name in await _asked(dead_streams(self._redis, self._topics)):
            of_stream, end = await _asked(self._scan(name, wanted, limit, stream, after))
            found += of_stream
            if end is not None:
                seen_to.append(end)
        # Below the highest place that a scan has stopped at, letters of its stream may be missing.
        stop = max(seen_to, default=None)
        kept = (one for one in found if stop is None or one[0] >= stop)
        ordered = sorted(kept, key=lambda one: one[0], reverse=True)
        if len(ordered) > limit:
            ordered = ordered[:limit]
            stop = ordered[-1][0]
        return Page(tuple(letter for _position, letter in ordered), stop)

    async def find(self, letter_id: str) -> Letter | None:
        """The letter of an id, as `id_of` gives it."""
        tag, _, stream_id = letter_id.rpartition(":")
        for name in await _asked(dead_streams(self._redis, self._topics)):
            if topics.tag(name) == (f"{{{tag}}}:" if tag else ""):
                return await _asked(letters.find_letter(self._redis, name, stream_id))
        return None

    async def fields(self, letter: Letter) -> dict[bytes, bytes] | None:
        """Everything of a letter, its payload too; None where it is gone."""
        return await _asked(letters.read_fields(self._redis, letter.dead_stream, letter.stream_id))

    async def redrive(self, letter: Letter) -> tuple[str, Appended] | None:
        """Send a letter back, exactly once; the stream it went to, and where it stands there.

        None where it is gone. Where its stream was retired it goes to the one in its place.
        """
        try:
            place = await _asked(letters.redrive(self._redis, letter))
            source = letter.stream
        except StreamRetired:
            source = successor(self._topics, letter.stream, letter.key)
            producer = Producer(self._settings, "dead")
            try:
                place = await _asked(letters.move(self._redis, producer, letter, source))
            finally:
                await producer.close()
        return None if place is None else (source, place)

    async def drop(self, letter: Letter) -> bool:
        """Remove a letter for good; False where it was gone."""
        return await _asked(letters.drop(self._redis, letter))

    async def _scan(
        self, name: str, wanted: Filter, limit: int, stream: str, after: Position | None
    ) -> tuple[list[tuple[Position, Letter]], Position | None]:
        """Letters of one stream that are meant, and where it stopped before the stream's end."""
        found: list[tuple[Position, Letter]] = []
        looked_at = 0
        position = None
        end = "+" if after is None else _before(after, name)
        async for page in glance(self._redis, name, end=end, newest_first=True):
            for entry in page:
                letter = letters.letter_of(entry)
                position = _position(letter)
                if wanted.takes(letter) and stream in ("", letter.stream, _short(letter)):
                    found.append((position, letter))
                    if len(found) > limit:
                        return found, position
            looked_at += len(page)
            if looked_at >= LOOKED_AT:
                return found, position
        return found, None


def id_of(letter: Letter) -> str:
    """A letter's id over all shards: that of the stream, with the shard before it where there are
    shards."""
    tag = topics.tag(letter.dead_stream)
    return f"{tag[1:-2]}:{letter.stream_id}" if tag else letter.stream_id


def _short(letter: Letter) -> str:
    return short_name(letter.stream)


def _position(letter: Letter) -> Position:
    ms, _, number = letter.stream_id.partition("-")
    return Position(int(ms), int(number), letter.dead_stream)


def _before(after: Position, stream: str) -> str:
    """The highest id of a stream that comes below a position."""
    bar = "(" if stream >= after.stream else ""
    return f"{bar}{after.ms}-{after.number}"


async def _asked(call: Awaitable[_Value]) -> _Value:
    try:
        return await call
    except (RedisError, OSError) as error:
        raise BusUnavailable(f"Redis is away: {type(error).__name__}") from error
