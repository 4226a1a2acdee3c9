"""How streams and their groups stand: one Lua call a stream, exact on every server.

Lag is reckoned by our own sequences: what a server says of it is wrong after a trim on some. Groups
of plain XREADGROUP users are told of like ours. It changes nothing, and no payload leaves the
server.
"""

from typing import Any

import msgspec

from pipeline import topics
from pipeline.runtime import Redis
from pipeline.streams.groups import Card, decode_card
from pipeline.streams.scripts import Script

MOST_HELD_S = 60.0  # a lease that lasts longer is of a clock that was put back

_PENDING_LOOKED_AT = 1_000  # of pending entries that are gone from the stream: more is as bad

# KEYS: stream, sequence, cards, cursors, bookmarks. ARGV: what the name of a group's lease begins
# with, how many lost pending entries to count. Gives of the stream: now in ms, whether it is there,
# epoch, head seq, length, bytes, entries ever added, first and last id; then of each group, also of
# those that have a card or a cursor and are not there: name, whether it is there, consumers,
# pending, oldest pending, position, id and seq of the next undelivered, seq at the position,
# entries read, the server's own lag, pending entries that are gone, owner, until, card, cursor and
# bookmark. '' stands for none.
_STATE = Script("""
local stream = KEYS[1]
local t = redis.call('TIME')
local now = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))
local numbering = redis.call('HMGET', KEYS[2], 'epoch', 'seq')
local function named(flat)
  local found = {}
  for i = 1, #flat, 2 do found[flat[i]] = flat[i + 1] end
  return found
end
local function id_and_seq(from, to)
  local entry = redis.call('XRANGE', stream, from, to, 'COUNT', 1)[1]
  if not entry then return '', '' end
  for i = 1, #entry[2], 2 do
    if entry[2][i] == 'seq' then return entry[1], entry[2][i + 1] end
  end
  return entry[1], ''
end
local there = redis.call('EXISTS', stream) == 1
local info, first, last, infos = {}, '', '', {}
if there then
  info = named(redis.call('XINFO', 'STREAM', stream))
  first = info['first-entry'] and info['first-entry'][1] or ''
  last = info['last-entry'] and info['last-entry'][1] or ''
  infos = redis.call('XINFO', 'GROUPS', stream)
end
local function told(name)
  local held = redis.call('HMGET', ARGV[1] .. name, stream .. '|owner', stream .. '|until')
  return held[1] or '', held[2] or '', redis.call('HGET', KEYS[3], name) or '',
    redis.call('HGET', KEYS[4], name) or '', redis.call('HGET', KEYS[5], name) or ''
end
local groups, seen = {}, {}
for _, flat in ipairs(infos) do
  local group = named(flat)
  local name, position = group['name'], group['last-delivered-id']
  seen[name] = true
  local next_id, next_seq = id_and_seq('(' .. position, '+')
  local _, seq = id_and_seq(position, position)
  local pending = redis.call('XPENDING', stream, name)
  local gone = 0
  if pending[1] > 0 and first == '' then
    gone = pending[1]
  elseif pending[1] > 0 then
    gone = #redis.call('XPENDING', stream, name, '-', '(' .. first, ARGV[2])
  end
  groups[#groups + 1] = {name, 1, group['consumers'], pending[1], pending[2] or '', position,
    next_id, next_seq, seq, group['entries-read'] or '', group['lag'] or '', gone, told(name)}
end
for _, key in ipairs({KEYS[3], KEYS[4]}) do
  for _, name in ipairs(redis.call('HKEYS', key)) do
    if not seen[name] then
      seen[name] = true
      local held = redis.call('HGET', KEYS[4], name)
      local position = held and string.match(held, '^[^ ]+') or '0-0'
      local next_id, next_seq = '', ''
      if there then next_id, next_seq = id_and_seq('(' .. position, '+') end
      groups[#groups + 1] = {name, 0, 0, 0, '', position, next_id, next_seq, '', '', '', 0,
        told(name)}
    end
  end
end
return {now, there and 1 or 0, numbering[1] or '', numbering[2] or '', info['length'] or 0,
  there and redis.call('MEMORY', 'USAGE', stream, 'SAMPLES', 20) or 0,
  info['entries-added'] or '', first, last, groups}
""")


class Bookmark(msgspec.Struct, frozen=True):
    """Where a group stood when the trimmer reported or passed it; `skipped` entries it never read.

    `at_ms` is the server's time.
    """

    id: str = ""
    seq: int = 0
    at_ms: int = 0
    reason: str = ""
    skipped: int = 0


class GroupState(msgspec.Struct, frozen=True, kw_only=True):
    """How a group stands. Ages are by the server's clock, of the entries' appending.

    `is_there` is False for one that was lost and has a card or a durable cursor: its figures are
    those with which it will be made again. `lag` counts entries not delivered; it is None where
    nobody can tell, and not exact where entries carry no sequence of ours. `missed` counts entries
    that were trimmed before the group had them. `owner_for_s` is how long the lease still holds.
    """

    name: str
    is_there: bool
    card: Card
    consumers: int
    pending: int
    oldest_pending: str
    oldest_pending_age_s: float
    position: str
    delivered_seq: int
    lag: int | None
    lag_is_exact: bool
    missed: int
    owner: str
    owner_for_s: float
    cursor: str
    cursor_seq: int
    bookmark: Bookmark | None


