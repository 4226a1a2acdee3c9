"""Reads tallies, and what groups have not finished, and prunes what is old.

A tally is read piece by piece, which keeps no server busy; what changed meanwhile is seen by
reading twice. It changes nothing but what is asked to be pruned.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from pipeline import topics
from pipeline.runtime import Redis
from pipeline.streams.scripts import Script
from pipeline.streams.tally import bucket_of, identity

# More unfinished entries of a group than these are not looked at one by one: with 33 kB each they
# would keep the server busy for more than some ten milliseconds.
UNFINISHED_LOOKED_AT = 1_000
_PRUNED_AT_ONCE = 5_000

_SCANNED_AT_ONCE = 500  # fields of a tally: a fifth of a millisecond

# KEYS: stream, cursors. ARGV: group, how many unfinished entries to look at.
# Gives whether all were looked at, and of each id, type and ts.
_UNFINISHED = Script("""
local stream, group, most = KEYS[1], ARGV[1], tonumber(ARGV[2])
local found, whole = {}, 1
local function note(entry)
  local wanted = {'', '', '0'}
  for i = 1, #entry[2], 2 do
    local name, value = entry[2][i], entry[2][i + 1]
    if name == 'id' then wanted[1] = value end
    if name == 'type' then wanted[2] = value end
    if name == 'ts' then wanted[3] = value end
  end
  found[#found + 1] = wanted
end
if redis.call('EXISTS', stream) == 0 then return {1, found} end
local position = nil
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  local info = {}
  for i = 1, #flat, 2 do info[flat[i]] = flat[i + 1] end
  if info['name'] == group then position = info['last-delivered-id'] end
end
if position then
  local pending = redis.call('XPENDING', stream, group, '-', '+', most + 1)
  if #pending > most then whole = 0 end
  for i = 1, math.min(most, #pending) do
    local entry = redis.call('XRANGE', stream, pending[i][1], pending[i][1])[1]
    if entry then note(entry) end
  end
else
  local held = redis.call('HGET', KEYS[2], group)
  position = held and string.match(held, '^[^ ]+') or '0-0'
end
local at = '(' .. position
while whole == 1 do
  local page = redis.call('XRANGE', stream, at, '+', 'COUNT', 50)
  for _, entry in ipairs(page) do note(entry) end
  if #page < 50 then break end
  if #found > most then whole = 0 end
  at = '(' .. page[#page][1]
end
return {whole, found}
""")


class Count(msgspec.Struct, frozen=True):
    """Entries, the sum of their identities, and contracts."""

    n: int = 0
    h: int = 0
    c: int = 0

    def plus(self, other: "Count") -> "Count":
        """Both together."""
        return Count(self.n + other.n, self.h + other.h, self.c + other.c)

    def less(self, other: "Count") -> "Count":
        """This without the other."""
        return Count(self.n - other.n, self.h - other.h, self.c - other.c)


NONE = Count()
Bucket = tuple[int, str]  # minute since 1970, kind
_Key = TypeVar("_Key", Bucket, str)


class Tally(msgspec.Struct, frozen=True):
    """What a stream's tally says: by bucket, and by bucket and group what was set aside, and
    copies of entries counted before (by the group whose letter went back, or '' for a replay)."""

    counted: dict[Bucket, Count]
    dead: dict[Bucket, dict[str, Count]]
    again: dict[Bucket, dict[str, Count]]


class Stage(msgspec.Struct, frozen=True):
    """A stream: its tally, and what one group has not finished, by bucket.

    `is_whole` is False where more is unfinished than was looked at; everything received since the
    first of these minutes may then be unfinished.
    """

    tally: Tally
    unfinished: dict[Bucket, Count]
    is_whole: bool


async def read_stage(redis: Redis, stream: str, group: str) -> Stage:
    """A stream with what the group that is to finish it has not finished."""
    fields: Any = redis.hscan_iter(topics.tally(stream), count=_SCANNED_AT_ONCE)
    held = {name: value async for name, value in fields}
    keys = (stream, topics.cursors(stream))
    is_whole, found = await _UNFINISHED.call(redis, keys, (group, UNFINISHED_LOOKED_AT))
    return Stage(parse_tally(held), _unfinished(found), bool(is_whole))


def merged(stages: Sequence[Stage]) -> Stage:
    """Several streams as if they were one."""
    counted: dict[Bucket, Count] = {}
    dead: dict[Bucket, dict[str, Count]] = {}
    again: dict[Bucket, dict[str, Count]] = {}
    unfinished: dict[Bucket, Count] = {}
    for stage in stages:
        _add(counted, stage.tally.counted)
        _add(unfinished, stage.unfinished)
        for sums, kind in ((dead, stage.tally.dead), (again, stage.tally.again)):
            for bucket, by_group in kind.items():
                _add(sums.setdefault(bucket, {}), by_group)
    whole = all(stage.is_whole for stage in stages)
    return Stage(Tally(counted, dead, again), unfinished, whole)


async def prune(redis: Redis, stream: str, before_minute: int) -> int:
    """Forget the minutes before one; gives how many fields went."""
    key = topics.tally(stream)
    names: Any = await redis.hkeys(key)
    old = [name for name in names if int(name.partition(b":")[0]) < before_minute]
    for at in range(0, len(old), _PRUNED_AT_ONCE):
        await redis.hdel(key, *(name.decode() for name in old[at : at + _PRUNED_AT_ONCE]))
    return len(old)


def parse_tally(held: Mapping[bytes, bytes]) -> Tally:
    """A tally from its hash."""
    tally = Tally({}, {}, {})
    for name, value in held.items():
        parts = name.decode().split(":")
        bucket, what = (int(parts[0]), parts[1]), parts[-1]
        if len(parts) == 3:
            counts, key = tally.counted, bucket
            counts[key] = _with(counts.get(key, NONE), what, int(value))
        else:
            kinds = tally.dead if parts[2] == "dead" else tally.again
            group = parts[3] if len(parts) > 4 else ""
            by_group = kinds.setdefault(bucket, {})
            by_group[group] = _with(by_group.get(group, NONE), what, int(value))
    return tally


def _add(sums: dict[_Key, Count], more: Mapping[_Key, Count]) -> None:
    for key, count in more.items():
        sums[key] = sums.get(key, NONE).plus(count)


def _with(count: Count, what: str, value: int) -> Count:
    return msgspec.structs.replace(count, **{what: value})


def _unfinished(found: Sequence[Sequence[bytes]]) -> dict[Bucket, Count]:
    counts: dict[Bucket, Count] = {}
    for message_id, kind, ts in found:
        minute, _, word = bucket_of(kind.decode(), int(ts)).partition(":")
        bucket = (int(minute), word)
        one = Count(1, identity(message_id.decode()))
        counts[bucket] = counts.get(bucket, NONE).plus(one)
    return counts
