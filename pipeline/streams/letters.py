"""Dead letters: look at them, send them back to where they came from, or remove them.

A letter goes back exactly once: the call that appends it deletes it. Bytes only; what a letter's
payload means is not known here.
"""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
from redis.exceptions import ResponseError

from pipeline import topics
from pipeline.entries import Appended, NewEntry, decode_entry
from pipeline.errors import StreamRetired
from pipeline.runtime import Redis
from pipeline.streams.glances import Glance, glance
from pipeline.streams.producer import Producer
from pipeline.streams.scripts import ANEW, EPOCH, Script
from pipeline.streams.tally import again_bucket_of, dead_bucket_of, identity

# What setting an entry aside has added to it; the rest is the entry as it was.
_ADDED = ("stream", "source_id", "group", "reason", "error", "attempts", "at")

# Send a letter back. KEYS: dead letters, the stream it came from, that stream's sequence and tally.
# ARGV: letter id, where the letter is counted, where its copy is, its identity, the names of
# fields that are the letter's own. Gives epoch, id and seq, or nothing where the letter is gone.
# The entry was counted when it was first appended, so the copy is not; its count as a dead letter
# is taken back, unless the tally has forgotten that minute.
_REDRIVE = Script(
    EPOCH
    + ANEW
    + """
local letter = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not letter then return {} end
local own = {}
for i = 5, #ARGV do own[ARGV[i]] = true end
local epoch, retired = epoch_of(KEYS[2], KEYS[3])
if retired then return redis.error_reply(RETIRED) end
local id, seq = append_anew(KEYS[2], KEYS[3], epoch, letter[2], own)
redis.call('XDEL', KEYS[1], ARGV[1])
local counted = tonumber(redis.call('HGET', KEYS[4], ARGV[2] .. ':n') or 0)
if counted > 0 then
  redis.call('HINCRBY', KEYS[4], ARGV[2] .. ':n', -1)
  redis.call('HINCRBY', KEYS[4], ARGV[2] .. ':h', '-' .. ARGV[4])
  redis.call('HINCRBY', KEYS[4], ARGV[3] .. ':n', 1)
  redis.call('HINCRBY', KEYS[4], ARGV[3] .. ':h', ARGV[4])
end
return {epoch, id, seq}
"""
)


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """An entry that was set aside. `stream_id` is the letter's own, `source_id` was the entry's.

    `stream` is where it came from, `group` who set it aside, `at` when (ns), `size` its bytes.
    """

    dead_stream: str
    stream_id: str
    id: str
    type: str
    key: str
    ts: int
    stream: str
    source_id: str
    group: str
    reason: str
    error: str
    attempts: int
    at: int
    size: int


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which letters are meant; what is empty asks for nothing. `since` is ns, of `at`."""

    reason: str = ""
    key: str = ""
    group: str = ""
    since: int = 0

    def takes(self, letter: Letter) -> bool:
        """Whether a letter is meant. A key also means everything that begins with it and a dash."""
        return (
            self.reason in ("", letter.reason)
            and self.group in ("", letter.group)
            and (self.key in ("", letter.key) or letter.key.startswith(f"{self.key}-"))
            and letter.at >= self.since
        )


async def read_letters(
    redis: Redis, dead_stream: str, wanted: Filter, *, newest_first: bool = True
) -> AsyncIterator[Letter]:
    """The letters that are meant, one after another, without their payload."""
    async for page in glance(redis, dead_stream, newest_first=newest_first):
        for entry in page:
            letter = letter_of(entry)
            if wanted.takes(letter):
                yield letter


async def find_letter(redis: Redis, dead_stream: str, stream_id: str) -> Letter | None:
    """The letter of that id."""
    async for page in glance(redis, dead_stream, start=stream_id, end=stream_id):
        return letter_of(page[0])
    return None


async def read_fields(redis: Redis, stream: str, stream_id: str) -> dict[bytes, bytes] | None:
    """Everything of one entry; None where it is gone."""
    found: Any = await redis.xrange(stream, stream_id, stream_id)
    return found[0][1] if found else None


async def redrive(redis: Redis, letter: Letter) -> Appended | None:
    """Send a letter back to the stream it came from, as a new entry with the same message id.

    None where it has gone back before, or was removed: so the call may be repeated. Raises
    StreamRetired, and then the letter stays, where another stream stands in the place of that one.
    """
    source = letter.stream
    keys = (letter.dead_stream, source, topics.sequence(source), topics.tally(source))
    arguments = (
        letter.stream_id,
        dead_bucket_of(letter.type, letter.ts, letter.group),
        again_bucket_of(letter.type, letter.ts, letter.group),
        identity(letter.id),
        *(*_ADDED, "seq", "epoch", "src"),
    )
    try:
        answer: list[Any] = await _REDRIVE.call(redis, keys, arguments)
    except ResponseError as error:
        if str(error).startswith("RETIRED "):
            raise StreamRetired(f"{source} is retired") from error
        raise
    if not answer:
        return None
    return Appended(answer[1].decode(), int(answer[2]), answer[0].decode())


async def move(redis: Redis, producer: Producer, letter: Letter, target: str) -> Appended | None:
    """Send a letter to the stream that stands in the place of its own; None where it is gone.

    Two steps, since the two may be at different servers: appended unless it is found there, then
    removed. Repeated after a failure in between it finds what it appended, while that is kept.
    """
    fields = await read_fields(redis, letter.dead_stream, letter.stream_id)
    if fields is None:
        return None
    old = decode_entry(letter.stream_id.encode(), fields)
    entry = NewEntry(
        id=old.id,
        type=old.type,
        key=old.key,
        ts=old.ts,
        te=old.te,
        traceparent=old.traceparent,
        enc=old.enc,
        meta=old.meta,
        data=old.data,
    )
    (place,) = await producer.settle(target, [entry])
    await drop(redis, letter)
    return place


async def drop(redis: Redis, letter: Letter) -> bool:
    """Remove a letter for good; False where it was gone. It stays counted as a dead letter."""
    return bool(await redis.xdel(letter.dead_stream, letter.stream_id))


def letter_of(entry: Glance) -> Letter:
    """An entry of a stream of dead letters; what is missing reads as empty or 0."""
    fields = entry.fields
    return Letter(
        dead_stream=entry.stream,
        stream_id=entry.stream_id,
        id=fields.get("id", ""),
        type=fields.get("type", ""),
        key=fields.get("key", ""),
        ts=entry.number("ts"),
        stream=fields.get("stream", ""),
        source_id=fields.get("source_id", ""),
        group=fields.get("group", ""),
        reason=fields.get("reason", ""),
        error=fields.get("error", "" if "error" not in entry.left else "(long)"),
        attempts=entry.number("attempts"),
        at=entry.number("at"),
        size=entry.size,
    )
