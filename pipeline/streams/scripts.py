"""The Lua calls of the data path, each one atomic step on the keys of one shard.

`seq` and `epoch` are added to an entry here, so that no two entries of a stream share a number and
none is skipped. In the same step an append is counted in the stream's tally, and what a group has
finished is written to its durable cursor.

An entry travels as a block: how many arguments follow, its bucket and identity for the tally
(`tally`), its contracts, then names and values of its fields in turn. An empty bucket is not
counted.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from redis.exceptions import NoScriptError

from pipeline.entries import NewEntry
from pipeline.runtime import Redis
from pipeline.streams import tally
from pipeline.streams.wire import Argument, Wire


class Script:
    """A Lua text, sent once to each server and called by its digest from then on."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    async def call(self, client: Redis, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        """What the script gives. Raises what redis-py raises."""
        try:
            return await client.evalsha(self.digest, len(keys), *keys, *arguments)
        except NoScriptError:
            return await client.eval(self.text, len(keys), *keys, *arguments)

    async def call_over(
        self, wire: Wire, keys: Sequence[str], arguments: Sequence[Argument]
    ) -> Any:
        """As `call`; it is sent before anything else can run."""
        try:
            return await wire.call("EVALSHA", self.digest, len(keys), *keys, *arguments)
        except NoScriptError:
            return await wire.call("EVAL", self.text, len(keys), *keys, *arguments)


def block(entry: NewEntry) -> list[Argument]:
    """An entry as the scripts take it."""
    fields = entry.fields()
    bucket = tally.bucket_of(entry.type, entry.ts)
    return [len(fields) + 3, bucket, tally.identity(entry.id), entry.contracts, *fields]


# The order of two stream ids, and the greatest id below one.
IDS = """
local function before(a, b)
  local am, as = string.match(a, '(%d+)-(%d+)')
  local bm, bs = string.match(b, '(%d+)-(%d+)')
  if #am ~= #bm then return #am < #bm end
  if am ~= bm then return am < bm end
  if #as ~= #bs then return #as < #bs end
  return as < bs
end
local function below(id)
  local ms, seq = string.match(id, '(%d+)-(%d+)')
  if seq ~= '0' then return ms .. '-' .. string.format('%.0f', tonumber(seq) - 1) end
  if ms == '0' then return '0-0' end
  return string.format('%.0f', tonumber(ms) - 1) .. '-18446744073709551615'
end
"""

# The epoch of a stream. A stream that has been written to and is not there was lost: what comes
# next is numbered on, under another epoch, and `epoch_seq` keeps where that begins.
# Also whether the stream is retired: the bus is being cut into another number of shards, and what
# is in it is worked off.
EPOCH = """
local function epoch_of(stream, sequence)
  local held = redis.call('HMGET', sequence, 'epoch', 'seq', 'retired', 'epoch_seq')
  local epoch, seq, began = held[1], tonumber(held[2] or 0), tonumber(held[4] or 0)
  -- An epoch in which nothing was written yet is not lost, though there is no stream.
  if epoch and (seq == began or redis.call('EXISTS', stream) == 1) then return epoch, held[3] end
  local now = redis.call('TIME')
  local fresh = string.format('%.0f', now[1] * 1000000 + now[2])
  redis.call('HSET', sequence, 'epoch', fresh, 'epoch_seq', seq)
  return fresh, held[3]
end
local RETIRED = 'RETIRED the stream is worked off, and takes nothing more'
"""

_ADD = """
local counts = {}
local function count(bucket, identity, contracts)
  if bucket == '' then return end
  local c = counts[bucket]
  if not c then
    c = {0, 0, 0}
    counts[bucket] = c
  end
  c[1], c[2], c[3] = c[1] + 1, c[2] + identity, c[3] + contracts
