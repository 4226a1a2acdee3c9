"""Groups of a stream: made with a card, and made again where they were when they are lost.

What a group has finished stands in its durable cursor, which outlives group and stream. It reads
no entry.
"""

from typing import Any

import msgspec

from pipeline import topics
from pipeline.clock import parse_instant
from pipeline.errors import ConfigError
from pipeline.runtime import Redis
from pipeline.streams.scripts import CURSOR, EPOCH, MOVE, OWNS, Script

CRITICAL = "critical"
BEST_EFFORT = "best_effort"

# The newest id that a stream has given out.
_NEWEST = """
local function newest_of(stream)
  local info = redis.call('XINFO', 'STREAM', stream)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] end
  end
end
"""

# Make sure that a group exists. KEYS: stream, sequence, cards, cursors. ARGV: group, where a group
# that never was begins, its card, the cursor its member remembers ('' for none).
# Gives 'there', 'new', 'again' (at its cursor) or 'epoch' (the stream is another one: at its
# beginning), and the id after which it stands.
_ENSURE = Script(
    EPOCH
    + CURSOR
    + _NEWEST
    + """
local stream, group = KEYS[1], ARGV[1]
redis.call('HSET', KEYS[3], group, ARGV[3])
local was_there = redis.call('EXISTS', stream) == 1
if was_there then
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    for i = 1, #info, 2 do
      if info[i] == 'name' and info[i + 1] == group then return {'there', ''} end
    end
  end
end
local epoch = epoch_of(stream, KEYS[2])
local held = redis.call('HGET', KEYS[4], group) or ARGV[4]
local how, start, parts = 'new', ARGV[2], {}
if held ~= '' then
  parts = cursor(held)
  if parts[3] == epoch and was_there then
    how, start = 'again', parts[1]
  else
    how, start = 'epoch', '0-0'
    -- What it had finished of the epoch that ended stays known to whoever brings back the rest.
    if parts[3] ~= epoch then
      redis.call('HSET', KEYS[2], 'ended|' .. group, parts[1] .. ' ' .. parts[3])
    end
  end
end
redis.call('XGROUP', 'CREATE', stream, group, start, 'MKSTREAM')
if start == '$' then start = newest_of(stream) end
redis.call('HSET', KEYS[4], group,
  table.concat({start, parts[2] or '0', epoch, start, parts[5] or '-'}, ' '))
return {how, start}
"""
)

# Move a group to an id; what it held is let go. KEYS: stream, sequence, cursors, lease.
# ARGV: group, fence, id or '$'. Gives the id; FENCED for an owner that is none any more.
_SEEK = Script(
    MOVE
    + OWNS
    + _NEWEST
    + """
local stream, group, to = KEYS[1], ARGV[1], ARGV[3]
if not owns(KEYS[4], stream, ARGV[2]) then return redis.error_reply('FENCED') end
if to == '$' then to = newest_of(stream) end
move(stream, group, to)
local held = redis.call('HMGET', KEYS[2], 'epoch')
redis.call('HSET', KEYS[3], group, table.concat({to, '0', held[1] or '-', to, '-'}, ' '))
return to
"""
)

# Remove a group with all that is known of it. KEYS: stream, cards, cursors, bookmarks, lease.
# ARGV: group. Gives whether anything was there.
_FORGET = Script("""
local found = 0
if redis.call('EXISTS', KEYS[1]) == 1 then
  found = redis.call('XGROUP', 'DESTROY', KEYS[1], ARGV[1])
end
for i = 2, 4 do found = found + redis.call('HDEL', KEYS[i], ARGV[1]) end
local prefix = KEYS[1] .. '|'
for _, field in ipairs(redis.call('HKEYS', KEYS[5])) do
  if string.sub(field, 1, #prefix) == prefix then redis.call('HDEL', KEYS[5], field) end
end
return found > 0 and 1 or 0
""")


class Card(msgspec.Struct, frozen=True, rename={"kind": "class"}, omit_defaults=True):
    """What a group says of itself.

    A critical group holds the trimmer back, beyond its promise too, which is then reported. A
    best-effort one is waited for within its promise: seconds behind the newest entry, bytes of
    the stream; 0 stands for what the stream keeps anyway.
    """

    kind: str = CRITICAL
    promise_s: int = 0
    promise_bytes: int = 0
    exclusive: bool = True

    @property
    def is_critical(self) -> bool:
        """Whether the trimmer waits for it whatever it takes."""
        return self.kind != BEST_EFFORT


def encode_card(card: Card) -> bytes:
    """The card's JSON; its class is always said."""
    return msgspec.json.encode({"class": card.kind} | msgspec.to_builtins(card))


def decode_card(text: bytes | None) -> Card:
    """The card of that text; a critical one where there is none or it cannot be read."""
    try:
        return msgspec.json.decode(text, type=Card) if text else Card()
    except msgspec.MsgspecError:
        return Card()


def start_id(start: str) -> str:
    """The id after which a group begins that starts there. Raises ConfigError.

    `earliest`, `latest`, a stream id, or an RFC 3339 time, which is that of the append.
    """
    if start == "earliest":
        return "0-0"
    if start == "latest":
        return "$"
    ms, dash, seq = start.partition("-")
    if ms.isdigit() and (not dash or seq.isdigit()):
        return f"{int(ms)}-{int(seq or 0)}"
    try:
        instant = parse_instant(start)
    except ConfigError as error:
        raise ConfigError(f"start {start!r}: want earliest, latest, an id or a time") from error
    return f"{instant // 1_000_000 - 1}-{2**64 - 1}"  # the greatest id before that millisecond


async def ensure(
    redis: Redis, stream: str, group: str, *, start: str, card: Card, remembered: str = ""
) -> tuple[str, str]:
    """Make sure of a group; gives how (`there`, `new`, `again`, `epoch`) and where it stands."""
    keys = (stream, topics.sequence(stream), topics.group_cards(stream), topics.cursors(stream))
    how, at = await _ENSURE.call(redis, keys, (group, start, encode_card(card), remembered))
    return how.decode(), at.decode()


async def seek(redis: Redis, stream: str, group: str, *, fence: str, to: str) -> str:
    """Move a group so that the entry after an id comes next; gives the id."""
    lease = topics.lease(stream, group)
    keys = (stream, topics.sequence(stream), topics.cursors(stream), lease)
    found: Any = await _SEEK.call(redis, keys, (group, fence, to))
    return str(found.decode())


async def forget(redis: Redis, stream: str, group: str) -> bool:
    """Remove a group that is not wanted any more, with all that is known of it."""
    keys = (
        *(stream, topics.group_cards(stream), topics.cursors(stream)),
        *(topics.bookmarks(stream), topics.lease(stream, group)),
    )
    return bool(await _FORGET.call(redis, keys, (group,)))
