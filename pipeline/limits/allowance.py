"""What callers may use of a rate: GCRA over buckets of units, exact across processes.

A bucket is kept as the instant at which it is full again; a call moves that on by its cost. Every
call that waits goes in one Lua call, by the server's clock, so that a busy process pays a fraction
of a round trip for each. Redis away is this room's own matter.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from redis.exceptions import RedisError

from pipeline.errors import BusUnavailable
from pipeline.streams.links import Link
from pipeline.streams.scripts import Script
from pipeline.topics import Topics

# KEYS: buckets. ARGV, msgpack: of each bucket µs a unit and µs of a whole burst; then of each call
# its cost, whether it is counted even where it is too much, and the numbers of its buckets. A call
# that is too much for one of its buckets takes from none. Gives, msgpack, of each call: µs until it
# would have been allowed (0: it is), then of each of its buckets the µs until it is full.
_CHARGE = Script("""
local asked = cmsgpack.unpack(ARGV[1])
local rates, answers, moved = asked[1], {}, {}
local now = redis.call('TIME')
now = now[1] * 1000000 + now[2]
local full = redis.call('MGET', unpack(KEYS))
for i = 1, #KEYS do full[i] = math.max(tonumber(full[i] or 0), now) end
for number, call in ipairs(asked[2]) do
  local cost, forced, wait, after = call[1], call[2], 0, {}
  for j = 3, #call do
    local i = call[j]
    local burst = rates[i][2]
    after[j] = full[i] + math.min(cost * rates[i][1], burst)
    wait = math.max(wait, after[j] - now - burst)
    if forced then after[j] = math.min(after[j], now + burst) end
  end
  local answer = {math.ceil(wait)}
  for j = 3, #call do
    local i = call[j]
    if wait <= 0 or forced then full[i], moved[i] = after[j], true end
    answer[j - 1] = math.floor(full[i] - now)
  end
  answers[number] = answer
end
for i in pairs(moved) do
  local life = math.ceil((full[i] - now) / 1000) + 1
  redis.call('SET', KEYS[i], string.format('%.0f', full[i]), 'PX', string.format('%.0f', life))
end
return cmsgpack.pack(answers)
""")
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(list[list[float]]).decode

_CHARGED_AT_ONCE = 256  # calls in one script: under a millisecond of the server
_ANSWER_S = 0.25  # a server that has not answered by then is away
_AWAY_S = 1.0  # how long it is not asked again
_LOCAL_BUCKETS = 20_000  # that one process remembers; the one unused for longest goes


class Rate(msgspec.Struct, frozen=True):
    """Units a second, and how many may be used at once after a rest. Both above zero."""

    units_per_s: float
    burst: int

    @property
    def unit_us(self) -> float:
        """µs in which one unit comes back."""
        return 1_000_000 / self.units_per_s

    @property
    def burst_us(self) -> float:
        """µs in which an empty bucket is full."""
        return self.burst * self.unit_us


class Bucket(msgspec.Struct, frozen=True):
    """One caller's bucket: of which kind, whose, and at what rate it fills."""

    kind: str
    name: str
    rate: Rate


class Standing(msgspec.Struct, frozen=True):
    """How a call left a bucket: whole units that remain, and seconds until it is full."""

    bucket: Bucket
    remaining: int
    full_s: float


class Verdict(msgspec.Struct, frozen=True):
    """Whether a call may go ahead: `wait_s` is 0, or after how many seconds it may."""

    wait_s: float
    standings: tuple[Standing, ...]


class _Call(NamedTuple):
    buckets: tuple[Bucket, ...]
    cost: float
    is_forced: bool
    answer: "asyncio.Future[list[float]] | None"


