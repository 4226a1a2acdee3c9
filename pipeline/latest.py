"""Latest keys and live channels: written by the realtime worker, read by the gateway.

A latest value is never overwritten by an older one: what is older is decided inside Redis, by the
position (ts_ingest, seq) of the chain it came with, in the same Lua call that writes. The texts
are those of `frames.encode_client_json`; this room never looks into a row.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from pipeline import frames
from pipeline.clock import expiry_ns
from pipeline.cluster import primaries
from pipeline.errors import BusUnavailable, DecodeError
from pipeline.models import ChainHeader, ChainId, ContractId, Expiries, parse_symbol
from pipeline.runtime import Redis
from pipeline.topics import LATEST_TTL_S, Topics

# Each reading has a connection of its own, and a client has a hundred: of a crowd that comes at
# once, as after a restart, the others wait their turn and are not turned away.
READERS = 32

# KEYS: chain position, underlying position, catalog, chain, underlying, contracts...
# ARGV: position, TTL in s, catalog field, card, then channel and text of the chain, of the
# underlying and of each contract, last 1 where the underlying is to be written. Positions are
# fixed-width text: Lua's numbers are doubles, and those lose nanoseconds. Gives how many values
# were written.
_WRITE_CHAIN = """
local written = 0
local function put(key, at)
  redis.call('SET', key, ARGV[at + 1], 'EX', ARGV[2])
  redis.call('PUBLISH', ARGV[at], ARGV[at + 1])
  written = written + 1
end
local function is_newer(key)
  local held = redis.call('GET', key)
  if held and held >= ARGV[1] then return false end
  redis.call('SET', key, ARGV[1], 'EX', ARGV[2])
  return true
end
if is_newer(KEYS[1]) then
  redis.call('HSET', KEYS[3], ARGV[3], ARGV[4])
  for i = 6, #KEYS do put(KEYS[i], 2 * i - 3) end
  put(KEYS[4], 5)
