"""One shard's part in a consumption: a task that reads ahead by one batch, and what it missed.

It hands over what it read and never looks into it.
"""

import asyncio
from typing import NamedTuple

from redis.exceptions import RedisError

from pipeline.entries import Entry
from pipeline.errors import BusUnavailable
from pipeline.runtime import Context, cancel
from pipeline.streams.consumer import Consumer
from pipeline.streams.state import read_state

BLOCK_MS = 250  # so soon a quiet stream is left when asked to stop
JOIN_S = 10.0  # twice what taking over a dead member's shard takes


class Read(NamedTuple):
    """What a shard handed over: entries, or its end, which has a cause where it failed."""

    shard: "Shard"
    turn: int
    entries: list[Entry]
    cause: BaseException | None = None


class Gap(NamedTuple):
    """What lies between a read and the one before it."""

    skipped: int
    epoch: str
    is_new_epoch: bool


class Shard:
    """Reads one shard into `ready`, a batch at a time, the next one while the last is in work."""

    def __init__(
        self,
        context: Context,
        consumer: Consumer,
        number: int,
        ready: "asyncio.Queue[Read]",
        *,
        count: int,
        exclusive: bool,
    ) -> None:
        self.consumer, self.number = consumer, number
        self.has_ended = False
        self._context, self._ready = context, ready
        self._count, self._exclusive = count, exclusive
        self._taken = asyncio.Event()
        self._turn = 0  # a seek begins another; what was read before it is dropped
        self._last_seq, self._epoch, self._skipped = 0, "", 0
        self._task = asyncio.create_task(self._read())

    def take(self, read: Read) -> list[Entry]:
        """The entries of a read, none where it is out of date. Raises what ended the shard."""
        if not read.entries:
            self.has_ended = True
            if read.cause is not None:
                raise read.cause
        self._taken.set()
        return read.entries if read.turn == self._turn else []

    def gap(self, entries: list[Entry]) -> Gap:
        """What was trimmed before this read and since the one before, and whether it is renumbered.

        To be asked of every read once, in order.
        """
        last = entries[-1]
        is_new_epoch = self._epoch not in ("", last.epoch)
        skipped, self._skipped = self._skipped, 0
        if entries[0].attempts == 1 and entries[0].seq:  # else it comes again, out of its turn
            if self._exclusive and self._last_seq and not is_new_epoch:
                skipped += max(0, entries[0].seq - self._last_seq - 1)
            self._last_seq = last.seq
        self._epoch = last.epoch
        return Gap(skipped, last.epoch, is_new_epoch)

    async def seek(self, position: str) -> None:
        """Go on after a position. Raises BusUnavailable where another member works the shard."""
        try:
            async with asyncio.timeout(JOIN_S):
                while not (self.consumer.name and self.consumer.is_active):
                    if self._task.done():
                        raise BusUnavailable(f"{self.consumer.stream} is not read any more")
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise BusUnavailable(f"{self.consumer.stream} is worked by another member") from None
        await self.consumer.seek(position)
        self._turn += 1
        self._last_seq = self._skipped = 0

    async def close(self) -> None:
        """Stop reading, and let go of the shard."""
        await cancel(self._task)
        await self.consumer.close()

    async def _read(self) -> None:
        cause: BaseException | None = None
        try:
            self._skipped = await self._missed_before()
            async for entries in self.consumer.batches(count=self._count, block_ms=BLOCK_MS):
                self._taken.clear()
                self._ready.put_nowait(Read(self, self._turn, entries))
                await self._taken.wait()
        except Exception as error:
            cause = error
        self._ready.put_nowait(Read(self, self._turn, [], cause))

    async def _missed_before(self) -> int:
        """What was trimmed unread while the group had no member; one that it has tells of it."""
        stream, group = self.consumer.stream, self.consumer.group
        try:
            state = await read_state(self._context.redis, stream)
        except (RedisError, OSError, BusUnavailable):
            return 0
        for one in state.groups:
            if one.name == group and one.is_there and not one.owner and self._exclusive:
                if one.missed:
                    self._context.telemetry.log.error("missed", stream=stream, entries=one.missed)
                return one.missed
        return 0
