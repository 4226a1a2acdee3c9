"""The newest chains, decoded once for as long as they are the newest.

A chain of five hundred contracts is some hundreds of kilobytes, which cost a reader far more than
whatever he does with them. So only its position is asked for, and what is kept is given out again
while it stands. Whoever asks gets an answer that was true after he asked: those who come while
Redis is being asked wait for the next question, which is one for all of them.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Sequence

from pipeline.errors import BusUnavailable, DecodeError
from pipeline.frames import LatestChain
from pipeline.latest import Latest, decode_latest, position_text

KEPT_BYTES = 32 * 1024 * 1024  # a hundred whole chains; the one unused for longest goes

_Found = LatestChain | DecodeError | None


class KnownChains:
    """Reads the newest chains of `latest` for many askers at once."""

    def __init__(self, latest: Latest, kept_bytes: int = KEPT_BYTES) -> None:
        self._latest = latest
        self._kept_bytes = kept_bytes
        self._kept: OrderedDict[str, tuple[bytes, LatestChain]] = OrderedDict()
        self._size = 0
        self._waiting: dict[str, asyncio.Future[LatestChain | None]] = {}
        self._asking: asyncio.Task[None] | None = None

    async def chain(self, symbol: str) -> LatestChain | None:
        """The newest of a chain; None where there is none.

        Raises DecodeError, and BusUnavailable where Redis does not answer.
        """
        answer = self._waiting.get(symbol)
        if answer is None:
            answer = self._waiting[symbol] = asyncio.get_running_loop().create_future()
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(answer)

    async def _ask(self) -> None:
        """Ask for all that is waited for, again and again until nothing is."""
        while self._waiting:
            waiting, self._waiting = self._waiting, {}
            try:
                found: Sequence[_Found | BusUnavailable] = await self._read(list(waiting))
            except BusUnavailable as error:
                found = [error] * len(waiting)
            for answer, chain in zip(waiting.values(), found, strict=True):
                if isinstance(chain, DecodeError | BusUnavailable):
                    answer.set_exception(chain)
                    answer.exception()  # an asker who has gone needs not be told
                else:
                    answer.set_result(chain)
        self._asking = None

    async def _read(self, symbols: list[str]) -> list[_Found]:
        positions = await self._latest.positions(symbols)
        found: dict[str, _Found] = {}
        changed = []
        for symbol, position in zip(symbols, positions, strict=True):
            kept = self._kept.get(symbol)
            if kept is not None and kept[0] == position:
                self._kept.move_to_end(symbol)
                found[symbol] = kept[1]
            else:
                changed.append(symbol)
        texts = await self._latest.texts(changed) if changed else []
        for symbol, text in zip(changed, texts, strict=True):
            found[symbol] = self._decoded(symbol, text)
        return [found[symbol] for symbol in symbols]

    def _decoded(self, symbol: str, text: bytes | None) -> _Found:
        self._forget(symbol)
        if text is None:
            return None
        try:
            chain = decode_latest(symbol, text)
        except DecodeError as error:
            return error
        if not isinstance(chain, LatestChain):
            return DecodeError(f"{symbol} is no chain")
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
