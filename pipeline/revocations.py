"""What was revoked before it expired: single tokens, and all of a subject up to an instant.

Kept in Redis, where every gateway reads what was added since it last looked, in the order of a
counter. What has expired by itself is forgotten. Knows no token, only its id.
"""

import secrets
import time
from typing import Any

import msgspec
from redis.exceptions import RedisError

from pipeline import topics
from pipeline.credentials import LONGEST_TTL_S, Principal
from pipeline.errors import BusUnavailable
from pipeline.runtime import Redis

# KEYS: state, cards, order, until. ARGV: fresh epoch, now, name, card, until. A card is fixed-width
# text, so that the later of two revocations of a subject is the greater text. What has expired is
# removed a thousand at a time: a script holds up everybody.
_REVOKE = """
redis.call('HSETNX', KEYS[1], 'epoch', ARGV[1])
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', ARGV[2], 'LIMIT', 0, 1000)) do
  redis.call('HDEL', KEYS[2], name)
  redis.call('ZREM', KEYS[3], name)
  redis.call('ZREM', KEYS[4], name)
end
local held = redis.call('HGET', KEYS[2], ARGV[3])
if held and held >= ARGV[4] then return 0 end
redis.call('HSET', KEYS[2], ARGV[3], ARGV[4])
redis.call('ZADD', KEYS[3], redis.call('HINCRBY', KEYS[1], 'count', 1), ARGV[3])
redis.call('ZADD', KEYS[4], ARGV[5], ARGV[3])
return 1
"""

# KEYS: state, cards, order. ARGV: epoch and count that are known. Gives epoch, count, then names
# and cards of what was added since; of everything where the epoch is another.
_READ = """
local state = redis.call('HMGET', KEYS[1], 'epoch', 'count')
if not state[1] then return {'', '0'} end
local from = ARGV[2]
if state[1] ~= ARGV[1] then from = '0' end
local found = {state[1], state[2]}
if from == state[2] then return found end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. from, '+inf')) do
  found[#found + 1] = name
  found[#found + 1] = redis.call('HGET', KEYS[2], name)
end
return found
"""

_TOKEN, _SUBJECT = "token ", "subject "
_DIGITS = 12  # seconds of the wall clock, for 30,000 years


class Place(msgspec.Struct, frozen=True):
    """Up to where a reader has read; another epoch means that Redis began anew."""

    epoch: str = ""
    count: int = 0


class News(msgspec.Struct, frozen=True):
    """What was revoked since a place: token id -> its expiry; subject -> issued up to, until."""

    place: Place
    tokens: dict[str, int]
    subjects: dict[str, tuple[int, int]]


class Revocations:
    """The revocations of an instance. Every call raises BusUnavailable where Redis is away."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def revoke_token(self, token_id: str, expires: float | None = None) -> None:
        """Let no token of that id in; it is remembered until that token has expired."""
        until = int(time.time()) + LONGEST_TTL_S if expires is None else int(expires)
        await self._revoke(f"{_TOKEN}{token_id}", 0, until + 60)

    async def revoke_subject(self, subject: str, before: float | None = None) -> int:
        """Let no token in that a subject was given up to an instant, now if not said.

        Gives the instant in whole seconds: a token made within that second is refused too. An
        earlier instant never takes back a later one.
        """
        instant = int(time.time() if before is None else before)
        await self._revoke(f"{_SUBJECT}{subject}", instant, instant + LONGEST_TTL_S + 60)
        return instant

    async def read(self, place: Place) -> News:
        """What was revoked since a place."""
        keys = (topics.REVOKED, topics.REVOKED_CARDS, topics.REVOKED_ORDER)
        found: Any = await self._asked(
            self._redis.eval(_READ, len(keys), *keys, place.epoch, place.count)
        )
        epoch, count, *rest = (part.decode() for part in found)
        tokens: dict[str, int] = {}
        subjects: dict[str, tuple[int, int]] = {}
        for name, card in zip(rest[::2], rest[1::2], strict=True):
            before, until = int(card[:_DIGITS]), int(card[_DIGITS:])
            if name.startswith(_TOKEN):
                tokens[name.removeprefix(_TOKEN)] = until
            else:
                subjects[name.removeprefix(_SUBJECT)] = (before, until)
        return News(Place(epoch, int(count)), tokens, subjects)

    async def _revoke(self, name: str, before: int, until: int) -> None:
        keys = (topics.REVOKED, topics.REVOKED_CARDS, topics.REVOKED_ORDER, topics.REVOKED_UNTIL)
        card = f"{before:0{_DIGITS}d}{until:0{_DIGITS}d}"
        arguments = (secrets.token_hex(6), int(time.time()), name, card, until)
        await self._asked(self._redis.eval(_REVOKE, len(keys), *keys, *arguments))

    async def _asked(self, call: Any) -> Any:
        try:
            return await call
        except (RedisError, OSError) as error:
            raise BusUnavailable(f"no revocations: {type(error).__name__}") from error


def is_revoked(
    principal: Principal, tokens: dict[str, int], subjects: dict[str, tuple[int, int]]
) -> bool:
    """Whether a principal is among what was revoked."""
    if principal.token_id in tokens:
        return True
    of_subject = subjects.get(principal.subject)
    return of_subject is not None and principal.issued < of_subject[0] + 1
