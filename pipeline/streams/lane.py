"""One stream's way from the spool to the server: in order, settled anew after every interruption.

A lane sends from one task and asks from another, about once a second, what the server has on its
disk and what the critical groups have finished; only then are records done with. It decides
nothing about room: that is the outbox's, which has several lanes.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec

from pipeline.entries import Appended, NewEntry
from pipeline.errors import BusError, EpochChanged, StreamRetired
from pipeline.runtime import cancel, jittered
from pipeline.streams.offers import BATCH_BYTES, BATCH_ENTRIES, Fate, Offers, SharedSync
from pipeline.streams.producer import Producer
from pipeline.streams.segments import Place
from pipeline.streams.spool import NOWHERE, Spool
from pipeline.streams.standing import Standing, numbers
from pipeline.telemetry import Counter, Telemetry

LOOK_S = 1.0
CONFIRM_MS = 3_000  # a server that syncs each second answers within that, on a slow disk too
HOLD_S = 4.0  # where the server cannot tell: a sync each second, put off by as much as two more
LONGEST_PAUSE_S = 1.0

_decode = msgspec.msgpack.Decoder(NewEntry).decode


class Tallies:
    """What becomes of entries, counted over all lanes."""

    def __init__(self, telemetry: Telemetry) -> None:
        self.appended: Counter = telemetry.counter(
            "entries_appended", "entries appended to a stream"
        )
        self.dropped: Counter = telemetry.counter(
            "entries_dropped", "entries the full spool refused"
        )
        self.lost: Counter = telemetry.counter(
            "entries_lost_by_server", "acknowledged, gone after a crash, and appended again"
        )
        self.restored: Counter = telemetry.counter(
            "entries_restored", "unfinished in a stream that was lost, and appended again"
        )


class Lane:
    """Sends what is in a spool to one stream; `trouble` says why it does not, if so.

    `said` is called when that changes, `move` with each entry that a retired stream lacks.
    """

    def __init__(
        self,
        stream: str,
        spool: Spool,
        producer: Producer,
        telemetry: Telemetry,
        said: Callable[[], None],
        move: Callable[[str, NewEntry], Awaitable[None]],
    ) -> None:
        self.spool = spool
        self.trouble = ""
        self._stream = stream
        self._producer = producer
        self._log = telemetry.log
        self._tallies = Tallies(telemetry)
        self._said, self._move = said, move
        self._offers = Offers()
        self._disk = SharedSync(spool, self._say_not_synced)
        self._sent = spool.confirmed
        self._after = spool.after  # where the record before `sent` stands
        self._flowing = not self.waiting  # whether an offer need not queue up on disk
        self._generation = -1  # of the connection on which all before `sent` was settled
        self._rewinds = 0
        self._marks: deque[tuple[float, Place, Appended]] = deque()
        self._asking = asyncio.Lock()  # one question at a time
        self._wake, self._kept, self._rested = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._failure: Exception | None = None
        self._wake.set()
        self._kept.set()
        self._tasks = [
            asyncio.create_task(self._guarded(self._send())),
            asyncio.create_task(self._guarded(self._watch())),
        ]

    @property
    def waiting(self) -> int:
        """Entries on disk that have not been appended."""
        return self.spool.end.number - self._sent.number

    @property
    def unconfirmed(self) -> int:
        """Entries appended and not known to be on the server's disk."""
        return self._sent.number - self.spool.confirmed.number

    def offer(self, entry: NewEntry, data: bytes) -> "asyncio.Future[Fate] | None":
        """Add a record and send it as soon as may be; None where others wait before it.

        Raises OSError where the disk does not take it.
        """
        self._raise_failure()
        place = self.spool.put(data)
        self._kept.set()
        return self._queued(entry, len(data), place, self.spool.end)

    def offer_unguarded(self, entry: NewEntry) -> "asyncio.Future[Fate] | None":
        """Send an entry for which there is no room on disk; None where others wait before it."""
        self._raise_failure()
        return self._queued(entry, len(entry.data), None, None)

    def synced(self) -> "asyncio.Task[None]":
        """Done when all that was offered before is on the disk; many offers share one sync."""
        return self._disk.started()

    async def rested(self) -> None:
        """Wait until all is appended, or something keeps it from being."""
        await self._rested.wait()

    async def close(self) -> None:
        """Stop sending; what was not appended stays on disk."""
        await cancel(*self._tasks)
        self._release()
        await self._disk.ended()
        self.spool.close()

    def _queued(
        self, entry: NewEntry, size: int, place: Place | None, following: Place | None
    ) -> "asyncio.Future[Fate] | None":
        self._wake.set()
        self._rested.clear()
        if not self._flowing:
            return None
        return self._offers.add(entry, size, place, following)

    async def _send(self) -> None:
        attempt = 0
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._has_work():
                try:
                    await self._step()
                except EpochChanged:
                    self._generation = -1
                except BusError as error:
                    self._release()
                    self._say(f"spooling to disk: {error}")
                    self._rested.set()
                    await asyncio.sleep(jittered(attempt, cap_s=LONGEST_PAUSE_S))
                    attempt += 1
                else:
                    attempt = 0
            self._rested.set()

    def _has_work(self) -> bool:
        if self._offers or self.waiting:
            return True
        interrupted = self._generation != self._producer.generation(self._stream)
        return interrupted and self.spool.head.number < self.spool.end.number

    async def _step(self) -> None:
        if self._generation != self._producer.generation(self._stream):
            await self._rewind()
            return
        # What nobody waits for comes first: it was put on disk before the first offer.
        stop = self._offers.first_place() or self.spool.end
        try:
            if self._sent.number < stop.number:
                await self._settle(stop)
            elif self._offers:
                await self._append_offers()
        except StreamRetired:
            await self._hand_over()
        self._say("")
        if not self.waiting:
            self._flowing = True

    async def _rewind(self) -> None:
        """Go back to the oldest record that the server may have lost, before anything new."""
        generation = self._producer.generation(self._stream)
        async with self._asking:
            standing = await self._producer.standing(self._stream)
        spool = self.spool
        if spool.after is None:  # nothing was ever sent
            spool.begin(standing.newest)
        known = spool.after or standing.newest
        self._forget(standing, spool.end.number)
        if known.epoch != standing.epoch:
            self._release()
            spool.doubt(Appended("0-0", 0, standing.epoch))
        elif standing.newest.seq < known.seq:  # older than what it had confirmed
            self._release()
            spool.doubt(self._before_head() or known)
        self._sent, self._after = spool.confirmed, spool.after
        self._marks.clear()
        self._rewinds += 1
        self._generation = generation

    def _before_head(self) -> Appended | None:
        """A place in the stream just before the oldest record, where that was appended."""
        for _following, acked in self.spool.acknowledged(self.spool.head, self.spool.end.number):
            if acked is None:
                break
            ms, part = numbers(acked.stream_id)
            stream_id = f"{ms}-{part - 1}" if part else f"{ms - 1}-{2**64 - 1}"
            return Appended(stream_id, acked.seq - 1, acked.epoch)
        return None

    async def _append_offers(self) -> None:
        offers = self._offers.batch()
        entries = [offer.entry for offer in offers]
        stands = await self._producer.append_many(
            self._stream, entries, generation=self._generation
        )
        for offer, stood in zip(offers, stands, strict=True):
            if offer.place is not None and offer.following is not None:
                self.spool.acknowledge(offer.place, stood)
                self._sent, self._after = offer.following, stood
        self._offers.appended(len(offers))
        self._tallies.appended.add(len(offers))
        self._check_epoch(stands[-1])

    async def _settle(self, stop: Place) -> None:
        """Bring some records below `stop` into the stream where they are not in it yet."""
        records = self.spool.read(self._sent, stop.number, BATCH_BYTES)[:BATCH_ENTRIES]
        if not records:  # what was there is cut off: the disk lost it
            self._sent = stop
            return
        stands = await self._producer.settle(
            self._stream,
            [_decode(record.data) for record in records],
            after=self._after,
            acked=[record.acked for record in records],
            generation=self._generation,
        )
        lost = restored = 0
        for record, stood in zip(records, stands, strict=True):
            self.spool.acknowledge(record.place, stood)
            if record.acked is None:
                self._tallies.appended.add()
            elif not stood.found:
                restored += record.acked.epoch != stood.epoch
                lost += record.acked.epoch == stood.epoch
        self._sent, self._after = records[-1].following, stands[-1]
        if lost:
            self._tallies.lost.add(lost)
            self._log.error("entries_lost_by_server", stream=self._stream, count=lost)
        if restored:
            self._tallies.restored.add(restored)
            self._log.error("entries_restored", stream=self._stream, count=restored)
        self._check_epoch(stands[-1])

    def _check_epoch(self, stood: Appended) -> None:
        """Start over where the stream was lost between the question and the append."""
        if self.spool.after is not None and stood.epoch != self.spool.after.epoch:
            self._generation = -1

    async def _hand_over(self) -> None:
        """Give what a retired stream does not have to the one in its place, and keep nothing.

        What it has was finished before it was retired for good.
        """
        self._release()
        moved, place = 0, self._sent
        while records := self.spool.read(place, self.spool.end.number, BATCH_BYTES):
            for record in records:
                entry = _decode(record.data)
                if record.acked is None and not await self._has(entry):
                    await self._move(self._stream, entry)
                    moved += 1
            place = records[-1].following
        self._log.warning("stream_retired", stream=self._stream, moved=moved)
        self._sent = self.spool.end
        self.spool.confirm(self._sent, self._after or NOWHERE)
        self.spool.drop(self._sent)

    async def _has(self, entry: NewEntry) -> bool:
        try:
            await self._producer.settle(self._stream, [entry], after=self._after, acked=[None])
        except StreamRetired:
            return False
        return True

    async def _watch(self) -> None:
        while True:
            await self._kept.wait()
            if self.spool.head.number == self.spool.end.number:
                self._kept.clear()
                continue
            await asyncio.sleep(LOOK_S)
            try:
                async with self._asking:
                    await self._look()
            except BusError as error:
                self._log.debug("look_failed", stream=self._stream, error=str(error))
            if self._generation != self._producer.generation(self._stream):
                self._wake.set()

    async def _look(self) -> None:
        if self._sent.number > self.spool.confirmed.number and self._after is not None:
            await self._confirm((time.monotonic(), self._sent, self._after))
        if self.spool.head.number == self.spool.confirmed.number or self.spool.after is None:
            return
        rewinds = self._rewinds
        standing = await self._producer.standing(self._stream)
        if standing.epoch != self.spool.after.epoch:
            self._generation = -1
        elif rewinds == self._rewinds:
            self._forget(standing, self._sent.number)

    async def _confirm(self, mark: tuple[float, Place, Appended]) -> None:
        """Confirm what was appended up to now, or a hold ago where the server cannot tell."""
        rewinds, generation = self._rewinds, self._generation
        if generation != self._producer.generation(self._stream):
            return
        on_disk = await self._producer.confirm(self._stream, CONFIRM_MS)
        if rewinds != self._rewinds or generation != self._producer.generation(self._stream):
            return  # what it says is of another connection, perhaps of another server
        if on_disk is None:
            self._marks.append(mark)
            if self._marks[0][0] > time.monotonic() - HOLD_S:
                return
            mark = self._marks.popleft()
        if on_disk is not False and mark[1].number > self.spool.confirmed.number:
            self.spool.confirm(mark[1], mark[2])

    def _forget(self, standing: Standing, stop: int) -> None:
        """Drop records that every critical group has finished, the oldest first.

        One that is not confirmed must also be gone by a trim, or its epoch be over: else the
        cursor may speak of an entry that took its place after a loss.
        """
        spool = self.spool
        to, stood = spool.head, spool.after
        if to.number < spool.confirmed.number and stood and standing.is_finished(stood):
            to = spool.confirmed  # the last of them, so all of them
        for following, acked in spool.acknowledged(to, stop):
            if acked is None or not standing.is_finished(acked):
                break
            is_sure = standing.is_trimmed(acked) or standing.is_settled(acked)
            if following.number > spool.confirmed.number and not is_sure:
                break
            to, stood = following, acked
        if stood is not None and to.number > spool.confirmed.number:
            spool.confirm(to, stood)
        if to.number > spool.head.number:
            spool.drop(to)

    def _release(self) -> None:
        self._flowing = False
        self._offers.release(self._failure)

    def _say(self, trouble: str) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            self._said()

    def _say_not_synced(self, error: OSError) -> None:
        self._log.error("spool_not_synced", stream=self._stream, error=str(error))

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Work that never ends; what it fails of is raised to whoever offers next."""
        try:
            await work
        except Exception as error:
            self._failure = error
            self._log.exception("outbox_failed", stream=self._stream)
            self._release()
            self._rested.set()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
