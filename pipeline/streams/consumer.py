"""One member of a group: reads entries, finishes them, sets aside what cannot be finished.

It looks into no entry; what one means is its `type`.
"""

import asyncio
import itertools
import os
import secrets
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from redis.exceptions import OutOfMemoryError, RedisError, ResponseError

from pipeline import topics
from pipeline.entries import Appended, Entry, NewEntry
from pipeline.errors import BusUnavailable
from pipeline.runtime import Context, cancel, jittered, pause
from pipeline.streams import groups
from pipeline.streams.groups import Card
from pipeline.streams.in_work import InWork
from pipeline.streams.leases import Membership
from pipeline.streams.links import AWAY, Identity, Link, is_lost_group, kill
from pipeline.streams.pending import Pending
from pipeline.streams.reading import Reading

BLOCK_MS = 1_000  # below the socket time-out, so that a quiet stream is no error
LONGEST_PAUSE_S = 1.0  # between attempts: a replica may have taken over meanwhile
MOST_IN_FLIGHT = 8_192  # entries handed out and not finished; 200 B each on the server
REAP_S = 30.0


class Consumer:
    """A member of a group on one stream: what is pending first, then what is new.

    An exclusive group has one active member a stream, under a fenced lease; others stand by and
    take over within seconds of its death, so entries are worked in order. Without it members
    compete, and what a dead one left is claimed after `claim_idle_ms`. Critical groups hold the
    trimmer back; best-effort ones do so within their promise.

    `start` says where a group begins that never was: `earliest`, `latest`, a stream id or an
    RFC 3339 time. One that `gives_up` sets an entry aside after too many deliveries; one that
    never looks into entries has no reason to.
    """

    def __init__(
        self,
        context: Context,
        stream: str,
        group: str,
        *,
        dead_stream: str,
        start: str,
        critical: bool = True,
        promise_s: int = 0,
        promise_bytes: int = 0,
        exclusive: bool = True,
        gives_up: bool = True,
    ) -> None:
        self.stream, self.group = stream, group
        self._start = groups.start_id(start)
        kind = groups.CRITICAL if critical else groups.BEST_EFFORT
        self._card = Card(kind, promise_s, promise_bytes, exclusive)
        self._exclusive = exclusive
        self._most_attempts = context.settings.max_attempts if gives_up else sys.maxsize
        self._claim_idle_ms = context.settings.claim_idle_ms
        self._stopping = context.stopping
        self._telemetry = context.telemetry
        self._reading = Link(context.settings, stream, f"{context.name}-reader")
        self._reader = Reading(self._reading, stream, group)
        self._calling = Link(context.settings, stream, context.name)
        instance = f"{context.name}@{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
        self._member = Membership(
            stream, group, instance, exclusive=exclusive, lease_ms=context.settings.lease_ms
        )
        self._beats: asyncio.Task[None] | None = None
        self._beaten, self._reads = asyncio.Lock(), asyncio.Lock()
        self._told: Identity | None = None  # the reading connection that the lease speaks of
        self._pending: Pending | None = None  # what of the pending list is still to be read
        self._term = -1  # which of `_in_work` the reading is for
        self._in_work = InWork(
            *(stream, group, dead_stream),
            member=self._member,
            link=self._calling,
            until_done=self._until_done,
            telemetry=self._telemetry,
        )
        self._running = asyncio.Event()
        self._running.set()
        self._last_seq, self._head_seq, self._epoch = 0, 0, ""
        self._oldest_pending_s = 0.0
        self._next_claim = 0.0
        self._observe()

    def _observe(self) -> None:
        telemetry, stream = self._telemetry, self.stream
        self._missed = telemetry.counter("entries_missed", "entries trimmed before they were read")
        end = f"_{shard}" if (shard := topics.tag(stream).strip("{}:")) else ""
        telemetry.gauge(f"lag{end}", f"entries of {stream} not yet read", lambda: self.lag)
        telemetry.gauge(
            f"oldest_pending_age{end}",
            f"age of the oldest entry of {stream} in work",
            lambda: self._oldest_pending_s,
            "s",
        )

    @property
    def name(self) -> str:
        """By slot; empty before it has joined."""
        return self._member.name

    @property
    def is_active(self) -> bool:
        """Whether it may read: it owns the lease, or its group needs none."""
        return self._member.owns

    @property
    def lag(self) -> int:
        """Entries appended and not yet read by this member, by the last beat."""
        return max(0, self._head_seq - self._last_seq) if self._last_seq else 0

    async def batches(self, *, count: int, block_ms: int = BLOCK_MS) -> AsyncIterator[list[Entry]]:
        """Batches of at most `count` entries until stopping; none is empty.

        Redis away is waited out and shown as state `degraded`. A group that was lost is made again
        at its durable cursor, or at the beginning of a new epoch.
        """
        attempt = 0
        if self._beats is None:
            await self._until_done(self._join)
            self._beats = asyncio.create_task(self._keep_beating())
        while not self._stopping.is_set():
            try:
                async with self._reads:
                    entries = await self._next(count, block_ms)
                    if self._term != self._in_work.term:
                        continue  # let go while it was read; it comes again from the pending list
                    self._in_work.hand_out(entries)
            except (*AWAY, BusUnavailable, OutOfMemoryError) as error:
                await self._drop(error)
                await pause(self._stopping, jittered(attempt, cap_s=LONGEST_PAUSE_S))
                attempt += 1
                continue
            except ResponseError as error:
                if not is_lost_group(error):
                    raise
                self._telemetry.log.warning("group_lost", stream=self.stream, group=self.group)
                await self._until_done(self._join)
                continue
            if attempt:
                attempt = 0
                self._telemetry.set_state("ready")
            alive = [entry for entry in entries if entry.attempts <= self._most_attempts]
            for entry in entries:
                if entry.attempts > self._most_attempts:
                    await self.dead_letter(entry, "attempts", f"delivered {entry.attempts} times")
            if alive:
                yield alive

    async def ack(self, entries: Sequence[Entry]) -> int:
        """Acknowledge entries; gives how many were still ours. Repeated until answered."""
        return await self._in_work.ack(entries)

    async def finish(
        self, target: str, results: Sequence[tuple[Entry, NewEntry]]
    ) -> list[Appended | None]:
        """Acknowledge each entry and append what came of it, all in one step; as `InWork.finish`.

        None stands for an entry that was no longer ours: nothing was written for it.
        """
        return await self._in_work.finish(target, results)

    async def finish_many(
        self, target: str, entry: Entry, results: Sequence[NewEntry | Sequence[str]]
    ) -> int | None:
        """Acknowledge an entry and append all that came of it; as `finish_each`."""
        return (await self._in_work.finish_each(target, [(entry, results)]))[0]

    async def finish_each(
        self, target: str, results: Sequence[tuple[Entry, Sequence[NewEntry | Sequence[str]]]]
    ) -> list[int | None]:
        """Acknowledge entries and append all that came of each, in one step; gives how many.

        A result is an entry, or bare field names and values in turn, which no tally counts.
        """
        return await self._in_work.finish_each(target, results)

    async def dead_letter(self, entry: Entry, reason: str, error: str) -> None:
        """Set an entry aside with its reason and acknowledge it, in one step."""
        await self._in_work.dead_letter(entry, reason, error)

    async def dead_letters(
        self, entry: Entry, parts: Sequence[tuple[NewEntry, str]], reason: str
    ) -> None:
        """Set parts of an entry aside, each with its error, and acknowledge it, in one step."""
        await self._in_work.dead_letters(entry, parts, reason)

    async def seek(self, position: str) -> str:
        """Go on after a position (as `start`); what is in work is let go. Gives the stream id.

        The whole group moves; of an exclusive one only the active member may. Raises
        BusUnavailable where this is not it.
        """
        to = groups.start_id(position)

        async def move() -> str:
            client = await self._calling.client()
            return await groups.seek(
                client, self.stream, self.group, fence=self._member.claim, to=to
            )

        if not self._member.owns:
            raise BusUnavailable(f"{self.group} of {self.stream} is worked by another member")
        async with self._reads:  # so that nothing read before comes out after it
            try:
                at = str(await self._until_done(move))
            except ResponseError as error:
                raise BusUnavailable(f"{self.stream} cannot be moved in: {error}") from error
            self._in_work.let_go()
        return at

    def pause(self) -> None:
        """Read nothing more until `resume`; what was handed out may be finished."""
        self._running.clear()

    def resume(self) -> None:
        """Read on."""
        self._running.set()

    async def close(self) -> None:
        """Give up lease and slot and close; what is pending stays pending."""
        if self._beats is not None:
            await cancel(self._beats)
            self._beats = None
        try:
            if self._calling.is_open:
                await self._member.leave(await self._calling.client())
        except (RedisError, OSError, BusUnavailable):
            self._telemetry.log.info("left_without_word", stream=self.stream, group=self.group)
        finally:
            await self._reading.drop()
            await self._calling.drop()

    async def _next(self, count: int, block_ms: int) -> list[Entry]:
        """The next entries; none where it has to wait, is paused or stands by."""
        if not self._running.is_set() or len(self._in_work.entries) >= MOST_IN_FLIGHT:
            await pause(self._stopping, 0.05)
            return []
        if self._term != self._in_work.term:
            # All was let go: what the server has delivered since is pending, and comes first.
            if self._reader.is_ahead():
                await self._reading.drop()
            self._term = self._in_work.term
            self._pending, self._last_seq = self._all_pending(), 0
        if not self._reading.is_open or self._told != self._reading.identity:
            # Before it reads by a new connection the lease must speak of that one, and what the
            # last one was asked for must have happened, or never happen.
            before = self._told
            await self._reading.client()
            await self._beat()
            if before is not None and before != self._told:
                await kill(await self._calling.client(), before)
            if self._term != self._in_work.term:  # the shard has become ours by that beat
                return []
        if not self._member.owns:
            await pause(self._stopping, self._member.next_beat_s)
            return []
        if self._pending is not None:
            return await self._read_pending(self._pending, count)
        is_due = time.monotonic() >= self._next_claim
        if is_due and not self._reader.is_ahead():  # what is read already would be claimed again
            self._next_claim = time.monotonic() + self._claim_idle_ms / 2_000
            stale = Pending(self.stream, self.group, self.name, idle_ms=self._claim_idle_ms)
            claimed = await stale.claim(await self._calling.client(), count, self._in_work.entries)
            if claimed:
                self._telemetry.log.info("reclaimed", stream=self.stream, entries=len(claimed))
            if claimed or self._term != self._in_work.term:  # or let go meanwhile
                return claimed
        return await self._read_new(count, block_ms, ahead=self._exclusive and not is_due)

    async def _read_pending(self, pending: Pending, count: int) -> list[Entry]:
        """The next of the pending list. What has failed before is handed out alone, with nothing
        else in work, so that an entry that kills its worker takes no others with it."""
        client = await self._calling.client()
        if await pending.is_next_suspect(client, self._in_work.entries):
            await self._in_work.rest(self._stopping)
            count = 1
        entries = await pending.claim(client, count, self._in_work.entries)
        if pending.is_done and self._pending is pending:
            self._pending = None
        return entries

    async def _read_new(self, count: int, block_ms: int, *, ahead: bool) -> list[Entry]:
        entries = await self._reader.read(self.name, count, block_ms, self._told, ahead=ahead)
        if entries:
            first, last = entries[0], entries[-1]
            if self._last_seq and first.seq > self._last_seq + 1 and first.epoch == self._epoch:
                missed = first.seq - self._last_seq - 1
                self._missed.add(missed)
                self._telemetry.log.error("missed", stream=self.stream, entries=missed)
            self._last_seq, self._epoch = last.seq, last.epoch
        return entries

    async def _join(self) -> None:
        """Make sure of the group and tell of this member; the pending list is read anew."""
        client = await self._calling.client()
        how, at = await groups.ensure(
            client,
            *(self.stream, self.group),
            start=self._start,
            card=self._card,
            remembered=self._in_work.remembered,
        )
        if how != "there":
            log = self._telemetry.log.info if how == "new" else self._telemetry.log.warning
            log("group_made", stream=self.stream, group=self.group, how=how, after=at)
        self._in_work.remembered = self._in_work.remembered or "0-0 0 - 0-0 -"
        self._in_work.let_go()
        await self._reading.client()
        await self._beat()

    async def _keep_beating(self) -> None:
        next_reap = time.monotonic() + REAP_S
        while True:
            await asyncio.sleep(self._member.next_beat_s)
            try:
                await self._beat()
                if time.monotonic() >= next_reap:
                    next_reap = time.monotonic() + REAP_S
                    await self._member.reap(await self._calling.client())
            except OutOfMemoryError:
                continue  # the server is there, and so are the calls under way on this connection
            except (RedisError, OSError, BusUnavailable):
                await self._calling.drop()  # the reading side says that Redis is away

    async def _beat(self) -> None:
        async with self._beaten:
            reader = self._reading.identity
            client = await self._calling.client()
            owned = self._member.owns
            told = f"{reader.id} {reader.address} {reader.server}" if reader else ""
            beat = await self._member.beat(client, told)
            self._told = reader
            if owned and not beat.owns:
                self._in_work.let_go()
            if (beat.is_new and self._exclusive) or beat.renamed:
                if beat.reader_before:
                    await kill(client, Identity(*beat.reader_before.split(" ")))
                self._in_work.let_go()
                self._telemetry.log.info(
                    "joined",
                    stream=self.stream,
                    group=self.group,
                    member=self.name,
                    active=beat.owns,
                    owner=beat.owner,
                )
            self._head_seq = beat.head_seq
            oldest_ms = int(beat.oldest_pending.partition("-")[0] or beat.now_ms)
            self._oldest_pending_s = max(0, beat.now_ms - oldest_ms) / 1e3
            if not self._exclusive and self._in_work.entries:
                await Pending(self.stream, self.group, self.name).keep(
                    client, self._in_work.entries
                )

    def _all_pending(self) -> Pending:
        """What is pending when this member begins: all of it where it alone works the shard."""
        return Pending(self.stream, self.group, self.name, own_only=not self._exclusive)

    async def _until_done(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Repeat a call that may safely run twice until the server has answered it."""
        for attempt in itertools.count():
            try:
                answer = await call()
            except (*AWAY, BusUnavailable, OutOfMemoryError) as error:
                await self._drop(error)
                if self._stopping.is_set() and attempt > 5:
                    raise BusUnavailable(f"Redis is away: {type(error).__name__}") from error
            else:
                if attempt:
                    self._telemetry.set_state("draining" if self._stopping.is_set() else "ready")
                return answer
            await asyncio.sleep(jittered(attempt, cap_s=LONGEST_PAUSE_S))

    async def _drop(self, error: BaseException) -> None:
        """Redis is away: close, so that the next call finds the owner of the stream anew.

        What it gave us in an answer that did not arrive is pending, and read again. Where it is
        only out of memory the connection stays, with the calls under way on it.
        """
        if isinstance(error, OutOfMemoryError):
            self._telemetry.set_state("degraded", "Redis is out of memory")
            return
        self._telemetry.set_state("degraded", f"Redis is away: {type(error).__name__}")
        await self._calling.drop()
        await self._reading.drop()
        self._pending = self._all_pending()
