"""What a shard has read and not finished: bounded by bytes, gathered into batches.

While as much is held as may be, nothing more is read and the stream keeps it. It writes nothing.
"""

import asyncio
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import msgspec

from pipeline.entries import Entry
from workers.storage.reports import Reported
from workers.storage.writer import Arrived

READ_ENTRIES = 32  # the flat part of the cost curve of a read
# A batch of so many rows costs no more a row than a full one: once all there is has been read it
# need not wait for more.
ENOUGH_ROWS = 5_000


class Item(msgspec.Struct, frozen=True):
    """An entry, and the chain or the report in it; one with neither only wants its ack."""

    entry: Entry
    arrived: Arrived | None = None
    reported: Reported | None = None

    @property
    def rows(self) -> int:
        """Rows of contracts that it brings."""
        return 0 if self.arrived is None else self.arrived.header.n


class Intake:
    """Entries on their way from the stream to their commit, in order.

    At most `most_bytes` of payload are held, and one read more. A batch has at most `batch_rows`
    rows and one chain more, and begins no later than `max_age_s` after its first entry came.
    """

    def __init__(self, *, most_bytes: int, batch_rows: int, max_age_s: float) -> None:
        self._most_bytes, self._batch_rows, self._max_age_s = most_bytes, batch_rows, max_age_s
        self._waiting: deque[tuple[Item, float]] = deque()
        self._rows = 0
        self._is_behind = self._is_over = False
        self._came, self._went = asyncio.Event(), asyncio.Event()
        self.held_bytes = 0

    async def fill(
        self,
        batches: AsyncIterator[list[Entry]],
        open_entry: Callable[[Entry], Awaitable[Item | None]],
    ) -> None:
        """Take in what is read until there is no more; None of an entry that was set aside."""
        try:
            while (entries := await self._next(batches)) is not None:
                sys.audit("stockify.storage", "read")
                now = time.monotonic()
                for entry in entries:
                    item = await open_entry(entry)
                    if item is not None:
                        self._waiting.append((item, now))
                        self._rows += item.rows
                        self.held_bytes += len(entry.data)
                self._is_behind = len(entries) >= READ_ENTRIES
                sys.audit("stockify.storage", "decoded")
                self._came.set()
        finally:
            self._is_over = True
            self._came.set()

    async def batch(self) -> list[Item] | None:
        """The next batch; None when all is done."""
        while not self._waiting:
            if self._is_over:
                return None
            self._came.clear()
            await self._came.wait()
        due = self._waiting[0][1] + self._max_age_s
        while not self._is_enough() and (left := due - time.monotonic()) > 0:
            self._came.clear()
            try:
                async with asyncio.timeout(left):
                    await self._came.wait()
            except TimeoutError:
                break
        taken: list[Item] = []
        rows = 0
        while self._waiting and (not taken or rows < self._batch_rows):
            item, _ = self._waiting.popleft()
            taken.append(item)
            rows += item.rows
        self._rows -= rows
        return taken

    def finished(self, items: Sequence[Item]) -> None:
        """Those need no room any more."""
        self.held_bytes -= sum(len(item.entry.data) for item in items)
        self._went.set()

    def _is_enough(self) -> bool:
        if self._is_over or self._rows >= self._batch_rows or self.held_bytes >= self._most_bytes:
            return True
        return not self._is_behind and self._rows >= ENOUGH_ROWS

    async def _next(self, batches: AsyncIterator[list[Entry]]) -> list[Entry] | None:
        while self.held_bytes >= self._most_bytes:
            self._went.clear()
            await self._went.wait()
        return await anext(batches, None)
