"""Who works a group's shard: members with leased slots, and one owner under a fenced lease.

A slot gives a member its name, the same after a restart as long as nobody else took it; so names
stay few. The lease lets one member at a time work a shard. Its fence is a number that grows with
each owner: the calls that write compare it, so one that was taken for dead can write nothing.
Times are the server's. A time further off than a lease can be is that of a clock that was put back,
and counts as past. It reads no entry.
"""

from typing import Any

import msgspec

from pipeline import topics
from pipeline.runtime import Redis
from pipeline.streams.scripts import Script

BEATS = 3  # in the time of a lease: two may get lost
ASKS = 6  # of one that stands by in that time: with the lease itself, well under twice as long

_LIVE = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local function is_live(until_ms, ttl)
  local at = tonumber(until_ms)
  return at ~= nil and at > now and at <= now + 2 * ttl
end
"""

# Tell of a member and, if it wants it, take or keep the lease.
# KEYS: lease, stream, sequence. ARGV: group, instance, slot ('' for none yet), TTL in ms, '1' to
# want the lease, fence ('' for none), the reading connection.
# Gives slot, fence ('' without the lease), the owner, the connection of the owner before (''),
# head seq, the oldest pending entry (''), now in ms.
_BEAT = Script(
    _LIVE
    + """
local lease, prefix, me, ttl = KEYS[1], KEYS[2] .. '|', ARGV[2], tonumber(ARGV[4])
local function slot_of(n)
  local held = redis.call('HGET', lease, prefix .. 'slot|' .. n)
  if not held then return nil end
  local who, at = string.match(held, '^([^ ]+) (.+)$')
  return who, is_live(at, ttl)
end
local slot = ARGV[3]
if slot ~= '' and slot_of(slot) ~= me then slot = '' end
if slot == '' then
  local n = 0
  while true do
    local who, live = slot_of(n)
    if not live then break end
    n = n + 1
  end
  slot = tostring(n)
end
local till = string.format('%.0f', now + ttl)
redis.call('HSET', lease, prefix .. 'slot|' .. slot, me .. ' ' .. till)
local names = {prefix .. 'owner', prefix .. 'until', prefix .. 'fence', prefix .. 'reader'}
local held = redis.call('HMGET', lease, unpack(names))
local owner, fence, before = held[1] or '', '', ''
if ARGV[5] == '1' then
  if owner == me and held[3] == ARGV[6] then
    fence = held[3]
    redis.call('HSET', lease, names[2], till, names[4], ARGV[7])
  elseif owner == '' or owner == me or not is_live(held[2], ttl) then
    -- With the owner's name, since a server that lost its last seconds may count a number twice.
    fence = redis.call('HINCRBY', lease, prefix .. 'terms', 1) .. ':' .. me
    redis.call('HSET', lease, names[1], me, names[2], till, names[3], fence, names[4], ARGV[7])
    if owner ~= me then before = held[4] or '' end
    owner = me
  end
end
local head = tonumber(redis.call('HGET', KEYS[3], 'seq') or 0)
local pending = redis.pcall('XPENDING', KEYS[2], ARGV[1])
return {slot, fence, owner, before, head, not pending.err and pending[2] or '', now}
"""
)

# KEYS: lease, stream. ARGV: instance, slot.
_LEAVE = Script("""
local prefix = KEYS[2] .. '|'
local slot = prefix .. 'slot|' .. ARGV[2]
local held = redis.call('HGET', KEYS[1], slot)
if held and string.match(held, '^[^ ]+') == ARGV[1] then redis.call('HDEL', KEYS[1], slot) end
if redis.call('HGET', KEYS[1], prefix .. 'owner') == ARGV[1] then
  redis.call('HDEL', KEYS[1], prefix .. 'owner', prefix .. 'until', prefix .. 'reader')
end
return 1
""")

# Remove members that nobody is any more and that hold nothing: asked and done in one step, since
# removing one drops what it holds. KEYS: lease, stream. ARGV: group, TTL in ms. Gives the names.
_REAP = Script(
    _LIVE
    + """
