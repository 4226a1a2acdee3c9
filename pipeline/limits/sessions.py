"""How many sessions a subject has open, over all processes together.

Each process says how many of its own there are; what it said is forgotten when it falls silent, so
that a killed process holds nothing for long. Redis away: each process counts for itself.
"""

import asyncio
import time
import uuid

from redis.exceptions import RedisError

from pipeline.runtime import Redis
from pipeline.streams.scripts import Script
from pipeline.topics import Topics

TTL_S = 30.0  # the sessions of a process that was killed are counted that long
BEAT_S = 10.0  # how often each process says what it has
_ANSWER_S = 0.25
_AWAY_S = 1.0

# KEYS: what each process has of a subject. ARGV: process, how many it has, the most there may be
# of all together (0: it only says how many), TTL in ms. Gives 1, or 0 where they would be too
# many; then the process is left as it was.
_COUNT = Script("""
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local others, most = 0, tonumber(ARGV[3])
local held = redis.call('HGETALL', KEYS[1])
for i = 1, #held, 2 do
  local count, till = string.match(held[i + 1], '(%d+):(%d+)')
  if tonumber(till) <= now then
    redis.call('HDEL', KEYS[1], held[i])
  elseif held[i] ~= ARGV[1] then
    others = others + tonumber(count)
  end
end
if most > 0 and others + tonumber(ARGV[2]) > most then return 0 end
if ARGV[2] == '0' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ':' .. string.format('%.0f', now + ARGV[4]))
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
return 1
""")


class Sessions:
    """The sessions of one process, counted together with everybody's.

    `name` is the subject's, in a form that fits a key. It never raises where Redis is away.
    """

    def __init__(self, redis: Redis, topic_map: Topics, most: int) -> None:
        self._redis = redis
        self._topics = topic_map
        self._most = most
        self._process = uuid.uuid4().hex
        self._own: dict[str, int] = {}
        self._changed: set[str] = set()
        self._wake = asyncio.Event()
        self._away_until = 0.0

    async def enter(self, name: str) -> bool:
        """Whether one session more may be open. True counts it, until it leaves."""
        if not self._most:
            return True
        own = self._own[name] = self._own.get(name, 0) + 1
        if own <= self._most and await self._count(name, own, self._most):
            return True
        self.leave(name)
        return False

    def leave(self, name: str) -> None:
        """A session that had entered is over; the others hear of it within moments."""
        if not self._most:
            return
        left = self._own.get(name, 0) - 1
        if left > 0:
            self._own[name] = left
        else:
            self._own.pop(name, None)
        self._changed.add(name)
        self._wake.set()

    async def run(self) -> None:
        """Tell the others what this process has, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(BEAT_S):
                    await self._wake.wait()
            except TimeoutError:
                self._changed.update(self._own)
            self._wake.clear()
            await self._tell()

    async def close(self) -> None:
        """Take back what this process has said."""
        self._changed.update(self._own)
        self._own.clear()
        await self._tell()

    async def _tell(self) -> None:
        changed, self._changed = self._changed, set()
        for name in changed:
            await self._count(name, self._own.get(name, 0), 0)

    async def _count(self, name: str, own: int, most: int) -> bool:
        if time.monotonic() < self._away_until:
            return True
        arguments = (self._process, own, most, round(TTL_S * 1_000))
        try:
            async with asyncio.timeout(_ANSWER_S):
                key = self._topics.client_limit("sessions", name)
                return bool(await _COUNT.call(self._redis, [key], arguments))
        except (RedisError, OSError, TimeoutError):
            self._away_until = time.monotonic() + _AWAY_S
            return True