class Allowance:
    """Decides who may go ahead, in Redis together with every other process.

    Where Redis is away it decides by buckets of its own process, which start full: then each
    process allows the whole rate. It never raises. `link` leads to the slot of these buckets, and
    is its own.
    """

    def __init__(self, link: Link, topic_map: Topics) -> None:
        self._link = link
        self._topics = topic_map
        self._local = _LocalBuckets()
        self._waiting: list[_Call] = []
        self._working: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._away_until = 0.0
        self._empty_until: dict[Bucket, float] = {}

    @property
    def is_local(self) -> bool:
        """Whether Redis was away when it was last asked."""
        return self._away_until > time.monotonic()

    def empty_s(self, bucket: Bucket) -> float:
        """Seconds for which a bucket is known to hold not one unit; 0 where that is not known."""
        until = self._empty_until.get(bucket)
        return 0.0 if until is None else max(0.0, until - time.monotonic())

    async def take(
        self, buckets: tuple[Bucket, ...], cost: float, *, forced: bool = False
    ) -> Verdict:
        """Take `cost` units from each bucket, or from none where one has too few.

        With `forced` what is there is taken in any case. A cost above a burst counts as a burst.
        """
        if not forced:
            wait_s = max(map(self.empty_s, buckets), default=0.0)
            if wait_s > 0:  # nothing can have come back yet, so nobody is asked
                empty = (Standing(bucket, 0, bucket.rate.burst_us / 1e6) for bucket in buckets)
                return Verdict(wait_s, tuple(empty))
        answer: asyncio.Future[list[float]] = self._running_loop().create_future()
        self._send(_Call(buckets, cost, forced, answer))
        wait_us, *full_us = await answer
        standings = map(_standing, buckets, full_us)
        return Verdict(wait_us / 1e6, tuple(standings))

    def charge(self, buckets: tuple[Bucket, ...], cost: float) -> None:
        """Take from buckets in any case, and wait for nothing."""
        self._send(_Call(buckets, cost, True, None))

    async def close(self) -> None:
        """Wait for what is being decided, and close the connection."""
        if self._working is not None:
            await self._working
        await self._link.drop()

    def _send(self, call: _Call) -> None:
        self._waiting.append(call)
        if self._working is None:
            self._working = self._running_loop().create_task(self._work())

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        """Looked for once: Python asks the system for its process id each time."""
        self._loop = self._loop or asyncio.get_running_loop()
        return self._loop

    async def _work(self) -> None:
        """Decide for all that waits, again and again until nobody does."""
        while self._waiting:
            calls = self._waiting[:_CHARGED_AT_ONCE]
            del self._waiting[:_CHARGED_AT_ONCE]
            answers = await self._decide(calls)
            now = time.monotonic()
            for call, (wait_us, *full_us) in zip(calls, answers, strict=True):
                if wait_us:
                    self._remember_empty(call.buckets, full_us, now)
                if call.answer is not None and not call.answer.done():
                    call.answer.set_result([0.0 if call.is_forced else wait_us, *full_us])
        self._working = None

    async def _decide(self, calls: Sequence[_Call]) -> list[list[float]]:
        if time.monotonic() < self._away_until:
            return self._local.decide(calls)
        numbers: dict[Bucket, int] = {}
        asked = [
            (
                call.cost,
                call.is_forced,
                *(numbers.setdefault(bucket, len(numbers) + 1) for bucket in call.buckets),
            )
            for call in calls
        ]
        rates = [(bucket.rate.unit_us, bucket.rate.burst_us) for bucket in numbers]
        keys = [self._topics.client_limit(bucket.kind, bucket.name) for bucket in numbers]
        wire = None
        try:
            async with asyncio.timeout(_ANSWER_S):
                wire = await self._link.wire()
                answer = await _CHARGE.call_over(wire, keys, (_pack((rates, asked)),))
        except (BusUnavailable, RedisError, OSError, TimeoutError):
            self._away_until = time.monotonic() + _AWAY_S
            await self._link.drop(wire)
            return self._local.decide(calls)
        return _unpack(answer)

    def _remember_empty(
        self, buckets: tuple[Bucket, ...], full_us: Sequence[float], now: float
    ) -> None:
        for bucket, us in zip(buckets, full_us, strict=True):
            until = now + (us + bucket.rate.unit_us - bucket.rate.burst_us) / 1e6
            if until > now:
                self._empty_until.pop(bucket, None)
                self._empty_until[bucket] = until
        while len(self._empty_until) > _LOCAL_BUCKETS:
            del self._empty_until[next(iter(self._empty_until))]


def _standing(bucket: Bucket, full_us: float) -> Standing:
    remaining = (bucket.rate.burst_us - full_us + 1) / bucket.rate.unit_us  # instants are whole µs
    return Standing(bucket, min(bucket.rate.burst, int(remaining)), full_us / 1e6)


class _LocalBuckets:
    """What the script does, in one process and by its own clock."""

    def __init__(self) -> None:
        self._full: OrderedDict[Bucket, float] = OrderedDict()

    def decide(self, calls: Sequence[_Call]) -> list[list[float]]:
        return [self._decide_one(call, time.monotonic() * 1e6) for call in calls]

    def _decide_one(self, call: _Call, now: float) -> list[float]:
        before = [max(self._full.get(bucket, 0.0), now) for bucket in call.buckets]
        after, wait = [], 0.0
        for bucket, full in zip(call.buckets, before, strict=True):
            rate = bucket.rate
            later = full + min(call.cost * rate.unit_us, rate.burst_us)
            wait = max(wait, later - now - rate.burst_us)
            after.append(min(later, now + rate.burst_us) if call.is_forced else later)
        if wait > 0 and not call.is_forced:
            after = before
        for bucket, full in zip(call.buckets, after, strict=True):
            self._full[bucket] = full
            self._full.move_to_end(bucket)
        while len(self._full) > _LOCAL_BUCKETS:
            self._full.popitem(last=False)
        return [wait, *(full - now for full in after)]
