"""Appends entries to streams: numbered, counted, and never twice.

It looks into no entry; what one means is its `type`. It keeps nothing: who wants an entry to
outlive a server that loses it uses an `Outbox`.
"""

import asyncio
import secrets
from collections.abc import Sequence
from typing import Any

import msgspec
from redis.exceptions import BusyLoadingError, RedisError, ResponseError

from pipeline import topics
from pipeline.config import Settings
from pipeline.entries import Appended, NewEntry
from pipeline.errors import BusUnavailable, EpochChanged, OutcomeUnknown, StreamRetired
from pipeline.streams import scripts
from pipeline.streams.links import AWAY, Identity, Link, kill
from pipeline.streams.scripts import Script
from pipeline.streams.standing import Standing, standing_of
from pipeline.streams.wire import Argument, Wire


class _Line(msgspec.Struct):
    """What is known of one stream and of the connection on which it is written."""

    link: Link
    confirming: Link
    opening: asyncio.Lock
    token: str  # tells its calls from those of every other producer
    calls: int = 0
    under_way: int = 0
    epoch: str = ""
    newest: Appended | None = None  # the last that was acknowledged
    unknown: int = 0  # calls whose outcome is not known
    unsettled: Identity | None = None  # a connection that may still carry something out


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
        self._lines: dict[str, _Line] = {}

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
        wire = await self._wire(line, generation)
        before = f"{line.token}:{line.calls}" if line.under_way else ""
        line.calls += 1
        arguments: list[Argument] = [line.epoch, before, f"{line.token}:{line.calls}"]
        for entry in entries:
            arguments += scripts.block(entry)
        epoch, places = await self._call(line, wire, stream, scripts.APPEND, arguments)
        line.unknown = 0
        return self._noted(line, [Appended(p[0].decode(), p[1], epoch) for p in places])

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
        wire = await self._wire(line, generation)
        known = after or (line.newest if line.unknown and not acked else None)
        arguments: list[Argument] = [known.stream_id, known.epoch] if known else ["", ""]
        for place, entry in enumerate(entries):
            seen = acked[place] if place < len(acked) else None
            arguments += [entry.id, seen.seq if seen else 0, seen.epoch if seen else ""]
            arguments += scripts.block(entry)
        epoch, places = await self._call(line, wire, stream, scripts.SETTLE, arguments)
        line.unknown = max(0, line.unknown - 1)
        stand = [Appended(p[0].decode(), p[1], epoch, found=bool(p[2])) for p in places]
        return self._noted(line, stand)

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
            await line.link.drop()
            await line.confirming.drop()

    def _line(self, stream: str) -> _Line:
        line = self._lines.get(stream)
        if line is None:
            line = self._lines[stream] = _Line(
                Link(self._settings, stream, self._name),
                Link(self._settings, stream, f"{self._name}-confirm"),
                asyncio.Lock(),
                secrets.token_hex(6),
            )
        return line

    async def _wire(self, line: _Line, generation: int | None) -> Wire:
        """The connection to call on, in the same step; BusUnavailable where it is not that one."""
        wire = await self._opened(line)
        if generation is not None and line.link.generation != generation:
            raise BusUnavailable("Redis was away: the connection is another one")
        return wire

    async def _opened(self, line: _Line) -> Wire:
        """A connection to call on; a new one first makes sure that the last can do nothing more."""
        async with line.opening:
            try:
                wire = await line.link.wire() if line.link.is_open else None
                if wire is not None and not wire.has_ended:
                    return wire
                if line.under_way:  # those on the old one have yet to learn that it ended
                    raise BusUnavailable("Redis is away: the connection has just ended")
                await line.link.drop()
                client = await line.link.client()
                if line.unsettled is not None:
                    await kill(client, line.unsettled)
                    line.unsettled = None
                return await line.link.wire()
            except (RedisError, OSError) as error:
                await line.link.drop()
                raise BusUnavailable(f"Redis is away: {type(error).__name__}") from error

    async def _call(
        self,
        line: _Line,
        wire: Wire,
        stream: str,
        script: Script,
        arguments: Sequence[Argument],
    ) -> tuple[str, list[Any]]:
        keys = (stream, topics.sequence(stream), topics.tally(stream))
        used = line.link.identity
        line.under_way += 1
        try:
            epoch, places = await script.call_over(wire, keys, arguments)
        except BusyLoadingError as error:
            raise BusUnavailable(str(error)) from error
        except AWAY as error:
            refused = isinstance(error, ResponseError)  # MOVED and the like: it did not happen
            if not refused:
                line.unsettled, line.unknown = used, line.unknown + 1
            await line.link.drop(wire)
            if refused:
                raise BusUnavailable(f"Redis is away: {error}") from error
            raise OutcomeUnknown(f"no answer to an append: {type(error).__name__}") from error
        except ResponseError as error:
            text = str(error)
            if text.startswith("EPOCH "):
                line.epoch, line.newest = text.split()[1], None
                raise EpochChanged(f"{stream} was lost; epoch {line.epoch} began") from error
            if text.startswith("RETIRED "):
                raise StreamRetired(f"{stream} is retired") from error
            raise BusUnavailable(f"refused: {error}") from error
        except asyncio.CancelledError:
            line.unsettled, line.unknown = used, line.unknown + 1
            await line.link.drop(wire)
            raise
        finally:
            line.under_way -= 1
        line.epoch = epoch.decode()
        return line.epoch, places

    def _noted(self, line: _Line, places: list[Appended]) -> list[Appended]:
        if places:
            line.newest = places[-1]
        return places