end
local function save_counts(tally)
  for bucket, c in pairs(counts) do
    redis.call('HINCRBY', tally, bucket .. ':n', c[1])
    redis.call('HINCRBY', tally, bucket .. ':h', string.format('%.0f', c[2]))
    if c[3] > 0 then redis.call('HINCRBY', tally, bucket .. ':c', c[3]) end
  end
end
-- The block at `at` goes to the stream under that number; `source` is where it was made from.
local function add(stream, epoch, seq, at, source)
  local first, last = at + 4, at + tonumber(ARGV[at])
  if source then
    return redis.call('XADD', stream, '*', 'seq', seq, 'epoch', epoch, 'src', source,
      unpack(ARGV, first, last))
  end
  return redis.call('XADD', stream, '*', 'seq', seq, 'epoch', epoch, unpack(ARGV, first, last))
end
"""

# Append entries. KEYS: stream, sequence, tally. ARGV: the epoch the caller knows ('' for none), the
# call that must be the last one before this ('' where none is under way), this call, blocks.
# Gives the epoch and where each came to stand: id, seq. Under another epoch than the known one
# nothing is written and the answer is the error EPOCH. Behind a call that was refused it is GAP, so
# that calls keep their order though they are sent without waiting.
APPEND = Script(
    EPOCH
    + _ADD
    + """
local epoch, retired = epoch_of(KEYS[1], KEYS[2])
if retired then return redis.error_reply(RETIRED) end
if ARGV[1] ~= '' and ARGV[1] ~= epoch then return redis.error_reply('EPOCH ' .. epoch) end
if ARGV[2] ~= '' and ARGV[2] ~= redis.call('HGET', KEYS[2], 'last_call') then
  return redis.error_reply('GAP the call before was refused')
