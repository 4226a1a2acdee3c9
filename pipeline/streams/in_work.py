"""What a member has been handed out and not finished, and the calls that finish it.

Each call acknowledges and writes in one step, and writes nothing for what is no longer ours. It
looks into no entry.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from redis.exceptions import ResponseError

from pipeline import topics
from pipeline.entries import Appended, Entry, NewEntry
from pipeline.runtime import cancel
from pipeline.streams import scripts, tally
from pipeline.streams.leases import Membership
from pipeline.streams.links import Link, is_lost_group
from pipeline.streams.standing import numbers
from pipeline.streams.wire import Argument
from pipeline.telemetry import Telemetry

UntilDone = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]


class InWork:
    """The entries of one member; `until_done` repeats a call until the server has answered."""

    def __init__(
        self,
        stream: str,
        group: str,
        dead_stream: str,
        *,
        member: Membership,
        link: Link,
        until_done: UntilDone,
        telemetry: Telemetry,
    ) -> None:
        self._stream, self._group, self._dead_stream = stream, group, dead_stream
        self._member, self._link, self._until_done = member, link, until_done
        self._telemetry = telemetry
        self._dead = telemetry.counter("dead_letters", "entries set aside with a reason")
        self.entries: dict[str, Entry] = {}
        self.all_finished = asyncio.Event()
        self.all_finished.set()
        self.remembered = ""  # the durable cursor as it was last written
        self.term = 0  # how often everything was let go

    def hand_out(self, entries: Sequence[Entry]) -> None:
        """These are in work now."""
        for entry in entries:
            self.entries[entry.stream_id] = entry
        if entries:
            self.all_finished.clear()

    async def ack(self, entries: Sequence[Entry]) -> int:
        """Acknowledge entries; gives how many were still ours. Repeated until answered."""
        ours = self._ours(entries)
        if not ours:
            return 0
        keys = (self._stream, topics.lease(self._stream, self._group), topics.cursors(self._stream))
        last = max(ours, key=_place)
        ids = [entry.stream_id for entry in ours if entry is not last]
        arguments: list[Argument] = [self._group, self._member.claim, *_reach(last)]
        arguments += [*ids, last.stream_id]
        done = await self._written(scripts.ACK, keys, arguments, ours)
        return int(done or 0)

    async def finish(
        self, target: str, results: Sequence[tuple[Entry, NewEntry]]
    ) -> list[Appended | None]:
        """Acknowledge each entry and append what came of it, all in one step.

        None stands for an entry that was no longer ours: nothing was written for it. The call is
        repeated until the server has answered; what was done before is not done again.
        """
        pairs = [(entry, [scripts.block(new)]) for entry, new in results]
        epoch, places = await self._finish(target, pairs, topics.tally(target), rewinds=True)
        return [
            None if place is None else Appended(place[0].decode(), int(place[1]), epoch)
            for place in places
        ]

    async def finish_each(
        self, target: str, results: Sequence[tuple[Entry, Sequence[NewEntry | Sequence[str]]]]
    ) -> list[int | None]:
        """Acknowledge entries and append all that came of each, in one step; gives how many.

        A result is an entry, or bare field names and values in turn, which no tally counts. None
        stands for an entry that was no longer ours, for which nothing was written; repeated as
        `finish` is.
        """
        pairs = [(entry, [_block(result) for result in made]) for entry, made in results]
        _, places = await self._finish(target, pairs, topics.tally(target), rewinds=True)
        return [None if place is None else int(place[2]) for place in places]

    async def dead_letter(self, entry: Entry, reason: str, error: str) -> None:
        """Set an entry aside with its reason and acknowledge it, in one step."""
        fields = self._letter(entry, entry, reason, error)
        bucket = tally.dead_bucket_of(entry.type, entry.ts, self._group)
        block: list[Argument] = [len(fields) + 3, bucket, tally.identity(entry.id), 0, *fields]
        if await self._set_aside(entry, [block]):
            self._telemetry.log.warning(
                "dead_letter", key=entry.key, reason=reason, error=error[:200], id=entry.stream_id
            )

    async def dead_letters(
        self, entry: Entry, parts: Sequence[tuple[NewEntry, str]], reason: str
    ) -> None:
        """Set parts of an entry aside, each with its error, and acknowledge it, in one step.

        A letter is what its part would be as an entry; no tally counts it.
        """
        letters = [self._letter(entry, part, reason, error) for part, error in parts]
        blocks: list[list[Argument]] = [[len(one) + 3, "", 0, 0, *one] for one in letters]
        if await self._set_aside(entry, blocks):
            first, error = parts[0]
            self._telemetry.log.warning(
                "dead_letter",
                key=first.key,
                reason=reason,
                error=error[:200],
                id=entry.stream_id,
                parts=len(parts),
            )

    def _letter(
        self, entry: Entry, what: Entry | NewEntry, reason: str, error: str
    ) -> list[Argument]:
        return [
            *("id", what.id, "type", what.type, "key", what.key, "ts", what.ts),
            *("stream", self._stream, "source_id", entry.stream_id, "group", self._group),
            *("reason", reason, "error", error[:1_000], "attempts", entry.attempts),
            *("at", time.time_ns(), "enc", what.enc, "meta", what.meta, "data", what.data),
        ]

    async def _set_aside(self, entry: Entry, blocks: Sequence[Sequence[Argument]]) -> bool:
        """Write letters and acknowledge what they are of; False where it was no longer ours."""
        counted_in = topics.tally(self._stream)
        _, places = await self._finish(
            self._dead_stream, [(entry, blocks)], counted_in, rewinds=False
        )
        if places[0] is None:
            return False
        self._dead.add(len(blocks))
        return True

    async def rest(self, stopping: asyncio.Event) -> None:
        """Wait until nothing is in work; not for ever: a user may want more before he acts."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self.all_finished, stopping)]
        try:
            await asyncio.wait(waits, timeout=5.0, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel(*waits)

    def let_go(self) -> None:
        """What was handed out is not ours any more: whatever is said of it writes nothing."""
        self.term += 1
        self.entries.clear()
        self.all_finished.set()

    def _ours(self, entries: Sequence[Entry]) -> list[Entry]:
        return [entry for entry in entries if self.entries.get(entry.stream_id) is entry]

    async def _finish(
        self,
        target: str,
        results: Sequence[tuple[Entry, Sequence[Sequence[Argument]]]],
        tally_key: str,
        *,
        rewinds: bool,
    ) -> tuple[str, list[Any]]:
        """The target's epoch, and of each entry its place, None where it was not ours."""
        ours = {entry.stream_id for entry in self._ours([entry for entry, _ in results])}
        if not ours:
            return "", [None] * len(results)
        sent = [(entry, blocks) for entry, blocks in results if entry.stream_id in ours]
        last = max((entry for entry, _ in sent), key=_place)
        keys = (
            *(self._stream, target, topics.sequence(target), tally_key),
            *(topics.lease(self._stream, self._group), topics.cursors(self._stream)),
            *(topics.cursors(target), topics.group_cards(target)),
        )
        arguments: list[Argument] = [self._group, self._member.claim, *_reach(last)]
        arguments.append("1" if rewinds else "0")
        for entry, blocks in sent:
            arguments += [entry.stream_id, len(blocks)]
            for block in blocks:
                arguments += block
        answer = await self._written(scripts.FINISH, keys, arguments, [e for e, _ in sent])
        if answer is None:
            return "", [None] * len(results)
        found = {entry.stream_id: place for (entry, _), place in zip(sent, answer[1], strict=True)}
        return answer[0].decode(), [found.get(entry.stream_id) for entry, _ in results]

    async def _written(
        self,
        script: scripts.Script,
        keys: Sequence[str],
        arguments: Sequence[Argument],
        entries: Sequence[Entry],
    ) -> Any:
        """The answer of a call that writes; None where this member has lost its right to."""

        async def call() -> Any:
            return await script.call(await self._link.client(), keys, arguments)

        try:
            answer = await self._until_done(call)
        except ResponseError as error:
            text = str(error)
            if text.startswith("FENCED"):
                self._telemetry.log.warning("fenced_off", stream=self._stream, group=self._group)
                self._member.lose()
            elif text.startswith("REWOUND"):
                self._telemetry.log.error(
                    "rewound", stream=self._stream, group=self._group, to=text.split()[1]
                )
            elif not is_lost_group(error):
                raise
            self.let_go()
            return None
        for entry in entries:
            self.entries.pop(entry.stream_id, None)
        if not self.entries:
            self.all_finished.set()
        last = max(entries, key=_place)
        self.remembered = f"{last.stream_id} {last.seq} {last.epoch or '-'} {last.stream_id} -"
        return answer


def _block(result: NewEntry | Sequence[str]) -> list[Argument]:
    if isinstance(result, NewEntry):
        return scripts.block(result)
    return [len(result) + 3, "", 0, 0, *result]


def _place(entry: Entry) -> tuple[int, int]:
    return numbers(entry.stream_id)


def _reach(entry: Entry) -> tuple[Argument, Argument, Argument]:
    return entry.seq, entry.epoch or "-", entry.src or "-"
