"""API keys and stream tickets: secrets handed out once, of which Redis holds digests only.

A key's secret has 256 random bits, so one HMAC keeps it, under the key's id: there is nothing to
guess, and a slow hash would only slow the gateway. Never logs a key or a ticket.
"""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Iterable
from typing import Any

import msgspec
from redis.exceptions import RedisError

from pipeline import topics
from pipeline.credentials import SCOPES, Principal
from pipeline.errors import BusUnavailable, DecodeError
from pipeline.runtime import Redis

KEY_PREFIX = "sk_"
TICKET_PREFIX = "st_"
TICKET_TTL_S = 30
NAME_LENGTH = 80
_KEY = re.compile(r"sk_([0-9a-f]{12})_([0-9a-f]{64})")
_TICKET = re.compile(r"st_[0-9a-f]{64}")
_NO_DIGEST = "0" * 64


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a key. Instants are in seconds of the wall clock; `expires` 0: never."""

    id: str
    name: str
    scopes: tuple[str, ...]
    created: int
    digest: str
    expires: int = 0
    revoked: int = 0

    @property
    def subject(self) -> str:
        """The subject of the tokens that are given for it."""
        return f"key-{self.id}"

    def holds(self, now: float) -> bool:
        """Whether tokens are given for it."""
        return not self.revoked and (not self.expires or now < self.expires)


_decode_key = msgspec.json.Decoder(ApiKey).decode
_decode_principal = msgspec.json.Decoder(Principal).decode


class ApiKeys:
    """The keys of an instance. Every call raises BusUnavailable where Redis is away."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def create(
        self, name: str, scopes: Iterable[str], *, ttl_s: int = 0
    ) -> tuple[str, ApiKey]:
        """A new key, whose text is told here and never again; `ttl_s` 0: it does not expire.

        Raises ValueError for a scope that does not exist, or a name that is empty or too long.
        """
        given = set(scopes)
        chosen = tuple(scope for scope in SCOPES if scope in given)
        unknown = sorted(given - set(SCOPES))
        if unknown:
            raise ValueError(f"no such scope: {', '.join(unknown)}; there are {', '.join(SCOPES)}")
        if not chosen:
            raise ValueError("a key needs a scope")
        if not 1 <= len(name) <= NAME_LENGTH or not name.isprintable():
            raise ValueError(f"a key's name has 1 to {NAME_LENGTH} printable characters")
        now = int(time.time())
        number, secret = secrets.token_hex(6), secrets.token_hex(32)
        key = ApiKey(
            id=number,
            name=name,
            scopes=chosen,
            created=now,
            digest=_digest(number, secret),
            expires=now + ttl_s if ttl_s else 0,
        )
        await _asked(self._redis.hset(topics.API_KEYS, number, msgspec.json.encode(key).decode()))
        return f"{KEY_PREFIX}{number}_{secret}", key

    async def listed(self) -> list[tuple[ApiKey, int]]:
        """Every key with the second in which it was last exchanged (0: never), oldest first.

        Raises DecodeError.
        """
        cards: Any = await _asked(self._redis.hgetall(topics.API_KEYS))
        used: Any = await _asked(self._redis.hgetall(topics.API_KEYS_USED))
        keys = sorted((_key(card) for card in cards.values()), key=lambda key: key.created)
        return [(key, int(used.get(key.id.encode(), 0))) for key in keys]

    async def revoke(self, number: str) -> ApiKey | None:
        """Have no more tokens given for a key; None where there is no such key.

        Those it was given are the caller's to revoke, by the key's subject. Raises DecodeError.
        """
        key = await self._find(number)
        if key is None:
            return None
        if not key.revoked:
            key = msgspec.structs.replace(key, revoked=int(time.time()))
            card = msgspec.json.encode(key).decode()
            await _asked(self._redis.hset(topics.API_KEYS, number, card))
        return key

    async def check(self, text: str) -> ApiKey | None:
        """The key of a text, where it is one that holds; None otherwise, and in the same time.

        Raises DecodeError.
        """
        match = _KEY.fullmatch(text)
        if match is None:
            return None
        number, secret = match.groups()
        key = await self._find(number)
        is_right = hmac.compare_digest(_digest(number, secret), key.digest if key else _NO_DIGEST)
        now = time.time()
        if key is None or not is_right or not key.holds(now):
            return None
        await _asked(self._redis.hset(topics.API_KEYS_USED, number, str(int(now))))
        return key

    async def _find(self, number: str) -> ApiKey | None:
        card: Any = await _asked(self._redis.hget(topics.API_KEYS, number))
        return _key(card) if card is not None else None


class Tickets:
    """Stream tickets: each lets one session in, once, within 30 seconds.

    Every call raises BusUnavailable where Redis is away.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def issue(self, principal: Principal) -> str:
        """A ticket for a session of this principal."""
        ticket = f"{TICKET_PREFIX}{secrets.token_hex(32)}"
        text = msgspec.json.encode(principal)
        await _asked(self._redis.set(_ticket_key(ticket), text, ex=TICKET_TTL_S))
        return ticket

    async def redeem(self, ticket: str) -> Principal | None:
        """Whom the ticket was issued to; None for one that is unknown, used or too old.

        One atomic call: of two that redeem the same ticket one gets None. Raises DecodeError.
        """
        if _TICKET.fullmatch(ticket) is None:
            return None
        text: Any = await _asked(self._redis.getdel(_ticket_key(ticket)))
        try:
            return _decode_principal(text) if text is not None else None
        except msgspec.MsgspecError as error:
            raise DecodeError(f"not a ticket: {error}") from error


def _ticket_key(ticket: str) -> str:
    return topics.ticket(hashlib.sha256(ticket.encode()).hexdigest())


def _digest(number: str, secret: str) -> str:
    return hmac.new(f"api-key {number}".encode(), secret.encode(), hashlib.sha256).hexdigest()


def _key(card: bytes) -> ApiKey:
    try:
        return _decode_key(card)
    except msgspec.MsgspecError as error:
        raise DecodeError(f"not an API key: {error}") from error


async def _asked(call: Any) -> Any:
    try:
        return await call
    except (RedisError, OSError) as error:
        raise BusUnavailable(f"no credentials: {type(error).__name__}") from error
