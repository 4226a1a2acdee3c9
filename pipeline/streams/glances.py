"""Entries without their payload, as people and commands look at them, and copies of entries.

Long values stay at the server, and what is copied from one stream to another never leaves it. What
an entry means is not known here.
"""

from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from pipeline import topics
from pipeline.runtime import Redis
from pipeline.streams.scripts import ANEW, EPOCH, Script
from pipeline.streams.tally import again_bucket_of, identity

PAGE = 100  # entries a call: with 33 kB each the server is busy for a millisecond
_LONGEST_VALUE = 1_024

# KEYS: stream. ARGV: 'XRANGE' or 'XREVRANGE', from, to, how many, the longest value to give.
# Gives of each entry: id, names and values of its fields in turn, names and lengths of long ones.
_GLANCE = Script("""
local longest, found = tonumber(ARGV[5]), {}
for i, entry in ipairs(redis.call(ARGV[1], KEYS[1], ARGV[2], ARGV[3], 'COUNT', ARGV[4])) do
  local short, long = {}, {}
  for j = 1, #entry[2], 2 do
    local value = entry[2][j + 1]
    if #value <= longest then
      short[#short + 1] = entry[2][j]
      short[#short + 1] = value
    else
      long[#long + 1] = entry[2][j]
      long[#long + 1] = #value
    end
  end
  found[i] = {entry[1], short, long}
end
return found
""")

# Append an entry of a stream to another, numbered anew there. KEYS: source, target, the target's
# sequence and tally. ARGV: entry id, bucket and identity to count it under ('' for no count),
# seconds after which the target goes (0 for never).
# Gives id and seq in the target, or nothing where the entry is gone.
_COPY = Script(
    EPOCH
    + ANEW
    + """
local entry = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[1])[1]
if not entry then return {} end
local epoch, retired = epoch_of(KEYS[2], KEYS[3])
if retired then return redis.error_reply(RETIRED) end
local own = {seq = true, epoch = true, src = true}
local id, seq = append_anew(KEYS[2], KEYS[3], epoch, entry[2], own)
if ARGV[2] ~= '' then
  redis.call('HINCRBY', KEYS[4], ARGV[2] .. ':n', 1)
  redis.call('HINCRBY', KEYS[4], ARGV[2] .. ':h', ARGV[3])
end
if ARGV[4] ~= '0' then
  redis.call('EXPIRE', KEYS[2], ARGV[4])
  redis.call('EXPIRE', KEYS[3], ARGV[4])
end
return {id, seq}
"""
)


class Glance(msgspec.Struct, frozen=True):
    """An entry as far as it is short: its fields as text, and the bytes of those left behind."""

    stream: str
    stream_id: str
    fields: dict[str, str]
    left: dict[str, int]

    def number(self, name: str) -> int:
        """A field as an integer; 0 where it is missing or no number."""
        try:
            return int(self.fields.get(name, ""))
        except ValueError:
            return 0

    @property
    def size(self) -> int:
        """Bytes of the values."""
        return sum(map(len, self.fields.values())) + sum(self.left.values())


async def glance(
    redis: Redis, stream: str, *, start: str = "-", end: str = "+", newest_first: bool = False
) -> AsyncGenerator[list[Glance], None]:
    """Pages of the entries with ids in [start, end], oldest or newest first; none is empty."""
    while True:
        how, at = ("XREVRANGE", (end, start)) if newest_first else ("XRANGE", (start, end))
        answer: list[Any] = await _GLANCE.call(redis, (stream,), (how, *at, PAGE, _LONGEST_VALUE))
        page = [_decoded(stream, *entry) for entry in answer]
        if page:
            yield page
        if len(page) < PAGE:
            return
        if newest_first:
            end = f"({page[-1].stream_id}"
        else:
            start = f"({page[-1].stream_id}"


async def copy(
    redis: Redis, entry: Glance, target: str, *, counts: bool = False, ttl_s: int = 0
) -> tuple[str, int] | None:
    """Append an entry to another stream of its shard; gives its id and seq there.

    None where it was trimmed meanwhile. `counts` tells the target's tally of an entry that it has
    counted before; with `ttl_s` the target goes by itself that long after the last copy. The call
    may be carried out once more if its answer is lost, so it is not to be repeated.
    """
    keys = (entry.stream, target, topics.sequence(target), topics.tally(target))
    bucket = again_bucket_of(entry.fields.get("type", ""), entry.number("ts"), "") if counts else ""
    arguments = (entry.stream_id, bucket, identity(entry.fields.get("id", "")), ttl_s)
    answer: list[Any] = await _COPY.call(redis, keys, arguments)
    return (answer[0].decode(), int(answer[1])) if answer else None


def _decoded(stream: str, stream_id: bytes, short: list[bytes], long: list[Any]) -> Glance:
    texts = [value.decode("utf-8", "replace") for value in short]
    return Glance(
        stream=stream,
        stream_id=stream_id.decode(),
        fields=dict(zip(texts[::2], texts[1::2], strict=True)),
        left={name.decode(): int(size) for name, size in zip(long[::2], long[1::2], strict=True)},
    )
