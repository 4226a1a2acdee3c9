"""An append as one transaction, whose payloads do not pass through Lua.

Lua copies and hashes every argument, which costs the server as much as the append of a frame. Here
the producer foretells the numbers, and a script looks beforehand whether they are still right.
Where they are not, or where the stream or its numbering changes before the end, nothing is written,
and the producer calls `APPEND` instead.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from pipeline.entries import NewEntry
from pipeline.streams import tally
from pipeline.streams.wire import Argument, Wire

# Whether the append may go on as foretold. If not, the numbering is touched, so that the
# transaction after this writes nothing; by an expiry, which is also done when memory is full.
# KEYS: stream, sequence. ARGV: epoch, seq of the last entry, the call that must be the last before
# ('' where none is under way).
_CHECK = """
local held = redis.call('HMGET', KEYS[2], 'epoch', 'seq', 'retired', 'last_call')
if held[1] == ARGV[1] and held[2] == ARGV[2] and not held[3]
  and (ARGV[3] == '' or held[4] == ARGV[3]) and redis.call('EXISTS', KEYS[1]) == 1 then return 1 end
if redis.call('PEXPIRE', KEYS[2], 86400000) == 1 then
  redis.call('PERSIST', KEYS[2])
else
  redis.call('HSET', KEYS[2], 'seq', 0)
  redis.call('DEL', KEYS[2])
end
return 0
"""


class Call(msgspec.Struct, frozen=True):
    """An append as its producer foretells it.

    Its entries come after number `foretold` of `epoch`, where that is known; `name` is its own,
    `before` that of a call which is still under way, empty for none.
    """

    epoch: str
    foretold: int | None
    name: str
    before: str


def send(
    wire: Wire, keys: tuple[str, str, str], call: Call, entries: Sequence[NewEntry]
) -> "asyncio.Future[Any]":
    """Send it at once; `written` reads the answers. KEYS: stream, sequence, tally."""
    stream, sequence, counts = keys
    after = call.foretold or 0
    commands: list[Sequence[Argument]] = [
        ("WATCH", stream, sequence),
        ("EVAL", _CHECK, 2, stream, sequence, call.epoch, after, call.before),
        ("MULTI",),
        ("HSET", sequence, "seq", after + len(entries), "last_call", call.name),
    ]
    for number, entry in enumerate(entries, after + 1):
        fields = ("seq", number, "epoch", call.epoch, *entry.fields())
        commands.append(("XADD", stream, "*", *fields))
    commands += [("HINCRBY", counts, *counted) for counted in _counts(entries)]
    commands.append(("EXEC",))
    return wire.burst(commands)


async def written(sent: "asyncio.Future[Any]", count: int) -> list[bytes] | None:
    """The ids of the entries, None where nothing was written. Raises what the server answers."""
    *answers, done = await sent
    if done is None:
        return None
    if isinstance(done, Exception):  # something was refused before: that says why
        raise next((one for one in answers if isinstance(one, Exception)), done)
    ids: list[Any] = done[1 : count + 1]
    for one in ids:
        if isinstance(one, Exception):
            raise one
    return ids


def _counts(entries: Sequence[NewEntry]) -> list[tuple[str, int]]:
    """What the tally grows by, as `APPEND` counts it."""
    sums: dict[str, list[int]] = {}
    for entry in entries:
        bucket = sums.setdefault(tally.bucket_of(entry.type, entry.ts), [0, 0, 0])
        bucket[0] += 1
        bucket[1] += tally.identity(entry.id)
        bucket[2] += entry.contracts
    return [
        (f"{bucket}:{kind}", total)
        for bucket, totals in sums.items()
        for kind, total in zip("nhc", totals, strict=True)
        if total or kind != "c"
    ]
