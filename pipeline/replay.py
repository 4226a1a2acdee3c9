"""What latest values were, made again from the enriched stream: for clients who were away.

The whole way from a position to another, or nothing: never a part of it. The texts are those that
the realtime worker made, and of an underlying those of the chains that spoke for it. It reads no
latest key and writes nothing.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence

from redis.exceptions import RedisError

from pipeline import frames
from pipeline.entries import Entry
from pipeline.errors import BusUnavailable
from pipeline.frames import ChainJson, Position
from pipeline.latest import shard_of
from pipeline.models import (
    ENRICHED_CHAIN_TYPE,
    ChainId,
    ContractId,
    market_snapshot,
    parse_symbol,
)
from pipeline.runtime import Redis
from pipeline.speakers import Speakers
from pipeline.streams.stretch import Part, stretch
from pipeline.topics import Topics

SEEN_ENTRIES = 4_000  # of all chains of a shard; Redis is busy for some 40 ms with them
MADE_ENTRIES = 256  # of one chain: at 3 s each a quarter of an hour's are 300
FRAME_BYTES = 12 * 1024 * 1024
TEXT_BYTES = 64 * 1024 * 1024  # of all symbols together
KEPT = 48  # chains made again and kept, at half a megabyte each, for who asks the same next


class Replay:
    """Reads texts again. Readings wait for each other, so that many who come at once cost little.

    Every call raises BusUnavailable where Redis does not answer, and DecodeError.
    """

    def __init__(self, redis: Redis, topics: Topics) -> None:
        self._redis = redis
        self._topics = topics
        self._made: OrderedDict[tuple[str, str, int], ChainJson] = OrderedDict()
        self._turn = asyncio.Lock()

    async def texts(
        self, symbols: Sequence[str], epoch: str, first: int, last: int
    ) -> dict[str, list[bytes]] | None:
        """The texts of symbols from the update `first` to the update `last`, both included.

        The symbols are of one `source`, so that what they have in common is read and made once.
        None where the updates are not all there any more, or are too many.
        """
        if first > last:
            return None
        async with self._turn:
            try:
                entries = await self._entries(symbols[0], epoch, first, last)
            except (RedisError, OSError) as error:
                raise BusUnavailable(f"Redis: {type(error).__name__}") from error
            if entries is None:
                return None
            found: dict[str, list[bytes]] = {symbol: [] for symbol in symbols}
            size = 0
            for entry in entries:
                made = self._chain_json(entry)
                for symbol, texts in found.items():
                    text = _text_of(symbol, made)
                    if text is not None:
                        texts.append(text)
                        size += len(text)
                if size > TEXT_BYTES:
                    return None
                await asyncio.sleep(0)  # each takes some ms, and others have to be served
            return found

    async def _entries(self, symbol: str, epoch: str, first: int, last: int) -> list[Entry] | None:
        """The entries whose values a symbol had, from the first to the last."""
        kept: list[Entry] = []
        is_value = _filter(symbol)
        parts = self._parts(symbol, epoch, first)
        size = 0
        async for part in parts:
            for entry in part.entries:
                if entry.seq > last or entry.epoch != epoch or not is_value(entry):
                    continue
                kept.append(entry)
                size += len(entry.data)
            if len(kept) > MADE_ENTRIES or size > FRAME_BYTES or part.seen > first + SEEN_ENTRIES:
                break
            if part.seen >= last:
                break
        await parts.aclose()
        is_within = len(kept) <= MADE_ENTRIES and size <= FRAME_BYTES
        if not kept or not is_within or (kept[0].seq, kept[-1].seq) != (first, last):
            return None
        return kept

    def _parts(self, symbol: str, epoch: str, first: int) -> AsyncGenerator[Part, None]:
        stream = self._topics.enriched(shard_of(self._topics, symbol))
        return stretch(self._redis, stream, epoch=epoch, seq=first, key=source(symbol))

    def _chain_json(self, entry: Entry) -> ChainJson:
        name = (entry.key, entry.epoch, entry.seq)
        found = self._made.get(name)
        if found is None:
            chain = frames.decode_frame(entry.data)
            position = Position(entry.epoch, entry.seq, entry.te or entry.ts)
            found = frames.encode_client_json(chain, market_snapshot(chain.header), position)
            self._made[name] = found
            while len(self._made) > KEPT:
                self._made.popitem(last=False)
        else:
            self._made.move_to_end(name)
        return found


def source(symbol: str) -> str:
    """What the keys of the entries begin with of which a symbol's texts are made."""
    parts = parse_symbol(symbol)
    return f"{parts}-" if isinstance(parts, str) else f"{parts.underlying}-{parts.expiry:%Y%m%d}"


class _filter:
    """Whether an entry became a symbol's latest value, asked of one after the other in order."""

    def __init__(self, symbol: str) -> None:
        parts = parse_symbol(symbol)
        self._speakers = Speakers() if isinstance(parts, str) else None
        self._underlying = parts if isinstance(parts, str) else ""
        self._ts = 0

    def __call__(self, entry: Entry) -> bool:
        if entry.type != ENRICHED_CHAIN_TYPE or entry.ts < self._ts:
            return False
        if self._speakers is not None:
            header, _ = frames.open_frame(entry.data)
            if header.underlying != self._underlying or not self._speakers.speaks(header):
                return False
        self._ts = entry.ts
        return True


def _text_of(symbol: str, made: ChainJson) -> bytes | None:
    known = made.contracts.get(symbol)
    if known is not None:
        return known
    parts = parse_symbol(symbol)
    if isinstance(parts, ContractId):
        return None
    return made.chain if isinstance(parts, ChainId) else made.underlying
