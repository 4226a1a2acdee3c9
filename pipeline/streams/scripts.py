"""The Lua calls of the bus, each one atomic step on the keys of one shard.

Entry fields travel as a flat list of names and values at the end of ARGV; `seq` and `epoch` are
added here, so that no two entries of a stream share a number and none is skipped.
"""

# Shared by the writing scripts: number the entry, then add it.
_ADD = """
local function add(stream, sequence, epoch_seed, first, last)
  local epoch = redis.call('HGET', sequence, 'epoch')
  if not epoch then
    epoch = epoch_seed
    redis.call('HSET', sequence, 'epoch', epoch)
  end
  local seq = redis.call('HINCRBY', sequence, 'seq', 1)
  local id = redis.call('XADD', stream, '*', 'seq', seq, 'epoch', epoch, unpack(ARGV, first, last))
  return {id, seq, epoch}
end
"""

# KEYS: stream, sequence. ARGV: epoch seed, fields.
APPEND = (
    _ADD
    + """
return add(KEYS[1], KEYS[2], ARGV[1], 2, #ARGV)
"""
)

# Append unless an entry with the same message id stands among the newest.
# KEYS: stream, sequence. ARGV: epoch seed, message id, how many to look at, fields.
APPEND_ABSENT = (
    _ADD
    + """
for _, entry in ipairs(redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', ARGV[3])) do
  local fields, id, seq, epoch = entry[2], nil, nil, nil
  for i = 1, #fields, 2 do
    if fields[i] == 'id' then id = fields[i + 1] end
    if fields[i] == 'seq' then seq = fields[i + 1] end
    if fields[i] == 'epoch' then epoch = fields[i + 1] end
  end
  if id == ARGV[2] then return {entry[1], tonumber(seq), epoch} end
end
return add(KEYS[1], KEYS[2], ARGV[1], 4, #ARGV)
"""
)

# Acknowledge each entry and write what came of it; nothing is written unless the acknowledgement
# counted, so a second try or a claimed-away owner writes nothing. Gives for each where it came to
# stand, or false.
# KEYS: source stream, target stream, target sequence.
# ARGV: group, epoch seed, then of each its entry id, its number of arguments and its fields.
FINISH = (
    _ADD
    + """
local places, at = {}, 3
while at <= #ARGV do
  local last = at + 1 + tonumber(ARGV[at + 1])
  if redis.call('XACK', KEYS[1], ARGV[1], ARGV[at]) == 0 then
    places[#places + 1] = false
  else
    places[#places + 1] = add(KEYS[2], KEYS[3], ARGV[2], at + 2, last)
  end
  at = last + 1
end
return places
"""
)

# As FINISH, for an entry of which many come, or none: all of them or, unless the acknowledgement
# counted, not one. Gives the last number and how many; false where nothing was done.
# KEYS: source stream, target stream, target sequence.
# ARGV: group, entry id, epoch seed, then of each its number of arguments and its fields.
FINISH_MANY = """
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then return false end
local epoch = redis.call('HGET', KEYS[3], 'epoch')
if not epoch then
  epoch = ARGV[3]
  redis.call('HSET', KEYS[3], 'epoch', epoch)
end
local starts, at = {}, 4
while at <= #ARGV do
  starts[#starts + 1] = at
  at = at + 1 + tonumber(ARGV[at])
end
local last = redis.call('HINCRBY', KEYS[3], 'seq', #starts)
for i, start in ipairs(starts) do
  redis.call('XADD', KEYS[2], '*', 'seq', last - #starts + i, 'epoch', epoch,
    unpack(ARGV, start + 1, start + tonumber(ARGV[start])))
end
return {last, #starts}
"""

# Set a version of a subject if it is still what the caller has seen; gives what stands there.
# KEYS: the subject's hash. ARGV: version, what was seen ("" for none), the new text.
REGISTER = """
local found = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if found ~= ARGV[2] then return found end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return ARGV[3]
"""

# Trim a stream below what every critical group has finished with, and no younger than `keep`.
# An entry is finished when it is delivered and not pending. A group that never registered counts
# as critical: nobody loses entries for want of a card.
# KEYS: stream, group cards. ARGV: keep in ms. Gives how many went, the group that held the cut
# back ('' for none), and the oldest entry left ('' for none).
TRIM = """
local function before(a, b)
  local am, as = string.match(a, '(%d+)-(%d+)')
  local bm, bs = string.match(b, '(%d+)-(%d+)')
  if #am ~= #bm then return #am < #bm end
  if am ~= bm then return am < bm end
  if #as ~= #bs then return #as < #bs end
  return as < bs
end
if redis.call('EXISTS', KEYS[1]) == 0 then return {0, '', ''} end
local now = redis.call('TIME')
local cut = string.format('%d-0', now[1] * 1000 + math.floor(now[2] / 1000) - ARGV[1])
local holder = ''
for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = {}
  for i = 1, #info, 2 do group[info[i]] = info[i + 1] end
  local card = redis.call('HGET', KEYS[2], group['name'])
  if not card or cjson.decode(card)['class'] ~= 'best_effort' then
    local low = group['last-delivered-id']
    local pending = redis.call('XPENDING', KEYS[1], group['name'])
    if pending[1] > 0 then
      low = pending[2]
    else
      -- everything up to the last delivered is finished: keep from just above it
      local ms, seq = string.match(low, '(%d+)-(%d+)')
      low = ms .. '-' .. string.format('%d', tonumber(seq) + 1)
    end
    if before(low, cut) then
      cut = low
      holder = group['name']
    end
  end
end
local removed = redis.call('XTRIM', KEYS[1], 'MINID', cut)
local oldest = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)
return {removed, holder, oldest[1] and oldest[1][1] or ''}
"""
