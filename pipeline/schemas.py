"""The schema registry: what entries of each type hold, kept in Redis, and who may change it.

Whoever writes a type registers it first, with `announce` or `announce_type`, and is refused where
its subject's level is broken: by a change inside a version as by a new one, against what stands
registered. One that is older than that is let in where the level allows it; the newer schema stays.
It checks schemas, never entries.

A subject takes two keys of one slot, its current texts by version and the log of everything that
was ever registered; the index of ids is a key of its own, claimed in a call of its own.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec
from redis.exceptions import OutOfMemoryError, RedisError

from pipeline import topics
from pipeline.compatibility import Level
from pipeline.errors import BusUnavailable, DecodeError, SchemaConflict
from pipeline.runtime import Context, Redis, jittered, pause
from pipeline.shapes import (
    DEFAULT_LEVEL,
    ENRICHED_TYPES,
    RAW_TYPES,
    SCHEMAS,
    Schema,
    schema_of,
)
from pipeline.streams.links import AWAY
from pipeline.subjects import Admission, Revision, Subject, admit, claim, ids

__all__ = [
    "DEFAULT_LEVEL",
    "ENRICHED_TYPES",
    "RAW_TYPES",
    "SCHEMAS",
    "Level",
    "Registry",
    "Schema",
    "announce",
    "announce_type",
    "register",
    "schema_of",
]

# Add a revision to a subject's log unless something came in since it was read.
# KEYS: the subject's current texts, its log. ARGV: fields seen in the log, level, the revision, its
# version, its text where it becomes the current one, else ''. Gives 1 where it was written, else 0.
_ADD = """
if redis.call('HLEN', KEYS[2]) ~= tonumber(ARGV[1]) then return 0 end
redis.call('HSETNX', KEYS[2], 'level', ARGV[2])
redis.call('HSET', KEYS[2], redis.call('HLEN', KEYS[2]), ARGV[3])
if ARGV[5] ~= '' then redis.call('HSET', KEYS[1], ARGV[4], ARGV[5]) end
return 1
"""
_LEVEL = b"level"

_decode_revision = msgspec.json.Decoder(Revision).decode
T = TypeVar("T")


async def announce(context: Context, types: Sequence[str | Schema]) -> None:
    """Register what a worker is about to write, waiting while Redis is away or full.

    Types of ours by name, others as schemas. Raises SchemaConflict, which is logged in a line of
    its own.
    """
    schemas = [SCHEMAS[one] if isinstance(one, str) else one for one in types]
    attempt = 0
    while not context.stopping.is_set():
        try:
            await register(context.redis, schemas)
        except OutOfMemoryError:
            context.telemetry.set_state("starting", "Redis is full: nothing can be registered")
        except AWAY as error:
            context.telemetry.set_state("starting", f"Redis is away: {type(error).__name__}")
        except SchemaConflict as error:
            context.telemetry.log.error("schema_refused", error=str(error))
            raise
        else:
            return
        await pause(context.stopping, jittered(attempt))
        attempt += 1


async def announce_type(
    context: Context,
    subject: str,
    version: int,
    data: Any,
    *,
    level: Level | str = DEFAULT_LEVEL,
    says: str = "",
) -> str:
    """Register what a stream of your own holds; gives the `type` that its entries carry.

    `data` is the type of field `data`, any that msgspec encodes; `level` what its later versions
    will owe the earlier ones, chosen once for the subject. Waits as `announce` does. Raises
    SchemaConflict, ValueError for an impossible subject, version or level.
    """
    schema = schema_of(subject, version, data, level=level, says=says)
    await announce(context, [schema])
    return schema.type


async def register(redis: Redis, schemas: Sequence[Schema]) -> None:
    """Register each schema that is new or has changed; all are checked before one is stored.

    Raises SchemaConflict, and then nothing was stored unless another writer came in between.
    """
    for schema in schemas:
        await _admission(redis, schema)
    for schema in schemas:
        while not await _is_registered(redis, schema):
            pass  # something came in between: look again


class Registry:
    """What stands registered, to be read. Every call raises BusUnavailable where Redis is away."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def subjects(self) -> list[str]:
        """The names of all subjects, in order."""
        claims = await _answered(lambda: self._redis.hvals(topics.SCHEMA_IDS))
        names = sorted({_owner(one) for one in claims})
        # An id may have been claimed for a schema that was refused in the end.
        calls = [_answered(partial(self._redis.exists, topics.schema(name))) for name in names]
        are_there = await asyncio.gather(*calls)
        return [name for name, is_there in zip(names, are_there, strict=True) if is_there]

    async def subject(self, name: str) -> Subject | None:
        """What is registered under a name; None where nothing is. Raises DecodeError."""
        found = await _answered(lambda: _subject(self._redis, name))
        return found if found.current else None

    async def revision(self, number: int) -> tuple[str, Revision] | None:
        """The subject and the revision of an id; None where it is nobody's. Raises DecodeError."""
        held = await _answered(lambda: self._redis.hget(topics.SCHEMA_IDS, str(number)))
        if held is None:
            return None
        name = _owner(held)
        subject = await self.subject(name)
        revisions = subject.revisions if subject else ()
        return next(((name, one) for one in revisions if one.id == number), None)


