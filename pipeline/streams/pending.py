"""The pending list of a group, read in order: what was delivered before and never finished.

Claiming an entry counts a delivery and resets its idle time. It looks into no entry.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from pipeline.entries import Entry, decode_entry
from pipeline.runtime import Redis
from pipeline.streams.scripts import Script

SUSPECT = 2  # deliveries without a finish after which an entry is handed out alone
MOST_KEPT = 1_000  # entries whose idle time one beat resets

# Reset the idle time of entries that are still that member's; an entry claimed away stays away.
# KEYS: stream. ARGV: group, consumer, ids. Gives how many are still its own.
_KEEP = Script("""
local kept = 0
for i = 3, #ARGV do
  local held = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1, ARGV[2])
  if #held > 0 then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'JUSTID')
    kept = kept + 1
  end
end
return kept
""")


class _Listed(msgspec.Struct, frozen=True):
    stream_id: str
    consumer: str
    deliveries: int


class Pending:
    """A walk through the pending list of a group, on behalf of one of its members.

    With `own_only` it walks through that member's entries; with `idle_ms` through those that
    others have left idle for so long; else through all.
    """

    def __init__(
        self,
        stream: str,
        group: str,
        consumer: str,
        *,
        own_only: bool = False,
        idle_ms: int | None = None,
    ) -> None:
        self._stream, self._group, self._consumer = stream, group, consumer
        self._own_only = own_only
        self._idle_ms = idle_ms
        self._after = ""
        self.is_done = False

    async def is_next_suspect(self, redis: Redis, in_flight: Mapping[str, Entry]) -> bool:
        """Whether the next entry has been delivered so often that it is to be handed out alone."""
        listed = await self._listed(redis, 1, in_flight)
        return bool(listed) and listed[0].deliveries >= SUSPECT

    async def claim(self, redis: Redis, count: int, in_flight: Mapping[str, Entry]) -> list[Entry]:
        """Take over the next entries, at most `count`; `is_done` when there are no more.

        A suspect one comes alone or not at all; those in flight are left out.
        """
        listed = await self._listed(redis, count, in_flight)
        if not listed:
            self.is_done = True
            return []
        chosen = listed[:1]
        if chosen[0].deliveries < SUSPECT:
            for one in listed[1:]:
                if one.deliveries >= SUSPECT:
                    break
                chosen.append(one)
        self._after = chosen[-1].stream_id
        attempts = {one.stream_id.encode(): one.deliveries + 1 for one in chosen}
        claimed: Any = await redis.xclaim(
            self._stream, self._group, self._consumer, self._idle_ms or 0, list(attempts)
        )
        return [
            decode_entry(stream_id, fields, attempts[stream_id])
            for stream_id, fields in claimed
            if fields
        ]

    async def keep(self, redis: Redis, stream_ids: Iterable[str]) -> int:
        """Tell that this member still works on those; gives how many are still its own."""
        ids = list(stream_ids)[:MOST_KEPT]
        return int(await _KEEP.call(redis, (self._stream,), (self._group, self._consumer, *ids)))

    async def _listed(
        self, redis: Redis, count: int, in_flight: Mapping[str, Entry]
    ) -> list[_Listed]:
        after = self._after
        while True:
            found: Any = await redis.xpending_range(
                self._stream,
                self._group,
                min=f"({after}" if after else "-",
                max="+",
                count=max(count, 16),
                consumername=self._consumer if self._own_only else None,
                idle=self._idle_ms,
            )
            if not found:
                return []
            listed = [
                _Listed(item["message_id"].decode(), item["consumer"].decode(), times)
                for item in found
                if (times := item["times_delivered"]) is not None
            ]
            after = listed[-1].stream_id
            wanted = [
                one
                for one in listed
                if one.stream_id not in in_flight
                and not (self._idle_ms is not None and one.consumer == self._consumer)
            ]
            if wanted:
                return wanted[:count]
