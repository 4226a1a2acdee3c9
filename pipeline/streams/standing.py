"""How a stream stands, for who has to know what of it may be forgotten; it reads no entry."""

from collections.abc import Sequence

import msgspec

from pipeline import topics
from pipeline.entries import Appended
from pipeline.runtime import Redis
from pipeline.streams.scripts import EPOCH, Script

# KEYS: stream, sequence, cards, cursors. Gives the epoch, the newest number, the newest id ever
# and the oldest id there is ('' for none), and of each group that is not best effort its cursor
# ('' for one that has none yet) and where it stood when the epoch before ended ('' for unknown).
# A loss of the stream that nobody has noticed begins an epoch here.
_STANDING = Script(
    EPOCH
    + """
local epoch = epoch_of(KEYS[1], KEYS[2])
local newest, oldest = '0-0', ''
if redis.call('EXISTS', KEYS[1]) == 1 then
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then newest = info[i + 1] end
    if info[i] == 'first-entry' and info[i + 1] then oldest = info[i + 1][1] end
  end
end
local cards, cursors = {}, {}
local held = redis.call('HGETALL', KEYS[3])
for i = 1, #held, 2 do cards[held[i]] = held[i + 1] end
held = redis.call('HGETALL', KEYS[4])
for i = 1, #held, 2 do
  cursors[held[i]] = held[i + 1]
  cards[held[i]] = cards[held[i]] or '{}'
end
local finished = {}
for group, card in pairs(cards) do
  if cjson.decode(card)['class'] ~= 'best_effort' then
    finished[#finished + 1] = cursors[group] or ''
    finished[#finished + 1] = redis.call('HGET', KEYS[2], 'ended|' .. group) or ''
  end
end
return {epoch, tonumber(redis.call('HGET', KEYS[2], 'seq') or 0), newest, oldest, finished}
"""
)


class Cursor(msgspec.Struct, frozen=True):
    """How far a group has finished: up to that id in that epoch, and in the epoch that ended."""

    stream_id: tuple[int, int]
    epoch: str
    ended_id: tuple[int, int] = (0, 0)
    ended: str = ""

    def is_past(self, stream_id: tuple[int, int], epoch: str) -> bool:
        """Whether the group has finished what stood there in that epoch."""
        if epoch == self.epoch:
            return stream_id <= self.stream_id
        return epoch == self.ended and stream_id <= self.ended_id


class Standing(msgspec.Struct, frozen=True):
    """A stream's epoch, its newest entry, the oldest id left, and its critical groups' cursors."""

    newest: Appended
    oldest: tuple[int, int] | None
    cursors: tuple[Cursor, ...]

    @property
    def epoch(self) -> str:
        """The epoch that the stream is in."""
        return self.newest.epoch

    def is_finished(self, stands: Appended) -> bool:
        """Whether every critical group has finished the entry that stood there."""
        stream_id = numbers(stands.stream_id)
        return all(cursor.is_past(stream_id, stands.epoch) for cursor in self.cursors)

    def is_settled(self, stands: Appended) -> bool:
        """Whether every critical group had finished it when the epoch of its place ended.

        Nothing takes its place in an epoch that is over.
        """
        is_over = stands.epoch != self.epoch and bool(self.cursors)
        return is_over and self.is_finished(stands)

    def is_trimmed(self, stands: Appended) -> bool:
        """Whether the entry that stood there, if it was never lost, has been trimmed since."""
        if stands.epoch != self.epoch:
            return False
        return self.oldest is None or numbers(stands.stream_id) < self.oldest


async def standing_of(redis: Redis, stream: str) -> Standing:
    """How a stream stands now, by one call. Raises what redis-py raises."""
    keys = (stream, topics.sequence(stream), topics.group_cards(stream), topics.cursors(stream))
    epoch, seq, newest, oldest, finished = await _STANDING.call(redis, keys, ())
    return Standing(
        newest=Appended(newest.decode(), int(seq), epoch.decode()),
        oldest=numbers(oldest.decode()) if oldest else None,
        cursors=_cursors(finished),
    )


def numbers(stream_id: str) -> tuple[int, int]:
    """A stream id as two integers, which sort as the stream does."""
    ms, _, part = stream_id.partition("-")
    return int(ms), int(part)


def _cursors(texts: Sequence[bytes]) -> tuple[Cursor, ...]:
    """The cursors; a group that has none has finished nothing."""
    found = []
    for now, before in zip(texts[::2], texts[1::2], strict=True):
        stood, _, epoch = (now.decode() or "0-0  ").split(" ")[:3]
        ended_id, _, ended = (before.decode() or "0-0").partition(" ")
        found.append(Cursor(numbers(stood), epoch, numbers(ended_id), ended))
    return tuple(found)
