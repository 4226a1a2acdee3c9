"""A stretch of a numbered stream, from the entry of a seq on: for readers who say where they were.

Stream ids grow with the numbers, so the entry of a number is found by halving, at the server; no
map of numbers is kept anywhere. What an entry holds is not known here.
"""

from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from pipeline.entries import Entry, decode_entry
from pipeline.runtime import Redis
from pipeline.streams.scripts import Script

PAGE = 100  # entries looked at by a call: with 33 kB each the server is busy for a millisecond

# KEYS: stream. ARGV: epoch, seq to start from, id to go on after ('' to look for the seq), what
# the keys of wanted entries begin with, how many entries to look at.
# Gives the id last looked at ('' where there are no more, or the seq is not there), the number
# there, and the wanted entries.
_STRETCH = Script("""
local stream = KEYS[1]
local function field(entry, name)
  for j = 1, #entry[2], 2 do
    if entry[2][j] == name then return entry[2][j + 1] end
  end
end
local function number(entry) return tonumber(field(entry, 'seq') or '') end
local function from(id) return redis.call('XRANGE', stream, id, '+', 'COUNT', 1)[1] end
local function instant(entry) return tonumber(string.match(entry[1], '%d+')) end
local function find(seq)
  local first = from('-')
  local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  if not first or (number(first) or seq + 1) > seq or (number(last) or 0) < seq then return end
  local low, high = instant(first), instant(last)
  while low < high do
    local middle = math.floor((low + high + 1) / 2)
    local entry = from(string.format('%.0f', middle))
    if entry and (number(entry) or seq + 1) <= seq then
      low = middle
    else
      high = middle - 1
    end
  end
  local at = string.format('%.0f', low)
  while true do
    local entry = from(at)
    if not entry or (number(entry) or 0) > seq then return end
    if number(entry) == seq then return entry end
    at = '(' .. entry[1]
  end
end
local start = ARGV[3]
if start == '' then
  local entry = find(tonumber(ARGV[2]))
  if not entry or field(entry, 'epoch') ~= ARGV[1] then return {'', 0, {}} end
  start = entry[1]
else
  start = '(' .. start
end
local entries, wanted = redis.call('XRANGE', stream, start, '+', 'COUNT', ARGV[5]), {}
for _, entry in ipairs(entries) do
  if string.sub(field(entry, 'key') or '', 1, #ARGV[4]) == ARGV[4] then
    wanted[#wanted + 1] = entry
  end
end
local last = entries[#entries]
return {last and last[1] or '', last and number(last) or 0, wanted}
""")


class Part(msgspec.Struct, frozen=True):
    """Some entries of a stretch, and the number up to which it has been looked at."""

    seen: int
    entries: list[Entry]


async def stretch(
    redis: Redis, stream: str, *, epoch: str, seq: int, key: str
) -> AsyncGenerator[Part, None]:
    """The entries from a seq on, that one first, whose keys begin with `key`, a part a call.

    Gives nothing where the entry of that seq and epoch is not there any more. Raises what redis-py
    raises.
    """
    at = ""
    while True:
        answer: list[Any] = await _STRETCH.call(redis, (stream,), (epoch, seq, at, key, PAGE))
        last, seen, found = answer
        if not last:
            return
        at = last.decode()
        entries = [
            decode_entry(stream_id, dict(zip(fields[::2], fields[1::2], strict=True)))
            for stream_id, fields in found
        ]
        yield Part(int(seen), entries)