async def _answered(call: Callable[[], Awaitable[T]]) -> T:
    try:
        return await call()
    except (RedisError, OSError) as error:
        raise BusUnavailable(f"no schemas: {type(error).__name__}") from error


async def _subject(redis: Redis, name: str) -> Subject:
    """A subject as it stands; a current text that was never logged counts as its first revision."""
    texts: Any = await redis.hgetall(topics.schema(name))
    log: Any = await redis.hgetall(topics.schema_log(name))
    level = log.pop(_LEVEL, None)
    try:
        current = {int(version): text.decode() for version, text in texts.items()}
        logged = [_decode_revision(log[place]) for place in sorted(log, key=int)]
        chosen = Level(level.decode()) if level is not None else None
    except (ValueError, msgspec.MsgspecError) as error:
        raise DecodeError(f"subject {name} cannot be read: {error}") from error
    known = {(one.version, one.schema) for one in logged}
    unlogged = [
        Revision(next(ids(name, version, text)), version, text)
        for version, text in sorted(current.items())
        if (version, text) not in known
    ]
    return Subject(name, chosen, (*unlogged, *logged), current, len(unlogged))


async def _admission(redis: Redis, schema: Schema) -> tuple[Subject, Admission]:
    """The subject as it stands, and how the schema may come into it. Raises SchemaConflict."""
    try:
        subject = await _subject(redis, schema.subject)
        return subject, admit(subject, schema)
    except DecodeError as error:
        raise SchemaConflict(f"{schema.type}: {error}") from error


async def _is_registered(redis: Redis, schema: Schema) -> bool:
    """One attempt; False when the subject has changed since it was read."""
    subject, admission = await _admission(redis, schema)
    text = schema.text.decode()
    if subject.unlogged:
        first = subject.revisions[0]
        await _add(redis, subject, first.version, first.schema, schema.level, is_current=False)
        return False
    if admission is Admission.KNOWN:
        await _claimed(redis, schema.subject, schema.version, text)
        return True
    is_current = admission is Admission.NEWEST
    return await _add(redis, subject, schema.version, text, schema.level, is_current=is_current)


async def _add(
    redis: Redis, subject: Subject, version: int, text: str, level: Level, *, is_current: bool
) -> bool:
    number = await _claimed(redis, subject.name, version, text)
    logged = len(subject.revisions) - subject.unlogged
    fields = logged + (subject.level is not None)
    revision = msgspec.json.encode(Revision(number, version, text))
    keys = (topics.schema(subject.name), topics.schema_log(subject.name))
    arguments = (fields, level.value, revision, version, text if is_current else "")
    return bool(await redis.eval(_ADD, len(keys), *keys, *arguments))


async def _claimed(redis: Redis, subject: str, version: int, text: str) -> int:
    """The id of a text, claimed in the index where it was not yet."""
    own = claim(subject, version, text).encode()
    wanted = ids(subject, version, text)
    while True:
        number = next(wanted)
        held = await redis.hget(topics.SCHEMA_IDS, str(number))
        if held is None:  # a full Redis refuses every writing call, also one that changes nothing
            if await redis.hsetnx(topics.SCHEMA_IDS, str(number), own.decode()):
                return number
            held = await redis.hget(topics.SCHEMA_IDS, str(number))
        if held == own:
            return number


def _owner(held: bytes | str) -> str:
    text = held if isinstance(held, str) else held.decode()
    return text.partition(" ")[0]
