"""Rate budgets shared by every process of an instance, each decision one Lua call.

A budget is a line of slots at a fixed spacing; who takes one is told how long to wait for it, so
that takers are served in turn and none is starved. Redis away is the caller's matter.
"""

from redis.exceptions import RedisError

from pipeline.errors import BusUnavailable
from pipeline.runtime import Redis
from pipeline.topics import Topics

# KEYS: budget. ARGV: spacing in µs, longest wait in µs. Gives the wait in µs, or -1 where the line
# is longer than that; then no slot is taken.
_TAKE = """
local now = redis.call('TIME')
now = now[1] * 1000000 + now[2]
local slot = tonumber(redis.call('GET', KEYS[1]) or 0)
if slot < now then slot = now end
if slot - now > tonumber(ARGV[2]) then return -1 end
local free = slot + tonumber(ARGV[1])
local life = math.ceil((free - now) / 1000) + 1000
redis.call('SET', KEYS[1], string.format('%.0f', free), 'PX', string.format('%.0f', life))
return slot - now
"""

# KEYS: budget. ARGV: µs from now before which the next slot may not lie.
_HOLD = """
local now = redis.call('TIME')
local free = now[1] * 1000000 + now[2] + ARGV[1]
local slot = tonumber(redis.call('GET', KEYS[1]) or 0)
if slot >= free then return 0 end
local life = math.ceil(ARGV[1] / 1000) + 1000
redis.call('SET', KEYS[1], string.format('%.0f', free), 'PX', string.format('%.0f', life))
return 1
"""


class Budget:
    """A budget of one call each `spacing_s` seconds of the wall clock, under a name."""

    def __init__(self, redis: Redis, topic_map: Topics, name: str, spacing_s: float) -> None:
        self._redis = redis
        self._key = topic_map.limit(name)
        self._spacing_us = round(spacing_s * 1_000_000)

    async def take(self, longest_wait_s: float = 60.0) -> float | None:
        """Seconds to wait for the slot taken; None when the line is longer than allowed.

        Raises BusUnavailable where Redis does not answer.
        """
        try:
            wait_us = await self._redis.eval(
                _TAKE, 1, self._key, self._spacing_us, round(longest_wait_s * 1_000_000)
            )
        except (RedisError, OSError) as error:
            raise BusUnavailable(f"no rate budget: {type(error).__name__}") from error
        return None if wait_us < 0 else wait_us / 1_000_000

    async def hold(self, seconds: float) -> None:
        """Keep the next slot at least that far from now.

        Raises BusUnavailable where Redis does not answer.
        """
        try:
            await self._redis.eval(_HOLD, 1, self._key, round(seconds * 1_000_000))
        except (RedisError, OSError) as error:
            raise BusUnavailable(f"no rate budget: {type(error).__name__}") from error
