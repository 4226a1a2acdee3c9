"""Appends entries to streams: numbered, counted, and never twice.

It looks into no entry; what one means is its `type`. It keeps nothing: who wants an entry to
outlive a server that loses it uses an `Outbox`.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from redis.exceptions import ResponseError

from pipeline import topics
from pipeline.config import Settings
from pipeline.entries import Appended, NewEntry
from pipeline.errors import BusUnavailable
from pipeline.streams import scripts, transaction
from pipeline.streams.line import Line
from pipeline.streams.links import AWAY
from pipeline.streams.standing import Standing, standing_of
from pipeline.streams.transaction import Call
from pipeline.streams.wire import Argument, Wire


class Producer:
    """Appends to streams, over one connection each, in the order of the calls.

    The next call may be made before the last one was answered; it writes nothing where that one was
    refused. A call that was sent and not answered leaves its outcome open: `settle` then says what
    stands and appends the rest. Before anything else is sent the old connection is killed at the
    server.
    """

    def __init__(self, settings: Settings, name: str) -> None:
        self._settings = settings
        self._name = name
        self._lines: dict[str, Line] = {}

    async def append(self, stream: str, entry: NewEntry) -> Appended:
        """Append an entry. Raises as `append_many`."""
        return (await self.append_many(stream, (entry,)))[0]

    async def append_many(
        self, stream: str, entries: Sequence[NewEntry], *, generation: int | None = None
    ) -> list[Appended]:
        """Append entries in one step: all of them or none; with `generation`, in that one alone.

        Raises BusUnavailable (nothing was written), OutcomeUnknown (settle them) or EpochChanged
        (nothing was written; the next call goes into the new epoch). Of several calls under way
        those of unknown outcome are settled in their order.
        """
        line = self._line(stream)
        async with line.turn:
            if line.foretold is None:  # one at a time, until the numbers are known
                await line.idle.wait()
            wire = await line.wire(generation)
            call = line.enter(len(entries))
            if call.foretold is None or not entries:
                try:
                    return await self._append(line, wire, call, entries)
                finally:
                    line.leave()
            first = call.foretold + 1
            sent = transaction.send(wire, line.keys, call, entries)
        try:
            ids = await line.answer(wire, transaction.written(sent, len(entries)))
            if ids is None:  # somebody else writes to this stream, or it was lost
                line.foretold = None
                call = msgspec.structs.replace(call, foretold=None)
                return await self._append(line, wire, call, entries)
        finally:
            line.leave()
        line.unknown = 0
        places = [Appended(at.decode(), seq, call.epoch) for seq, at in enumerate(ids, first)]
        return line.note(call, call.epoch, places)

    async def settle(
        self,
        stream: str,
        entries: Sequence[NewEntry],
        *,
        after: Appended | None = None,
        acked: Sequence[Appended | None] = (),
        generation: int | None = None,
    ) -> list[Appended]:
        """Append those entries that are not in the stream; says of each whether it was found.

        Only what stands after `after` is looked at: an entry acknowledged before the first of
        these was sent. By default that is, after a call without an answer, the last one that this
        producer had acknowledged, and else the whole stream is looked through. `acked` says where
        each was seen to stand, so that one that a later loss of the stream took is not counted
        again. Raises BusUnavailable or OutcomeUnknown.
        """
        line = self._line(stream)
        async with line.turn:
            await line.idle.wait()
            wire = await line.wire(generation)
            line.enter(0)
            line.foretold = None
            try:
                return await self._settle(line, wire, entries, after, acked)
            finally:
                line.leave()

    async def _settle(
        self,
        line: Line,
        wire: Wire,
        entries: Sequence[NewEntry],
        after: Appended | None,
        acked: Sequence[Appended | None],
    ) -> list[Appended]:
        known = after or (line.newest if line.unknown and not acked else None)
        arguments: list[Argument] = [known.stream_id, known.epoch] if known else ["", ""]
        for place, entry in enumerate(entries):
            seen = acked[place] if place < len(acked) else None
            arguments += [entry.id, seen.seq if seen else 0, seen.epoch if seen else ""]
            arguments += scripts.block(entry)
        sent = scripts.SETTLE.call_over(wire, line.keys, arguments)
        epoch, places = await line.answer(wire, sent)
        line.unknown = max(0, line.unknown - 1)
        name = epoch.decode()
        return line.note(
            None, name, [Appended(p[0].decode(), p[1], name, found=bool(p[2])) for p in places]
        )

    async def confirm(self, stream: str, timeout_ms: int) -> bool | None:
        """Whether all that was appended before is on the server's disk, and on a replica if any.

        None where the server cannot tell. False also where the server was started again since:
        then it may have lost something, and the next call is made on a new connection. Waits up to
        `timeout_ms` for each of the two. Raises BusUnavailable.
        """
        line = self._line(stream)
        try:
            client = await line.confirming.client()
            if not line.link.is_open or line.link.identity is None:
                return False
            if line.confirming.identity is None or (
                line.confirming.identity.server != line.link.identity.server
            ):
                await line.link.drop()
                await line.confirming.drop()
                return False
            # A write of this connection's own: what it waits for is at least as late as that.
            await client.hset(topics.sequence(stream), "confirmed_by", self._name)
            local, _ = await client.waitaof(1, 0, timeout_ms)
            if not local:
                return False
            role: Any = await client.role()
            if role[0] != b"master":
                await line.confirming.drop()
                return False
            return not role[2] or bool(await client.wait(1, timeout_ms))
        except AWAY as error:
            await line.confirming.drop()
            raise BusUnavailable(f"Redis is away: {type(error).__name__}") from error
        except asyncio.CancelledError:
            await line.confirming.drop()
            raise
        except ResponseError as error:
            if "WAITAOF" in str(error):  # no such command, or the server keeps no log on disk
                return None
            raise BusUnavailable(f"refused: {error}") from error

    async def standing(self, stream: str) -> Standing:
        """Epoch and ends of a stream, and how far its critical groups are. Raises BusUnavailable.

        A loss of the stream that nobody has noticed yet begins a new epoch here.
        """
        line = self._line(stream)
        try:
            return await standing_of(await line.confirming.client(), stream)
        except AWAY as error:
            await line.confirming.drop()
            raise BusUnavailable(f"Redis is away: {type(error).__name__}") from error
        except ResponseError as error:
            raise BusUnavailable(f"refused: {error}") from error
        except asyncio.CancelledError:
            await line.confirming.drop()
            raise

    def generation(self, stream: str) -> int:
        """How many connections have ended; the next may be to a server that forgot something."""
        return self._line(stream).link.generation

    async def close(self) -> None:
        """Close the connections."""
        for line in self._lines.values():
            await line.close()

    async def _append(
        self, line: Line, wire: Wire, call: Call, entries: Sequence[NewEntry]
    ) -> list[Appended]:
        """Append them by the script, which finds out their numbers."""
        arguments: list[Argument] = [call.epoch, call.before, call.name]
        for entry in entries:
            arguments += scripts.block(entry)
        sent = scripts.APPEND.call_over(wire, line.keys, arguments)
        epoch, places = await line.answer(wire, sent)
        line.unknown = 0
        name = epoch.decode()
        return line.note(call, name, [Appended(p[0].decode(), p[1], name) for p in places])

    def _line(self, stream: str) -> Line:
        line = self._lines.get(stream)
        if line is None:
            line = self._lines[stream] = Line(self._settings, stream, self._name)
        return line
