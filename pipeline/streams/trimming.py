"""Trims streams below what every critical group has finished with, in one step a stream.

What a critical group has still to read is never removed; past its promise it is reported. A
best-effort group is waited for within its promise; what the trim takes from it beyond that is
written to its bookmark: where it stood and how much it missed. It reads no entry.
"""

import msgspec

from pipeline import topics
from pipeline.runtime import Redis
from pipeline.streams.scripts import CURSOR, IDS, Script

# An entry is finished when it is delivered and not pending. A group without a card counts as
# critical: nobody loses entries for want of one. A group with a card that is lost holds back what
# comes after its durable cursor. A server's clock that was put back does not make entries young.
# KEYS: stream, cards, cursors, bookmarks, sequence.
# ARGV: what is kept anyway in ms, bytes of the stream, '1' to remove.
# Gives how many go, the cut, the group that held it back ('' for none), the oldest entry ('' for
# none), the time in ms, then of each group that is behind: name, '1' if critical, the id of its
# first unfinished entry, how long ago that was appended in ms, how many entries it misses.
_TRIM = Script(
    IDS
    + CURSOR
    + """
local stream, keep, size = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
if redis.call('EXISTS', stream) == 0 then return {0, '', '', '', 0, {}} end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local wall = now
local function next_of(id)
  local ms, seq = string.match(id, '(%d+)-(%d+)')
  return ms .. '-' .. string.format('%.0f', tonumber(seq) + 1)
end
local function ms_of(id) return tonumber(string.match(id, '^%d+')) end
local function seq_from(id)
  local found = redis.call('XRANGE', stream, id, '+', 'COUNT', 1)
  if not found[1] then return tonumber(redis.call('HGET', KEYS[5], 'seq') or 0) + 1 end
  for i = 1, #found[1][2], 2 do
    if found[1][2][i] == 'seq' then return tonumber(found[1][2][i + 1]) end
  end
  return 0
end
local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
local info = redis.call('XINFO', 'STREAM', stream)
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then now = math.max(now, ms_of(info[i + 1])) end
end
if not first then return {0, '', '', '', wall, {}} end
local span = math.max(1, now - ms_of(first[1]))
local lows = {}
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local group = {}
  for i = 1, #flat, 2 do group[flat[i]] = flat[i + 1] end
  local pending = redis.call('XPENDING', stream, group['name'])
  lows[group['name']] = pending[1] > 0 and pending[2] or next_of(group['last-delivered-id'])
end
local epoch = redis.call('HGET', KEYS[5], 'epoch')
local cards = redis.call('HGETALL', KEYS[2])
local card_of = {}
for i = 1, #cards, 2 do
  local read, card = pcall(cjson.decode, cards[i + 1])
  card_of[cards[i]] = read and type(card) == 'table' and card or {}
  if not lows[cards[i]] then
    local parts = cursor(redis.call('HGET', KEYS[3], cards[i]) or '')
    lows[cards[i]] = parts[3] == epoch and next_of(parts[1]) or '0-0'
  end
end
local cut, holder = string.format('%.0f-0', math.max(0, now - keep)), ''
local behind = {}
local order = {}
for name in pairs(lows) do order[#order + 1] = name end
table.sort(order)
for _, critical in ipairs({true, false}) do
  for _, name in ipairs(order) do
    local card, low = card_of[name] or {}, lows[name]
    if (card['class'] ~= 'best_effort') == critical then
      local seconds = tonumber(card['promise_s'] or 0)
      local bytes = tonumber(card['promise_bytes'] or 0)
      local promise = seconds > 0 and seconds * 1000 or (critical and keep or 0)
      if bytes > 0 and size > 0 then promise = math.min(promise, span * bytes / size) end
      local promised = string.format('%.0f-0', math.max(0, now - promise))
      local wanted = low
      if not critical and before(low, promised) then wanted = promise > 0 and promised or cut end
      if before(wanted, cut) then cut, holder = wanted, name end
      local late = before(low, critical and promised or cut)
      local entry = late and redis.call('XRANGE', stream, low, '+', 'COUNT', 1)[1]
      if entry and before(entry[1], critical and promised or cut) then
        behind[#behind + 1] = {name, critical and '1' or '0', entry[1], now - ms_of(entry[1]), 0}
      end
    end
  end
end
local total = 0
if before(first[1], cut) then
  for _, one in ipairs(behind) do
    if before(one[3], cut) then one[5] = seq_from(cut) - seq_from(one[3]) end
  end
  total = seq_from(cut) - seq_from('-')
end
if ARGV[3] == '1' then
  local seen = {}
  for _, one in ipairs(behind) do
    seen[one[1]] = true
    local held = redis.call('HGET', KEYS[4], one[1])
    local mark = held and cjson.decode(held) or {id = one[3], at_ms = wall, skipped = 0}
    mark['seq'] = mark['seq'] or seq_from(one[3])
    mark['skipped'] = mark['skipped'] + one[5]
    mark['reason'] = mark['skipped'] > 0 and 'passed' or 'late'
    redis.call('HSET', KEYS[4], one[1], cjson.encode(mark))
  end
  for _, name in ipairs(redis.call('HKEYS', KEYS[4])) do
    if not seen[name] then
      local mark = cjson.decode(redis.call('HGET', KEYS[4], name))
      if mark['skipped'] == 0 then redis.call('HDEL', KEYS[4], name) end
    end
  end
  total = redis.call('XTRIM', stream, 'MINID', cut)
  first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
end
return {total, cut, holder, first and first[1] or '', wall, behind}
"""
)


class Behind(msgspec.Struct, frozen=True):
    """A group past its promise: its first unfinished entry, that one's age, what it misses."""

    group: str
    is_critical: bool
    stream_id: str
    age_ms: int
    skipped: int


class Trimmed(msgspec.Struct, frozen=True):
    """What a trim did, or would do: entries removed, everything before `cut`.

    `holder` is the group that held it back and `oldest` the oldest entry left; both are empty where
    there is none. `behind` are the groups past their promise.
    """

    removed: int
    holder: str
    oldest: str
    cut: str = ""
    behind: tuple[Behind, ...] = ()


async def trim(
    redis: Redis, stream: str, keep_ms: int, size: int = 0, *, plan: bool = False
) -> Trimmed:
    """Trim a stream as far as its groups and `keep_ms` allow; `plan` only says what would go.

    `size` is what the stream occupies, by which promises in bytes are told.
    """
    keys = (
        *(stream, topics.group_cards(stream), topics.cursors(stream)),
        *(topics.bookmarks(stream), topics.sequence(stream)),
    )
    removed, cut, holder, oldest, _, behind = await _TRIM.call(
        redis, keys, (keep_ms, size, "0" if plan else "1")
    )
    return Trimmed(
        removed=int(removed),
        holder=holder.decode(),
        oldest=oldest.decode(),
        cut=cut.decode(),
        behind=tuple(
            Behind(name.decode(), critical == b"1", stream_id.decode(), int(age), int(skipped))
            for name, critical, stream_id, age, skipped in behind
        ),
    )


async def stream_bytes(redis: Redis, stream: str) -> int:
    """What a stream occupies at the server, about."""
    return int(await redis.memory_usage(stream, samples=20) or 0)