end
if ARGV[#ARGV] == '1' and is_newer(KEYS[2]) then put(KEYS[5], 7) end
return written
"""

# KEYS: position, catalog. ARGV: position, TTL in s, underlying, card, prefix of the latest keys.
# Chains whose latest value has expired leave the catalog here, a few times a day.
_WRITE_EXPIRIES = """
local held = redis.call('GET', KEYS[1])
if held and held >= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
redis.call('HSET', KEYS[2], ARGV[3], ARGV[4])
for _, field in ipairs(redis.call('HKEYS', KEYS[2])) do
  if string.find(field, '%-%d%d%d%d%d%d%d%d$')
      and redis.call('EXISTS', ARGV[5] .. field) == 0 then
    redis.call('HDEL', KEYS[2], field)
  end
end
return 1
"""


_ROWS, _NO_ROWS = b',"rows":[', b',"rows":[]}'


class ChainCard(msgspec.Struct, frozen=True, kw_only=True):
    """What the catalog says of a chain."""

    underlying: str
    expiry: str
    ts_ingest: int
    lot: int | None
    n: int
    provider: str


class UnderlyingCard(msgspec.Struct, frozen=True, kw_only=True):
    """What the catalog says of an underlying: the expiries its provider lists, ISO dates."""

    underlying: str
    expiries: tuple[str, ...]
    ts_ingest: int


class Catalog(msgspec.Struct, frozen=True):
    """The chains that have a latest value and the underlyings whose expiries are known."""

    chains: dict[str, ChainCard]
    listed: dict[str, UnderlyingCard]

    def underlyings(self) -> list[str]:
        """Every underlying that is known of, in order."""
        return sorted({card.underlying for card in self.chains.values()} | set(self.listed))

    def chains_of(self, underlying: str) -> dict[str, ChainCard]:
        """The chains of an underlying by symbol, nearest expiry first."""
        chosen = [item for item in self.chains.items() if item[1].underlying == underlying]
        return dict(sorted(chosen, key=lambda item: item[1].expiry))

    def nearest(self, underlying: str, now_ns: int) -> str | None:
        """The chain that settles next; if all have settled, the one that did last."""
        chains = list(self.chains_of(underlying))
        for symbol in chains:
            parts = parse_symbol(symbol)
            if isinstance(parts, ChainId) and expiry_ns(parts.expiry) >= now_ns:
                return symbol
        return chains[-1] if chains else None


async def write_chain(
    redis: Redis,
    topics: Topics,
    shard: int,
    chain_json: frames.ChainJson,
    header: ChainHeader,
    position: frames.Position,
    *,
    speaks: bool = True,
) -> int:
    """Write and publish a chain, its underlying and its contracts, unless newer ones are there.

    The underlying is left out unless this chain `speaks` for it. One atomic call. Gives how many
    values were written: 0 when all were older or the same. Raises BusUnavailable.
    """
    card = ChainCard(
        underlying=header.underlying,
        expiry=header.expiry.isoformat(),
        ts_ingest=header.ts_ingest,
        lot=header.lot,
        n=header.n,
        provider=header.provider,
    )
    texts = {header.chain: chain_json.chain, header.underlying: chain_json.underlying}
    texts |= chain_json.contracts
    keys = [
        topics.latest_position(header.chain, shard),
        topics.latest_position(header.underlying, shard),
        topics.catalog(shard),
        *(topics.latest(symbol, shard) for symbol in texts),
    ]
    arguments: list[str | bytes | int] = [
        position_text(header.ts_ingest, position.seq),
        LATEST_TTL_S,
        header.chain,
        msgspec.json.encode(card),
    ]
    for symbol, text in texts.items():
        arguments += [topics.live(symbol), text]
    arguments.append(int(speaks))
    return int(await _asked(redis.eval(_WRITE_CHAIN, len(keys), *keys, *arguments)))


async def write_expiries(redis: Redis, topics: Topics, shard: int, expiries: Expiries) -> int:
    """Put an underlying's listed expiries into the catalog, unless a newer list is there.

    Gives 1 when written, else 0. Raises BusUnavailable.
    """
    card = UnderlyingCard(
        underlying=expiries.underlying,
        expiries=tuple(expiry.isoformat() for expiry in expiries.expiries),
        ts_ingest=expiries.ts_ingest,
    )
    keys = (topics.expiries_position(expiries.underlying, shard), topics.catalog(shard))
    arguments = (
        position_text(expiries.ts_ingest, 0),
        LATEST_TTL_S,
        expiries.underlying,
        msgspec.json.encode(card),
        topics.latest("", shard),
    )
    return int(await _asked(redis.eval(_WRITE_EXPIRIES, 2, *keys, *arguments)))


class Latest:
    """Reads latest values. Every call raises BusUnavailable where Redis does not answer."""

    def __init__(self, redis: Redis, topics: Topics) -> None:
        self._redis = redis
        self._topics = topics
        self._turns = asyncio.Semaphore(READERS)

    async def ping(self) -> None:
        """Whether Redis answers."""
        await _asked(self._redis.ping())

    async def texts(self, symbols: Sequence[str]) -> list[bytes | None]:
        """The newest text of each symbol, in one round trip a shard; None where there is none."""
        return await self._values(symbols, self._topics.latest)

    async def positions(self, symbols: Sequence[str]) -> list[bytes | None]:
        """The `position_text` of each chain's or underlying's newest text, as `texts` reads."""
        return await self._values(symbols, self._topics.latest_position)

    async def _values(
        self, symbols: Sequence[str], key: Callable[[str, int], str]
    ) -> list[bytes | None]:
        by_shard: dict[int, list[int]] = {}
        for index, symbol in enumerate(symbols):
            by_shard.setdefault(shard_of(self._topics, symbol), []).append(index)
        found: list[bytes | None] = [None] * len(symbols)

        async def read(shard: int, indices: list[int]) -> None:
            keys = [key(symbols[index], shard) for index in indices]
            async with self._turns:
                texts = await _asked(self._redis.mget(keys))
            for index, text in zip(indices, texts, strict=True):
                found[index] = text

        if len(by_shard) == 1:
            await read(*by_shard.popitem())
        else:
            await asyncio.gather(*(read(*part) for part in by_shard.items()))
        return found

    async def catalog(self) -> Catalog:
        """Everything that is known to exist."""
        chains: dict[str, ChainCard] = {}
        listed: dict[str, UnderlyingCard] = {}
        for shard in range(self._topics.shards):
            async with self._turns:
                fields = await _asked(self._redis.hgetall(self._topics.catalog(shard)))
            for field, text in fields.items():
                symbol = field.decode()
                if isinstance(parse_symbol(symbol), ChainId):
                    chains[symbol] = _decode(text, ChainCard)
                else:
                    listed[symbol] = _decode(text, UnderlyingCard)
        return Catalog(chains, listed)

    async def is_notifying(self) -> bool | None:
        """Whether every server tells of changes to keys; None where one may not be asked."""
        try:
            servers = await primaries(self._redis)
            answers = [await server.config_get("notify-keyspace-events") for server in servers]
        except (NoPermissionError, ResponseError):
            return None
        except (RedisError, OSError) as error:
            raise BusUnavailable(f"Redis: {type(error).__name__}") from error
        flags = [str(next(iter(answer.values()), "")) for answer in answers]
        return all("K" in each and ("$" in each or "A" in each) for each in flags)


Known = frames.LatestChain | frames.LatestContract | frames.LatestUnderlying
_Shape = TypeVar("_Shape")


def decode_latest(symbol: str, text: bytes) -> Known:
    """A latest text in the shape that its symbol has. Raises DecodeError."""
    parts = parse_symbol(symbol)
    if isinstance(parts, ChainId):
        return _decode_chain(text)
    if isinstance(parts, ContractId):
        return _decode(text, frames.LatestContract)
    return _decode(text, frames.LatestUnderlying)


def shard_of(topics: Topics, symbol: str) -> int:
    """The shard of a symbol's keys. Raises DecodeError."""
    parts = parse_symbol(symbol)
    return topics.shard_of(parts if isinstance(parts, str) else parts.underlying)


def position_text(ts_ingest: int, seq: int) -> str:
    """What is kept beside a value: texts of positions are in the order of the positions."""
    return f"{ts_ingest:020d}:{seq:020d}"


def _decode_chain(text: bytes) -> frames.LatestChain:
    """Its rows are its last field: what is before them is decoded, and they are not scanned."""
    before, rows, after = text.partition(_ROWS)
    if not rows or not after.endswith(b"]}"):
        return _decode(text, frames.LatestChain)
    chain = _decode(before + _NO_ROWS, frames.LatestChain)
    encoded = msgspec.Raw(memoryview(text)[len(before) + len(_ROWS) - 1 : -1])
    return msgspec.structs.replace(chain, rows=encoded)


def _decode(text: bytes, shape: type[_Shape]) -> _Shape:
    try:
        return msgspec.json.decode(text, type=shape)
    except msgspec.MsgspecError as error:
        raise DecodeError(f"not a {shape.__name__}: {error}") from error


async def _asked(call: Any) -> Any:
    try:
        return await call
    except (RedisError, OSError) as error:
        raise BusUnavailable(f"Redis: {type(error).__name__}: {error}") from error
