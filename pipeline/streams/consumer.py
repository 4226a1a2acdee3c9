"""One member of a group: reads entries, finishes them, sets aside what cannot be finished.

It looks into no entry; what one means is its `type`.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import msgspec
from redis.exceptions import ResponseError

from pipeline import topics
from pipeline.entries import Appended, Entry, NewEntry, decode_entry
from pipeline.errors import BusUnavailable
from pipeline.runtime import Context, connect, jittered, pause
from pipeline.streams import scripts
from pipeline.streams.links import AWAY, new_epoch
from pipeline.telemetry import Telemetry

BLOCK_MS = 1_000  # below the socket time-out, so that a quiet stream is no error

_CRITICAL_CARD = msgspec.json.encode({"class": "critical"})
_BEST_EFFORT_CARD = msgspec.json.encode({"class": "best_effort"})


class Consumer:
    """One member of a group: its own pending entries first, then those of the dead, then new ones.

    `critical` groups hold the trimmer back; best-effort ones do not. The name must be the same
    after a restart, so that what was pending is found again. One that `gives_up` sets an entry
    aside after too many deliveries; one that never looks into entries has no reason to.
    """

    def __init__(
        self,
        context: Context,
        stream: str,
        group: str,
        *,
        dead_stream: str,
        critical: bool = True,
        gives_up: bool = True,
        start: str = "0",
    ) -> None:
        self.stream, self.group = stream, group
        self.name = consumer_name(context.name)
        self._dead_stream = dead_stream
        self._critical = critical
        self._most_attempts = context.settings.max_attempts if gives_up else sys.maxsize
        self._start = start
        self._settings = context.settings
        self._stopping = context.stopping
        self._telemetry: Telemetry = context.telemetry
        self._redis = context.redis
        self._reader = connect(context.settings, retries=0, name=f"{context.name}-reader")
        self._epoch_seed = new_epoch()
        self._last_id = start
        self._last_seq = 0
        self._head_seq = 0
        self._next_claim = 0.0
        self._dead = self._telemetry.counter("dead_letters", "entries set aside with a reason")
        shard = "".join(part.strip("{}") for part in stream.split(":") if part.startswith("{"))
        gauge = f"lag_{shard}" if shard else "lag"
        self._telemetry.gauge(gauge, f"entries of {stream} not yet read", self._lag)

    async def batches(self, *, count: int, block_ms: int = BLOCK_MS) -> AsyncIterator[list[Entry]]:
        """Batches of at most `count` entries until stopping; none is empty.

        Redis away is waited out and shown as state `degraded`. A group that was lost is made again
        from the last entry this consumer has read.
        """
        attempt = 0
        history: str | None = "0"
        await self._until_done(self._create_group)
        while not self._stopping.is_set():
            try:
                entries, history = await self._next(count, block_ms, history)
            except AWAY as error:
                self._telemetry.set_state("degraded", f"Redis is away: {type(error).__name__}")
                await pause(self._stopping, jittered(attempt))
                attempt += 1
                continue
            except ResponseError as error:
                if not _is_lost_group(error):
                    raise
                self._telemetry.log.warning("group_lost", stream=self.stream, group=self.group)
                self._start, history = self._last_id, "0"
                await self._until_done(self._create_group)
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

    async def ack(self, entries: Sequence[Entry]) -> None:
        """Acknowledge entries; repeated until the server has answered."""
        ids = [entry.stream_id for entry in entries]
        if ids:
            await self._until_done(lambda: self._redis.xack(self.stream, self.group, *ids))

    async def finish(
        self, target: str, results: Sequence[tuple[Entry, NewEntry]]
    ) -> list[Appended | None]:
        """Acknowledge each entry and append what came of it, all in one step.

        None stands for an entry that was no longer ours: nothing was written for it. The call is
        repeated until the server has answered; what was done before is not done again.
        """
        places = await self._finish(target, [(entry, new.fields()) for entry, new in results])
        return [
            None if place is None else Appended(place[0].decode(), int(place[1]), place[2].decode())
            for place in places
        ]

    async def finish_many(
        self, target: str, entry: Entry, results: Sequence[Sequence[str]]
    ) -> int | None:
        """Acknowledge an entry and append all that came of it, in one step; gives how many.

        A result is its field names and values in turn. None stands for an entry that was no longer
        ours, for which nothing was written; repeated as `finish` is.
        """
        keys = (self.stream, target, topics.sequence(target))
        arguments: list[str | int] = [self.group, entry.stream_id, self._epoch_seed]
        for result in results:
            arguments += [len(result), *result]
        answer = await self._until_done(
            lambda: self._redis.eval(scripts.FINISH_MANY, len(keys), *keys, *arguments)
        )
        return None if answer is None else int(answer[1])

    async def dead_letter(self, entry: Entry, reason: str, error: str) -> None:
        """Set an entry aside with its reason and acknowledge it, in one step."""
        fields: list[str | int | bytes] = [
            *("id", entry.id, "type", entry.type, "key", entry.key, "ts", entry.ts),
            *("stream", self.stream, "source_id", entry.stream_id, "group", self.group),
            *("reason", reason, "error", error[:1_000], "attempts", entry.attempts),
            *("at", time.time_ns(), "enc", entry.enc, "meta", entry.meta, "data", entry.data),
        ]
        await self._finish(self._dead_stream, [(entry, fields)])
        self._dead.add()
        self._telemetry.log.warning(
            "dead_letter", key=entry.key, reason=reason, error=error[:200], id=entry.stream_id
        )

    async def close(self) -> None:
        """Close the reading connection; what is pending stays pending."""
        await self._reader.aclose()

    async def _finish(
        self, target: str, results: Sequence[tuple[Entry, Sequence[str | int | bytes]]]
    ) -> list[Any]:
        keys = (self.stream, target, topics.sequence(target))
        arguments: list[str | int | bytes] = [self.group, self._epoch_seed]
        for entry, fields in results:
            arguments += [entry.stream_id, len(fields), *fields]
        places: list[Any] = await self._until_done(
            lambda: self._redis.eval(scripts.FINISH, len(keys), *keys, *arguments)
        )
        return places

    async def _next(
        self, count: int, block_ms: int, history: str | None
    ) -> tuple[list[Entry], str | None]:
        """The next entries, and where in our own pending list to go on; None when it is read."""
        if history is not None:
            entries = await self._read(history, count, None)
            return await self._counted(entries), entries[-1].stream_id if entries else None
        if time.monotonic() >= self._next_claim:
            self._next_claim = time.monotonic() + self._settings.claim_idle_ms / 2_000
            await self._refresh_lag()
            claimed = await self._claim(count)
            if claimed:
                return claimed, None
        entries = await self._read(">", count, block_ms)
        if entries:
            self._last_id, self._last_seq = entries[-1].stream_id, entries[-1].seq
        return entries, None

    async def _read(self, start: str, count: int, block_ms: int | None) -> list[Entry]:
        answer: Any = await self._reader.xreadgroup(
            self.group, self.name, {self.stream: start}, count=count, block=block_ms
        )
        found = answer[0][1] if answer else []
        return [decode_entry(stream_id, fields) for stream_id, fields in found if fields]

    async def _counted(self, entries: list[Entry]) -> list[Entry]:
        """The same entries with the deliveries that the server has counted."""
        if not entries:
            return entries
        pending: Any = await self._redis.xpending_range(
            self.stream,
            self.group,
            min=entries[0].stream_id,
            max=entries[-1].stream_id,
            count=len(entries),
            consumername=self.name,
        )
        times = {item["message_id"].decode(): item["times_delivered"] for item in pending}
        return [
            msgspec.structs.replace(entry, attempts=times.get(entry.stream_id, 1))
            for entry in entries
        ]

    async def _claim(self, count: int) -> list[Entry]:
        """Take over entries that others have left idle; never our own, which are in work."""
        idle_ms = self._settings.claim_idle_ms
        pending: Any = await self._redis.xpending_range(
            self.stream, self.group, min="-", max="+", count=count, idle=idle_ms
        )
        own = self.name.encode()
        attempts = {
            item["message_id"]: item["times_delivered"] + 1
            for item in pending
            if item["consumer"] != own
        }
        if not attempts:
            return []
        claimed: Any = await self._redis.xclaim(
            self.stream, self.group, self.name, idle_ms, list(attempts)
        )
        self._telemetry.log.info("reclaimed", stream=self.stream, entries=len(claimed))
        return [
            decode_entry(stream_id, fields, attempts[stream_id]) for stream_id, fields in claimed
        ]

    async def _create_group(self) -> None:
        try:
            await self._redis.xgroup_create(self.stream, self.group, self._start, mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        card = _CRITICAL_CARD if self._critical else _BEST_EFFORT_CARD
        await self._redis.hset(topics.group_cards(self.stream), self.group, card)

    async def _refresh_lag(self) -> None:
        head = await self._redis.hget(topics.sequence(self.stream), "seq")
        self._head_seq = int(head or 0)

    def _lag(self) -> float:
        return max(0, self._head_seq - self._last_seq) if self._last_seq else 0

    async def _until_done(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Repeat a call that may safely run twice until the server has answered it."""
        attempt = 0
        while True:
            try:
                answer = await call()
            except AWAY as error:
                self._telemetry.set_state("degraded", f"Redis is away: {type(error).__name__}")
                if self._stopping.is_set() and attempt > 5:
                    raise BusUnavailable(f"Redis is away: {type(error).__name__}") from error
            except ResponseError as error:
                if "OOM" not in str(error):
                    raise
                self._telemetry.set_state("degraded", "Redis is out of memory")
            else:
                if attempt:
                    self._telemetry.set_state("draining" if self._stopping.is_set() else "ready")
                return answer
            await asyncio.sleep(jittered(attempt))
            attempt += 1


def consumer_name(worker: str) -> str:
    """A name that a restarted worker gets again, and no other worker of this host has."""
    return f"{worker}-{os.uname().nodename}"


def _is_lost_group(error: ResponseError) -> bool:
    return str(error).startswith(("NOGROUP", "UNBLOCKED"))