end
local blocks, at = {}, 4
while at <= #ARGV do
  blocks[#blocks + 1] = at
  at = at + 1 + tonumber(ARGV[at])
end
local seq = redis.call('HINCRBY', KEYS[2], 'seq', #blocks) - #blocks
redis.call('HSET', KEYS[2], 'last_call', ARGV[3])
local places = {}
for i, block in ipairs(blocks) do
  places[i] = {add(KEYS[1], epoch, seq + i, block), seq + i}
  count(ARGV[block + 1], ARGV[block + 2], ARGV[block + 3])
end
save_counts(KEYS[3])
return {epoch, places}
"""
)

# Append those entries whose message id is not found after a place in the stream.
# KEYS: stream, sequence, tally. ARGV: the id after which to look, the epoch of that id ('' for
# none: then the whole stream is looked through), then of each entry its message id, the seq and
# epoch under which it was acknowledged (0 and '' for never) and its block.
# Gives the epoch and of each: id, seq, 1 where it was found. One that was acknowledged in an epoch
# that ended later was counted then; one that is absent from its own epoch was lost with its count.
SETTLE = Script(
    EPOCH
    + _ADD
    + """
local epoch, retired = epoch_of(KEYS[1], KEYS[2])
local began = tonumber(redis.call('HGET', KEYS[2], 'epoch_seq') or 0)
local wanted, missing, at = {}, 0, 3
local order = {}
while at <= #ARGV do
  if not wanted[ARGV[at]] then
    wanted[ARGV[at]] = {at = at}
    missing = missing + 1
  end
  order[#order + 1] = wanted[ARGV[at]]
  at = at + 4 + tonumber(ARGV[at + 3])
end
local low = '-'
if ARGV[1] ~= '' and ARGV[2] == epoch then low = '(' .. ARGV[1] end
local high = '+'
while missing > 0 do
  local entries = redis.call('XREVRANGE', KEYS[1], high, low, 'COUNT', 32)
  if #entries == 0 then break end
  for _, entry in ipairs(entries) do
    local fields, id, seq = entry[2], nil, nil
    for i = 1, #fields, 2 do
      if fields[i] == 'id' then id = fields[i + 1] end
      if fields[i] == 'seq' then seq = fields[i + 1] end
    end
    local want = id and wanted[id]
    if want and not want.place then
      want.place = {entry[1], tonumber(seq or 0), 1}
      missing = missing - 1
    end
    high = '(' .. entry[1]
  end
end
if retired and missing > 0 then return redis.error_reply(RETIRED) end
local places = {}
for i, want in ipairs(order) do
  if not want.place then
    local seq = redis.call('HINCRBY', KEYS[2], 'seq', 1)
    local block = want.at + 3
    want.place = {add(KEYS[1], epoch, seq, block), seq, 0}
    local acked, under = tonumber(ARGV[want.at + 1]), ARGV[want.at + 2]
    if under == '' or under == epoch or acked > began then
      count(ARGV[block + 1], ARGV[block + 2], ARGV[block + 3])
    end
  end
  places[i] = want.place
end
save_counts(KEYS[3])
return {epoch, places}
"""
)

# The parts of a durable cursor: id, seq, epoch, top and src, a space between, '-' for an unknown
# epoch or src. Everything up to `id` is finished; `top` is the highest that is.
CURSOR = """
local function cursor(text)
  local parts = {}
  for part in string.gmatch(text, '[^ ]+') do parts[#parts + 1] = part end
  return parts
end
"""

# Whether the caller's fence still stands ('' asks for none).
OWNS = """
local function owns(lease, stream, fence)
  return fence == '' or redis.call('HGET', lease, stream .. '|fence') == fence
end
"""

# Append the fields of an entry once more, numbered anew and without those named in `own`. The
# caller has checked what must hold before anything is written. Gives id and seq.
ANEW = """
local function append_anew(stream, sequence, epoch, flat, own)
  local seq = redis.call('HINCRBY', sequence, 'seq', 1)
  local fields = {'seq', seq, 'epoch', epoch}
  for i = 1, #flat, 2 do
    if not own[flat[i]] then
      fields[#fields + 1] = flat[i]
      fields[#fields + 1] = flat[i + 1]
    end
  end
  return redis.call('XADD', stream, '*', unpack(fields)), seq
end
"""

# Let a group stand after an id; what it held is let go.
MOVE = """
local function move(stream, group, to)
  local pending = redis.call('XPENDING', stream, group)
  while pending[1] > 0 do
    for _, one in ipairs(redis.call('XPENDING', stream, group, '-', '+', 1000)) do
      redis.call('XACK', stream, group, one[1])
    end
    pending = redis.call('XPENDING', stream, group)
  end
  redis.call('XGROUP', 'SETID', stream, group, to)
end
"""

# Write the durable cursor after some entries were acknowledged.
_ADVANCE = """
local function advance(cursors, stream, group, id, seq, epoch, src)
  local held = redis.call('HGET', cursors, group)
  local top, known = id, '-'
  if held then
    local parts = cursor(held)
    if parts[3] == epoch and before(id, parts[4]) then top = parts[4] end
    known = parts[5]
  end
  local low, pending = top, redis.call('XPENDING', stream, group)
  if pending[1] > 0 and not before(top, pending[2]) then
    low = below(pending[2])
    src = known
  elseif top ~= id or src == '-' then
    src = known
  end
  redis.call('HSET', cursors, group, table.concat({low, seq, epoch, top, src}, ' '))
end
"""

# Acknowledge each entry and write what came of it; nothing is written for one whose
# acknowledgement did not count, so a second try or an owner that was claimed away writes nothing.
# KEYS: source, target, target's sequence, the tally to count in, lease, source's cursors, target's
# cursors, target's cards.
# ARGV: group, fence, how far the call goes (seq, epoch and src of its last entry), '1' where a lost
# target is made anew from the source, then of each entry its id, how many come of it, and a block
# of each.
# Gives the target's epoch and of each entry: last id, last seq, how many; false for one not ours.
#
# Where the target was lost since this group last wrote to it, the group goes back to the entry
# after the last one whose result every critical group of the target had finished, and the answer
# is the error REWOUND. What was counted before is not counted again on the way.
FINISH = Script(
    IDS
    + EPOCH
    + _ADD
    + CURSOR
    + OWNS
    + _ADVANCE
    + MOVE
    + """
local source, target, group = KEYS[1], KEYS[2], ARGV[1]
if not owns(KEYS[5], source, ARGV[2]) then return redis.error_reply('FENCED') end
local epoch = epoch_of(target, KEYS[3])
local writer, again = 'writer|' .. source .. '|' .. group, 'again|' .. source .. '|' .. group
local counted_to = false
if ARGV[6] == '1' then
  local marks = redis.call('HMGET', KEYS[3], writer, again)
  counted_to = marks[2]
  if marks[1] ~= epoch then redis.call('HSET', KEYS[3], writer, epoch) end
  if marks[1] and marks[1] ~= epoch then
    local low = false
    for _, name in ipairs(redis.call('HKEYS', KEYS[7])) do
      local card = redis.call('HGET', KEYS[8], name)
      if not card or cjson.decode(card)['class'] ~= 'best_effort' then
        local src = cursor(redis.call('HGET', KEYS[7], name))[5]
        if src == '-' then src = '0-0' end
        if not low or before(src, low) then low = src end
      end
    end
    if low then
      local pending = redis.call('XPENDING', source, group)
      if pending[1] > 0 and not before(low, pending[2]) then low = below(pending[2]) end
      local held = redis.call('HGET', KEYS[6], group)
      local finished = held and string.match(held, '^[^ ]+') or '0-0'
      if not counted_to or before(counted_to, finished) then
        redis.call('HSET', KEYS[3], again, finished)
      end
      move(source, group, low)
      local parts = held and cursor(held) or {low, '0', '-', low, '-'}
      parts[1], parts[4] = low, low
      redis.call('HSET', KEYS[6], group, table.concat(parts, ' '))
      return redis.error_reply('REWOUND ' .. low)
    end
  end
end
local blocks, places, at = {}, {}, 7
local total, last = 0, false
while at <= #ARGV do
  local id, many = ARGV[at], tonumber(ARGV[at + 1])
  local ours = redis.call('XACK', source, group, id) == 1
  local found = {id = id}
  at = at + 2
  for i = 1, many do
    found[i] = at
    at = at + 1 + tonumber(ARGV[at])
  end
  if ours then
    total = total + many
    last = id
  end
  blocks[#blocks + 1] = ours and found
end
if not last then
  for i = 1, #blocks do places[i] = false end
  return {epoch, places}
end
local seq = total > 0 and redis.call('HINCRBY', KEYS[3], 'seq', total) - total or 0
for i, found in ipairs(blocks) do
  if found then
    local stood = ''
    for _, block in ipairs(found) do
      seq = seq + 1
      stood = add(target, epoch, seq, block, found.id)
      if not counted_to or before(counted_to, found.id) then
        count(ARGV[block + 1], ARGV[block + 2], ARGV[block + 3])
      end
    end
    places[i] = {stood, seq, #found}
  else
    places[i] = false
  end
end
save_counts(KEYS[4])
advance(KEYS[6], source, group, last, ARGV[3], ARGV[4], ARGV[5])
return {epoch, places}
"""
)

# Acknowledge entries. KEYS: stream, lease, cursors. ARGV: group, fence, seq, epoch and src of the
# last of them, ids. Gives how many counted; FENCED for an owner that is none any more.
ACK = Script(
    IDS
    + CURSOR
    + OWNS
    + _ADVANCE
    + """
if not owns(KEYS[2], KEYS[1], ARGV[2]) then return redis.error_reply('FENCED') end
local done = 0
for first = 6, #ARGV, 1000 do  -- Lua unpacks no more than some thousands
  local last = math.min(first + 999, #ARGV)
  done = done + redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, first, last))
end
if done > 0 then
  advance(KEYS[3], KEYS[1], ARGV[1], ARGV[#ARGV], ARGV[3], ARGV[4], ARGV[5])
end
return done
"""
)
