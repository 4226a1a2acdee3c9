"""The newest chains, decoded once for as long as they are the newest.

A chain of five hundred contracts is some hundreds of kilobytes, which cost a reader far more than
whatever he does with them. So only its position is asked for, each time anew, and what is kept is
given out again while that stands.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

from pipeline.errors import BusUnavailable, DecodeError
from pipeline.frames import LatestChain
from pipeline.latest import Latest, decode_latest, position_text, shard_of
from pipeline.streams.links import AWAY, Link
from pipeline.topics import Topics

KEPT_BYTES = 32 * 1024 * 1024  # a hundred whole chains; the one unused for longest goes


class KnownChains:
    """Reads newest chains for many askers; `links` has one to each shard's keys."""

    def __init__(
        self,
        latest: Latest,
        topics: Topics,
        links: Sequence[Link],
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        self._latest = latest
        self._topics = topics
        self._links = links
        self._kept_bytes = kept_bytes
        self._kept: OrderedDict[str, tuple[bytes, LatestChain]] = OrderedDict()
        self._size = 0
        self._fetching: dict[str, asyncio.Lock] = {}
        self._asking: dict[str, asyncio.Task[bytes | None]] = {}

    async def chain(self, symbol: str) -> LatestChain | None:
        """The newest of a chain; None where there is none.

        Raises DecodeError, and BusUnavailable where Redis does not answer.
        """
        position = await self._position(symbol)
        if position is None:
            return None
        found = self._at(symbol, position)
        if found is not None:
            return found
        async with self._fetching.setdefault(symbol, asyncio.Lock()):
            return self._at(symbol, position) or await self._fetch(symbol)

    async def close(self) -> None:
        """Close the connections."""
        for link in self._links:
            await link.drop()

    async def _position(self, symbol: str) -> bytes | None:
        """Asked for anew; those who want it in the same round of the loop share the question."""
        question = self._asking.get(symbol)
        if question is None:
            question = self._asking[symbol] = asyncio.create_task(self._ask(symbol))
        return await asyncio.shield(question)  # one who leaves takes it from nobody else

    async def _ask(self, symbol: str) -> bytes | None:
        """By a connection of our own: the client's way to one costs several times the question."""
        del self._asking[symbol]  # who comes from here on may have seen something newer
        shard = shard_of(self._topics, symbol)
        link, wire = self._links[shard], None
        try:
            wire = await link.wire()
            position: bytes | None = await wire.call(
                "GET", self._topics.latest_position(symbol, shard)
            )
        except (BusUnavailable, *AWAY):
            await link.drop(wire)
            return (await self._latest.positions([symbol]))[0]
        return position

    def _at(self, symbol: str, position: bytes) -> LatestChain | None:
        """What is kept, where it is as new as that; texts of positions are in their order."""
        kept = self._kept.get(symbol)
        if kept is None or kept[0] < position:
            return None
        self._kept.move_to_end(symbol)
        return kept[1]

    async def _fetch(self, symbol: str) -> LatestChain | None:
        self._forget(symbol)
        (text,) = await self._latest.texts([symbol])
        if text is None:
            return None
        chain = decode_latest(symbol, text)
        if not isinstance(chain, LatestChain):
            raise DecodeError(f"{symbol} is no chain")
        position = position_text(chain.header.ts_ingest, chain.position.seq).encode()
        self._kept[symbol] = position, chain
        self._size += len(memoryview(chain.rows))
        while self._size > self._kept_bytes and len(self._kept) > 1:
            self._forget(next(iter(self._kept)))
        return chain

    def _forget(self, symbol: str) -> None:
        kept = self._kept.pop(symbol, None)
        if kept is not None:
            self._size -= len(memoryview(kept[1].rows))