class StreamState(msgspec.Struct, frozen=True, kw_only=True):
    """How a stream stands: its numbering, what it holds and its groups by name.

    `is_there` is False where its key is missing: never written to, or lost.
    """

    name: str
    is_there: bool
    epoch: str
    head_seq: int
    length: int
    bytes: int
    oldest: str
    oldest_age_s: float
    newest: str
    groups: tuple[GroupState, ...]


class Memory(msgspec.Struct, frozen=True):
    """What a server uses and may use, bytes; `limit` 0 stands for no limit of its own."""

    used: int
    limit: int

    @property
    def headroom(self) -> int | None:
        """Bytes until the server refuses to write; None without a limit."""
        return self.limit - self.used if self.limit else None


async def read_state(redis: Redis, stream: str) -> StreamState:
    """How a stream and its groups stand. Raises what redis-py raises."""
    keys = (
        *(stream, topics.sequence(stream), topics.group_cards(stream)),
        *(topics.cursors(stream), topics.bookmarks(stream)),
    )
    answer: Any = await _STATE.call(redis, keys, (topics.lease(stream, ""), _PENDING_LOOKED_AT))
    now_ms, is_there, epoch, head, length, size, added, first, last, groups = answer
    now, head_seq = int(now_ms), int(head or 0)
    offset = head_seq - int(added) if added != b"" else None
    states = [_group(flat, now, head_seq, offset) for flat in groups]
    return StreamState(
        name=stream,
        is_there=bool(is_there),
        epoch=epoch.decode(),
        head_seq=head_seq,
        length=int(length),
        bytes=int(size or 0),
        oldest=first.decode(),
        oldest_age_s=_age_s(first.decode(), now),
        newest=last.decode(),
        groups=tuple(sorted(states, key=lambda state: state.name)),
    )


async def read_memory(server: Redis) -> Memory:
    """What one server uses and may use."""
    found: Any = await server.info("memory")
    return Memory(int(found["used_memory"]), int(found.get("maxmemory", 0)))


def _group(flat: list[Any], now_ms: int, head_seq: int, offset: int | None) -> GroupState:
    """`offset` is what our sequence is ahead of the server's count of entries ever added."""
    texts = [value.decode() if isinstance(value, bytes) else str(value) for value in flat]
    name, is_there, consumers, pending, oldest, position, next_id, next_seq = texts[:8]
    seq, entries_read, server_lag, gone, owner, until, card, cursor, bookmark = texts[8:]
    cursor_id, cursor_seq = _cursor(cursor)
    lag, is_exact = _lag(next_id, next_seq, head_seq, server_lag)
    delivered = int(next_seq) - 1 if next_seq else head_seq
    behind = _number(seq)
    if behind is None and cursor_id == position and cursor_seq:
        behind = cursor_seq
    if behind is None and offset is not None and entries_read:
        behind = int(entries_read) + offset
    missed = max(0, delivered - behind) if behind is not None and head_seq else 0
    holds_s = (int(until) - now_ms) / 1_000 if until else 0.0
    is_held = 0 < holds_s <= MOST_HELD_S
    return GroupState(
        name=name,
        is_there=is_there == "1",
        card=decode_card(card.encode()),
        consumers=int(consumers),
        pending=int(pending),
        oldest_pending=oldest,
        oldest_pending_age_s=_age_s(oldest, now_ms),
        position=position,
        delivered_seq=delivered,
        lag=lag,
        lag_is_exact=is_exact,
        missed=missed + int(gone),
        owner=owner if is_held else "",
        owner_for_s=holds_s if is_held else 0.0,
        cursor=cursor_id,
        cursor_seq=cursor_seq,
        bookmark=_bookmark(bookmark),
    )


def _lag(next_id: str, next_seq: str, head_seq: int, server_lag: str) -> tuple[int | None, bool]:
    """Entries not delivered, and whether that is exact."""
    if not next_id:
        return 0, True
    if next_seq and head_seq:
        return head_seq - int(next_seq) + 1, True
    return _number(server_lag), False


def _cursor(text: str) -> tuple[str, int]:
    """Id and sequence of a durable cursor; '' and 0 without one."""
    parts = text.split(" ")
    return (parts[0], _number(parts[1]) or 0) if len(parts) > 1 else ("", 0)


def _bookmark(text: str) -> Bookmark | None:
    try:
        return msgspec.json.decode(text, type=Bookmark) if text else None
    except msgspec.MsgspecError:
        return None


def _number(text: str) -> int | None:
    return int(text) if text.isdigit() else None


def _age_s(stream_id: str, now_ms: int) -> float:
    ms = stream_id.partition("-")[0]
    return max(0.0, (now_ms - int(ms)) / 1_000) if ms else 0.0