local gone = {}
local found = redis.pcall('XINFO', 'CONSUMERS', KEYS[2], ARGV[1])
if found.err then return gone end
for _, flat in ipairs(found) do
  local member = {}
  for i = 1, #flat, 2 do member[flat[i]] = flat[i + 1] end
  local name = member['name']
  local slot = string.sub(name, 1, #ARGV[1] + 1) == ARGV[1] .. '-'
    and string.match(string.sub(name, #ARGV[1] + 2), '^%d+$')
  if slot and member['pending'] == 0 then
    local field = KEYS[2] .. '|slot|' .. slot
    local held = redis.call('HGET', KEYS[1], field)
    if not held or not is_live(string.match(held, ' (.+)$'), tonumber(ARGV[2])) then
      redis.call('XGROUP', 'DELCONSUMER', KEYS[2], ARGV[1], name)
      redis.call('HDEL', KEYS[1], field)
      gone[#gone + 1] = name
    end
  end
end
return gone
"""
)


class Beat(msgspec.Struct, frozen=True):
    """What a beat told: whether the lease is ours, and how far the group is behind."""

    owns: bool
    is_new: bool  # the lease was not ours at the beat before
    renamed: bool
    owner: str
    reader_before: str
    head_seq: int
    oldest_pending: str
    now_ms: int


class Membership:
    """A member of a group on one stream; `instance` tells it from every other, also of its name."""

    def __init__(
        self, stream: str, group: str, instance: str, *, exclusive: bool, lease_ms: int
    ) -> None:
        self._stream, self._group, self._instance = stream, group, instance
        self._exclusive = exclusive
        self._lease_ms = lease_ms
        self._keys = (topics.lease(stream, group), stream, topics.sequence(stream))
        self.slot = ""
        self.fence = ""

    @property
    def name(self) -> str:
        """The consumer name; empty before the first beat."""
        return f"{self._group}-{self.slot}" if self.slot else ""

    @property
    def next_beat_s(self) -> float:
        """How long until it should tell of itself again."""
        return self._lease_ms / 1_000 / (BEATS if self.owns else ASKS)

    @property
    def claim(self) -> str:
        """What the calls that write compare; empty where no lease is needed."""
        return self.fence or ("none" if self._exclusive else "")

    @property
    def owns(self) -> bool:
        """Whether this member may work the shard, by the last beat."""
        return bool(self.fence) or not self._exclusive

    async def beat(self, client: Redis, reader: str) -> Beat:
        """Tell of this member and, where a lease is needed, take or keep it.

        `reader` is its reading connection, which a successor will end.
        """
        arguments = (
            *(self._group, self._instance, self.slot, self._lease_ms),
            *("1" if self._exclusive else "0", self.fence, reader),
        )
        answer: list[Any] = await _BEAT.call(client, self._keys, arguments)
        slot, fence, owner, before = (text.decode() for text in answer[:4])
        renamed, is_new = slot != self.slot, bool(fence) and fence != self.fence
        self.slot, self.fence = slot, fence
        return Beat(
            owns=self.owns,
            is_new=is_new,
            renamed=renamed,
            owner=owner,
            reader_before=before,
            head_seq=int(answer[4]),
            oldest_pending=answer[5].decode(),
            now_ms=int(answer[6]),
        )

    def lose(self) -> None:
        """Take note that the fence stands no longer."""
        self.fence = ""

    async def leave(self, client: Redis) -> None:
        """Let go of the lease and the slot, so that the next need not wait."""
        if self.slot:
            await _LEAVE.call(client, self._keys[:2], (self._instance, self.slot))
        self.slot = self.fence = ""

    async def reap(self, client: Redis) -> list[str]:
        """Remove members of the group that are dead and hold nothing; gives their names."""
        gone = await _REAP.call(client, self._keys[:2], (self._group, self._lease_ms))
        return [name.decode() for name in gone]
